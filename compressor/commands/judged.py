"""Gates: refused early where nothing could answer them; and a report, which they may refuse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.checkpoint.reading import read_object
from compressor.checkpoint.store import write_json, writing
from compressor.commands.job import print_folder
from compressor.errors import GateError, InputError, UsageError
from compressor.measure.gates import Gates, describe

if TYPE_CHECKING:
    from compressor.checkpoint.folder import Checkpoint
    from compressor.commands.stored import StoredBaseline
    from compressor.data.dataset import Dataset


def refuse_unjudgeable(
    gates: Gates,
    checkpoints: list[Checkpoint],
    dataset: Dataset | None,
    junit: str,
    stored: StoredBaseline | None,
) -> None:
    """Refuse gates that no measurement could answer, before any is made.

    Args:
        gates: the limits.
        checkpoints: what is measured.
        dataset: the rows to score on.
        junit: the file that the judgements go to; empty for none.
        stored: the baseline, where a stored report has it.

    Raises:
        UsageError: no gate for `--junit` to write about, or a speed-up over a stored report.
        InputError: there is nothing besides the baseline, no rows to measure accuracy on, or
            no such place for the file.
    """
    active = gates.active()
    if junit and not active:
        raise UsageError("--junit writes what gates say, and there is none", where="--junit")
    if junit and Path(junit).is_dir():
        raise InputError(f"{junit} is a folder; expected a file to write", where="--junit")
    if junit and not Path(junit).parent.is_dir():
        raise InputError(f"there is no folder {Path(junit).parent}", where="--junit")
    if stored and "min_speedup" in active:
        raise UsageError(
            f"--min-speedup compares clocks of one run, and {stored.where} is another run's",
            hint="--baseline with the baseline's folder, or --max-latency-ms",
            where="--min-speedup",
        )
    if active and len(checkpoints) == 1 and not stored:
        raise InputError(
            f"{checkpoints[0].name} is its own baseline, so the gates have nothing to judge",
            hint="name a candidate, or another --baseline",
        )
    if dataset is None and {"max_drop", "min_retention"} & set(active):
        raise InputError(
            "--max-drop and --min-retention judge accuracy, and there are no rows to measure it on",
            hint="add --data DATA",
        )


def publish_report(report: dict[str, Any], target: Path, *, force: bool, junit: str = "") -> None:
    """Write the report, show its table, and fail the job when a gate does.

    Raises:
        GateError: names the gates that refused; the report is in `{target}.refused`.
    """
    from compressor.measure.exchange import render_junit, render_markdown
    from compressor.measure.html import render_html
    from compressor.measure.tables import legend, report_rows

    failed = [entry for entry in report["gates"] if not entry["passed"]]
    place = target.with_name(f"{target.name}.refused") if failed else target
    with writing(place, force=force or bool(failed)) as folder:
        write_pages(folder, "report", report, render_html(report), render_markdown(report))
    if junit:
        Path(junit).write_text(render_junit(report), encoding="utf-8")
    columns, rows = report_rows(report)
    console.table("", columns, rows, to_stdout=False)
    for line in (legend(report), report["summary"], *report["findings"]):
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
