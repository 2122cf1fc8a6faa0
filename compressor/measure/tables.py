"""A report as tables of text, for the terminal and for Markdown, and what their columns mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressor import console
from compressor.measure import words
from compressor.measure.report import first_shape, model_named, p50_at

Cells = list[tuple[str, float | None]]

PAIRED = "Against the baseline on the same rows"
PAIRED_NOTE = "The model's metric less the baseline's, with the 95 % interval of that difference"
SAME_ANSWERS_NOTE = (
    "the share of rows to which both give the same class; McNemar's p, the chance of so uneven a "
    "split of the rows that only one of them answers right if both were right equally often"
)


def report_rows(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The report as a table for the terminal.

    Returns:
        (columns, rows), all text. The metric's columns are left out when nothing was scored, and
        latency is that of the first shape. `*` marks the Pareto set.
    """
    models = report["models"]
    reference = model_named(models, report["baseline"])
    metric = (reference["accuracy"] or {}).get("metric")
    shape = first_shape(models)
    columns = ["model", "runtime"]
    if metric:
        columns += [words.metric_heading(metric), "95 %", "drop"]
    columns += ["disk", "smaller"]
    if shape:
        columns += [f"ms {shape[0]}x{shape[1]}", "faster", "95 %"]
    if metric:
        columns.append("score/byte")
    columns.append("Pareto")
    rows = []
    for model in models:
        own = model["name"] == report["baseline"]
        row = [f"{model['name']} (base)" if own else model["name"], model["runtime"]]
        if metric:
            accuracy = model["accuracy"] or {}
            row.append(words.metric_text(metric, accuracy.get("value")))
            row.append(words.interval_text(metric, accuracy.get("low"), accuracy.get("high")))
            row.append(words.drop_text(model["drop"], report["drop_unit"]))
        disk = (model["size"] or {}).get("disk")
        row.append(words.NOTHING if disk is None else console.size(disk))
        row.append(words.times_text(model["compression_ratio"]["disk"]))
        if shape:
            row.append(words.significant(p50_at(model, shape)))
            row.append(words.times_text(model["speedup"]))
            row.append(words.times_interval_text(model["speedup_low"], model["speedup_high"]))
        if metric:
            row.append(words.times_text(model["compression_to_accuracy"]))
        rows.append([*row, "*" if model["pareto"] else ""])
    return columns, rows


def legend(report: Mapping[str, Any]) -> str:
    """What the columns of `report_rows` say, in one line."""
    parts = ["smaller: bytes of the baseline / of the model"]
    shapes = words.shapes_timed(report["models"])
    if shapes:
        over = f"geometric mean over {shapes} shapes" if shapes > 1 else "at that shape"
        parts.append(f"faster: ms of the baseline / of the model, {over}")
    if report["drop_unit"]:
        parts.append("score/byte: smaller x the share of the metric that is kept")
    return "; ".join([*parts, "*: no other model is as good on every axis and better on one"]) + "."


def paired_cells(report: Mapping[str, Any]) -> tuple[list[str], list[Cells]]:
    """What the same rows say of each model against the baseline, one row a model.

    Returns:
        (columns, rows) of cells: what is shown, and the number behind it where there is one. Rows
        are empty where nothing was compared, and classes have columns of their own.
    """
    models = [model for model in report["models"] if model["paired"]]
    classes = any(model["paired"]["agreement"] is not None for model in models)
    columns = ["model", "difference", "95 %"]
    if classes:
        columns += ["same answers", "McNemar's p"]
    rows = []
    for model in models:
        metric, found = model["accuracy"]["metric"], model["paired"]
        row: Cells = [
            (model["name"], None),
            (words.metric_text(metric, found["difference"]), found["difference"]),
            (words.interval_text(metric, found["low"], found["high"]), None),
        ]
        if classes:
            row.append((words.share(found["agreement"]), found["agreement"]))
            row.append((words.chance(found["mcnemar"]), found["mcnemar"]))
        rows.append(row)
    return columns, rows


def paired_note(report: Mapping[str, Any]) -> str:
    """What the columns of `paired_cells` say."""
    columns, _ = paired_cells(report)
    return f"{PAIRED_NOTE}{'; ' + SAME_ANSWERS_NOTE if len(columns) > 3 else ''}."
