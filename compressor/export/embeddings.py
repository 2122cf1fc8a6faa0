"""Embedding tables as int8 with one scale per row: what shrinks the file of a small encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from compressor.export.editing import add_initializer, constant, insert_node, take_over
from compressor.export.rounding import MIDDLE, content_key, names_by_content, quantize_rows
from compressor.model.integers import QuantizedLinear
from compressor.model.tables import SMALLEST_TABLE_BYTES  # less is not worth three more nodes


def quantize_tables(graph: ir.Graph, own: Mapping[str, QuantizedLinear] | None = None) -> int:
    """Make every lookup in a constant float table of more than 64 kB an int8 one, in place.

    Rows and their scales are looked up by the same indices and multiplied, so only the rows that
    a batch needs become floats. The head of a language model may multiply by the same table: if
    that product is one of integers, they serve both; if it is float, the table stays float too,
    for the file would hold it twice.

    Args:
        graph: its products replaced, and without nodes that nothing reads.
        own: the checkpoint's integers by module name, which a table that holds them keeps.

    Returns:
        the number of tables.
    """
    lookups: dict[ir.Value, list[ir.Node]] = {}
    for node in graph:
        of_rows = node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0
        if of_rows and _is_large_table(node.inputs[0]):
            lookups.setdefault(node.inputs[0], []).append(node)
    names = names_by_content(own) if own else {}
    changed = 0
    for table, nodes in lookups.items():
        if len(nodes) < len(table.uses()):
            continue
        known = names.get(content_key(table.const_value.numpy())) if names else None
        found = _integers(graph, table, nodes[0], own[known] if known else None)
        if found is not None:
            changed += 1
            for node in nodes:
                _look_up(node, found)
    return changed


def _is_large_table(value: ir.Value) -> bool:
    table = constant(value)
    return (
        table is not None
        and len(table.shape) == 2
        and table.dtype == ir.DataType.FLOAT
        and table.nbytes > SMALLEST_TABLE_BYTES
    )


class Rows(NamedTuple):
    """A table as integers.

    Attributes:
        values: int8 or uint8 [rows, width].
        scales: [rows, 1].
        middle: what stands for 0; None where that is 0.
    """

    values: ir.Value
    scales: ir.Value
    middle: ir.Value | None = None


def _integers(
    graph: ir.Graph, table: ir.Value, before: ir.Node, own: QuantizedLinear | None
) -> Rows | None:
    """A table's integers: its own, or those of its product; None where those do not serve.

    What is made of a product's integers is computed once, when ONNX Runtime loads the graph.
    """
    name, scale_name = f"{table.name}_quantized", f"{table.name}_scale"
    if name not in graph.initializers:
        values, scale = own[:2] if own else quantize_rows(table.const_value.numpy())
        rows = add_initializer(graph, name, ir.tensor(values))
        return Rows(rows, add_initializer(graph, scale_name, ir.tensor(scale)))
    stored, scales = graph.initializers[name], graph.initializers[scale_name]
    shape, scale = list(table.shape), scales.const_value.numpy()
    if list(stored.shape) == shape[::-1] and stored.dtype == ir.DataType.INT8 and scale.ndim == 1:
        rows = insert_node(before, "Transpose", [stored]).outputs[0]
        return Rows(rows, _reshaped(graph, scales, [-1, 1], before))
    blocks = len(stored.shape) == 3 and stored.const_value.size == shape[0] * shape[1]
    if blocks and (scale == scale[:, :1]).all():  # of 8 bits each, with one scale a row
        rows = _reshaped(graph, stored, shape, before)
        first = add_initializer(graph, "first_block", ir.tensor([0]))
        scales = insert_node(before, "Gather", [scales, first], attributes={"axis": 1}).outputs[0]
        middle = add_initializer(graph, "middle", ir.tensor(np.float32(MIDDLE)))
        return Rows(rows, scales, middle)
    return None


def _reshaped(graph: ir.Graph, value: ir.Value, shape: list[int], before: ir.Node) -> ir.Value:
    name = "shape_" + "_".join(str(size) for size in shape)
    return insert_node(
        before, "Reshape", [value, add_initializer(graph, name, ir.tensor(shape))]
    ).outputs[0]


def _look_up(node: ir.Node, rows: Rows) -> None:
    """Put integers and their scales in the place of a lookup of floats."""
    indices = node.inputs[1]
    found = insert_node(node, "Gather", [rows.values, indices]).outputs[0]
    to_float = {"to": ir.DataType.FLOAT.value}
    value = insert_node(node, "Cast", [found], attributes=to_float).outputs[0]
    if rows.middle is not None:
        value = insert_node(node, "Sub", [value, rows.middle]).outputs[0]
    factor = insert_node(node, "Gather", [rows.scales, indices]).outputs[0]
    take_over(node, insert_node(node, "Mul", [value, factor]).outputs[0])
