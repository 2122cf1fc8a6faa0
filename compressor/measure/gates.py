"""Limits that a candidate must keep to be accepted, for a job in CI that fails when it does not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compressor.errors import InputError, UsageError
from compressor.measure import words
from compressor.measure.paired import same_tokens
from compressor.measure.report import drop_between, first_shape, model_named, p50_at

Model = Mapping[str, Any]
# Differences of decimal fractions miss their decimal value by about 1e-15.
SLACK = 1e-9


@dataclass(frozen=True)
class Gates:
    """The limits; None judges nothing.

    Attributes:
        max_drop: most that may be lost, in the report's drop unit (points, or per cent).
        min_retention: smallest metric / baseline metric.
        min_speedup: smallest geometric mean over shapes of baseline median / own median.
        min_compression: smallest baseline bytes / own bytes on disk.
        max_latency_ms: longest median at the first shape, in milliseconds.
    """

    max_drop: float | None = None
    min_retention: float | None = None
    min_speedup: float | None = None
    min_compression: float | None = None
    max_latency_ms: float | None = None

    def __post_init__(self) -> None:
        for name, limit in self.active().items():
            lowest = -math.inf if name == "max_drop" else 0.0
            if not math.isfinite(limit) or limit <= lowest:
                wanted = "a number" if name == "max_drop" else "a number above 0"
                raise UsageError(f"{_flag(name)} {limit}: expected {wanted}", where=_flag(name))

    def active(self) -> dict[str, float]:
        """The limits that are set, by field name."""
        return {name: v for name, v in dataclasses.asdict(self).items() if v is not None}


def check(
    report: Mapping[str, Any], gates: Gates, candidates: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Judge each candidate by each limit that is set.

    Args:
        report: from `build_report`.
        gates: the limits.
        candidates: names to judge; every model but the baseline when None.

    Returns:
        One dict a judgement: gate ("max-drop"), model, limit, value (None for a model that is too
        broken to be measured, which never passes), passed.

    Raises:
        InputError: a gate cannot be judged, with what to add; or there is no candidate.
    """
    limits = gates.active()
    if not limits:
        return []
    reference = model_named(report["models"], report["baseline"])
    if candidates is None:
        candidates = [m["name"] for m in report["models"] if m is not reference]
    if not candidates:
        raise InputError(
            f"{_flag(next(iter(limits)))} has nothing to judge: only the baseline was measured",
            hint="name a candidate, or another --baseline",
        )
    judged = []
    for name in candidates:
        model = model_named(report["models"], name)
        for gate, limit in limits.items():
            value = _value(gate, model, reference)
            within = value is not None and keeps(gate, value, limit)
            judged.append(
                {
                    "gate": gate.replace("_", "-"),
                    "model": name,
                    "limit": limit,
                    "value": value,
                    "passed": within,
                }
            )
    return judged


def keeps(gate: str, value: float, limit: float) -> bool:
    """Whether a value keeps a limit; 92 % less 90 % is two points, whatever the last bits say.

    Args:
        gate: one that begins with "max" keeps what lies below its limit, others what lies above.
        value: measured.
        limit: of the gate.
    """
    if math.isclose(value, limit, rel_tol=SLACK, abs_tol=SLACK):
        return True
    return value <= limit if gate.startswith("max") else value >= limit


def describe(judgement: Mapping[str, Any]) -> str:
    """A judgement as one sentence, for the error that a refused gate raises."""
    verb = "passes" if judgement["passed"] else "fails"
    measured = (
        "it has no finite result"
        if judgement["value"] is None
        else f"measured {measured_text(judgement)}"
    )
    return f"{judgement['model']} {verb} --{judgement['gate']} {judgement['limit']:g}: {measured}"


def measured_text(judgement: Mapping[str, Any]) -> str:
    """What was measured, with as many digits as it takes to see on which side of the limit it is.

    A dash for nothing.
    """
    gate, value, limit = (judgement[key] for key in ("gate", "value", "limit"))
    text = words.significant(value)
    for digits in range(4, 18) if value is not None else ():
        if keeps(gate, float(text), limit) == judgement["passed"]:
            break
        text = f"{value:.{digits}g}"
    return text


def lost_between(metric: str, own: float, base: float) -> float:
    """What a report calls the drop; infinite where that is not defined, so that no limit allows it.

    Args:
        metric: says the unit: points, or per cent of a metric without a bound.
        own: the score of the model that is judged; not a number where it has none.
        base: that of the model that it is compared with.
    """
    drop = drop_between(metric, own, base)
    return math.inf if drop is None or math.isnan(drop) else drop


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _value(gate: str, model: Model, reference: Model) -> float | None:
    if gate in ("max_drop", "min_retention"):
        return _accuracy_value(gate, model, reference)
    if gate == "min_compression":
        if model["compression_ratio"]["disk"] is None:
            raise _unjudged(gate, f"the size of {model['name']} or of the baseline is not known")
        return model["compression_ratio"]["disk"]
    if gate == "min_speedup":
        if model["speedup"] is None:
            raise _unjudged(
                gate,
                f"{model['name']} and the baseline were not timed at a common shape",
                "measure latency of both at one batch and length",
            )
        return model["speedup"]
    shape = first_shape([reference, model])
    p50 = p50_at(model, shape) if shape else None
    if p50 is None:
        raise _unjudged(gate, f"{model['name']} was not timed", "measure its latency")
    return p50


def _accuracy_value(gate: str, model: Model, reference: Model) -> float | None:
    """Drop or retention; None for a model that has no finite metric where the baseline has one."""
    if not model["accuracy"] or not reference["accuracy"]:
        raise _unjudged(gate, "no accuracy was measured", "add --data with labelled rows")
    metric = words.metric_name(reference["accuracy"]["metric"])
    if reference["accuracy"]["value"] is None:
        raise _unjudged(
            gate,
            f"{metric} of the baseline {reference['name']} is undefined on these rows",
            "use rows of more than one label, or another baseline",
        )
    if model["accuracy"]["value"] is None:
        return None
    if not same_tokens(model["accuracy"], reference["accuracy"]):
        raise _unjudged(
            gate,
            f"{metric} of {model['name']} is over other tokens than that of {reference['name']}",
            "compare models of one tokenizer, or leave this gate out",
        )
    value = model["drop" if gate == "max_drop" else "retention"]
    if value is None:
        raise _unjudged(
            gate,
            f"the baseline's {metric} is {reference['accuracy']['value']:g}, which has no ratio",
            "use --max-drop, or a better baseline",
        )
    return value


def _unjudged(gate: str, why: str, hint: str = "") -> InputError:
    return InputError(f"{_flag(gate)} cannot be judged: {why}", hint=hint, where=_flag(gate))
