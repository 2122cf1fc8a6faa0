"""A model in memory -> a folder with model.onnx that has been checked against it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import onnx_ir as ir
import torch

from compressor.export.editing import save, strip
from compressor.export.graph import DEFAULT_OPSET, export_graph
from compressor.export.integers import quantize_graph
from compressor.export.parity import check_generation, check_parity, random_inputs
from compressor.export.session import GRAPH, POSITIONS
from compressor.export.simulate import simulated_int8

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from compressor.export.cpu import Preset
    from compressor.model.integers import QuantizedLinear

NumberFormat = Literal["int8", "fp16", "fp32"]
HALF_TOLERANCE = 1e-2  # of the largest output; 11 bits of precision, over some layers


def export_folder(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    example: Mapping[str, torch.Tensor],
    folder: Path,
    *,
    number_format: NumberFormat = "int8",
    weights: Mapping[str, QuantizedLinear] | None = None,
    round_inputs: bool = True,
    quantize_embeddings: bool = True,
    preset: Preset | None = None,
    opset: int | None = None,
    plain_sums: bool = True,
    cache: bool = False,
    tolerance: float | None = None,
) -> dict[str, Any]:
    """Write model.onnx, config and tokenizer into `folder`, and check the graph against `model`.

    Args:
        model: fp32, in evaluation mode, loaded with eager attention.
        tokenizer: saved beside the graph; None for models of images.
        example: one batch as the tokenizer makes it; entries that the model does not take are
            left out.
        folder: exists; a graph past 2 GB puts its weights into model.onnx.data.
        number_format: "int8" has integer products and embedding tables; "fp16" is for GPUs.
        weights: the checkpoint's own integers by module name; other layers stay float. None
            rounds every matrix here.
        round_inputs: without `weights`, see `quantize_graph`.
        quantize_embeddings: int8 embedding tables as well.
        preset: the processor that an int8 graph is made for; None for this machine.
        opset: ONNX operator set; None for the newest.
        plain_sums: see `fuse`.
        cache: a decoder that writes: give its graph keys and values to go on from.
        tolerance: largest parity error of the written graph, as a share of the largest output;
            None for the defaults of `check_parity`.

    Returns:
        opset, nodes, bytes, parity ...; with int8 also what `quantize_graph` returns.

    Raises:
        InputError: the model cannot be exported, or nothing in it can be int8.
        GateError: the graph computes something else.
    """
    whole = number_format == "fp32"
    if cache:
        example = {**example, POSITIONS: example["input_ids"]}
    make_inputs = random_inputs(model, example)
    with TemporaryDirectory(dir=folder, prefix=".float-") as name:
        scratch = Path(name)
        facts: dict[str, Any] = {"opset": opset or DEFAULT_OPSET, "number_format": number_format}
        facts |= export_graph(
            model, example, scratch / GRAPH, opset=opset, plain_sums=plain_sums, cache=cache
        )
        limit = tolerance if whole else None
        float_parity = check_parity(model, scratch, make_inputs, tolerance=limit, final=whole)
        if cache:
            facts["generation_parity"] = check_generation(model, scratch, make_inputs)
        facts["float_bytes"] = _bytes(scratch)
        if number_format == "int8":
            how = {"round_inputs": round_inputs, "quantize_embeddings": quantize_embeddings}
            how["preset"] = preset
            facts |= quantize_graph(scratch / GRAPH, folder / GRAPH, weights, **how)
        elif number_format == "fp16":
            halve(scratch / GRAPH, folder / GRAPH)
        else:
            for file in scratch.iterdir():
                os.replace(file, folder / file.name)
    facts["bytes"] = _bytes(folder)
    facts["nodes"] = dict(sorted(Counter(_kinds(folder / GRAPH)).items()))
    facts["float_parity"] = facts["parity"] = float_parity
    if not whole:
        limit, simulation = tolerance or HALF_TOLERANCE, None
        if number_format == "int8":
            simulation = simulated_int8(
                model, weights, round_inputs=round_inputs, embeddings=quantize_embeddings
            )
            limit = tolerance
        facts["parity"] = check_parity(
            model, folder, make_inputs, tolerance=limit, simulation=simulation
        )
    model.config.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return facts


def halve(path_in: Path, path_out: Path) -> None:
    """Write a float graph with 16-bit weights and activations; inputs and outputs stay as they are.

    Args:
        path_in: a float graph.
        path_out: the file to write.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    # Shapes are inferred by serialising the graph, which ends at 2 GB.
    graph = convert_float_to_float16(
        onnx.load(path_in), keep_io_types=True, disable_shape_infer=True
    )
    model = ir.from_proto(graph)
    strip(model)
    save(model, path_out)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob(f"{GRAPH}*"))


def _kinds(path: Path) -> list[str]:
    return [node.op_type for node in ir.load(path).graph.all_nodes()]
