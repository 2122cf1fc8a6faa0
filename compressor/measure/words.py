"""How names and numbers of a report are spelled, alike in the terminal, the page and sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from compressor.measure.metrics import LOWER_IS_BETTER

NOTHING = "\u2013"  # an en dash

METRIC_NAMES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "f1_macro": "macro F1",
    "matthews": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "mse": "mean squared error",
    "perplexity": "perplexity",
}

POINTS = "points"


def unique_names(names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Each folder's name, with as many of the folders above it as tell it from the others."""
    above = [folder.resolve().parent.parts[1:] for folder in folders]
    found = list(names)
    for depth in range(1, max(map(len, above), default=0) + 1):
        found = [
            name if found.count(name) == 1 else "/".join([*parents[-depth:], own])
            for name, own, parents in zip(found, names, above, strict=True)
        ]
    return found


def metric_name(metric: str) -> str:
    """A metric in words."""
    return METRIC_NAMES.get(metric, metric)


def metric_heading(metric: str) -> str:
    """A metric as the heading of a column or axis; bounded ones are shown times 100."""
    if metric in LOWER_IS_BETTER:
        return metric_name(metric)
    if metric in ("accuracy", "f1", "f1_macro"):
        return f"{metric_name(metric)} %"
    return f"{metric_name(metric)} x100"


def shown(metric: str, value: float) -> float:
    """The number that is printed for `value`: times 100 where the metric is bounded by one."""
    return value if metric in LOWER_IS_BETTER else 100 * value


def drop_unit(metric: str) -> str:
    """What `drop` counts: points of a bounded metric, per cent of one without a bound."""
    return f"per cent more {metric_name(metric)}" if metric in LOWER_IS_BETTER else POINTS


def metric_text(metric: str, value: float | None) -> str:
    """0.9234 as `92.3`; a perplexity of 12.345 as `12.3`; nothing measured as a dash."""
    if value is None:
        return NOTHING
    return significant(value) if metric in LOWER_IS_BETTER else _signed(100 * value)


def interval_text(metric: str, low: float | None, high: float | None) -> str:
    """`91.0` and `94.4` with a dash between, or `to` beside a sign; a dash for no interval."""
    if low is None or high is None:
        return NOTHING
    between = " to " if low < 0 else NOTHING
    return f"{metric_text(metric, low)}{between}{metric_text(metric, high)}"


def drop_text(drop: float | None, unit: str | None) -> str:
    """`1.2` points, or `4.0 %` where the metric has no bound; negative is a gain."""
    if drop is None:
        return NOTHING
    return _signed(drop) if unit == POINTS else f"{_signed(drop)} %"


def lost_text(metric: str, lost: float) -> str:
    """`0.52 points of accuracy`, or `1.30 per cent more perplexity`."""
    unit = drop_unit(metric)
    of = f" of {metric_name(metric)}" if unit == POINTS else ""
    return f"{lost:.2f} {unit}{of}"


def times_text(ratio: float | None) -> str:
    """`8.1x`: two decimals below 10, one below 100."""
    if ratio is None:
        return NOTHING
    decimals = 2 if ratio < 9.995 else 1 if ratio < 99.95 else 0
    return f"{ratio:.{decimals}f}x"


def times_interval_text(low: float | None, high: float | None) -> str:
    """`7.9 to 8.3` times; a dash for no interval."""
    if low is None or high is None:
        return NOTHING
    return f"{times_text(low)[:-1]} to {times_text(high)[:-1]}"


def gain(ratio: float, more: str, less: str) -> tuple[str, str]:
    """A ratio and its word; one below 1 is turned over: 0.5 is `2.00x` and `less`."""
    return (times_text(ratio), more) if ratio >= 1 else (times_text(1 / ratio), less)


def share(value: float | None) -> str:
    """0.987 as `98.7 %`; a dash for nothing."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def chance(value: float | None) -> str:
    """A p-value: `0.031`, and `< 0.001` below; a dash for nothing."""
    if value is None:
        return NOTHING
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def shapes_timed(models: Iterable[Mapping[str, Any]]) -> int:
    """How many shapes the speed-ups of a report are means over."""
    return max((len(model["speedup_by_shape"]) for model in models), default=0)


def significant(value: float | None) -> str:
    """Three significant digits: `0.412`, `4.12`, `41.2`, `412`."""
    if value is None:
        return NOTHING
    if abs(value) >= 99.95:
        return f"{value:.0f}"
    decimals = 1 if abs(value) >= 9.995 else 2 if abs(value) >= 0.9995 else 3
    return _unsigned_zero(f"{value:.{decimals}f}")


def place(machine: Mapping[str, Any]) -> str:
    """What computed: a GPU by name, or the threads of a processor."""
    if machine.get("gpu"):
        return str(machine["gpu"]["name"])
    return f"{machine['threads']} threads on {machine['cpu']}"


def step_name(step: Mapping[str, Any]) -> str:
    """A step of a lineage: `distill soft_labels`."""
    return " ".join(str(step[key]) for key in ("verb", "method") if step.get(key))


def grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Each first text once, in the order of appearance, with every second one that it has."""
    groups: dict[str, list[str]] = {}
    for text, name in pairs:
        groups.setdefault(text, []).append(name)
    return groups


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _signed(value: float) -> str:
    return _unsigned_zero(f"{value:.1f}")


def _unsigned_zero(text: str) -> str:
    return text if float(text) else text.removeprefix("-")
