"""What lies beside an exported graph so that a person can use it at once: a script and a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.checkpoint.shards import SCRIPT

if TYPE_CHECKING:
    from compressor.model.load import Loaded

CARD = "README.md"
FEATURES = "features"


def write_script(loaded: Loaded, folder: Path, longest: int) -> None:
    """Write `infer.py`, which answers texts with the folder's graph; not for images.

    Args:
        loaded: the model that was exported.
        folder: with the graph and `tokenizer.json`.
        longest: the most tokens that it takes.
    """
    if loaded.tokenizer is None or not (folder / "tokenizer.json").exists():
        return
    text = files("compressor.export").joinpath("infer.py.txt").read_text(encoding="utf-8")
    for mark, value in (
        ("@TASK@", loaded.task or FEATURES),
        ("@LONGEST@", str(longest)),
        ("@PAD@", loaded.tokenizer.pad_token),
    ):
        text = text.replace(mark, value)
    (folder / SCRIPT).write_text(text, encoding="utf-8")


def write_card(
    folder: Path, loaded: Loaded, steps: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> None:
    """Write `README.md`: what the graph is, its exact numbers, and how it was made.

    Args:
        folder: with the graph.
        loaded: the model that was exported.
        steps: its lineage, the export last.
        facts: what the export found.
    """
    config, task = loaded.model.config, loaded.task or "feature extraction"
    int8 = "parity" in facts and "quantized" in facts
    labels = ", ".join(config.id2label.values()) if loaded.task == "text-classification" else ""
    lines = [
        f"# {folder_name(steps, loaded)}",
        "",
        f"A {config.model_type} model for {task}{f' ({labels})' if labels else ''} as an "
        f"{'int8' if int8 else 'float'} ONNX graph.",
        "",
    ]
    if (folder / SCRIPT).exists():
        lines += ["```bash", "pip install onnxruntime tokenizers", f'python {SCRIPT} "a text"']
        lines += ["```", ""]
    lines += ["| | |", "| --- | --- |", *numbers(facts), "", "Made by:", ""]
    lines += ["| step | command | validation |", "| --- | --- | --- |"]
    for number, step in enumerate(steps, start=1):
        lines.append(f"| {number} | `{step['command']}` | {scores(step.get('metrics', {}))} |")
    lines += [
        "",
        "Scores are those of the rows that each step was judged on, perhaps by choosing the best "
        "epoch there. `compression.json` has all options, versions and hashes. Licences are those "
        "of the first model and of the data.",
        "",
    ]
    (folder / CARD).write_text("\n".join(lines), encoding="utf-8")


def folder_name(steps: Sequence[Mapping[str, Any]], loaded: Loaded) -> str:
    """What to call the model: the checkpoint that was exported."""
    return steps[-1].get("inputs", {}).get("model", {}).get("name") or loaded.checkpoint.name


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
        rows.append(("made for", facts["cpu_preset"]))
    return [f"| {name} | {value} |" for name, value in rows]


def scores(metrics: Mapping[str, Any]) -> str:
    """The metrics of a step that are scores."""
    known = ("accuracy", "f1_macro", "matthews", "pearson", "spearman", "perplexity")
    return ", ".join(f"{name} {metrics[name]:.4f}" for name in known if name in metrics)
