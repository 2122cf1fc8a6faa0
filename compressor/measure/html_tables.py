"""The tables of `report.html`: rounded numbers to read, the exact ones behind each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from compressor import console
from compressor.measure import words
from compressor.measure.gates import describe
from compressor.measure.report import first_shape, model_named, p50_at
from compressor.measure.schema import SIZES

Model = Mapping[str, Any]


def gates_table(report: Mapping[str, Any]) -> str:
    """Every judgement of a gate; empty when there were none."""
    if not report["gates"]:
        return ""
    rows = [
        [
            _cell(gate["model"], head=True),
            _cell(f"--{gate['gate']}", kind="text"),
            _cell(f"{gate['limit']:g}", exact=gate["limit"]),
            _cell(words.significant(gate["value"]), exact=gate["value"]),
            _cell("passed", kind="passed") if gate["passed"] else _cell("failed", kind="failed"),
        ]
        for gate in report["gates"]
    ]
    failed = [describe(gate) for gate in report["gates"] if not gate["passed"]]
    note = f"{len(failed)} of {len(rows)} failed." if failed else f"All {len(rows)} passed."
    table = _table(["Model", "Gate", "Limit", "Measured", "Result"], rows, text_columns=(1,))
    return f'<h2>Gates</h2><p class="note">{note}</p>{table}'


def models_table(report: Mapping[str, Any]) -> str:
    """The main table: one row a model, dominated ones greyed."""
    reference = model_named(report["models"], report["baseline"])
    metric = (reference["accuracy"] or {}).get("metric")
    shape = first_shape(reference)
    heads = ["Model", "Runtime"]
    if metric:
        drop = "Drop, points" if report["drop_unit"] == words.POINTS else "Drop, %"
        heads += [words.metric_heading(metric).capitalize(), "95 % interval", drop, "Retention"]
    heads += ["Disk", "Smaller"]
    if shape:
        heads += [f"ms at {shape[0]}x{shape[1]}", "Faster"]
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
    table = _table(heads, rows, beaten=beaten, text_columns=(1,))
    return f'<h2>Models</h2><p class="note">{escape(note)}</p>{table}'


def _model_row(
    model: Model, report: Mapping[str, Any], metric: str | None, shape: tuple[int, int] | None
) -> list[str]:
    tag = '<span class="tag">baseline</span>' if model["name"] == report["baseline"] else ""
    cells = [_cell(model["name"], head=True, tag=tag, title=model["path"])]
    cells.append(_cell(model["runtime"], kind="text"))
    if metric:
        accuracy = model["accuracy"] or {}
        value, low, high = (accuracy.get(key) for key in ("value", "low", "high"))
        cells += [
            _cell(words.metric_text(metric, value), exact=value),
            _cell(words.interval_text(metric, low, high)),
            _cell(words.drop_text(model["drop"], words.POINTS), exact=model["drop"]),
            _cell(_share(model["retention"]), exact=model["retention"]),
        ]
    disk, ratio = (model["size"] or {}).get("disk"), model["compression_ratio"]["disk"]
    cells.append(_cell(words.NOTHING if disk is None else console.size(disk), exact=disk))
    cells.append(_cell(words.times_text(ratio), exact=ratio))
    if shape:
        p50 = p50_at(model, shape)
        cells.append(_cell(words.significant(p50), exact=p50))
        cells.append(_cell(words.times_text(model["speedup"]), exact=model["speedup"]))
    if metric:
        worth = model["compression_to_accuracy"]
        cells.append(_cell(words.times_text(worth), exact=worth))
    cells.append(_cell("●" if model["pareto"] else "", kind="dot"))
    return cells


def sizes_table(report: Mapping[str, Any]) -> str:
    """Bytes and ratios under each way of counting."""
    if not any(model["size"] for model in report["models"]):
        return ""
    rows = []
    for model in report["models"]:
        sizes = model["size"] or {}
        cells = [_cell(model["name"], head=True)]
        for kind in SIZES:
            count, ratio = sizes.get(kind), model["compression_ratio"][kind]
            text = words.NOTHING if count is None else console.size(count)
            beside = "" if ratio is None else f"<small>{words.times_text(ratio)}</small>"
            cells.append(_cell(text, exact=count, tag=beside))
        parameters = sizes.get("parameters")
        text = words.NOTHING if parameters is None else f"{parameters / 1e6:.2f} M"
        rows.append([*cells, _cell(text, exact=parameters)])
    table = _table(["Model", *SIZES.values(), "Parameters"], rows)
    return (
        '<h2>Size</h2><p class="note">Bytes, and how many times smaller than the baseline, '
        f"under each way of counting.</p>{table}"
    )


def metrics_table(report: Mapping[str, Any]) -> str:
    """Every metric of the task, where there is more than one."""
    scored = [m for m in report["models"] if m["accuracy"] and m["accuracy"].get("all")]
    names = list(dict.fromkeys(name for model in scored for name in model["accuracy"]["all"]))
    if len(names) < 2:
        return ""
    rows = [
        [_cell(model["name"], head=True)]
        + [_cell(words.metric_text(n, v), exact=v) for n, v in _in_order(model, names)]
        for model in scored
    ]
    heads = [words.metric_heading(name).capitalize() for name in names]
    return f"<h2>Every metric</h2>{_table(['Model', *heads], rows)}"


def _in_order(model: Model, names: Sequence[str]) -> list[tuple[str, float | None]]:
    return [(name, model["accuracy"]["all"].get(name)) for name in names]


def latency_table(report: Mapping[str, Any]) -> str:
    """Every latency row of every model."""
    rows = []
    for model in report["models"]:
        faster = {(r["batch"], r["length"]): r["speedup"] for r in model["speedup_by_shape"]}
        for row in model["latency"]:
            ratio = faster.get((row["batch"], row["length"]))
            cells = [_cell(model["name"], head=True)]
            cells += [_cell(str(row[key]), exact=row[key]) for key in ("batch", "length")]
            cells += [
                _cell(words.significant(row[key]), exact=row[key])
                for key in ("p50_ms", "p95_ms", "per_second")
            ]
            rows.append([*cells, _cell(words.times_text(ratio), exact=ratio)])
    heads = [
        "Model",
        "Batch",
        "Length",
        "Median ms",
        "95th percentile ms",
        "Rows a second",
        "Faster",
    ]
    return _table(heads, rows)


def layers_table(report: Mapping[str, Any]) -> str:
    """What every layer of every model is made of."""
    rows = [
        [
            _cell(model["name"], head=True),
            _cell(row["part"], kind="text"),
            _cell(f"{row['parameters']:,}", exact=row["parameters"]),
            _cell(_share(row["sparsity"]), exact=row["sparsity"]),
            _cell(words.significant(row["bits_per_weight"]), exact=row["bits_per_weight"]),
            _cell(console.size(row["bytes"]), exact=row["bytes"]),
        ]
        for model in report["models"]
        for row in model.get("layers") or []
    ]
    heads = ["Model", "Part", "Parameters", "Zeros", "Bits of a weight", "Bytes"]
    return _table(heads, rows, text_columns=(1,))


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
                _cell(words.step_name(training), head=True),
                _cell(words.listed(training["models"]), kind="names text"),
                _cell(words.significant(first), exact=first),
                _cell(words.significant(last), exact=last),
                _cell(words.NOTHING if kept is None else str(kept), exact=kept),
                _cell(words.metric_heading(name) if name else words.NOTHING, kind="text"),
                _cell(words.metric_text(name or "", score), exact=score),
            ]
        )
    heads = ["Step", "In the lineage of", "First loss", "Last loss", "Kept at", "Score", "Kept"]
    return _table(heads, rows, text_columns=(1, 5))


def _share(value: float | None) -> str:
    return words.NOTHING if value is None else f"{100 * value:.1f} %"


def _cell(
    text: str,
    *,
    exact: float | None = None,
    head: bool = False,
    kind: str = "",
    tag: str = "",
    title: str = "",
) -> str:
    """A table cell; `exact` is the number behind the text, `tag` is HTML that stands after it."""
    name = "th" if head else "td"
    attributes = ' scope="row"' if head else ""
    attributes += f' class="{kind}"' if kind else ""
    attributes += f' data-value="{exact!r}"' if exact is not None else ""
    shown = title or (repr(exact) if isinstance(exact, float) else "")
    attributes += f' title="{escape(shown)}"' if shown else ""
    return f"<{name}{attributes}>{escape(text)}{tag}</{name}>"


def _table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    beaten: Sequence[bool] = (),
    text_columns: Sequence[int] = (),
) -> str:
    head = "".join(
        f'<th scope="col"{" class=text" if index in text_columns else ""}>{escape(name)}</th>'
        for index, name in enumerate(heads)
    )
    body = "".join(
        f"<tr{' class=beaten' if index < len(beaten) and beaten[index] else ''}>{''.join(row)}</tr>"
        for index, row in enumerate(rows)
    )
    return (
        f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
