"""`compare.html`: several reports on one page that a person can open from disk, mail or print."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from compressor.measure.comparison import about, comparison_cells
from compressor.measure.comparison_plots import STYLES, trade_off_plot
from compressor.measure.page import (
    cell,
    command_box,
    facts_list,
    figure,
    findings_list,
    page,
    table,
)
from compressor.measure.schema import validate_comparison


def render_comparison_html(comparison: Mapping[str, Any]) -> str:
    """The page for a comparison of schema 1; the same comparison gives the same text.

    Raises:
        InputError: the comparison does not have the shape of schema 1.
    """
    validate_comparison(comparison)
    names = [entry["name"] for entry in comparison["reports"]]
    count = f"{len(names)} reports" if len(names) > 1 else names[0]
    parts = [
        f'<h1>Compression reports compared</h1><p class="about">{escape(" · ".join(names))}</p>',
        findings_list(comparison["notes"]),
        _models(comparison),
        _pictures(comparison),
        _reading(),
        _reports(comparison),
        f"<h3>Make this page again</h3>{command_box(comparison['command'])}",
    ]
    return page(f"Compression reports: {count}", parts, "comparison", comparison)


def _models(comparison: Mapping[str, Any]) -> str:
    columns, rows = comparison_cells(comparison)
    heads = [name if name.startswith("ms") else name[0].upper() + name[1:] for name in columns]
    drawn = []
    for (report, _), (model, _), (runtime, _), *rest in rows:
        cells = [cell(report, kind="text"), cell(model, head=True, kind="text")]
        cells.append(cell(runtime, kind="text"))
        drawn.append(cells + [cell(text, exact=exact) for text, exact in rest])
    return f"<h2>Models</h2>{table(heads, drawn, text_columns=(1, 2))}"


def _pictures(comparison: Mapping[str, Any]) -> str:
    drawn = [trade_off_plot(comparison, across) for across in ("disk", "speedup")]
    figures = "".join(figure(*each) for each in drawn if each)
    why = (
        "Nothing is drawn: there are fewer than two models with an accuracy, drops in different "
        f"units, or more than {len(STYLES)} reports."
    )
    shown = f'<div class="plots">{figures}</div>' if figures else f'<p class="note">{why}</p>'
    return f"<h2>Trade-offs</h2>{shown}"


def _reading() -> str:
    facts = {
        "Drop": "what the metric lost against the report's own baseline",
        "Smaller": "bytes of the report's own baseline / bytes of the model, on disk",
        "Faster": "geometric mean over the shapes of the own baseline's median / model's median",
        "ms": "median milliseconds of single calls at the report's first shape",
    }
    return f"<h2>What the numbers mean</h2>{facts_list(facts)}"


def _reports(comparison: Mapping[str, Any]) -> str:
    parts = ["<h2>Reports</h2>"]
    for entry in comparison["reports"]:
        parts.append(f'<h3>{escape(entry["name"])}</h3><p class="note">{escape(about(entry))}</p>')
        parts += [f"<p>{escape(sentence)}</p>" for sentence in entry["findings"]]
        parts.append(command_box(entry["command"]))
    return "".join(parts)
