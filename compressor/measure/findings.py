"""What a reader must know before the table: what is wrong with a model or a measurement.

Each rule looks at one way in which good-looking numbers mislead: a dead model, a model that says
one thing, an accuracy lost for real, int8 that is slower than float, a machine that was busy.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from compressor.measure import words
from compressor.measure.metrics import LOWER_IS_BETTER
from compressor.measure.paired import same_tokens
from compressor.measure.speed import speedups

Model = Mapping[str, Any]

# Medians of the same model differ by about this much between runs on a quiet machine.
SLOWER_BELOW = 0.97
# Fewer zeros than this are no sparse model.
SPARSE_FROM = 0.3
# p95 / p50 of single calls: 1.05 to 1.15 on a quiet machine.
SPREAD_OF_NOISE = 1.5


def find_problems(report: Mapping[str, Any]) -> list[str]:
    """Short sentences on what is wrong with a model or with the measurement, worst first."""
    models, unit = report["models"], report["drop_unit"]
    reference = baseline_of(report)
    problems, losers = [], []
    for model in models:
        broken = dead(model) or one_class(model, (report["task"] or {}).get("labels"))
        problems += broken
        judged = not broken and model["drop"] is not None and model["accuracy"]["low"] is not None
        if judged and not holds(model, reference):
            losers.append(model)
    problems += _other_tokens(models, reference)
    problems += _lost_accuracy(losers, reference, unit)
    for model in models:
        if model is not reference:
            problems += _slower(model, _float_source(model, models, reference), reference)
    problems += _idle_zeros([model for model in models if model is not reference])
    return problems + _noise(report["machine"], models)


def baseline_of(report: Mapping[str, Any]) -> Model:
    """The model that the others are compared with."""
    return next(m for m in report["models"] if m["name"] == report["baseline"])


def change(model: Model, reference: Model, unit: str | None) -> str:
    """`loses 1.0 points of accuracy (92.0 to 91.0)`."""
    metric = model["accuracy"]["metric"]
    values = (
        f"({words.metric_text(metric, reference['accuracy']['value'])} to "
        f"{words.metric_text(metric, model['accuracy']['value'])})"
    )
    drop, amount = model["drop"], words.drop_text(abs(model["drop"]), unit)
    of = f"{amount} points of {words.metric_name(metric)}" if unit == words.POINTS else amount
    if float(amount.split()[0]) == 0:
        return f"keeps its {words.metric_name(metric)} {values}"
    if unit == words.POINTS:
        return f"{'loses' if drop > 0 else 'gains'} {of} {values}"
    more = "more" if drop > 0 else "less"
    return f"has {amount} {more} {words.metric_name(metric)} {values}"


def interval(model: Model, reference: Model) -> tuple[float | None, float | None, float]:
    """(low, high, no change) of the difference on the same rows, or of this model's metric."""
    paired, own = model["paired"], model["accuracy"]
    if paired and paired["high"] is not None:
        return paired["low"], paired["high"], 0.0
    return own["low"], own["high"], reference["accuracy"]["value"]


def holds(model: Model, reference: Model) -> bool:
    """Whether no loss is sure: by the rows themselves, or by this model's interval alone."""
    low, high, same = interval(model, reference)
    if low is None or high is None:
        return model["drop"] <= 0
    return low <= same if model["accuracy"]["metric"] in LOWER_IS_BETTER else same <= high


def dead(model: Model) -> list[str]:
    """A sentence on a model whose metric is not finite; empty of any other."""
    accuracy = model["accuracy"]
    if not accuracy or accuracy["value"] is not None:
        return []
    broken = accuracy.get("not_finite")
    if broken:
        return [
            f"{model['name']} gave NaN or infinite outputs for {broken} of {accuracy['n']} rows: "
            "the model is broken and has no accuracy."
        ]
    return [
        f"{model['name']} has no {words.metric_name(accuracy['metric'])}: it is undefined or not "
        "finite on these rows."
    ]


def one_class(model: Model, labels: Sequence[str] | None) -> list[str]:
    """A sentence on a classifier that only ever says one thing; empty of any other."""
    counts = (model["accuracy"] or {}).get("predicted")
    if not counts or sum(count > 0 for count in counts) != 1:
        return []
    only = next(index for index, count in enumerate(counts) if count)
    label = labels[only] if labels and only < len(labels) else f"class {only}"
    metric, value = model["accuracy"]["metric"], model["accuracy"]["value"]
    return [
        f"{model['name']} answers {label!r} for every one of {sum(counts)} rows "
        f"({words.metric_name(metric)} {words.metric_text(metric, value)})."
    ]


def _other_tokens(models: Sequence[Model], reference: Model) -> list[str]:
    """One sentence on perplexities over other tokens than the baseline's."""

    def named(model: Model) -> str:
        tokens = model["accuracy"].get("tokens")
        return f"{model['name']} ({f'{tokens:,} tokens' if tokens else 'tokens not recorded'})"

    scored = [m for m in models if m["accuracy"] and m["accuracy"]["value"] is not None]
    others = [m for m in scored if not same_tokens(m["accuracy"], reference["accuracy"])]
    if reference not in scored or not others:
        return []
    metric = words.metric_name(reference["accuracy"]["metric"])
    each = words.listed([named(model) for model in others])
    return [
        f"The {metric} of {each} cannot be compared with that of {named(reference)}: another "
        "tokenizer cuts the same rows into other tokens."
    ]


