"""`export`: an ONNX folder that ONNX Runtime runs fast, int8 by default, parity checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from compressor.commands.job import Job, open_model
from compressor.commands.options import MODEL_HELP, Shared, as_record
from compressor.errors import InputError
from compressor.methods.contract import option


@dataclass(frozen=True)
class ExportOptions:
    """What the graph computes with, and how close it must stay."""

    weights: str = option(
        "int8",
        "number format of the matrices; an int8 checkpoint keeps its own integers",
        choices=("int8", "fp32"),
    )
    embeddings: str = option(
        "int8", "number format of the embedding tables", choices=("int8", "fp32")
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
    if checkpoint.quantization is not None and export.weights == "fp32":
        raise InputError(
            f"{checkpoint.name} holds int8 weights, so --weights fp32 would gain nothing",
            hint="export its parent in the lineage as fp32",
        )
    record = {"method": "onnx", **as_record(export)}
    job = Job("export", words, shared, {"model": checkpoint}, record)
    if not job.begin(needed_bytes=2 * checkpoint.disk_bytes):
        return
    with job.at_work():
        _export(job, checkpoint, export)
