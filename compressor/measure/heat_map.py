"""The layers of every model as a heat map: what is zero, and how many bits a weight has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compressor.measure.drawing import (
    HEAT,
    INK,
    MUTED,
    RULE,
    new_figure,
    page_style,
    short,
    to_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Model = Mapping[str, Any]

DEEP = 14  # layers; deeper models take the whole width of the page
_NARROWEST = 24  # pixels that a number needs


def heat_maps(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """One picture of zeros and one of bits: a line for each model, a column for each layer.

    Returns:
        (svg, caption, kind of the figure: "bars" for a wide one) each; none where the report does
        not say what the layers are like.
    """
    models = [model for model in report["models"] if model.get("layers")]
    if not models:
        return []
    rows = [row for model in models for row in model["layers"]]
    depth = max((row["layers"][-1] + 1 for row in rows if row["layers"]), default=0)
    kind = "bars" if depth > DEEP else ""
    return [
        (_draw(models, key, depth), caption, kind)
        for key, caption in (
            ("sparsity", "Zeros in the matrices of each layer, per cent."),
            ("bits_per_weight", "Bits of a weight in the matrices of each layer."),
        )
    ]


def _draw(models: Sequence[Model], key: str, depth: int) -> str:
    with page_style(key):
        figure = new_figure(12.4 if depth > DEEP else 6.4, 0.4 + 0.31 * len(models))
        axes = figure.add_subplot()
        _set_axes(axes, models, depth)
        cells = []
        for line, model in enumerate(models):
            for row in model["layers"]:
                if row[key] is None:
                    continue
                left, right = _span(row, depth)
                strength, text = _shown(key, row[key])
                paint = (HEAT, strength)
                axes.barh(line, right - left, 1, left, color=paint, edgecolor=RULE, linewidth=0.7)
                cells.append((left, right, line, text))
        _write(figure, axes, cells)
        return to_svg(figure, key.partition("_")[0], f"{key} of the layers of {len(models)} models")


def _write(figure: Figure, axes: Axes, cells: Sequence[tuple[float, float, int, str]]) -> None:
    """Write the number of each (left, right, line, number) where its cell is wide enough."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    left, right = axes.get_xlim()
    unit = axes.get_window_extent().width / (right - left)
    for left, right, line, text in cells:
        if (right - left) * unit >= _NARROWEST:
            middle = (left + right) / 2
            axes.text(middle, line, text, ha="center", va="center", fontsize=8.5, color=INK)


def _set_axes(axes: Axes, models: Sequence[Model], depth: int) -> None:
    axes.patch.set_visible(False)
    for side in axes.spines.values():
        side.set_visible(False)
    outside = _span({"layers": None}, depth)
    axes.set_xlim(outside[0], max(depth, 1))
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.set_yticks(range(len(models)), [short(model["name"]) for model in models])
    every = math.ceil(depth / 24) or 1
    numbers = range(0, depth, every)
    places = [sum(outside) / 2, *(number + 0.5 for number in numbers)]
    axes.set_xticks(places, ["outside", *map(str, numbers)])
    axes.tick_params(length=0, top=False, labelsize=9)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.tick_params(axis="x", labelcolor=MUTED, bottom=False, labelbottom=False, labeltop=True)


def _span(row: Mapping[str, Any], depth: int) -> tuple[float, float]:
    """Where the cell of a row begins and ends; that of what is outside lies left of layer 0."""
    if row["layers"]:
        return row["layers"][0], row["layers"][-1] + 1
    width = max(1.0, depth / 18)  # its heading needs room
    return -1.5 * width, -0.5 * width


def _shown(key: str, value: float) -> tuple[float, str]:
    """How strong a cell is, 0 to 1, and its number: more for more zeros and for fewer bits."""
    if key == "sparsity":
        return min(max(value, 0.0), 1.0), f"{100 * value:.0f}"
    strength = (5 - math.log2(value)) / 4 if value > 0 else 0.0
    return min(max(strength, 0.0), 1.0), f"{value:.3g}"
