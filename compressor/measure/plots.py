"""The pictures of a report: what a model costs against what it gives, and latency by shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compressor.measure import words
from compressor.measure.drawing import (
    ACCENT,
    INK,
    MUTED,
    SOFT,
    new_figure,
    page_style,
    plain_scale,
    short,
    to_svg,
    write_names,
)
from compressor.measure.marks import (
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
from compressor.measure.paired import same_tokens
from compressor.measure.report import first_shape, model_named, p50_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Model = Mapping[str, Any]


def pareto_plot(report: Mapping[str, Any], across: str) -> tuple[str, str] | None:
    """Accuracy against one cost, or latency against size where nothing was scored.

    Args:
        report: of schema 1.
        across: "latency" (median at the first shape) or "disk".

    Returns:
        (svg, caption), or None when fewer than two models have both numbers.
    """
    reference = model_named(report["models"], report["baseline"])
    upward = "accuracy" if reference["accuracy"] else "latency"
    marks, left_out = _marks(report["models"], reference, across, upward)
    if upward == across or len(marks) < 2:
        return None
    metric = reference["accuracy"]["metric"] if upward == "accuracy" else ""
    lower_wins = upward == "latency" or metric in LOWER_IS_BETTER
    base = next((mark.y for mark in marks if mark.name == reference["name"]), None)
    far = far_from(base, lower_wins) if metric and base is not None else None
    edge = None if far is None else edge_of(marks, far, lower_wins)
    name = f"pareto-{across}"
    with page_style(name):
        figure = new_figure(6.4, 4.3)
        axes = new_axes(figure)
        plain_scale(axes, "x", [mark.x for mark in marks])
        if upward == "latency":
            plain_scale(axes, "y", [mark.y for mark in marks])
        line = front_of([m for m in marks if not is_beyond(m, edge, lower_wins)], lower_wins)
        draw_front(axes, line)
        labels = [draw(axes, mark, edge, lower_wins) for mark in marks]
        if lower_wins:
            axes.invert_yaxis()
        shape = first_shape(report["models"])
        heading = words.metric_heading(metric) if metric else _heading(upward, shape)
        axes.set_ylabel(f"{heading} (upward is better)")
        axes.set_xlabel(f"{_heading(across, shape)} (left is better)")
        write_names(figure, axes, labels, line)
        svg = to_svg(figure, name, f"{upward} against {across} of {len(marks)} models")
    above = words.metric_name(metric) if metric else upward
    beside = "latency" if across == "latency" else "disk size"
    caption = f"{above[0].upper()}{above[1:]} against {beside}."
    return svg, caption + (f" Not drawn: {words.listed(left_out)}." if left_out else "")


def latency_plot(report: Mapping[str, Any]) -> tuple[str, str] | None:
    """Median latency of every model at every shape, with a whisker to the 95th percentile.

    Returns:
        (svg, caption), or None when nothing was timed.
    """
    timed = [model for model in report["models"] if model["latency"]]
    shapes = list(dict.fromkeys((r["batch"], r["length"]) for m in timed for r in m["latency"]))
    if not shapes:
        return None
    columns = min(len(shapes), 3)
    lines = math.ceil(len(shapes) / columns)
    with page_style("latency"):
        figure = new_figure(12.4, lines * (0.5 + 0.31 * len(timed)) + 0.2)
        grid = figure.subplots(lines, columns, squeeze=False)
        for index, panel in enumerate(grid.flat):
            if index >= len(shapes):
                panel.set_axis_off()
                continue
            _bars(panel, timed, shapes[index])
            if index % columns:
                panel.set_yticklabels([])
        svg = to_svg(figure, "latency", f"latency of {len(timed)} models at {len(shapes)} shapes")
    return svg, "Median milliseconds of one call; the whisker ends at the 95th percentile."


def _marks(
    models: Sequence[Model], reference: Model, across: str, upward: str
) -> tuple[list[Mark], list[str]]:
    """The models that have both numbers, and the names of those that have not."""
    shape = first_shape(models)
    marks, left_out = [], []
    for model in models:
        alike = same_tokens(model["accuracy"], reference["accuracy"])
        place = {
            "latency": p50_at(model, shape) if shape else None,
            "disk": _megabytes(model),
            "accuracy": _printed(model, "value") if alike else None,
        }
        x, y = place[across], place[upward]
        if x is None or y is None:
            left_out.append(model["name"])
            continue
        low, high = (
            _printed(model, end) if upward == "accuracy" else None for end in ("low", "high")
        )
        marks.append(Mark(model["name"], x, y, low, high, best=model["pareto"]))
    return marks, left_out


def _megabytes(model: Model) -> float | None:
    disk = (model["size"] or {}).get("disk")
    return disk / 1e6 if disk else None


def _printed(model: Model, end: str) -> float | None:
    """The metric as it is printed ("value"), or an end of its interval ("low", "high")."""
    accuracy = model["accuracy"]
    if not accuracy or accuracy[end] is None:
        return None
    return words.shown(accuracy["metric"], accuracy[end])


def _heading(quantity: str, shape: tuple[int, int] | None) -> str:
    if quantity == "disk" or shape is None:
        return "size on disk, MB"
    return f"median ms at batch {shape[0]}, length {shape[1]}"


def _bars(axes: Axes, models: Sequence[Model], shape: tuple[int, int]) -> None:
    """One horizontal bar a model at one shape."""
    axes.patch.set_visible(False)
    longest = 0.0
    for line, model in enumerate(models):
        row = next((r for r in model["latency"] if (r["batch"], r["length"]) == shape), None)
        if row is None:
            continue
        p50, p95 = row["p50_ms"], row["p95_ms"]
        longest = max(longest, p95)
        axes.barh(line, p50, height=0.62, color=ACCENT if model["pareto"] else SOFT, alpha=0.85)
        axes.plot([p50, p95], [line, line], color=INK, linewidth=1)
        axes.annotate(
            words.significant(p50),
            (p95, line),
            textcoords="offset points",
            xytext=(5, 0),
            va="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(models)), [short(model["name"]) for model in models])
    axes.set_ylim(len(models) - 0.45, -0.55)
    axes.set_xlim(0, (longest or 1.0) * 1.22)
    axes.set_xticks([])
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines["bottom"].set_visible(False)
    axes.set_title(f"batch {shape[0]}, length {shape[1]}", loc="left", fontsize=9.5, color=MUTED)
