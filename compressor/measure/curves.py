"""How the trainings that made the models went: loss and score by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compressor.measure import words
from compressor.measure.drawing import ACCENT, MUTED, new_figure, page_style, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Training = Mapping[str, Any]

_FEW = 30  # points that are worth a mark each
_MOST_NAMES = 4


def training_plots(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A picture of every training that the models descend from.

    Returns:
        (svg, caption) each; none where the report has no curves.
    """
    return [
        (_draw(training, f"training-{number}"), _caption(training))
        for number, training in enumerate(report.get("training") or [])
        if training["loss"] or training["scores"]
    ]


def _caption(training: Training) -> str:
    names = list(training["models"])
    if len(names) > _MOST_NAMES:
        names = [*names[: _MOST_NAMES - 1], f"{len(names) - _MOST_NAMES + 1} more"]
    return f"{words.step_name(training)}, in the lineage of {words.listed(names)}."


def _draw(training: Training, name: str) -> str:
    loss = [(point["step"], point["value"]) for point in training["loss"]]
    metric = training["metric"] or ""
    scores = [(point["step"], words.shown(metric, point["value"])) for point in training["scores"]]
    panels = [("loss of training batches", loss)] if loss else []
    if scores:
        panels.append((f"{words.metric_heading(metric)} on validation rows", scores))
    with page_style(name):
        figure = new_figure(6.4, 0.5 + 1.45 * len(panels))
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        for axes, (title, points) in zip(grid.flat, panels, strict=True):
            axes.patch.set_visible(False)
            axes.grid(True)
            axes.set_axisbelow(True)
            axes.set_title(title, loc="left", fontsize=9.5, color=MUTED)
            axes.tick_params(length=0)
            mark = "o" if len(points) <= _FEW else ""
            axes.plot(
                *zip(*points, strict=True), color=ACCENT, linewidth=1.3, marker=mark, markersize=3.5
            )
        if scores:
            _mark_kept(grid.flat[-1], scores, training["kept_step"])
        grid.flat[-1].set_xlabel("step")
        grid.flat[-1].xaxis.get_major_locator().set_params(integer=True)
        return to_svg(figure, name, f"loss and score of {len(loss) + len(scores)} points")


def _mark_kept(axes: Axes, scores: Sequence[tuple[int, float]], kept: int | None) -> None:
    """A ring around the score of the weights that were kept."""
    found = [point for point in scores if point[0] == kept]
    if found:
        step, score = found[-1]
        ring = axes.plot(step, score, "o", color=ACCENT, markersize=9, fillstyle="none")
        ring[0].set_clip_on(False)  # the best score often lies at the edge
