"""`export`: an ONNX folder that ONNX Runtime runs fast, int8 by default, parity checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor import console
from compressor.checkpoint.folder import Checkpoint
from compressor.commands.job import Job, open_model
from compressor.commands.options import MODEL_HELP, Shared, as_record, parse_shapes
from compressor.errors import GateError, InputError, UsageError
from compressor.methods.option import option

if TYPE_CHECKING:
    import torch

    from compressor.model.load import Loaded

LARGE_ROUNDING = 0.5


@dataclass(frozen=True)
class ExportOptions:
    """What the graph computes with, and how close it must stay."""

    weights: str = option(
        "int8",
        "number format of the matrices; an int8 checkpoint keeps its own integers",
        choices=("int8", "fp16", "fp32"),
    )
    embeddings: str = option(
        "int8", "number format of the embedding tables", choices=("int8", "fp32")
    )
    cpu: str = option(
        "auto",
        "processor that an int8 graph is made for; auto is this one. x86 is one without VNNI",
        choices=("auto", "x86", "vnni", "arm64"),
    )
    cache: bool = option(
        True, "a decoder that writes: keys and values as inputs and outputs, to go on from"
    )
    tune: str = option(
        "",
        "batch x length, such as 1x32: measure the graphs that may be fastest there on this "
        "machine, and keep the best",
    )
    tolerance: float = option(
        0.0, "largest parity error, relative to the size of the outputs; 0 for the default", low=0.0
    )


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    *,
    export: ExportOptions,
    shared: Shared,
    words: list[str],
) -> None:
    """Make an ONNX folder that ONNX Runtime runs fast, int8 by default.

    The graph is checked against PyTorch as re-read from disk; a failing check exits 4.

    compressor export quantized -o exported
    """
    checkpoint = open_model(model, shared)
    if checkpoint.runtime == "onnxruntime":
        raise InputError(f"{checkpoint.name} is an ONNX folder already", where=str(checkpoint.path))
    if checkpoint.quantization is not None and export.weights != "int8":
        raise InputError(
            f"{checkpoint.name} holds integers, so --weights {export.weights} would gain nothing",
            hint=f"export its parent in the lineage as {export.weights}",
        )
    if export.weights != "int8" and export.cpu != "auto":
        raise UsageError(f"--cpu does nothing with --weights {export.weights}", where="--cpu")
    if export.weights != "int8":
        export = replace(export, embeddings=export.weights)
    if export.tune and checkpoint.reads_images:
        raise UsageError("--tune makes up tokens, and this model takes images", where="--tune")
    shape = one_shape(export.tune) if export.tune else None
    record = {"method": "onnx", **as_record(export)}
    job = Job("export", words, shared, {"model": checkpoint}, record)
    if not job.begin(needed_bytes=2 * checkpoint.disk_bytes):
        return
    with job.at_work():
        _export(job, checkpoint, export, shape)


def _export(
    job: Job, checkpoint: Checkpoint, options: ExportOptions, shape: tuple[int, int] | None
) -> None:
    """Load, export, publish; a graph that computes something else leaves its numbers behind."""
    from compressor.export.card import write_card, write_script
    from compressor.export.export import export_folder
    from compressor.export.tune import tuned_folder
    from compressor.model.dequantized import load_dequantized
    from compressor.model.integers import read_integers
    from compressor.model.load import load_whole, longest_input

    quantized = checkpoint.quantization is not None
    loaded = (load_dequantized if quantized else load_whole)(checkpoint, attention="eager")

    def export(folder: Path, **variant: Any) -> dict[str, Any]:
        return export_folder(
            loaded.model,
            loaded.tokenizer,
            example_inputs(loaded),
            folder,
            number_format=options.weights,
            weights=read_integers(checkpoint) if quantized else None,
            round_inputs=loaded.task != "causal-lm",
            quantize_embeddings=options.embeddings == "int8",
            preset=None if options.cpu == "auto" else options.cpu,
            cache=options.cache and loaded.task == "causal-lm",
            tolerance=options.tolerance or None,
            **variant,
        )

    def write(folder: Path) -> dict[str, Any]:
        found = tuned_folder(folder, *shape, export) if shape else export(folder)
        if loaded.tokenizer is not None:
            write_script(loaded, folder, longest_input(loaded))
        write_card(folder, loaded, [*checkpoint.steps, job.step(found)], found)
        warn_of_rounding(found["parity"].get("rounding_error", 0.0))
        return found

    try:
        job.publish(write)
    except GateError as refusal:
        job.leave_refusal(refusal)
        raise


def warn_of_rounding(error: float) -> None:
    """Say so when int8 alone moves the outputs so far that the graph may be of no use.

    Args:
        error: of PyTorch with the same rounding, as a share of the largest output.
    """
    if error > LARGE_ROUNDING:
        console.warn(
            f"int8 moves the outputs by up to {error:.0%} of the largest on random inputs: score "
            "the graph before it is used (compressor benchmark), or round weights alone "
            "(quantize --method gptq --bits 8)"
        )


def one_shape(text: str) -> tuple[int, int]:
    """The batch and length of `--tune`.

    Raises:
        UsageError: it is something else, or several.
    """
    shapes = parse_shapes(text, "--tune")
    if len(shapes) != 1:
        raise UsageError(f"--tune {text}: expected one batch x length", where="--tune")
    return shapes[0]


def example_inputs(loaded: Loaded) -> dict[str, torch.Tensor]:
    """One batch of every input that the graph is to take."""
    import torch

    from compressor.model.inputs import has_token_types
    from compressor.model.save import probe_inputs

    inputs = probe_inputs(loaded.model)
    if has_token_types(loaded.model.config):
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    return inputs
