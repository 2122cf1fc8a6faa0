"""A finished report: written, shown, and the job failed when a gate refuses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compressor import console
from compressor.checkpoint.reading import read_object
from compressor.checkpoint.store import write_json, writing
from compressor.commands.job import print_folder
from compressor.errors import GateError
from compressor.measure.gates import describe


def publish_report(report: dict[str, Any], target: Path, *, force: bool, junit: str = "") -> None:
    """Write the report, show its table, and fail the job when a gate does.

    Raises:
        GateError: names the gates that refused; the report is in `{target}.refused`.
    """
    from compressor.measure.exchange import render_junit, render_markdown
    from compressor.measure.html import render_html
    from compressor.measure.report import report_rows

    failed = [entry for entry in report["gates"] if not entry["passed"]]
    place = target.with_name(f"{target.name}.refused") if failed else target
    with writing(place, force=force or bool(failed)) as folder:
        write_pages(folder, "report", report, render_html(report), render_markdown(report))
    if junit:
        Path(junit).write_text(render_junit(report), encoding="utf-8")
    columns, rows = report_rows(report)
    console.table("", columns, rows, to_stdout=False)
    for line in (report["summary"], *report["findings"]):
        console.note(line)
    for entry in report["gates"]:
        console.note(describe(entry))
    if failed:
        refusals = "; ".join(describe(entry) for entry in failed)
        raise GateError(refusals, hint=f"the report is in {place}")
    print_folder(target, {"verb": "benchmark", "report": str(target / "report.json")})


def write_pages(folder: Path, name: str, value: dict[str, Any], page: str, text: str) -> None:
    """Write a report as `{name}.json` for programs, `{name}.html` and `{name}.md` for people."""
    write_json(folder / f"{name}.json", value)
    (folder / f"{name}.html").write_text(page, encoding="utf-8")
    (folder / f"{name}.md").write_text(text, encoding="utf-8")


def is_made(file: Path, inputs: dict[str, Any]) -> bool:
    """Whether a stored report was made from these inputs.

    Raises:
        InputError: there is such a file and it is no JSON object.
    """
    return file.is_file() and read_object(file).get("inputs") == inputs
