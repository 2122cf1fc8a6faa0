"""A report for other programs: Markdown for a pull request, JUnit XML for a CI server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from compressor.measure import words
from compressor.measure.comparison import abouts, comparison_rows, sentences
from compressor.measure.gates import describe
from compressor.measure.tables import PAIRED, legend, paired_cells, paired_note, report_rows

# A name must not end its cell, its line, or begin a comment that hides the rest.
_IN_A_CELL = str.maketrans({"|": "\\|", "\n": " ", "<": "&lt;"})


def render_markdown(report: Mapping[str, Any]) -> str:
    """`report.md`: the summary, what a reader must know, the tables, the gates, the command."""
    columns, rows = report_rows(report)
    lines = [f"**{report['summary']}**", "", *(f"- {text}" for text in report["findings"]), ""]
    lines += [*markdown_table(columns, rows), "", _plain(legend(report)), ""]
    columns, compared = paired_cells(report)
    if compared:
        rows = [[text for text, _ in row] for row in compared]
        lines += [f"{PAIRED}:", "", *markdown_table(columns, rows), "", paired_note(report), ""]
    if report["gates"]:
        lines += [
            f"- {'✅' if gate['passed'] else '❌'} {describe(gate)}" for gate in report["gates"]
        ]
        lines.append("")
    machine = report["machine"]
    lines += [
        f"{words.place(machine)}, {machine['cores']} cores. Again: `{report['command']}`",
        "",
    ]
    return "\n".join(lines)


def render_comparison_markdown(comparison: Mapping[str, Any]) -> str:
    """`compare.md`: the command, what a reader must know, the table, what each report is about."""
    notes, facts = (
        [f"- {text.translate(_IN_A_CELL)}" for text in texts]
        for texts in (sentences(comparison), abouts(comparison))
    )
    lines = [_code(comparison["command"])]
    if notes:
        lines += ["", *notes]
    return "\n".join([*lines, "", *markdown_table(*comparison_rows(comparison)), "", *facts, ""])


def _code(command: str) -> str:
    """A command as code, whatever quotes it holds."""
    return f"`` {command} ``" if "`" in command else f"`{command}`"


def markdown_table(columns: list[str], rows: list[list[str]]) -> list[str]:
    """A table, a line of text for each of its lines."""
    return [_row(columns), _row(["---"] * len(columns)), *map(_row, rows)]


def _plain(text: str) -> str:
    """Text whose asterisks stay asterisks."""
    return text.replace("*", "\\*")


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.translate(_IN_A_CELL) for cell in cells)} |"


def render_junit(report: Mapping[str, Any]) -> str:
    """A test suite with one case for each gate and model; a refused gate is a failure."""
    judged = report["gates"]
    failed = [gate for gate in judged if not gate["passed"]]
    suite = ElementTree.Element(
        "testsuite",
        name="compressor benchmark",
        tests=str(len(judged)),
        failures=str(len(failed)),
        errors="0",
    )
    for gate in judged:
        case = ElementTree.SubElement(
            suite, "testcase", classname=gate["model"], name=f"--{gate['gate']} {gate['limit']:g}"
        )
        if not gate["passed"]:
            ElementTree.SubElement(case, "failure", message=describe(gate))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
