"""How latency grows, in `report.html`: one panel a model, and what each token costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from compressor.measure import words
from compressor.measure.drawing import (
    ACCENT,
    MUTED,
    new_figure,
    page_style,
    plain_scale,
    short,
    to_svg,
)
from compressor.measure.page import cell, figure, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Model = Mapping[str, Any]

NOTE = (
    "Medians (dots), the fit of fixed + token x tokens + pair x pairs of tokens (lines), and the "
    "same call's matrix products alone, attention's two among them where the config tells its "
    "heads, in float32 (dashes). The share is products / model: a model at 100 % would spend no "
    "time on anything else; int8 may pass it, and attention that looks at some tokens only."
)


def scaling_section(report: Mapping[str, Any]) -> str:
    """Picture and table; empty where growth was not measured."""
    models = [model for model in report["models"] if model.get("scaling")]
    if not models:
        return ""
    svg = scaling_plot(models)
    return (
        f'<h2>Growth</h2><p class="note">{escape(NOTE)}</p>'
        f"{figure(svg, 'Milliseconds against length, one line for each batch size.', 'bars')}"
        f"{_prices(models)}"
    )


def scaling_plot(models: list[Model]) -> str:
    """Latency against length for each batch size, one panel a model, as SVG."""
    columns = min(len(models), 3)
    lines = math.ceil(len(models) / columns)
    times = [
        row[key]
        for m in models
        for row in m["scaling"]["rows"]
        for key in ("p50_ms", "products_ms")
    ]
    with page_style("scaling"):
        drawn = new_figure(12.4, 3.6 * lines)
        grid = drawn.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for panel in grid.flat[len(models) :]:
            panel.set_axis_off()
        for panel, model in zip(grid.flat, models, strict=False):
            _panel(panel, model)
            plain_scale(panel, "y", times)
        return to_svg(drawn, "scaling", f"growth of the latency of {len(models)} models")


def _panel(axes: Axes, model: Model) -> None:
    rows, fitted = model["scaling"]["rows"], model["scaling"]["fit"]
    axes.patch.set_visible(False)
    axes.grid(True)
    axes.set_axisbelow(True)
    for batch in sorted({row["batch"] for row in rows}):
        own = [row for row in rows if row["batch"] == batch]
        lengths = [row["length"] for row in own]
        axes.plot(lengths, [row["p50_ms"] for row in own], "o", color=ACCENT, markersize=4)
        line = [
            fitted["fixed_ms"] + fitted["token_ms"] * batch * n + fitted["pair_ms"] * batch * n * n
            for n in lengths
        ]
        axes.plot(lengths, line, color=ACCENT, linewidth=1)
        products = [row["products_ms"] for row in own]
        axes.plot(lengths, products, color=MUTED, linewidth=1, dashes=(3, 3))
        axes.annotate(
            f"batch {batch}",
            (lengths[-1], own[-1]["p50_ms"]),
            textcoords="offset points",
            xytext=(-3, 6),
            ha="right",
            fontsize=8.5,
            color=MUTED,
        )
    ticks = sorted({row["length"] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_title(short(model["name"]), loc="left", fontsize=9.5)
    axes.set_xlabel("length in tokens")
    axes.set_ylabel("ms")


def _prices(models: list[Model]) -> str:
    rows = []
    for model in models:
        fitted, measured = model["scaling"]["fit"], model["scaling"]["rows"]
        best = max(measured, key=lambda row: row["share"])
        first = measured[0]
        rows.append(
            [
                cell(model["name"], head=True),
                cell(words.significant(fitted["fixed_ms"]), exact=fitted["fixed_ms"]),
                cell(words.significant(1e3 * fitted["token_ms"]), exact=fitted["token_ms"]),
                cell(words.significant(1e6 * fitted["pair_ms"]), exact=fitted["pair_ms"]),
                cell(words.share(fitted["error"]), exact=fitted["error"]),
                cell(words.share(first["share"]), exact=first["share"]),
                cell(f"{words.share(best['share'])} at {best['batch']}x{best['length']}",
                     exact=best["share"]),
            ]
        )  # fmt: skip
    heads = [
        "Model",
        "Fixed ms",
        "Token, µs",
        "Pair of tokens, ns",
        "Worst fit",
        f"Share of the limit at {measured[0]['batch']}x{measured[0]['length']}",
        "Largest share",
    ]
    return table(heads, rows)
