"""Loss landscapes in `report.html`: slices, surfaces, and how sharp they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.measure import words
from compressor.measure.drawing import (
    ACCENT,
    INK,
    MUTED,
    SOFT,
    new_figure,
    page_style,
    short,
    to_svg,
)
from compressor.measure.page import cell, figure, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Model = Mapping[str, Any]

NOTE = (
    "The mean loss on the same rows, at the weights plus random directions that are as long as "
    "the weights, filter by filter. Compare different models by the adaptive figure and by "
    "pictures alone: the plain step and the curvature depend on how scale is spread over layers."
)
LEVELS = 8
STYLES: list[tuple[str, tuple[float, ...]]] = [
    (ACCENT, ()), (INK, (4, 2)), (SOFT, ()), (MUTED, (1, 1.5)),
    (ACCENT, (1, 1.5)), (INK, ()), (SOFT, (4, 2)), (MUTED, (6, 1.5, 1, 1.5)),
]  # fmt: skip


def landscape_section(report: Mapping[str, Any]) -> str:
    """Pictures and figures; empty where none was drawn."""
    models = [model for model in report["models"] if model.get("landscape")]
    if not models:
        return ""
    figures = [
        figure(_lines(models), "Along random directions; mean of several."),
        figure(_surfaces(models), "In the plane of the first two directions."),
    ]
    if any(model["landscape"]["between"] for model in models):
        start = short(models[0]["name"])
        figures.append(figure(_between(models), f"From {start} (0) to each other model (1)."))
    return (
        f'<h2>Loss landscape</h2><p class="note">{escape(NOTE)}</p>'
        f'<div class="plots">{"".join(figures)}</div>{_sharpness(models)}'
    )


def _losses(found: list[Any]) -> np.ndarray:
    """As numbers; what was not finite, None in a report, as nan."""
    return np.array(found, dtype=float)


def _plain(axes: Axes) -> None:
    axes.patch.set_visible(False)
    axes.grid(True)
    axes.set_axisbelow(True)
    axes.set_ylabel("loss")


def _lines(models: list[Model]) -> str:
    with page_style("landscape-lines"):
        drawn = new_figure(6.4, 3.6)
        axes = drawn.add_subplot()
        _plain(axes)
        for number, model in enumerate(models):
            found = model["landscape"]
            colour, dashes = STYLES[number % len(STYLES)]
            axes.plot(
                found["places"],
                _losses(found["lines"]).mean(axis=0),
                color=colour,
                dashes=dashes or (None, None),
                label=short(model["name"]),
            )
        axes.set_xlabel("distance, in lengths of the weights")
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
        return to_svg(drawn, "landscape-lines", f"loss around {len(models)} models")


def _between(models: list[Model]) -> str:
    with page_style("landscape-between"):
        drawn = new_figure(6.4, 3.6)
        axes = drawn.add_subplot()
        _plain(axes)
        for number, model in enumerate(models):
            way = model["landscape"]["between"]
            if way:
                colour, dashes = STYLES[number % len(STYLES)]
                axes.plot(
                    way["places"],
                    _losses(way["losses"]),
                    color=colour,
                    dashes=dashes or (None, None),
                    label=short(model["name"]),
                )
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
        return to_svg(drawn, "landscape-between", "loss on the way between models")


def _surfaces(models: list[Model]) -> str:
    columns = min(len(models), 3)
    lines = math.ceil(len(models) / columns)
    surfaces = [_losses(model["landscape"]["surface"]) for model in models]
    every = np.concatenate([surface[np.isfinite(surface)] for surface in surfaces])
    least, most = (every.min(), every.max()) if len(every) else (0.0, 0.0)
    # Fine steps near the best loss, where models differ.
    levels = least + (most - least) * np.linspace(0.02, 1, LEVELS) ** 2
    with page_style("landscape-surfaces"):
        drawn = new_figure(4.0 * columns, 3.6 * lines)
        grid = drawn.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for panel in grid.flat[len(models) :]:
            panel.set_axis_off()
        for panel, model, surface in zip(grid.flat, models, surfaces, strict=False):
            _surface(panel, model["landscape"]["places"], surface, levels)
            panel.set_title(short(model["name"]), loc="left", fontsize=9.5)
        return to_svg(drawn, "landscape-surfaces", f"loss surfaces of {len(models)} models")


def _surface(panel: Axes, places: list[float], losses: np.ndarray, levels: np.ndarray) -> None:
    """Contours of a surface, [places, places], at those levels that it crosses."""
    panel.patch.set_visible(False)
    panel.plot([0], [0], "o", color=INK, markersize=3.5)
    panel.set_aspect("equal")
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        panel.text(0, 0, "no loss is finite", ha="center", va="bottom", fontsize=8, color=MUTED)
        return
    crossed = np.unique(levels[(levels > finite.min()) & (levels < finite.max())])
    if len(crossed):
        contour = panel.contour(
            places, places, np.ma.masked_invalid(losses), crossed, colors=[ACCENT], linewidths=0.9
        )
        panel.clabel(contour, fmt="%.2f", fontsize=7.5, colors=[MUTED])


def _sharpness(models: list[Model]) -> str:
    keys = ("adaptive_worst", "worst", "average", "eigenvalue", "trace")
    rows = []
    for model in models:
        found = model["landscape"]
        cells = [cell(words.significant(found[key]), exact=found[key]) for key in keys]
        rows.append(
            [
                cell(model["name"], head=True),
                *cells,
                cell(str(found["rows"]), exact=found["rows"]),
                cell(str(found["hessian_rows"]), exact=found["hessian_rows"]),
                cell(words.significant(found["seconds"]), exact=found["seconds"]),
            ]
        )
    rho = models[0]["landscape"]["rho"]
    heads = [
        "Model",
        f"Worst rise, adaptive, rho {rho:g}",
        f"Worst rise, rho {rho:g}",
        "Mean rise, half way out",
        "Largest eigenvalue",
        "Trace",
        "Rows",
        "Rows of eigenvalue and trace",
        "Seconds",
    ]
    return table(heads, rows)
