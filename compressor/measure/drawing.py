"""How every picture of a report is drawn: SVG that takes its colours and font from the page.

Colours are drawn as placeholders and replaced by CSS variables with a middle tone to fall back
on, so one drawing is legible on light and on dark paper and needs no script. Text stays text.
The same figure gives the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Drawn as a colour that nothing else uses, written as a CSS variable.
INK, MUTED, RULE, ACCENT, SOFT = "#010203", "#010204", "#010205", "#010206", "#010207"
HEAT = "#010208"  # ink stays legible on it at any strength
_CSS = {
    INK: "var(--ink, #555)",
    MUTED: "var(--muted, #777)",
    RULE: "var(--rule, #9994)",
    ACCENT: "var(--accent, #2a7fb8)",
    SOFT: "var(--soft, #999)",
    HEAT: "var(--heat, #57b4c9)",
}

LONGEST_NAME = 26

Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels


class Label(NamedTuple):
    """A name to be written near a point of the data."""

    text: str
    x: float
    y: float
    strong: bool


def short(name: str) -> str:
    """A model's name as it fits beside a picture: names that are alike differ at the end."""
    if len(name) <= LONGEST_NAME:
        return name
    kept = LONGEST_NAME // 2
    return f"{name[: kept - 1]}…{name[-kept:]}"


@contextmanager
def page_style(salt: str) -> Iterator[None]:
    """Matplotlib's settings while one picture is drawn; `salt` makes its ids its own."""
    import matplotlib

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"compressor-{salt}",
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": RULE,
        "axes.labelcolor": MUTED,
        "axes.labelsize": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": RULE,
        "ytick.color": RULE,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "grid.color": RULE,
        "grid.linewidth": 0.6,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # Only the measuring font lacks the letter; the page's font draws the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches without paper, laid out by what it holds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # only to measure text
    figure.patch.set_visible(False)
    return figure


def plain_scale(axes: Axes, which: str, values: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers where the values span more than a factor of three."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    if min(values) > 0 and max(values) / min(values) > 3:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def write_names(
    figure: Figure, axes: Axes, labels: Sequence[Label], line: Sequence[tuple[float, float]]
) -> None:
    """Write each label beside its point, where it covers no point, no other label and no `line`."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    taken = [_box_around(axes.transData.transform((each.x, each.y)), 6) for each in labels]
    for corner, following in pairwise(line):
        start, end = axes.transData.transform([corner, following])
        taken += [_box_around(start + (end - start) * part / 40, 1) for part in range(1, 40)]
    frame = axes.get_window_extent()
    room = (frame.x0, frame.y0, figure.bbox.x1, frame.y1 + 6)
    for label in sorted(labels, key=lambda each: not each.strong):
        text = axes.annotate(
            label.text,
            (label.x, label.y),
            textcoords="offset points",
            xytext=(0, 0),
            fontsize=9.5,
            color=INK if label.strong else MUTED,
            zorder=4,
        )
        _place(text, taken, room)


def _box_around(place: np.ndarray, reach: float) -> Box:
    x, y = place
    return (x - reach, y - reach, x + reach, y + reach)


# (right, up) in points from the point, horizontal and vertical anchor of the text.
_Place = tuple[float, float, Literal["left", "right", "center"], Literal["center", "bottom", "top"]]
_PLACES: list[_Place] = [
    (9, 0, "left", "center"),
    (-9, 0, "right", "center"),
    (6, 7, "left", "bottom"),
    (6, -7, "left", "top"),
    (-6, 7, "right", "bottom"),
    (-6, -7, "right", "top"),
    (0, 10, "center", "bottom"),
    (0, -10, "center", "top"),
    (9, 16, "left", "bottom"),
    (9, -16, "left", "top"),
    (-9, 16, "right", "bottom"),
    (-9, -16, "right", "top"),
]


def _place(text: Text, taken: list[Box], frame: Box) -> None:
    def try_at(place: _Place) -> Box:
        text.set_position(place[:2])
        text.set_horizontalalignment(place[2])
        text.set_verticalalignment(place[3])
        left, bottom, right, top = text.get_window_extent().extents
        return left - 3, bottom, right + 3, top  # names side by side need a space between them

    def cost(box: Box) -> float:
        outside = box[0] < frame[0] or box[1] < frame[1] or box[2] > frame[2] or box[3] > frame[3]
        return 1e9 * outside + sum(_overlap(box, other) for other in taken)

    best = min(_PLACES, key=lambda place: cost(try_at(place)))
    taken.append(try_at(best))


def _overlap(first: Box, second: Box) -> float:
    """The area that two boxes share."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)


def to_svg(figure: Figure, prefix: str, description: str) -> str:
    """The figure as an inline SVG element without size, metadata, fonts or colours of its own."""
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True)
    text = written.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    # Its one rule, for joins and caps, would hold for the whole page.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', text)
    opening = (
        f'<svg viewBox="{box.group(1) if box else ""}" role="img" aria-label="{description}" '
        'stroke-linejoin="round">'
    )
    text = opening + text[text.index(">") + 1 :]
    # Two drawings on one page must not share ids.
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    text = re.sub(r"font-family: [^;\"]*; ", "", text)
    for placeholder, colour in _CSS.items():
        text = text.replace(placeholder, colour)
    return text.strip()
