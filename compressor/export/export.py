"""A model in memory -> a folder with model.onnx that has been checked against it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from compressor.export.graph import DEFAULT_OPSET, export_graph
from compressor.export.integers import quantize_graph
from compressor.export.parity import check_parity, random_inputs
from compressor.export.session import GRAPH
from compressor.export.simulate import simulated_int8

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from compressor.model.integers import QuantizedLinear


def export_folder(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    example: Mapping[str, torch.Tensor],
    folder: Path,
    *,
    int8: bool = True,
    weights: Mapping[str, QuantizedLinear] | None = None,
    quantize_embeddings: bool = True,
    opset: int | None = None,
    tolerance: float | None = None,
) -> dict[str, Any]:
    """Write model.onnx, config and tokenizer into `folder`, and check the graph against `model`.

    Args:
        model: fp32, in evaluation mode, loaded with eager attention.
        tokenizer: saved beside the graph; None for models of images.
        example: one batch as the tokenizer makes it; entries that the model does not take are
            left out.
        folder: exists; a graph past 2 GB puts its weights into model.onnx.data.
        int8: integer products and embedding tables; False for a float graph.
        weights: the checkpoint's own integers by module name; other layers stay float. None
            rounds every matrix here.
        quantize_embeddings: int8 embedding tables as well.
        opset: ONNX operator set; None for the newest.
        tolerance: largest parity error of the written graph, as a share of the largest output;
            None for the defaults of `check_parity`.

    Returns:
        opset, nodes by operator, bytes, parity; with int8 also what `quantize_graph` returns.

    Raises:
        InputError: the model cannot be exported, or nothing in it can be int8.
        GateError: the graph computes something else.
    """
    make_inputs = random_inputs(model, example)
    with TemporaryDirectory(dir=folder, prefix=".float-") as name:
        scratch = Path(name)
        facts: dict[str, Any] = {"opset": opset or DEFAULT_OPSET}
        facts |= export_graph(model, example, scratch / GRAPH, opset=opset)
        float_tolerance = None if int8 else tolerance
        float_parity = check_parity(model, scratch, make_inputs, tolerance=float_tolerance)
        facts["float_bytes"] = _bytes(scratch)
        if int8:
            facts |= quantize_graph(
                scratch / GRAPH,
                folder / GRAPH,
                weights,
                quantize_embeddings=quantize_embeddings,
            )
        else:
            for file in scratch.iterdir():
                os.replace(file, folder / file.name)
    facts["bytes"] = _bytes(folder)
    facts["nodes"] = dict(sorted(Counter(_kinds(folder / GRAPH)).items()))
    facts["float_parity"] = float_parity
    if int8:
        simulation = simulated_int8(model, weights, embeddings=quantize_embeddings)
        facts["parity"] = check_parity(
            model, folder, make_inputs, tolerance=tolerance, simulation=simulation
        )
    else:
        facts["parity"] = float_parity
    model.config.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return facts


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob(f"{GRAPH}*"))


def _kinds(path: Path) -> list[str]:
    return [node.op_type for node in ir.load(path).graph.all_nodes()]
