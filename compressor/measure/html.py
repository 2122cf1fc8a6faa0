"""`report.html`: one page that a person can open from disk, mail or print.

Nothing is fetched: styles, script and pictures are inside, and a content policy forbids the rest.
Cells show rounded numbers and carry the exact one; the whole report is in the page as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from compressor import console
from compressor.measure import plots, words
from compressor.measure.curves import training_plots
from compressor.measure.heat_map import heat_maps
from compressor.measure.html_landscape import landscape_section
from compressor.measure.html_scaling import scaling_section
from compressor.measure.html_tables import (
    gates_table,
    latency_table,
    layers_table,
    metrics_table,
    models_table,
    paired_table,
    sizes_table,
    starts_table,
    trainings_table,
)
from compressor.measure.page import command_box, facts_list, figure, findings_list, page
from compressor.measure.report import first_shape, model_named, p50_at
from compressor.measure.schema import validate_report
from compressor.measure.summary import best_candidate

Model = Mapping[str, Any]


def render_html(report: Mapping[str, Any]) -> str:
    """The page for a report of schema 1; the same report gives the same text.

    Raises:
        InputError: the report does not have the shape of schema 1.
    """
    validate_report(report)
    parts = [
        _top(report),
        findings_list(report["findings"]),
        _cards(report),
        gates_table(report),
        models_table(report),
        paired_table(report),
        _pictures(report),
        sizes_table(report),
        metrics_table(report),
        _latencies(report),
        scaling_section(report),
        landscape_section(report),
        _layers(report),
        _trainings(report),
        _lineage(report),
        _reading(report),
        _machine(report),
    ]
    return page(f"Compression report: {report['baseline']}", parts, "report", report)


def _top(report: Mapping[str, Any]) -> str:
    task = report["task"] or {}
    about = [f"baseline {report['baseline']}"]
    if task:
        data = f" on {task['data']}" if task.get("data") else ""
        split = f" ({task['split']})" if task.get("split") else ""
        about.insert(0, f"{task['name']}{data}{split}")
    rows = next((m["accuracy"]["n"] for m in report["models"] if m["accuracy"]), None)
    if rows is not None:
        about.append(f"{rows:,} rows")
    about.append(words.place(report["machine"]))
    return (
        f'<h1>Compression report</h1><p class="about">{escape(" · ".join(about))}</p>'
        f'<p class="summary">{escape(report["summary"])}</p>'
    )


def _cards(report: Mapping[str, Any]) -> str:
    """Three or four large numbers about the best candidate."""
    best = best_candidate(report)
    if best is None:
        return ""
    reference = model_named(report["models"], report["baseline"])
    shape, cards = first_shape([reference]), []
    if best["compression_ratio"]["disk"] is not None:
        change = " → ".join(console.size(m["size"]["disk"]) for m in (reference, best))
        ratio = best["compression_ratio"]["disk"]
        cards.append((*words.gain(ratio, "smaller on disk", "larger on disk"), change))
    if best["speedup"] is not None and shape:
        spans = [words.significant(p50_at(m, shape)) for m in (reference, best)]
        change = f"{' → '.join(spans)} ms at batch {shape[0]}, length {shape[1]}"
        shapes = words.shapes_timed([best])
        over = f", mean of {shapes} shapes" if shapes > 1 else ""
        cards.append((*words.gain(best["speedup"], f"faster{over}", f"slower{over}"), change))
    if best["drop"] is not None:
        metric = best["accuracy"]["metric"]
        unit = "" if report["drop_unit"] == words.POINTS else " %"
        values = [words.metric_text(metric, m["accuracy"]["value"]) for m in (reference, best)]
        kind = "points" if not unit else "more"
        title = f"{kind} of {words.metric_name(metric)}" if not unit else words.metric_name(metric)
        # A drop is positive when something was lost; a card shows the change.
        shown = -best["drop"] if not unit else best["drop"]
        text = f"{shown:+.1f}" if round(shown, 1) else "0.0"
        cards.append((f"{text}{unit}".replace("-", "\u2212"), title, " → ".join(values)))
    if best["compression_to_accuracy"] is not None:
        value = words.times_text(best["compression_to_accuracy"])
        cards.append((value, "compression to accuracy", "disk ratio x retention"))
    boxes = "".join(
        f'<div class="card"><b>{escape(number)}</b><span>{escape(title)}</span>'
        f"<small>{escape(detail)}</small></div>"
        for number, title, detail in cards
    )
    return f'<p class="of">{escape(best["name"])}</p><div class="cards">{boxes}</div>'


def _pictures(report: Mapping[str, Any]) -> str:
    drawn = [plots.pareto_plot(report, across) for across in ("latency", "disk")]
    figures = "".join(figure(*each) for each in drawn if each)
    if not figures:
        return ""
    note = (
        "The dashed line joins the models that no other beats in the two quantities shown. "
        "Grey points are beaten when all measured quantities count."
    )
    if any(model["accuracy"] for model in report["models"]):
        note += " Vertical bars are 95 % intervals."
    return f'<h2>Trade-offs</h2><p class="note">{note}</p>{_side_by_side(figures)}'


def _side_by_side(figures: str) -> str:
    return f'<div class="plots">{figures}</div>'


def _latencies(report: Mapping[str, Any]) -> str:
    chart = plots.latency_plot(report)
    if chart is None:
        return ""
    spoken = [
        f"{words.significant(m['tokenise_ms'])} ms for {m['name']}"
        for m in report["models"]
        if m.get("tokenise_ms") is not None
    ]
    note = "Every model had a process of its own, and all were timed in turns in one run."
    task = report["task"] or {}
    each_row = task.get("tokenise_ms_per_row")
    if each_row is not None:
        spoken = [f"{words.significant(each_row)} ms a row"]
    elif spoken:
        spoken[-1] += " at the first shape"
    if spoken:
        images = task.get("name") == "image-classification"
        done = "Decoding of images" if images else "Tokenisation"
        note += f" {done} is not included: {words.listed(spoken)}."
    return (
        f'<h2>Latency</h2><p class="note">{escape(note)}</p>{figure(*chart, kind="bars")}'
        f"<details><summary>Every number</summary>{latency_table(report)}</details>"
        f"{starts_table(report)}"
    )


def _layers(report: Mapping[str, Any]) -> str:
    figures = "".join(figure(*each) for each in heat_maps(report))
    if not figures:
        return ""
    note = (
        "The stronger a cell's colour, the more of it is zero, or the fewer bits a weight takes. "
        "Outside the layers are embeddings and heads."
    )
    return (
        f'<h2>Layers</h2><p class="note">{note}</p>{_side_by_side(figures)}'
        f"<details><summary>Every number</summary>{layers_table(report)}</details>"
    )


def _trainings(report: Mapping[str, Any]) -> str:
    figures = "".join(figure(*each) for each in training_plots(report))
    if not figures:
        return ""
    note = (
        "By optimizer step, as the folders of the lineage keep it. A ring marks the weights that "
        "were kept."
    )
    return (
        f'<h2>Training</h2><p class="note">{note}</p>{_side_by_side(figures)}'
        f"<details><summary>Every run</summary>{trainings_table(report)}</details>"
    )


def _lineage(report: Mapping[str, Any]) -> str:
    parts = []
    for model in report["models"]:
        steps = model.get("steps") or []
        if not steps:
            continue
        chain = " → ".join(words.step_name(step) for step in steps)
        items = "".join(
            f"<li>{escape(words.step_name(step))}{command_box(step.get('command') or '')}</li>"
            for step in steps
        )
        parts.append(
            f'<details><summary><b>{escape(model["name"])}</b><span class="chain">'
            f'{escape(chain)}</span></summary><ol class="steps">{items}</ol></details>'
        )
    if not parts:
        return ""
    note = "The steps that made each model, with the commands to make it again."
    return f'<h2>Lineage</h2><p class="note">{note}</p>{"".join(parts)}'


def _reading(report: Mapping[str, Any]) -> str:
    facts = {
        "Smaller": "bytes of the baseline / bytes of the model, all files needed for inference",
        "Faster": "geometric mean over the shapes and starts of baseline median / model median; "
        "its 95 % interval says what other starts of the same models may give",
        "Retention": "metric / baseline metric (turned over where lower is better)",
        "Drop": f"what the metric lost against the baseline, in {report['drop_unit']}",
        "Compression to accuracy": "disk ratio x retention",
    }
    if not report["drop_unit"]:
        for name in ("Retention", "Drop", "Compression to accuracy"):
            del facts[name]
    return f"<h2>What the numbers mean</h2>{facts_list(facts)}"


def _machine(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    load = machine.get("load_average") or {}
    spoken = [f"{load[when][0]:.2f} {when}" for when in ("before", "after") if load.get(when)]
    memory, gpu = machine.get("memory_bytes"), machine.get("gpu")
    facts = {
        "Processor": machine["cpu"],
        "Cores": f"{machine['cores']}, {machine['threads']} threads used",
        "Held to cores": ", ".join(map(str, machine.get("pinned_cores") or [])),
        "Governor": machine.get("governor") or "",
        "Instructions": ", ".join(machine.get("features") or []),
        "Memory": console.size(memory) if memory else "",
        "GPU": f"{gpu['name']}, {console.size(gpu['memory_bytes'])}" if gpu else "",
        "Load average": ", ".join(spoken),
        "System": " ".join(str(machine[k]) for k in ("os", "architecture") if machine.get(k)),
        "Python": machine.get("python", ""),
        "Libraries": ", ".join(f"{k} {v}" for k, v in (machine.get("versions") or {}).items()),
        "Seed": str(report["seed"]),
    }
    again = command_box(report["command"])
    return f"<h2>Machine</h2>{facts_list(facts)}<h3>Make this report again</h3>{again}"
