"""From measurements to a report: ratios against the baseline, and the Pareto set.

Everything is plain data. `build_report` takes what was measured and adds what follows from it;
nothing here measures, and no number is rounded before it is printed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compressor.errors import InputError
from compressor.measure import words
from compressor.measure.findings import find_problems
from compressor.measure.metrics import LOWER_IS_BETTER
from compressor.measure.paired import same_tokens
from compressor.measure.schema import SCHEMA, SIZES, validate_report
from compressor.measure.speed import speedups
from compressor.measure.summary import summarise

Model = Mapping[str, Any]
# What the zeros of a sparse model save is counted from the whole matrices of the dense one.
_OF_MATRICES = dict.fromkeys(("matrices_nonzero", "matrices_bitmask", "matrices_index"), "matrices")


__all__ = ["build_report", "model_named", "pareto_front", "validate_report"]


def build_report(
    machine: dict[str, Any],
    task: dict[str, Any] | None,
    baseline: str,
    models: Sequence[Model],
    command: str,
    seed: int,
) -> dict[str, Any]:
    """The whole report: what was measured and what it says against the baseline.

    Args:
        machine: from `machine.machine_facts`.
        task: name, and whatever else describes the data (data, split, labels, metric,
            tokenise_ms_per_row, of images to decode one); None when only latency and size were
            measured.
        baseline: name of the model that the others are compared with.
        models: one dict each: name, path, runtime, accuracy (as `metrics.score` returns it, or
            None), paired (as `paired.compare` returns it, or None), size (bytes by `SIZES`, and
            parameters; or None), latency (rows of `measure_in_turns`); optional: tokenise_ms
            (median milliseconds to tokenise one batch of the first shape), precision ("fp32",
            "int8"), steps (the lineage: verb, method, command, options), open_ms, first_ms,
            answer_ms and peak_memory_bytes (of the model's own process), scaling (from
            `scaling.scaling_of`), and anything else, which is kept.
        command: the command line that makes this report again.
        seed: of the bootstrap and the data order.

    Returns:
        The report of schema 1; numbers that are not finite are None. `gates` is empty until
        `gates.check` fills it.

    Raises:
        InputError: the baseline is not among the models, or two share a name.
    """
    models = [_plain(model) for model in models]
    reference = model_named(models, baseline)
    completed = [_completed(model, reference) for model in models]
    axes, front = _pareto(completed, reference)
    for model, on_front in zip(completed, front, strict=True):
        model["pareto"] = on_front
    metric = (reference.get("accuracy") or {}).get("metric")
    report = {
        "schema": SCHEMA,
        "command": command,
        "seed": seed,
        "machine": _plain(machine),
        "task": _plain(task),
        "baseline": baseline,
        "drop_unit": words.drop_unit(metric) if metric else None,
        "pareto_axes": axes,
        "summary": "",
        "findings": [],
        "models": completed,
        "gates": [],
    }
    report["findings"] = find_problems(report)
    report["summary"] = summarise(report)
    validate_report(report)
    return report


def pareto_front(points: Sequence[Sequence[float] | None]) -> list[bool]:
    """Which points no other point beats: at least as low everywhere and lower somewhere.

    Args:
        points: coordinates where lower is better; None is never on the front and beats nothing.
    """
    front = []
    for point in points:
        beaten = point is None or any(
            other is not None
            and all(theirs <= own for theirs, own in zip(other, point, strict=True))
            and any(theirs < own for theirs, own in zip(other, point, strict=True))
            for other in points
        )
        front.append(not beaten)
    return front


def model_named(models: Sequence[Model], name: str) -> Model:
    """The one model of that name.

    Raises:
        InputError: there is none, or two models share a name.
    """
    names = [str(model["name"]) for model in models]
    doubled = sorted({each for each in names if names.count(each) > 1})
    if doubled:
        raise InputError(
            f"two models share the name {doubled[0]!r}; a report tells models apart by name",
            hint="rename one of the folders",
        )
    if name not in names:
        raise InputError(f"model {name!r} is not among those measured: {', '.join(names)}")
    return models[names.index(name)]


def first_shape(models: Sequence[Model]) -> tuple[int, int] | None:
    """(batch, length) of the first latency row; a baseline from a stored report has none."""
    return next(((row["batch"], row["length"]) for m in models for row in m["latency"]), None)


def p50_at(model: Model, shape: tuple[int, int]) -> float | None:
    """Median milliseconds at (batch, length), or None where that was not measured."""
    return _p50_by_shape(model).get(shape)


def _completed(model: Model, reference: Model) -> dict[str, Any]:
    """The model with everything that follows from comparing it with the baseline."""
    size, base_size = model.get("size") or {}, reference.get("size") or {}
    ratios = {
        key: _ratio(base_size.get(_OF_MATRICES.get(key, key)), size.get(key)) for key in SIZES
    }
    whole, by_shape = speedups(model.get("latency") or [], reference.get("latency") or [])
    retention, drop = _retention_and_drop(model.get("accuracy"), reference.get("accuracy"))
    worth = None if retention is None or ratios["disk"] is None else ratios["disk"] * retention
    return {
        **model,
        "accuracy": model.get("accuracy"),
        "paired": model.get("paired"),
        "size": model.get("size"),
        "latency": model.get("latency") or [],
        "compression_ratio": ratios,
        "speedup": whole["speedup"],
        "speedup_low": None if model is reference else whole["low"],
        "speedup_high": None if model is reference else whole["high"],
        "speedup_by_shape": by_shape,
        "retention": retention,
        "drop": drop,
        "compression_to_accuracy": worth,
    }


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None


def _p50_by_shape(model: Model) -> dict[tuple[int, int], float]:
    return {(row["batch"], row["length"]): row["p50_ms"] for row in model.get("latency") or []}


def _geometric_mean(values: Sequence[float]) -> float | None:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def _retention_and_drop(
    accuracy: Model | None, base: Model | None
) -> tuple[float | None, float | None]:
    """Metric / baseline metric, and what was lost: points, or per cent where nothing bounds it.

    Where lower is better retention is turned over, so that 1 is "as good" and less is worse. Both
    are None for perplexities over the tokens of different tokenizers.
    """
    if not accuracy or not base or accuracy["value"] is None or base["value"] is None:
        return None, None
    own, theirs = accuracy["value"], base["value"]
    if accuracy["metric"] != base["metric"]:
        raise InputError(
            f"the models were scored by different metrics: {accuracy['metric']}, {base['metric']}"
        )
    if not same_tokens(accuracy, base):
        return None, None
    drop = drop_between(base["metric"], own, theirs)
    if base["metric"] in LOWER_IS_BETTER:
        return (theirs / own if own > 0 else None), drop
    return (own / theirs if theirs > 0 else None), drop


def drop_between(metric: str, own: float, base: float) -> float | None:
    """What `own` lost against `base`: points, or per cent of a metric without a bound."""
    if metric in LOWER_IS_BETTER:
        return 100 * (own / base - 1) if base > 0 else None
    return 100 * (base - own)


def _pareto(models: Sequence[Model], reference: Model) -> tuple[list[str], list[bool]]:
    """The axes that the baseline was measured on, and which models no other beats on them."""
    shared = set.intersection(
        set(_p50_by_shape(reference)), *(set(_p50_by_shape(m)) for m in models if m["latency"])
    )

    def accuracy(model: Model) -> float | None:
        value = (model["accuracy"] or {}).get("value")
        if value is None or not same_tokens(model["accuracy"], reference["accuracy"]):
            return None
        return value if model["accuracy"]["metric"] in LOWER_IS_BETTER else -value

    def latency(model: Model) -> float | None:
        p50 = _p50_by_shape(model)
        return _geometric_mean([p50[shape] for shape in shared]) if p50 else None

    def disk(model: Model) -> float | None:
        return (model["size"] or {}).get("disk")

    places = {"accuracy": accuracy, "latency": latency, "disk": disk}
    found = model_named(models, reference["name"])
    axes = [name for name, place in places.items() if place(found) is not None]
    points = []
    for model in models:
        known = [value for axis in axes if (value := places[axis](model)) is not None]
        points.append(known if axes and len(known) == len(axes) else None)
    return axes, pareto_front(points)


def _plain(value: Any) -> Any:
    """Only what JSON knows: numpy as plain numbers and lists, nan and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
