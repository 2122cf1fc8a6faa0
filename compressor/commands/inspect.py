"""`inspect`: what a checkpoint is made of, read from its bytes without loading it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor import console
from compressor.commands.options import MODEL_HELP

if TYPE_CHECKING:
    from compressor.checkpoint.facts import TensorFacts
    from compressor.checkpoint.folder import Checkpoint


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    *,
    tensors: Annotated[bool, typer.Option("--tensors", help="list every tensor")] = False,
    accept_changed: Annotated[
        bool, typer.Option("--accept-changed", help="open it though files changed")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show what a checkpoint is made of: family, shapes, zeros, bits, size, lineage.

    compressor inspect student-prune
    """
    from compressor.checkpoint.facts import sizes, tensor_facts
    from compressor.checkpoint.folder import open_checkpoint
    from compressor.checkpoint.layers import layer_rows, sparsity
    from compressor.checkpoint.source import resolve_model
    from compressor.commands.job import path_from_stdin

    path = resolve_model(path_from_stdin() if model == "-" else model)
    checkpoint = open_checkpoint(path, accept_changed=accept_changed)
    facts = tensor_facts(checkpoint)
    size = sizes(checkpoint, facts)
    found = {
        **_header(checkpoint),
        "size": size,
        "matrices": matrix_ratios(facts, size),
        "layers": _with_widths(layer_rows(facts), checkpoint),
        "lineage": checkpoint.steps,
    }
    if tensors:
        found["tensors"] = [
            {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "bits": tensor.bits,
                "sparsity": sparsity(tensor.nonzero, tensor.numel),
            }
            for tensor in facts
        ]
    if json:
        console.result_json(found)
    else:
        _show(found)


def _header(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "name": checkpoint.name,
        "family": checkpoint.model_type,
        "architecture": checkpoint.architecture,
        "runtime": checkpoint.runtime,
        "shape": _shape(checkpoint),
        "labels": list(checkpoint.labels or ()),
        "weights_hash": checkpoint.weights_hash,
    }


def _shape(checkpoint: Checkpoint) -> dict[str, int]:
    """Depth and widths by the config, under one name for all families."""
    from compressor.checkpoint.families import FAMILIES, Family

    family, config = FAMILIES.get(checkpoint.family, Family()), checkpoint.config
    widths = ("intermediate_size", "hidden_dim", "n_inner", "d_ff", "encoder_ffn_dim")
    keys = {
        "layers": (family.layers,),
        "hidden": (family.hidden,),
        "heads": (family.heads,),
        "ffn": widths,
        "vocabulary": ("vocab_size",),
    }
    found = {
        name: next((config[k] for k in ks if config.get(k)), None) for name, ks in keys.items()
    }
    return {name: value for name, value in found.items() if value is not None}


def matrix_ratios(facts: list[TensorFacts], size: dict[str, int]) -> dict[str, float]:
    """How many times smaller than dense 32-bit floats the matrices inside the layers are.

    Args:
        facts: every parameter.
        size: of `compressor.checkpoint.facts.sizes`.

    Returns:
        As stored, and for the non-zeros alone: without their positions, with a bit for each entry,
        with 16 bits for each non-zero. Empty for a model without such matrices.
    """
    dense = 4 * sum(fact.numel for fact in facts if fact.in_encoder and len(fact.shape) == 2)
    ways = {
        "as stored": "matrices",
        "non-zeros, positions not counted": "matrices_nonzero",
        "non-zeros and a bit mask": "matrices_bitmask",
        "non-zeros and 16-bit positions": "matrices_index",
    }
    return {name: round(dense / size[way], 4) for name, way in ways.items() if size[way]}


def _with_widths(rows: list[dict[str, Any]], checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Add the heads and neurons of each layer where layers differ in them."""
    from compressor.checkpoint.pruned import widths_in

    if checkpoint.model_type == checkpoint.family:
        return rows
    widths = widths_in(checkpoint.config, checkpoint.path / "config.json")
    pairs = enumerate(zip(widths.heads, widths.ffn, strict=True))
    own = {f"layer {index}": {"heads": heads, "ffn": ffn} for index, (heads, ffn) in pairs}
    return [{**row, **own.get(row["part"], {})} for row in rows]


def _show(found: dict[str, Any]) -> None:
    size = found["size"]
    console.result(f"{found['name']}: {found['architecture'] or ''} ({found['family']})")
    console.result("  ".join(f"{name} {value:,}" for name, value in found["shape"].items()))
    if found["labels"]:
        console.result(f"labels: {', '.join(found['labels'])}")
    console.result(
        f"parameters {size['parameters']:,}  disk {console.size(size['disk'])}  "
        f"weights {console.size(size['weights'])}  nonzero {console.size(size['nonzero'])}"
    )
    widths = [name for name in ("heads", "ffn") if any(name in row for row in found["layers"])]
    console.table(
        "",
        ("part", *widths, "parameters", "zeros", "bits", "bytes"),
        [
            (
                row["part"],
                *(str(row.get(name, "")) for name in widths),
                f"{row['parameters']:,}",
                f"{100 * row['sparsity']:.1f} %",
                "/".join(map(str, row["bits"])),
                console.size(row["bytes"]),
            )
            for row in found["layers"]
        ],
    )
    if found["matrices"]:
        console.result("matrices inside the layers, against dense 32-bit floats:")
        ratios = (f"{name} {ratio:.1f}x" for name, ratio in found["matrices"].items())
        console.result("  " + "  ".join(ratios))
    for tensor in found.get("tensors", ()):
        shape = " x ".join(map(str, tensor["shape"]))
        console.result(
            f"{tensor['name']}  {shape}  {tensor['bits']} bit  {100 * tensor['sparsity']:.1f} %"
        )
    if found["lineage"]:
        console.result("lineage, oldest first:")
    for step in found["lineage"]:
        console.result(f"  {step['command']}")
        metrics = {k: v for k, v in (step.get("metrics") or {}).items() if isinstance(v, float)}
        if metrics:
            console.result("      " + "  ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
