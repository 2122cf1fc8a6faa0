"""What reports must agree in before their numbers may be compared, and sentences where they do not.

Times are measured in turns within one run, so they never compare between reports. Everything else
compares as far as what it was measured on agrees, and what is not recorded agrees with nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from compressor.measure import words
from compressor.measure.schema import QUANTITIES

Entry = Mapping[str, Any]

NOT_RECORDED = "not recorded"
SCORES, TIMES = ("accuracy", "drop"), ("speedup", "latency")


class Fact(NamedTuple):
    """Something that reports must agree in.

    Attributes:
        name: in the plural.
        key: what a report must have for the fact to matter.
        of: what is compared (None where the report does not say) and how it is spelled.
        bars: the quantities that may not be compared where it differs.
    """

    name: str
    key: str
    of: Callable[[Entry], tuple[Any, str]]
    bars: tuple[str, ...]


def _data(entry: Entry) -> tuple[Any, str]:
    return entry["data_hash"], f"{entry['data'] or 'rows'} {_brief(entry['data_hash'])}"


def _baseline(entry: Entry) -> tuple[Any, str]:
    (model,) = [each for each in entry["models"] if each["name"] == entry["baseline"]]
    return model["weights"], f"{model['name']} {_brief(model['weights'])}"


def _brief(value: str | None) -> str:
    """The first digits of a hash."""
    return f"({value.rpartition(':')[2][:8]})" if value else f"({NOT_RECORDED})"


def _plain(read: Callable[[Entry], Any]) -> Callable[[Entry], tuple[Any, str]]:
    return lambda entry: (read(entry), str(read(entry) or NOT_RECORDED))


def _machine(entry: Entry) -> str:
    return f"{entry['machine']['cpu']}, {entry['machine']['cores']} cores"


def _counts(numbers: Sequence[int]) -> str:
    return words.listed([f"{number:,}" for number in numbers])


def _shapes(entry: Entry) -> str:
    return ", ".join(f"{batch}x{length}" for batch, length in entry["shapes"])


ROWS = (
    Fact("data", "metric", _data, SCORES),
    Fact("columns", "metric", _plain(lambda entry: entry["columns"]), SCORES),
    Fact("splits", "metric", _plain(lambda entry: entry["split"]), SCORES),
    Fact("metrics", "metric", _plain(lambda entry: words.metric_name(entry["metric"])), SCORES),
    Fact("longest inputs", "metric", _plain(lambda entry: entry["max_length"]), SCORES),
)
FACTS = (
    *ROWS,
    Fact("tokens scored", "tokens", _plain(lambda entry: _counts(entry["tokens"])), SCORES),
    Fact("baselines", "baseline", _baseline, ("drop", "compression_ratio", "speedup")),
    Fact("machines", "shapes", _plain(_machine), TIMES),
    Fact("threads", "shapes", _plain(lambda entry: entry["machine"]["threads"]), TIMES),
    Fact("shapes timed", "shapes", _plain(_shapes), TIMES),
)


def differences(entries: Sequence[Entry]) -> dict[Fact, str]:
    """A sentence for each fact in which the reports differ, or do not say that they agree."""
    found = {fact: _difference(fact, entries) for fact in FACTS}
    return {fact: sentence for fact, sentence in found.items() if sentence}


def _difference(fact: Fact, entries: Sequence[Entry]) -> str:
    """The sentence; empty where the reports that the fact matters to agree."""
    concerned = [entry for entry in entries if entry[fact.key]]
    spelled: dict[Any, tuple[str, list[str]]] = {}
    for entry in concerned:
        value, text = fact.of(entry)
        spelled.setdefault(value, (text, []))[1].append(entry["name"])
    known = len(spelled.keys() - {None})
    if len(concerned) < 2 or (known == 1 and None not in spelled):
        return ""
    verb = "differ" if known > 1 else "are not known to agree"
    each = "; ".join(f"{words.listed(names)}: {text}" for text, names in spelled.values())
    barred = words.listed([QUANTITIES[name] for name in fact.bars])
    return f"The {fact.name} {verb} ({each}), so {barred} of different reports may not be compared."


def barred_by(differing: Mapping[Fact, str], entries: Sequence[Entry]) -> set[str]:
    """The quantities that may not be compared between reports."""
    barred = {name for fact in differing for name in fact.bars}
    return barred | set(TIMES if note_on_times(entries) else ())


def note_on_times(entries: Sequence[Entry]) -> list[str]:
    """The sentence that holds for any two reports with times."""
    if sum(bool(entry["shapes"]) for entry in entries) < 2:
        return []
    return [
        "Models were timed in turns within each report: milliseconds and speed-ups may be compared "
        "within a report, never between reports."
    ]


def same_weights(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The models of several reports that are the same by the hash of their weights.

    Returns:
        One dict for each: weights, models (report, name, metric, value) and agree: whether the
        metric is the same wherever the rows are, None where no two were scored on the same rows.
    """
    by_hash: dict[str, list[tuple[Entry, Mapping[str, Any]]]] = {}
    for entry in entries:
        for model in entry["models"]:
            if model["weights"]:
                by_hash.setdefault(model["weights"], []).append((entry, model))
    return [
        {
            "weights": weights,
            "models": [_identified(entry, model) for entry, model in found],
            "agree": _agree(found),
        }
        for weights, found in by_hash.items()
        if len({entry["name"] for entry, _ in found}) > 1
    ]


def _identified(entry: Entry, model: Mapping[str, Any]) -> dict[str, Any]:
    accuracy = model["accuracy"] or {"metric": None, "value": None}
    return {
        "report": entry["name"],
        "name": model["name"],
        "metric": accuracy["metric"],
        "value": accuracy["value"],
    }


def _agree(found: Sequence[tuple[Entry, Mapping[str, Any]]]) -> bool | None:
    by_rows: dict[tuple[Any, ...], list[float | None]] = {}
    for entry, model in found:
        rows = tuple(fact.of(entry)[0] for fact in ROWS) if entry["metric"] else (None,)
        if None not in rows and model["accuracy"]:
            by_rows.setdefault(rows, []).append(model["accuracy"]["value"])
    groups = [values for values in by_rows.values() if len(values) > 1]
    if not groups:
        return None
    return all(_is_same(value, values[0]) for values in groups for value in values)


def _is_same(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    # One row more or less is a difference, the last bits of a perplexity are none.
    return math.isclose(first, second, rel_tol=1e-6)


def note_on_weights(same: Mapping[str, Any]) -> str:
    """A sentence on one entry of `same_weights`."""
    names = words.listed([f"{each['name']} in {each['report']}" for each in same["models"]])
    text = f"The same weights are {names}"
    if same["agree"] is None:
        return f"{text}."
    if same["agree"]:
        return f"{text}; what they score agrees."
    each = [f"{_exact(model)} in {model['report']}" for model in same["models"] if model["metric"]]
    return (
        f"{text}; what they score should agree on the same rows and does not ({words.listed(each)})"
        ": other libraries, precision or devices, or files beside the weights, made a difference."
    )


def _exact(model: Mapping[str, Any]) -> str:
    value, metric = model["value"], model["metric"]
    shown = "undefined" if value is None else f"{words.shown(metric, value):.4f}"
    return f"{words.metric_name(metric)} {shown}"
