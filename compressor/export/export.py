"""A model in memory -> a folder with model.onnx that has been checked against it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import onnx_ir as ir
import torch

from compressor.export.editing import save, strip
from compressor.export.graph import DEFAULT_OPSET, export_graph
from compressor.export.integers import quantize_graph
from compressor.export.parity import Inputs, check_generation, check_parity, random_inputs
from compressor.export.session import GRAPH, POSITIONS
from compressor.export.simulate import simulated_int8

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from compressor.export.cpu import Preset
    from compressor.model.integers import QuantizedLinear

NumberFormat = Literal["int8", "fp16", "fp32"]
HALF_TOLERANCE = 1e-2  # of the largest output; 11 bits of precision, over some layers


@dataclass(frozen=True)
class Exporter:
    """One model on its way into a folder, or into several that differ in how they compute.

    Attributes:
        model: fp32, in evaluation mode, loaded with eager attention.
        tokenizer: saved beside the graph; None for models of images.
        example: one batch as the tokenizer makes it; entries that the model does not take are
            left out.
        weights: the checkpoint's own integers by module name; other layers stay float. None
            rounds every matrix here.
        quantize_embeddings: int8 embedding tables as well.
        preset: the processor that an int8 graph is made for; None for this machine.
        cache: a decoder that writes: give its graph keys and values to go on from.
        tolerance: largest parity error of the written graph, as a share of the largest output;
            None for the defaults of `check_parity`.
        seed: of the inputs on which graphs are compared with the model.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    example: Mapping[str, torch.Tensor]
    weights: Mapping[str, QuantizedLinear] | None = None
    quantize_embeddings: bool = True
    preset: Preset | None = None
    cache: bool = False
    tolerance: float | None = None
    seed: int = 0

    def trace(
        self,
        folder: Path,
        *,
        opset: int | None = None,
        plain_sums: bool = True,
        tolerance: float | None = None,
        final: bool = False,
    ) -> dict[str, Any]:
        """Write a float model.onnx into `folder`, and check it against the model.

        Args:
            folder: exists; a graph past 2 GB puts its weights into model.onnx.data.
            opset: ONNX operator set; None for the newest.
            plain_sums: see `fuse`.
            tolerance: as `check_parity` takes it.
            final: whether this is the graph that is kept.

        Raises:
            InputError: the model cannot be exported.
            GateError: the graph computes something else.
        """
        model, path = self.model, folder / GRAPH
        facts: dict[str, Any] = {"opset": opset or DEFAULT_OPSET}
        facts |= export_graph(
            model, self._whole, path, opset=opset, plain_sums=plain_sums, cache=self.cache
        )
        found = check_parity(model, folder, self._inputs, tolerance=tolerance, final=final)
        facts["float_parity"] = found
        if self.cache:
            facts["generation_parity"] = check_generation(model, folder, self._inputs)
        return {**facts, "float_bytes": _bytes(folder)}

    def finish(
        self,
        source: Path,
        traced: Mapping[str, Any],
        folder: Path,
        *,
        number_format: NumberFormat = "int8",
        round_inputs: bool = True,
    ) -> dict[str, Any]:
        """Write model.onnx, config and tokenizer into `folder`, and check the graph.

        Args:
            source: where `trace` wrote the float graph; as fp32 its files are moved away.
            traced: what `trace` found.
            folder: exists.
            number_format: "int8" has integer products and embedding tables; "fp16" is for GPUs.
            round_inputs: without own integers, see `quantize_graph`.

        Returns:
            opset, nodes, bytes, parity ...; with int8 also what `quantize_graph` returns.

        Raises:
            InputError: nothing in the graph can be int8.
            GateError: the graph computes something else.
        """
        facts: dict[str, Any] = {"number_format": number_format, **traced}
        how = {"round_inputs": round_inputs}
        if number_format == "int8":
            how["quantize_embeddings"] = self.quantize_embeddings
            paths = source / GRAPH, folder / GRAPH
            facts |= quantize_graph(*paths, self.weights, preset=self.preset, **how)
        elif number_format == "fp16":
            halve(source / GRAPH, folder / GRAPH)
        else:
            for file in source.iterdir():
                os.replace(file, folder / file.name)
        facts["bytes"] = _bytes(folder)
        facts["nodes"] = dict(sorted(Counter(_kinds(folder / GRAPH)).items()))
        facts["parity"] = self._parity(folder, traced, number_format, round_inputs)
        self.model.config.save_pretrained(folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)
        return facts

    def _parity(
        self, folder: Path, traced: Mapping[str, Any], number_format: NumberFormat, inputs: bool
    ) -> dict[str, Any]:
        """How far the written graph is from the model; a float graph's is known already."""
        if number_format == "fp32":
            return traced["float_parity"]
        model, limit, simulation = self.model, self.tolerance, None
        if number_format == "fp16":
            limit = limit or HALF_TOLERANCE
        else:
            simulation = simulated_int8(
                model, self.weights, round_inputs=inputs, embeddings=self.quantize_embeddings
            )
        return check_parity(model, folder, self._inputs, tolerance=limit, simulation=simulation)

    def export(
        self,
        folder: Path,
        *,
        number_format: NumberFormat = "int8",
        round_inputs: bool = True,
        opset: int | None = None,
        plain_sums: bool = True,
    ) -> dict[str, Any]:
        """Write `folder` whole, and check its graph: `trace`, then `finish`.

        Args:
            folder: exists.
            number_format: see `finish`.
            round_inputs: see `finish`.
            opset: see `trace`.
            plain_sums: see `trace`.

        Returns:
            see `finish`.

        Raises:
            InputError: the model cannot be exported, or nothing in it can be int8.
            GateError: the graph computes something else.
        """
        whole = number_format == "fp32"
        form = {"opset": opset, "plain_sums": plain_sums, "final": whole}
        how = {"number_format": number_format, "round_inputs": round_inputs}
        with TemporaryDirectory(dir=folder, prefix=".float-") as name:
            scratch = Path(name)
            limit = self.tolerance if whole else None
            traced = self.trace(scratch, **form, tolerance=limit)
            return self.finish(scratch, traced, folder, **how)

    @property
    def _whole(self) -> Mapping[str, torch.Tensor]:
        positions = {POSITIONS: self.example["input_ids"]} if self.cache else {}
        return {**self.example, **positions}

    def _inputs(self, batch: int, length: int) -> Inputs:
        return random_inputs(self.model, self._whole, seed=self.seed)(batch, length)


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
