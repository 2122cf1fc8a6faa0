"""The pictures of a comparison: what models of several reports cost against what they give.

A front joins models of several reports only where both quantities shown may be compared between
them; elsewhere each report has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from compressor.measure import words
from compressor.measure.drawing import (
    INK,
    MUTED,
    new_figure,
    page_style,
    plain_scale,
    to_svg,
    write_names,
)
from compressor.measure.marks import (
    FAR_ABOVE_TIMES,
    FAR_BELOW_POINTS,
    Mark,
    draw,
    draw_front,
    edge_of,
    far_from,
    front_of,
    is_beyond,
    new_axes,
)
from compressor.measure.metrics import LOWER_IS_BETTER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Entry = Mapping[str, Any]

# Full ones first, then the same as outlines; more reports than these are not told apart.
_SHAPES = "os^DvP*X"
STYLES = [(shape, hollow) for hollow in (False, True) for shape in _SHAPES]

_ACROSS = {
    "disk": "size on disk, MB (left is better)",
    "speedup": "speed-up against the report's own baseline (right is better)",
}


def trade_off_plot(comparison: Mapping[str, Any], across: str) -> tuple[str, str] | None:
    """What models give against disk size or speed-up: accuracy, or drop where only that compares.

    Args:
        comparison: of schema 1.
        across: "disk" or "speedup".

    Returns:
        (svg, caption), or None when fewer than two models have both numbers, when drops count
        different things, or when there are more reports than marks to draw them with.
    """
    entries = [entry for entry in comparison["reports"] if entry["metric"]]
    upward = "accuracy" if across == "disk" and "accuracy" in comparison["comparable"] else "drop"
    if len({entry["drop_unit"] for entry in entries}) != 1 or len(entries) > len(STYLES):
        return None
    groups = [_marks(*pair, across, upward) for pair in zip(entries, STYLES, strict=False)]
    if len(_flat(groups)) < 2:
        return None
    metric = entries[0]["metric"]
    lower_wins = upward == "drop" or metric in LOWER_IS_BETTER
    edge = edge_of(_flat(groups), _far(groups, entries, upward), lower_wins)
    shared = {across, upward} <= set(comparison["comparable"])
    judged = [_flat(groups)] if shared else groups
    fronts = [front_of(group, lower_wins, across == "speedup") for group in judged]
    beyond = {(m.x, m.y) for m in _flat(groups) if is_beyond(m, edge, lower_wins)}
    name = f"compare-{across}"
    with page_style(name):
        figure = new_figure(6.4, 4.6)
        axes = new_axes(figure)
        plain_scale(axes, "x", [mark.x for mark in _flat(groups)])
        lines = [[point for point in front if point not in beyond] for front in fronts]
        for line in filter(None, lines):
            draw_front(axes, line)
        labels = []
        for mark in _flat(groups):
            best = any((mark.x, mark.y) in front for front in fronts)
            labels.append(draw(axes, replace(mark, best=best), edge, lower_wins))
        if lower_wins:
            axes.invert_yaxis()
        axes.set_ylabel(f"{_heading(upward, entries[0])} (upward is better)")
        axes.set_xlabel(_ACROSS[across])
        _legend(figure, entries)
        # A model that several reports have in one place is named once.
        points = [point for line in lines for point in line]
        write_names(figure, axes, list(dict.fromkeys(labels)), points)
        svg = to_svg(figure, name, f"{upward} against {across} of {len(labels)} models")
    caption = _caption(across, upward, metric, one_front=len(judged) == 1)
    return svg, caption + (" A number in brackets lies beyond the axis." if beyond else "")


def _heading(upward: str, entry: Entry) -> str:
    if upward == "accuracy":
        return words.metric_heading(entry["metric"])
    return "drop, points" if entry["drop_unit"] == words.POINTS else "drop, %"


def _marks(entry: Entry, style: tuple[str, bool], across: str, upward: str) -> list[Mark]:
    """The models of a report that have both numbers."""
    marks = []
    for model in entry["models"]:
        x = model["disk"] / 1e6 if across == "disk" and model["disk"] else None
        left = right = low = high = None
        if across == "speedup":
            x, left, right = (model[key] for key in ("speedup", "speedup_low", "speedup_high"))
        y = model["drop"]
        if upward == "accuracy":
            y, low, high = (_printed(model["accuracy"], end) for end in ("value", "low", "high"))
        if x is not None and y is not None:
            marks.append(Mark(model["name"], x, y, low, high, False, *style, left, right))
    return marks


def _printed(accuracy: Mapping[str, Any] | None, end: str) -> float | None:
    if not accuracy or accuracy[end] is None:
        return None
    return words.shown(accuracy["metric"], accuracy[end])


def _flat(groups: Sequence[Sequence[Mark]]) -> list[Mark]:
    return [mark for group in groups for mark in group]


def _far(groups: Sequence[Sequence[Mark]], entries: Sequence[Entry], upward: str) -> float:
    """What is far worse than the best baseline, or a far larger drop than none."""
    if upward == "drop":
        points = entries[0]["drop_unit"] == words.POINTS
        return FAR_BELOW_POINTS if points else 100 * (FAR_ABOVE_TIMES - 1)
    pairs = zip(groups, entries, strict=True)
    bases = [m.y for group, entry in pairs for m in group if m.name == entry["baseline"]]
    heights = bases or [mark.y for mark in _flat(groups)]
    lower_wins = entries[0]["metric"] in LOWER_IS_BETTER
    return far_from(min(heights) if lower_wins else max(heights), lower_wins)


def _legend(figure: Figure, entries: Sequence[Entry]) -> None:
    """Which mark is which report, above the axes."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            label=entry["name"],
            marker=shape,
            fillstyle="none" if hollow else "full",
            linestyle="none",
            color=MUTED,
        )
        for entry, (shape, hollow) in zip(entries, STYLES, strict=False)
    ]
    longest = max(len(entry["name"]) for entry in entries)
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=max(1, min(len(entries), 80 // (longest + 4))),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )


def _caption(across: str, upward: str, metric: str, *, one_front: bool) -> str:
    above = words.metric_name(metric) if upward == "accuracy" else "drop"
    beside = "disk size" if across == "disk" else "speed-up"
    joined = "the models" if one_front else "within each report the models"
    return (
        f"{above[0].upper()}{above[1:]} against {beside}. A dashed line joins {joined} that no "
        "other beats in the two quantities shown."
    )
