"""Several stored reports side by side, as plain data and as rows of a table.

Nothing is measured and no number is rounded before it is printed; what may not be compared is told
by `agreement`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compressor import console
from compressor.measure import words
from compressor.measure.agreement import (
    barred_by,
    differences,
    note_on_times,
    note_on_weights,
    same_weights,
)
from compressor.measure.gates import describe
from compressor.measure.report import first_shape, model_named, p50_at
from compressor.measure.schema import COMPARISON_SCHEMA, QUANTITIES, validate_comparison

Entry = Mapping[str, Any]


def build_comparison(
    reports: Mapping[str, Mapping[str, Any]], command: str, inputs: Mapping[str, Any]
) -> dict[str, Any]:
    """Reports side by side.

    Args:
        reports: of schema 1, by the name that each goes by here.
        command: the command line that makes the comparison again.
        inputs: what it is made from, which tells later whether it is made already.

    Returns:
        The comparison as `schema.validate_comparison` describes it.
    """
    entries = [_entry(name, report) for name, report in reports.items()]
    differing = differences(entries)
    barred = barred_by(differing, entries)
    same = same_weights(entries)
    notes = [*differing.values(), *note_on_times(entries)]
    found: dict[str, Any] = {
        "schema": COMPARISON_SCHEMA,
        "command": command,
        "inputs": dict(inputs),
        "comparable": [name for name in QUANTITIES if name not in barred],
        "notes": notes + [note_on_weights(each) for each in same],
        "same_weights": same,
        "reports": entries,
    }
    found = _printable(found)
    validate_comparison(found)
    return found


def _printable(value: Any) -> Any:
    """The same with every text on one line and safe for a terminal: reports may come from afar."""
    if isinstance(value, Mapping):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, str) and not value.isprintable():
        return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in value)
    return value


def _entry(name: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """What a comparison keeps of a report."""
    reference = model_named(report["models"], report["baseline"])
    timed = next((model["latency"] for model in report["models"] if model["latency"]), [])
    refused = [f"Refused: {describe(gate)}." for gate in report["gates"] if not gate["passed"]]
    return {
        "name": name,
        "command": report["command"],
        "machine": {key: report["machine"][key] for key in ("cpu", "cores", "threads")},
        "metric": (reference["accuracy"] or {}).get("metric"),
        "drop_unit": report["drop_unit"],
        "data": _get(report, str, "task", "data"),
        "data_hash": _get(report, str, "task", "data_hash"),
        "split": _get(report, str, "task", "split"),
        "columns": _columns(report),
        "max_length": _get(report, int, "task", "max_length"),
        "tokens": sorted(
            {n for m in report["models"] if type(n := (m["accuracy"] or {}).get("tokens")) is int}
        ),
        "shapes": [[row["batch"], row["length"]] for row in timed],
        "baseline": report["baseline"],
        "findings": [*report["findings"], *refused],
        "models": [_model(model, reference, report) for model in report["models"]],
    }


def _model(
    model: Mapping[str, Any], reference: Mapping[str, Any], report: Mapping[str, Any]
) -> dict[str, Any]:
    shape, accuracy = first_shape([reference, model]), model["accuracy"]
    kept = ("metric", "value", "n", "low", "high")
    return {
        "name": model["name"],
        "weights": _get(report, str, "inputs", "models", model["name"]),
        "runtime": model["runtime"],
        "accuracy": {key: accuracy[key] for key in kept} if accuracy else None,
        "drop": model["drop"],
        "disk": (model["size"] or {}).get("disk"),
        "compression_ratio": model["compression_ratio"]["disk"],
        "speedup": model["speedup"],
        "speedup_low": _get(model, float, "speedup_low"),
        "speedup_high": _get(model, float, "speedup_high"),
        "p50_ms": p50_at(model, shape) if shape else None,
    }


def _columns(report: Mapping[str, Any]) -> str | None:
    """`text, label`: the columns that rows were read from; None where the report does not say."""
    inputs = _get(report, list, "task", "columns", "inputs")
    label = _get(report, str, "task", "columns", "label")
    return None if inputs is None else ", ".join(map(str, [*inputs, *([label] if label else [])]))


def _get(value: Any, kind: type, *keys: str) -> Any:
    """What stands under the keys if it is of that kind, else None: a report need not have these."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if type(value) is kind else None