def _lost_accuracy(losers: Sequence[Model], reference: Model, unit: str | None) -> list[str]:
    """One sentence on the models whose whole interval lies below the baseline's value."""
    if len(losers) > 1:
        each = [f"{model['name']} {words.drop_text(model['drop'], unit)}" for model in losers]
        metric = words.metric_name(reference["accuracy"]["metric"])
        what = f"Points of {metric} lost" if unit == words.POINTS else f"Growth of {metric}"
        return [f"{what} beyond what the 95 % intervals explain: {words.listed(each)}."]
    return [
        f"{model['name']} {change(model, reference, unit)}, {_certainty(model)}."
        for model in losers
    ]


def _certainty(model: Model) -> str:
    own, paired = model["accuracy"], model["paired"]
    if paired and paired["high"] is not None:
        shown = words.interval_text(own["metric"], paired["low"], paired["high"])
        return f"{shown} against it on the same rows (95 %)"
    shown = words.interval_text(own["metric"], own["low"], own["high"])
    return f"more than its 95 % interval {shown} explains"


def _is_quantized(model: Model) -> bool:
    if "precision" in model:
        return str(model["precision"]).startswith("int")
    return any(
        step.get("verb") == "quantize"
        or (step.get("verb") == "export" and (step.get("options") or {}).get("weights") == "int8")
        for step in model.get("steps") or []
    )


def _float_source(model: Model, models: Sequence[Model], reference: Model) -> Model:
    """The float model that an int8 one was made from: the longest lineage that it continues.

    Beside a graph, a float graph stands for what it was exported from. Of several the fastest.
    """
    line, sources = _line(model), [(0, 0.0, reference)]
    for other in models if _is_quantized(model) else ():
        begun = _line(other)
        if _is_exported(other) and other["runtime"] == model["runtime"]:
            begun = begun[:-1]
        known = begun not in ([], [None])
        if known and not _is_quantized(other) and line[:-1][: len(begun)] == begun:
            sources.append((len(begun), other["speedup"] or 0.0, other))
    return max(sources, key=lambda each: each[:2])[2]


def _line(model: Model) -> list[Any]:
    """What the lineage begins with, name and hash of weights if they are known, and its steps."""
    steps = model.get("steps") or []
    inputs = steps[0].get("inputs") if steps else None
    origin = inputs.get("model") if isinstance(inputs, Mapping) else None
    return [origin, *steps] if steps else []


def _is_exported(model: Model) -> bool:
    steps = model.get("steps") or [{}]
    return steps[-1].get("verb") == "export"


def _slower(model: Model, source: Model, reference: Model) -> list[str]:
    whole, _ = speedups(model["latency"], source["latency"])
    ratio, high = whole["speedup"], whole["high"]
    if ratio is None or ratio >= SLOWER_BELOW or (high is not None and high >= 1):
        return []
    kind = f", {model.get('precision') or 'int8'}," if _is_quantized(model) else ""
    what = "the float graph of what" if _is_exported(source) else "the float model"
    what = "the baseline" if source is reference else f"{what} it was made from"
    times = words.times_text(1 / ratio)
    return [f"{model['name']}{kind} is {times} slower than {source['name']}, {what}."]


def _idle_zeros(models: Sequence[Model]) -> list[str]:
    """Zeros among whole rows and columns: the runtimes multiply by them as by any number."""
    shares = []
    for model in models:
        size = model["size"] or {}
        if not model["latency"] or not size.get("matrices"):
            continue
        sparsity = 1 - size["matrices_nonzero"] / size["matrices"]
        if sparsity >= SPARSE_FROM:
            shares.append((f"{sparsity:.0%}", model["name"]))
    return [
        f"{share} of the encoder's matrices of {words.listed(names)} are zeros: they save disk "
        "when packed, and no time, for no runtime here skips them."
        for share, names in words.grouped(shares).items()
    ]


def _noise(machine: Mapping[str, Any], models: Sequence[Model]) -> list[str]:
    spreads = [row["p95_ms"] / row["p50_ms"] for m in models for row in m["latency"]]
    if not spreads:
        return []
    reasons = []
    spread = statistics.median(spreads)
    if spread > SPREAD_OF_NOISE:
        reasons.append(f"95th percentiles lie {words.times_text(spread)} above the medians")
    load = machine.get("load_average") or {}
    loads = [each[0] for each in (load.get("before"), load.get("after")) if each]
    if loads and max(loads) > machine["cores"] + 0.5:
        reasons.append(f"the load average reached {max(loads):.1f} on {machine['cores']} cores")
    if not reasons:
        return []
    return [f"The machine was noisy: {words.listed(reasons)}. Measure again when it is quiet."]
