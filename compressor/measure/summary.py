"""The first sentence of a report: what the best candidate gives for what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressor.measure import words
from compressor.measure.findings import Model, baseline_of, change, dead, holds, interval, one_class

# Sizes and speeds whose ratio is above this are as good as equal.
NEARLY = 0.95


def summarise(report: Mapping[str, Any]) -> str:
    """One or two sentences: the best candidate, and the most compressed where that is another."""
    reference = baseline_of(report)
    candidates = _comparable(report)
    if len(report["models"]) == 1:
        return f"{reference['name']} was measured alone: name candidates to compare it with."
    best = best_candidate(report)
    if best is None:
        return f"No candidate has an accuracy that can be compared with {reference['name']}."
    text = f"{best['name']} is {_gains(best, reference['name'])}"
    if best["drop"] is None:
        unscored = f"{reference['name']} has no accuracy to compare with"
        return f"{text}; {unscored if reference['accuracy'] else 'accuracy was not measured'}."
    text += f", and {_changed(best, reference, report['drop_unit'])}."
    smallest = max(candidates, key=_compression)
    if _compression(best) >= NEARLY * _compression(smallest):
        return text
    return (
        f"{text} The most compressed, {smallest['name']}, is {_gains(smallest)}, "
        f"and {_changed(smallest, reference, report['drop_unit'])}."
    )


def best_candidate(report: Mapping[str, Any]) -> Model | None:
    """The most compressed candidate of those that lose no more than their interval explains.

    The most compressed of all where every one loses more or nothing was scored; None where no
    candidate can be compared with the baseline. Of several that are nearly as small the fastest: a
    checkpoint and its graph have the same bytes, and only one of them the speed. Of several that
    cannot be told from the fastest the one that loses least.
    """
    reference = baseline_of(report)
    candidates = _comparable(report)
    equal = [m for m in candidates if m["drop"] is not None and holds(m, reference)]
    largest = max(map(_compression, equal or candidates), default=0.0)
    near = [m for m in equal or candidates if _compression(m) >= NEARLY * largest]
    if not near:
        return None
    fastest = max(near, key=lambda m: (m["speedup"] or 0.0, _compression(m)))
    rivals = [m for m in near if m is fastest or _may_be_as_fast(m, fastest)]
    return min(rivals, key=lambda m: (m["drop"] or 0.0, m is not fastest))


def _comparable(report: Mapping[str, Any]) -> list[Model]:
    """The candidates, without the dead, and without those that only ever say one thing."""
    reference = baseline_of(report)
    scored = (reference["accuracy"] or {}).get("value") is not None
    return [
        model
        for model in report["models"]
        if model is not reference
        and not (scored and model["drop"] is None)
        and not dead(model)
        and not one_class(model, None)
    ]


def _compression(model: Model) -> float:
    return model["compression_ratio"]["disk"] or model["speedup"] or 0.0


def _may_be_as_fast(model: Model, fastest: Model) -> bool:
    high, low = model["speedup_high"], fastest["speedup_low"]
    return high is not None and low is not None and high >= low


def _gains(model: Model, reference: str = "") -> str:
    """`2.00x smaller on disk than a and as fast`: near 1.00x, and not told from it."""
    disk = model["compression_ratio"]["disk"]
    speed, low, high = (model[key] for key in ("speedup", "speedup_low", "speedup_high"))
    other, alike = [], []
    for ratio, told, more, less, same in (
        (disk, True, "smaller on disk", "larger on disk", "as large on disk"),
        (speed, low is None or not low <= 1 <= high, "faster", "slower", "as fast"),
    ):
        if ratio is not None:
            times, word = words.gain(ratio, more, less)
            far = min(ratio, 1 / ratio) < NEARLY
            differs = (told or far) and times != words.times_text(1)
            (other if differs else alike).append(f"{times} {word}" if differs else same)
    groups = ((other, "than"), (alike, "as"))
    said = [(words.listed(parts), joined) for parts, joined in groups if parts]
    (first, joined), *rest = said or [("neither measured smaller nor faster", "than")]
    first = f"{first} {joined} {reference}" if reference else first
    return " and ".join([first, *(text for text, _ in rest)])


def _changed(model: Model, reference: Model, unit: str | None) -> str:
    """What became of the accuracy, and whether these rows can tell it from nothing."""
    low, high, same = interval(model, reference)
    said = change(model, reference, unit)
    if said.startswith("keeps") or low is None or high is None or not low <= same <= high:
        return said
    return f"{said}, which may be chance"
