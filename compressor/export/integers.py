"""Float graph -> int8 graph: integer matrix products and integer embedding tables.

Every product with a constant matrix becomes

    DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul(input scale * weight scale) -> bias

which ONNX Runtime fuses at load into one node; inputs of one tensor (query, key, value) share
the rounding. With a fixed input scale (static) it becomes QuantizeLinear / DequantizeLinear
pairs, fused in the same way. Where weights alone are integers it becomes MatMulNBits. Products of
two activations (the attention scores) stay float.

Decoders have a few inputs a hundred times larger than all others, and one scale for a whole tensor
leaves the others nothing: SmolLM2-135M's perplexity goes from 42.6 to 75.5 so, and to 43.2 with
weights alone in int8 (6 paragraphs of WikiText-2), at the same speed per token.

A checkpoint's own integers are found by content: the float graph holds exactly values * scale,
so the names that an exporter gives do not matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from compressor.errors import InputError
from compressor.export.blocks import INT8_INPUTS, pack_blocks
from compressor.export.cpu import Preset, cpu_preset, weight_type
from compressor.export.editing import (
    add_initializer,
    constant,
    insert_node,
    remove_unused,
    save,
    strip,
    take_over,
)
from compressor.export.embeddings import quantize_tables
from compressor.export.rounding import (
    MIDDLE,
    content_key,
    names_by_content,
    quantize_product,
    quantize_rows,
)
from compressor.model.integers import Activation, Grid, QuantizedLinear

CONTRIB = "com.microsoft"  # ONNX Runtime's own nodes


@dataclass
class Product:
    """One MatMul or Gemm of an activation with a constant matrix.

    Attributes:
        node: the node to replace.
        name: of the matrix, its module's where that is known.
        weight: float32 [out, in].
    """

    node: ir.Node
    name: str
    weight: np.ndarray


def quantize_graph(
    path_in: Path,
    path_out: Path,
    weights: Mapping[str, QuantizedLinear] | None = None,
    *,
    round_inputs: bool = True,
    quantize_embeddings: bool = True,
    preset: Preset | None = None,
) -> dict[str, Any]:
    """Rewrite the float graph at `path_in` as an int8 graph at `path_out`.

    Args:
        path_in: a float graph, as `export_graph` and `fuse` leave it.
        path_out: the file to write; may be `path_in`.
        weights: the checkpoint's integers by module name; layers that are not in it stay float.
            None rounds every constant matrix here.
        round_inputs: without `weights`, round the whole of what a matrix multiplies as well, and
            not only the weights, as a decoder needs it.
        quantize_embeddings: store embedding tables above 64 kB as int8 with a scale per row.
        preset: what the graph is for; None for this machine.

    Returns:
        quantized and float counts, embeddings, weight types, preset.

    Raises:
        InputError: nothing can be quantized, or a layer in `weights` is in the graph with other
            values than its integers.
    """
    model = ir.load(path_in)
    preset = preset or cpu_preset()
    products = find_products(model.graph)
    chosen = _round_all(products, round_inputs) if weights is None else _match(products, weights)
    if not chosen:
        raise InputError(
            f"no int8 layer found among {len(products)} constant matrix products of the graph",
            hint="export with --weights fp32",
        )
    rewriter = Rewriter(model.graph, preset)
    for product, linear in chosen:
        rewriter.replace(product, linear)
    alone = [linear.activation == "float" for _, linear in chosen]
    if any(alone):
        model.opset_imports[CONTRIB] = 1
    remove_unused(model)  # a table's replaced product would still count as its reader
    tables = quantize_tables(model.graph, weights) if quantize_embeddings else 0
    remove_unused(model)
    strip(model)
    save(model, path_out)
    return {
        "quantized": len(chosen),
        "float": len(products) - len(chosen),
        "embeddings": tables,
        "weight_types": dict(sorted(rewriter.types.items())),
        # Weights alone in integers are multiplied alike everywhere.
        "cpu_preset": None if all(alone) else preset,
    }


def find_products(graph: ir.Graph) -> list[Product]:
    """Every MatMul and plain Gemm of an activation with a constant float matrix, in order."""
    products = []
    for node in graph:
        if node.op_type not in ("MatMul", "Gemm") or constant(node.inputs[0]) is not None:
            continue
        found = _matrix(node.inputs[1])
        if found is None:
            continue
        name, weight = found  # [in, out] unless transB
        if node.op_type == "Gemm":
            attributes = node.attributes
            if attributes.get_int("transA", 0) or attributes.get_float("alpha", 1.0) != 1.0:
                continue
            if attributes.get_float("beta", 1.0) != 1.0:
                continue
            if attributes.get_int("transB", 0):
                weight = weight.T
        products.append(Product(node, name, weight.T))
    return products


def _matrix(value: ir.Value) -> tuple[str, np.ndarray] | None:
    """Name and content of a constant float matrix, also where a node transposes it first."""
    transposed = False
    producer = value.producer()
    if producer is not None and producer.op_type == "Transpose":
        value, transposed = producer.inputs[0], True
    tensor = constant(value)
    if tensor is None or len(tensor.shape) != 2 or tensor.dtype != ir.DataType.FLOAT:
        return None
    array = tensor.numpy()
    return value.name, array.T if transposed else array


def _round_all(
    products: list[Product], round_inputs: bool
) -> list[tuple[Product, QuantizedLinear]]:
    rounding = quantize_product if round_inputs else quantize_rows
    inputs: Activation = "dynamic" if round_inputs else "float"
    return [(found, QuantizedLinear(*rounding(found.weight), inputs)) for found in products]


def _match(
    products: list[Product], weights: Mapping[str, QuantizedLinear]
) -> list[tuple[Product, QuantizedLinear]]:
    """Pair products with the integers that they hold, dequantized."""
    names = names_by_content(weights)
    chosen = []
    for product in products:
        found = names.get(content_key(product.weight))
        if found is not None:
            product.name = f"{found}.weight"
            chosen.append((product, weights[found]))
    left = {product.name for product in products} - {product.name for product, _ in chosen}
    wrong = sorted(name for name in weights if f"{name}.weight" in left)
    if wrong:
        raise InputError(
            f"{len(wrong)} layers of the graph do not hold values * scale of the checkpoint's "
            f"integers, first {wrong[0]}",
            hint="export the int8 checkpoint as it was written",
        )
    return chosen


class Rewriter:
    """Puts integer products in the place of float ones."""

    def __init__(self, graph: ir.Graph, preset: Preset) -> None:
        self.graph = graph
        self.preset = preset
        self.types: Counter[str] = Counter()
        self._rounded: dict[tuple[ir.Value, Any], Any] = {}

    def replace(self, product: Product, linear: QuantizedLinear) -> None:
        """Compute `product` with `linear`'s integers."""
        node, name = product.node, product.name
        if linear.activation == "float":
            self.types[f"int{linear.bits}"] += 1
            result = self._weight_only(node, name, linear)
            self._finish(node, result)
            return
        kind = weight_type(linear.values, self.preset)
        self.types[kind] += 1
        values, zero = linear.values.T, np.int8(0)  # [in, out]
        if kind == "uint8":
            values, zero = (values.astype(np.int16) + MIDDLE).astype(np.uint8), np.uint8(MIDDLE)
        stored = self._weight(f"{name}_quantized", values)
        scales = linear.scale.reshape(-1)
        if (scales == scales[0]).all() and linear.activation == "dynamic":
            scales = scales[0]  # one for the whole matrix
        scale = self._weight(f"{name}_scale", scales)
        if linear.activation == "dynamic":
            zero_point = self._weight(f"{name}_zero_point", np.array(zero))
            result = self._dynamic(node, stored, scale, zero_point)
        else:
            zeros = self._weight(f"{name}_zero_point", np.full(values.shape[1], zero))
            result = self._static(node, stored, scale, zeros, linear.activation)
        self._finish(node, result)

    def _finish(self, node: ir.Node, result: ir.Value) -> None:
        """Add a Gemm's bias, and let `result` take the node's place."""
        if node.op_type == "Gemm" and len(node.inputs) > 2 and node.inputs[2] is not None:
            result = self._add(node, "Add", [result, node.inputs[2]])
        take_over(node, result)

    def _dynamic(
        self, node: ir.Node, stored: ir.Value, scale: ir.Value, zero_point: ir.Value
    ) -> ir.Value:
        source = node.inputs[0]
        if (source, "dynamic") not in self._rounded:
            rounding = insert_node(node, "DynamicQuantizeLinear", [source], outputs=3)
            self._rounded[source, "dynamic"] = rounding.outputs
        rounded, input_scale, input_zero = self._rounded[source, "dynamic"]
        total = self._add(node, "MatMulInteger", [rounded, stored, input_zero, zero_point])
        total = self._add(node, "Cast", [total], to=ir.DataType.FLOAT.value)
        both = self._add(node, "Mul", [input_scale, scale])
        return self._add(node, "Mul", [total, both])

    def _static(
        self, node: ir.Node, stored: ir.Value, scale: ir.Value, zeros: ir.Value, grid: Grid
    ) -> ir.Value:
        source = node.inputs[0]
        if (source, grid) not in self._rounded:
            step, zero = grid
            base = f"{source.name}_grid_{len(self._rounded)}"
            # The checkpoint's grid is int8; ONNX Runtime's fast kernels take uint8 inputs.
            bounds = [
                self._weight(f"{base}_scale", np.array(step, np.float32)),
                self._weight(f"{base}_zero_point", np.array(zero + MIDDLE, np.uint8)),
            ]
            rounded = self._add(node, "QuantizeLinear", [source, *bounds])
            self._rounded[source, grid] = self._add(node, "DequantizeLinear", [rounded, *bounds])
        matrix = self._add(node, "DequantizeLinear", [stored, scale, zeros], axis=1)
        return self._add(node, "MatMul", [self._rounded[source, grid], matrix])

    def _weight_only(self, node: ir.Node, name: str, linear: QuantizedLinear) -> ir.Value:
        blocks = pack_blocks(linear)
        stored = self._weight(f"{name}_quantized", blocks.values)
        scale = self._weight(f"{name}_scale", blocks.scale)
        attributes = {
            "K": linear.values.shape[1],
            "N": linear.values.shape[0],
            "bits": blocks.bits,
            "block_size": blocks.size,
            **({"accuracy_level": INT8_INPUTS} if blocks.bits == 8 else {}),
        }
        inputs = [node.inputs[0], stored, scale]
        made = insert_node(node, "MatMulNBits", inputs, attributes=attributes, domain=CONTRIB)
        return made.outputs[0]

    def _weight(self, name: str, array: np.ndarray) -> ir.Value:
        return add_initializer(self.graph, name, ir.tensor(np.asarray(array, order="C")))

    @staticmethod
    def _add(before: ir.Node, kind: str, inputs: list[ir.Value], **attributes: int) -> ir.Value:
        return insert_node(before, kind, inputs, attributes=attributes).outputs[0]
