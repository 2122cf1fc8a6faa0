"""The points of a trade-off plot: models that cost something and give something.

The vertical axis is what a model gives. A model far worse than the rest is drawn at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.measure.drawing import ACCENT, SOFT, Label, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# An accuracy this many points below the baseline, or a perplexity this many times above it, is
# drawn at the edge: to scale it would flatten the models that are worth comparing.
FAR_BELOW_POINTS = 12.0
FAR_ABOVE_TIMES = 2.0


@dataclass(frozen=True)
class Mark:
    """One model in a plot.

    Attributes:
        name: of the model.
        x: where it lies from left to right.
        y: where it lies from bottom to top.
        low: lower end of the interval of `y`; None where there is none.
        high: its upper end.
        best: drawn in the accent's colour, and named first.
        shape: matplotlib's letter for it; if empty a circle, and an arrow beyond the edge.
        hollow: only its outline is drawn.
        left: lower end of the interval of `x`; None where there is none.
        right: its upper end.
    """

    name: str
    x: float
    y: float
    low: float | None
    high: float | None
    best: bool
    shape: str = ""
    hollow: bool = False
    left: float | None = None
    right: float | None = None


def new_axes(figure: Figure) -> Axes:
    """Axes with a grid and without paper."""
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.grid(True)
    axes.set_axisbelow(True)
    axes.margins(0.12)
    return axes


def far_from(base: float, lower_wins: bool) -> float:
    """The metric, as it is printed, that is far worse than a baseline's."""
    return base * FAR_ABOVE_TIMES if lower_wins else base - FAR_BELOW_POINTS


def edge_of(marks: Sequence[Mark], limit: float, lower_wins: bool) -> float | None:
    """Where the vertical axis ends, just beyond the intervals of all but far worse models.

    Args:
        marks: all of them.
        limit: what is far worse than this would flatten the rest.
        lower_wins: whether small values are good.

    Returns:
        None where no model is far worse, or only one would be left.
    """
    turn = -1 if lower_wins else 1
    close = [mark for mark in marks if turn * mark.y >= turn * limit]
    if not 1 < len(close) < len(marks):
        return None
    heights = [turn * end for m in close for end in (m.y, m.low, m.high) if end is not None]
    span = max(heights) - min(heights)
    return turn * (min(heights) - 0.15 * (span or 1.0))


def is_beyond(mark: Mark, edge: float | None, lower_wins: bool) -> bool:
    """Whether a mark lies outside the vertical axis."""
    return edge is not None and (mark.y > edge if lower_wins else mark.y < edge)


def front_of(
    marks: Sequence[Mark], lower_wins: bool, right_wins: bool = False
) -> list[tuple[float, float]]:
    """The points that no other beats in the two quantities shown, the cheapest first."""
    up, across = (1 if lower_wins else -1), (-1 if right_wins else 1)
    best: list[tuple[float, float]] = []
    for mark in sorted(marks, key=lambda each: (across * each.x, up * each.y)):
        if not best or up * mark.y < up * best[-1][1]:
            best.append((mark.x, mark.y))
    return best


def draw_front(axes: Axes, line: Sequence[tuple[float, float]]) -> None:
    """Join the points of a front."""
    axes.plot(*zip(*line, strict=True), color=ACCENT, linewidth=1.2, dashes=(4, 3), alpha=0.7)


def draw(axes: Axes, mark: Mark, edge: float | None, lower_wins: bool) -> Label:
    """Draw a model, one beyond the edge at the edge, and say where its name belongs."""
    colour = ACCENT if mark.best else SOFT
    look: dict[str, Any] = {
        "color": colour,
        "markersize": 8.0 if mark.best else 6.5,
        "fillstyle": "none" if mark.hollow else "full",
        "linestyle": "none",
        "zorder": 3,
    }
    if edge is not None and is_beyond(mark, edge, lower_wins):
        axes.plot([mark.x], [edge], marker=mark.shape or "v", **look)
        return Label(f"{short(mark.name)} ({mark.y:.1f})", mark.x, edge, mark.best)
    if mark.low is not None and mark.high is not None:
        ends = [mark.low, mark.high]
        axes.plot([mark.x] * 2, ends, color=colour, linewidth=1, alpha=0.45, zorder=2)
    if mark.left is not None and mark.right is not None:
        ends = [mark.left, mark.right]
        axes.plot(ends, [mark.y] * 2, color=colour, linewidth=1, alpha=0.45, zorder=2)
    axes.plot([mark.x], [mark.y], marker=mark.shape or "o", **look)
    return Label(short(mark.name), mark.x, mark.y, mark.best)