def about(entry: Entry) -> str:
    """What a report was measured on: machine, threads, baseline and rows."""
    machine = entry["machine"]
    parts = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads",
        f"baseline {entry['baseline']}",
    ]
    if entry["metric"]:
        rows = next(m["accuracy"]["n"] for m in entry["models"] if m["name"] == entry["baseline"])
        split = f" ({entry['split']})" if entry["split"] else ""
        parts.append(f"{rows:,} rows of {entry['data'] or 'unnamed data'}{split}")
    return "; ".join(parts)


def sentences(comparison: Mapping[str, Any]) -> list[str]:
    """What a reader must know before the table: of all reports, then of each."""
    own = [(text, each["name"]) for each in comparison["reports"] for text in each["findings"]]
    return [*comparison["notes"], *_with_names(own)]


def abouts(comparison: Mapping[str, Any]) -> list[str]:
    """What each report was measured on, to stand below the table."""
    return _with_names([(about(entry), entry["name"]) for entry in comparison["reports"]])


def _with_names(texts: Sequence[tuple[str, str]]) -> list[str]:
    """Each text once, after the names of the reports that have it."""
    return [f"{words.listed(names)}: {text}" for text, names in words.grouped(texts).items()]


def comparison_cells(
    comparison: Mapping[str, Any],
) -> tuple[list[str], list[list[tuple[str, float | None]]]]:
    """The comparison as a table, one row for each model of each report.

    Returns:
        (columns, rows) of cells: what is shown, and the number behind it where there is one.
        A column says its metric or shape where one holds for all reports, else its cells do.
    """
    entries = comparison["reports"]
    metrics = {entry["metric"] for entry in entries} - {None}
    firsts = [entry["shapes"][0] for entry in entries if entry["shapes"]]
    metric = next(iter(metrics)) if len(metrics) == 1 else None
    shape = firsts[0] if all(each == firsts[0] for each in firsts) and firsts else None
    columns = ["report", "model", "runtime"]
    if metrics:
        columns += [words.metric_heading(metric) if metric else "score", "95 %", "drop"]
    columns += ["disk", "smaller", "faster", f"ms {_spelled(shape)}" if shape else "ms"]
    rows = []
    for entry in entries:
        for model in entry["models"]:
            own = model["name"] == entry["baseline"]
            named = f"{model['name']} (base)" if own else model["name"]
            row: list[tuple[str, float | None]] = [
                (entry["name"], None),
                (named, None),
                (model["runtime"], None),
            ]
            if metrics:
                row += _score_cells(model, entry, metric)
            disk, ratio, milliseconds = model["disk"], model["compression_ratio"], model["p50_ms"]
            where = f" ({_spelled(entry['shapes'][0])})" if entry["shapes"] and not shape else ""
            row += [
                (words.NOTHING if disk is None else console.size(disk), disk),
                (words.times_text(ratio), ratio),
                (_faster(model), model["speedup"]),
                (f"{words.significant(milliseconds)}{where}", milliseconds),
            ]
            rows.append(row)
    return columns, rows


def comparison_rows(comparison: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The comparison as a table for the terminal: (columns, rows), all text."""
    columns, rows = comparison_cells(comparison)
    return columns, [[text for text, _ in row] for row in rows]


def _score_cells(
    model: Mapping[str, Any], entry: Entry, metric: str | None
) -> list[tuple[str, float | None]]:
    """The metric, its interval and the drop; with the metric's name where there are several."""
    accuracy = model["accuracy"]
    if not accuracy:
        return [(words.NOTHING, None)] * 3
    own, value = accuracy["metric"], accuracy["value"]
    name = "" if metric else f" ({words.metric_heading(own)})"
    return [
        (words.metric_text(own, value) + name, value),
        (words.interval_text(own, accuracy["low"], accuracy["high"]), None),
        (words.drop_text(model["drop"], entry["drop_unit"]), model["drop"]),
    ]


def _faster(model: Mapping[str, Any]) -> str:
    """The speed-up against the report's baseline, with its interval where it was measured."""
    low, high = model["speedup_low"], model["speedup_high"]
    between = f" ({words.times_text(low)} to {words.times_text(high)})" if low and high else ""
    return words.times_text(model["speedup"]) + between


def _spelled(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
