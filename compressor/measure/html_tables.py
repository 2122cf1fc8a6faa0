"""The tables of `report.html`: rounded numbers to read, the exact ones behind each cell."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from compressor import console
from compressor.measure import words
from compressor.measure.gates import describe, measured_text
from compressor.measure.page import cell, table
from compressor.measure.report import first_shape, model_named, p50_at
from compressor.measure.schema import SIZES
from compressor.measure.tables import PAIRED, paired_cells, paired_note

Model = Mapping[str, Any]


def gates_table(report: Mapping[str, Any]) -> str:
    """Every judgement of a gate; empty when there were none."""
    if not report["gates"]:
        return ""
    rows = [
        [
            cell(gate["model"], head=True),
            cell(f"--{gate['gate']}", kind="text"),
            cell(f"{gate['limit']:g}", exact=gate["limit"]),
            cell(measured_text(gate), exact=gate["value"]),
            cell("passed", kind="passed") if gate["passed"] else cell("failed", kind="failed"),
        ]
        for gate in report["gates"]
    ]
    failed = [describe(gate) for gate in report["gates"] if not gate["passed"]]
    note = f"{len(failed)} of {len(rows)} failed." if failed else f"All {len(rows)} passed."
    shown = table(["Model", "Gate", "Limit", "Measured", "Result"], rows, text_columns=(1,))
    return f'<h2>Gates</h2><p class="note">{note}</p>{shown}'


def models_table(report: Mapping[str, Any]) -> str:
    """The main table: one row a model, dominated ones greyed."""
    reference = model_named(report["models"], report["baseline"])
    metric = (reference["accuracy"] or {}).get("metric")
    shape = first_shape(report["models"])
    heads = ["Model", "Runtime"]
    if metric:
        drop = "Drop, points" if report["drop_unit"] == words.POINTS else "Drop, %"
        heads += [words.metric_heading(metric).capitalize(), "95 % interval", drop, "Retention"]
    heads += ["Disk", "Smaller"]
    if shape:
        shapes = words.shapes_timed(report["models"])
        faster = f"Faster, mean of {shapes} shapes" if shapes > 1 else "Faster"
        heads += [f"ms at {shape[0]}x{shape[1]}", faster, "95 % interval"]
    if metric:
        heads.append("Compression to accuracy")
    heads.append("Pareto")
    rows = [_model_row(model, report, metric, shape) for model in report["models"]]
    beaten = [not model["pareto"] for model in report["models"]]
    note = (
        f"A dot marks the Pareto set: no other model here is at least as good in "
        f"{words.listed(report['pareto_axes'])} and better in one of them."
        if report["pareto_axes"]
        else ""
    )
    shown = table(heads, rows, beaten=beaten, text_columns=(1,))
    return f'<h2>Models</h2><p class="note">{escape(note)}</p>{shown}'


def _model_row(
    model: Model, report: Mapping[str, Any], metric: str | None, shape: tuple[int, int] | None
) -> list[str]:
    tag = '<span class="tag">baseline</span>' if model["name"] == report["baseline"] else ""
    cells = [cell(model["name"], head=True, tag=tag, title=model["path"])]
    cells.append(cell(model["runtime"], kind="text"))
    if metric:
        accuracy = model["accuracy"] or {}
        value, low, high = (accuracy.get(key) for key in ("value", "low", "high"))
        cells += [
            cell(words.metric_text(metric, value), exact=value),
            cell(words.interval_text(metric, low, high)),
            cell(words.drop_text(model["drop"], words.POINTS), exact=model["drop"]),
            cell(words.share(model["retention"]), exact=model["retention"]),
        ]
    disk, ratio = (model["size"] or {}).get("disk"), model["compression_ratio"]["disk"]
    cells.append(cell(_bytes(disk), exact=disk))
    cells.append(cell(words.times_text(ratio), exact=ratio))
    if shape:
        p50 = p50_at(model, shape)
        cells.append(cell(words.significant(p50), exact=p50))
        cells.append(cell(words.times_text(model["speedup"]), exact=model["speedup"]))
        cells.append(cell(words.times_interval_text(model["speedup_low"], model["speedup_high"])))
    if metric:
        worth = model["compression_to_accuracy"]
        cells.append(cell(words.times_text(worth), exact=worth))
    cells.append(cell("●" if model["pareto"] else "", kind="dot"))
    return cells


def sizes_table(report: Mapping[str, Any]) -> str:
    """Bytes and ratios under each way of counting."""
    if not any(model["size"] for model in report["models"]):
        return ""
    rows = []
    for model in report["models"]:
        sizes = model["size"] or {}
        cells = [cell(model["name"], head=True)]
        for kind in SIZES:
            count, ratio = sizes.get(kind), model["compression_ratio"][kind]
            beside = "" if ratio is None else f"<small>{words.times_text(ratio)}</small>"
            cells.append(cell(_bytes(count), exact=count, tag=beside))
        parameters = sizes.get("parameters")
        text = words.NOTHING if parameters is None else f"{parameters / 1e6:.2f} M"
        rows.append([*cells, cell(text, exact=parameters)])
    shown = table(["Model", *SIZES.values(), "Parameters"], rows)
    return (
        '<h2>Size</h2><p class="note">Bytes, and how many times smaller than the baseline, '
        f"under each way of counting.</p>{shown}"
    )


def metrics_table(report: Mapping[str, Any]) -> str:
    """Every metric of the task, where there is more than one."""
    scored = [m for m in report["models"] if m["accuracy"] and m["accuracy"].get("all")]
    names = list(dict.fromkeys(name for model in scored for name in model["accuracy"]["all"]))
    if len(names) < 2:
        return ""
    rows = [
        [cell(model["name"], head=True)]
        + [_metric_cell(name, model["accuracy"]["all"].get(name) or {}) for name in names]
        for model in scored
    ]
    heads = [words.metric_heading(name).capitalize() for name in names]
    return f"<h2>Every metric</h2>{table(['Model', *heads], rows)}"


def _metric_cell(name: str, found: Mapping[str, Any]) -> str:
    value = found.get("value")
    interval = words.interval_text(name, found.get("low"), found.get("high"))
    return cell(f"{words.metric_text(name, value)} ({interval})", exact=value)


def paired_table(report: Mapping[str, Any]) -> str:
    """What the same rows say of each model against the baseline; empty where none were compared."""
    columns, rows = paired_cells(report)
    if not rows:
        return ""
    cells = [
        [cell(name, head=True), *(cell(text, exact=exact) for text, exact in rest)]
        for (name, _), *rest in rows
    ]
    heads = [name[0].upper() + name[1:] for name in columns]
    note = f'<p class="note">{escape(paired_note(report))}</p>'
    return f"<h2>{PAIRED}</h2>{note}{table(heads, cells)}"


def latency_table(report: Mapping[str, Any]) -> str:
    """Every latency row of every model."""
    rows = []
    for model in report["models"]:
        faster = {(r["batch"], r["length"]): r for r in model["speedup_by_shape"]}
        for row in model["latency"]:
            found = faster.get((row["batch"], row["length"]), {})
            ratio, low, high = (found.get(key) for key in ("speedup", "low", "high"))
            cells = [cell(model["name"], head=True)]
            cells += [cell(str(row[key]), exact=row[key]) for key in ("batch", "length")]
            cells += [
                cell(words.significant(row[key]), exact=row[key])
                for key in ("p50_ms", "p95_ms", "p99_ms", "per_second")
            ]
            cells.append(cell(words.times_text(ratio), exact=ratio))
            rows.append([*cells, cell(words.times_interval_text(low, high))])
    heads = [
        "Model",
        "Batch",
        "Length",
        "Median ms",
        "95th percentile ms",
        "99th percentile ms",
        "Rows a second",
        "Faster",
        "95 % interval",
    ]
    return table(heads, rows)


def starts_table(report: Mapping[str, Any]) -> str:
    """What it takes to start each model, and its memory; empty where that was not measured."""
    known = [model for model in report["models"] if model.get("first_ms") is not None]
    if not known:
        return ""
    memories = {"Peak memory": "peak_memory_bytes"}
    if any(model.get("peak_gpu_bytes") is not None for model in known):
        memories["Peak GPU memory"] = "peak_gpu_bytes"
    rows = []
    for model in known:
        spans = [model[key] for key in ("open_ms", "first_ms", "answer_ms")]
        held = [model.get(key) for key in memories.values()]
        cells = [cell(words.significant(span), exact=span) for span in spans]
        cells += [cell(_bytes(count), exact=count) for count in held]
        rows.append([cell(model["name"], head=True), *cells])
    heads = ["Model", "Opened in ms", "First call ms", "First answer after ms", *memories]
    note = (
        "In a fresh process without a tokenizer, from the import of its libraries to the first "
        "answer at the first shape; the most memory that this process held at any shape, and that "
        "PyTorch held on a GPU."
    )
    return f'<h3>Start and memory</h3><p class="note">{note}</p>{table(heads, rows)}'


def _bytes(count: int | None) -> str:
    return words.NOTHING if count is None else console.size(count)


def layers_table(report: Mapping[str, Any]) -> str:
    """What every layer of every model is made of."""
    rows = [
        [
            cell(model["name"], head=True),
            cell(row["part"], kind="text"),
            cell(f"{row['parameters']:,}", exact=row["parameters"]),
            cell(words.share(row["sparsity"]), exact=row["sparsity"]),
            cell(words.significant(row["bits_per_weight"]), exact=row["bits_per_weight"]),
            cell(console.size(row["bytes"]), exact=row["bytes"]),
        ]
        for model in report["models"]
        for row in model.get("layers") or []
    ]
    heads = ["Model", "Part", "Parameters", "Zeros", "Bits of a weight", "Bytes"]
    return table(heads, rows, text_columns=(1,))


def trainings_table(report: Mapping[str, Any]) -> str:
    """Where every training began and ended."""
    rows = []
    for training in report.get("training") or []:
        losses, kept = training["loss"], training["kept_step"]
        first, last = (losses[end]["value"] if losses else None for end in (0, -1))
        score = next((p["value"] for p in training["scores"][::-1] if p["step"] == kept), None)
        name = training["metric"]
        rows.append(
            [
                cell(words.step_name(training), head=True),
                cell(words.listed(training["models"]), kind="names text"),
                cell(words.significant(first), exact=first),
                cell(words.significant(last), exact=last),
                cell(words.NOTHING if kept is None else str(kept), exact=kept),
                cell(words.metric_heading(name) if name else words.NOTHING, kind="text"),
                cell(words.metric_text(name or "", score), exact=score),
            ]
        )
    heads = ["Step", "In the lineage of", "First loss", "Last loss", "Kept at", "Score", "Kept"]
    return table(heads, rows, text_columns=(1, 5))
