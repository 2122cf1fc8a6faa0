"""What lies beside an exported graph so that a person can use it at once: a script and a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.checkpoint.sentences import Pooling, read_pooling
from compressor.checkpoint.shards import SCRIPT
from compressor.data.tasks import TASKS, has_classes
from compressor.measure.words import lost_text

if TYPE_CHECKING:
    from compressor.model.load import Loaded

CARD = "README.md"
FEATURES = "feature extraction"
_IN_A_CELL = str.maketrans({"|": "/", "`": "'", "\n": " "})


def write_script(loaded: Loaded, folder: Path, longest: int) -> None:
    """Write `infer.py`, which answers texts with the folder's graph.

    There is none for pictures, for heads of other tasks, and where a checkpoint says that its
    vectors are pooled in a way that is not known here.

    Args:
        loaded: the model that was exported.
        folder: with the graph and `tokenizer.json`.
        longest: the most tokens that it takes.
    """
    if loaded.tokenizer is None or not (folder / "tokenizer.json").exists():
        return
    task, pooling = purpose(loaded), Pooling()
    if task == FEATURES:
        pooling = read_pooling(loaded.checkpoint.path)
    if pooling is None or task not in (FEATURES, *TASKS):
        return
    longest = min(longest, pooling.longest or longest)
    padding = loaded.tokenizer.pad_token or ""
    # As Python writes them: a token may hold quotes, or be meant to run as code.
    values = repr((task, longest, padding, pooling.mode, pooling.normalized))[1:-1]
    text = files("compressor.export").joinpath("infer.py.txt").read_text(encoding="utf-8")
    (folder / SCRIPT).write_text(text.replace("@VALUES@", values), encoding="utf-8")


def purpose(loaded: Loaded) -> str:
    """A key of `TASKS`, `FEATURES` for an encoder without a head, or the name of another model."""
    name = type(loaded.model).__name__
    bare = "For" not in name and not loaded.model.config.is_encoder_decoder
    return loaded.task or (FEATURES if bare else name)


def write_card(
    folder: Path,
    loaded: Loaded,
    steps: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    tuning: Mapping[str, Any] | None = None,
) -> None:
    """Write `README.md`: what the graph is, its exact numbers, and how it was made.

    Args:
        folder: with the graph.
        loaded: the model that was exported.
        steps: its lineage, the export last.
        facts: what the export found.
        tuning: what `tuned_folder` says about its choice.
    """
    config, task = loaded.model.config, purpose(loaded)
    labels = ", ".join(config.id2label.values()) if has_classes(loaded.task) else ""
    serves = f" for {task}" if task in (FEATURES, *TASKS) else f", {task},"
    kinds = sorted(facts["weight_types"]) if "weight_types" in facts else [facts["number_format"]]
    lines = [
        f"# {loaded.checkpoint.name}",
        "",
        f"A {config.model_type} model{serves}{f' ({labels})' if labels else ''} as an ONNX "
        f"graph with weights in {', '.join(kinds)}.",
        "",
    ]
    if (folder / SCRIPT).exists():
        lines += ["```bash", "pip install onnxruntime tokenizers", f'python {SCRIPT} "a text"']
        lines += ["```", ""]
    lines += ["| | |", "| --- | --- |", *numbers(facts), "", *(choice(tuning) if tuning else ())]
    lines += ["Made by:", ""]
    lines += ["| step | command | validation |", "| --- | --- | --- |"]
    for number, step in enumerate(steps, start=1):
        command = str(step.get("command", "unknown")).translate(_IN_A_CELL)
        lines.append(f"| {number} | `{command}` | {scores(step.get('metrics'))} |")
    lines += [
        "",
        "Scores are those of the rows that each step was judged on, perhaps by choosing the best "
        "epoch there. `compression.json` has all options, versions and hashes. Licences are those "
        "of the first model and of the data.",
        "",
    ]
    (folder / CARD).write_text("\n".join(lines), encoding="utf-8")


def numbers(facts: Mapping[str, Any]) -> list[str]:
    """Rows of a table about the graph."""
    parity = facts["parity"]
    rows = [
        ("graph", f"{console.size(facts['bytes'])}, opset {facts['opset']}"),
        ("as floats", console.size(facts["float_bytes"])),
        (
            "difference to PyTorch",
            f"{parity['error']:.2e} of the largest output, {parity['agreement']:.1%} of the "
            f"answers the same on random inputs (allowed: {parity['tolerance']:.2e})",
        ),
    ]
    if "quantized" in facts:
        kinds = ", ".join(f"{count} {kind}" for kind, count in facts["weight_types"].items())
        rows.append(("matrices", f"{kinds}; {facts['float']} float"))
        rows.append(("embedding tables in int8", str(facts["embeddings"])))
    if facts.get("cpu_preset"):
        rows.append(("made for", facts["cpu_preset"]))
    if "judged" in facts:
        judged = facts["judged"]
        metric, own = judged["metric"], facts[judged["metric"]]
        rows.append(
            (
                "lost by the export",
                f"{lost_text(metric, judged['lost'])} ({own:.4f}, in PyTorch "
                f"{judged['checkpoint']:.4f}), allowed: {judged['max_drop']:g}",
            )
        )
    return [f"| {name} | {value} |" for name, value in rows]


def choice(tuning: Mapping[str, Any]) -> list[str]:
    """The graphs that `--tune` had to choose from, and why one was kept."""
    metric = tuning.get("metric")
    batch, length = tuning["shape"]
    scored = f" In PyTorch {metric} is {tuning['checkpoint']:.4f}." if metric else ""
    lines = [
        f"Chosen by speed at {batch} x {length}, threads: {tuning['threads']}, on the machine that "
        f"the graph was made on: {tuning['why']}.{scored}",
        "",
        f"| graph | ms | difference to PyTorch |{f' {metric} |' if metric else ''} |",
        f"| --- | --- | --- |{' --- |' if metric else ''} --- |",
    ]
    for row in tuning["candidates"]:
        if "problem" in row:
            cells = ["", "", *([""] if metric else []), row["problem"].translate(_IN_A_CELL)]
        else:
            cells = [f"{row['p50_ms']:.3f}", f"{row['parity']['error']:.2e}"]
            cells += [f"{row[metric]:.4f}" if metric in row else "undefined"] if metric else []
            cells.append(verdict(row, tuning))
        lines.append(f"| {' | '.join([row['name'], *cells])} |")
    return [*lines, ""]


def verdict(row: Mapping[str, Any], tuning: Mapping[str, Any]) -> str:
    """What became of a graph."""
    if row["name"] == tuning["kept"]:
        return "kept"
    if "metric" in tuning and (row["lost"] is None or row["lost"] > tuning["max_drop"]):
        return "loses too much"
    return "slower"


def scores(metrics: Any) -> str:
    """The metrics of a step that are scores; another tool may have put anything there."""
    known = ("accuracy", "f1_macro", "matthews", "pearson", "spearman", "perplexity")
    found = metrics if isinstance(metrics, dict) else {}
    kept = {name: found[name] for name in known if isinstance(found.get(name), float)}
    return ", ".join(f"{name} {value:.4f}" for name, value in kept.items())
