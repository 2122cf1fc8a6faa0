"""Embedding tables as int8 with one scale per row: what shrinks the file of a small encoder."""

from __future__ import annotations

import onnx_ir as ir

from compressor.export.editing import add_initializer, constant, insert_node, take_over
from compressor.export.rounding import quantize_rows

SMALLEST_TABLE_BYTES = 65_536  # below this an int8 table saves nothing worth three more nodes


def quantize_tables(graph: ir.Graph) -> int:
    """Make every lookup in a constant float table of more than 64 kB an int8 one, in place.

    Rows and their scales are looked up by the same indices and multiplied, so only the rows that
    a batch needs become floats.

    Returns:
        the number of tables.
    """
    tables = set()
    for node in list(graph):
        table = constant(node.inputs[0]) if node.op_type == "Gather" else None
        if (
            table is None
            or len(table.shape) != 2
            or table.dtype != ir.DataType.FLOAT
            or table.nbytes <= SMALLEST_TABLE_BYTES
            or node.attributes.get_int("axis", 0) != 0
        ):
            continue
        name, indices = node.inputs[0].name, node.inputs[1]
        values, scale = quantize_rows(table.numpy())
        rows = add_initializer(graph, f"{name}_quantized", ir.tensor(values))
        scales = add_initializer(graph, f"{name}_scale", ir.tensor(scale))  # [rows, 1]
        found = insert_node(node, "Gather", [rows, indices]).outputs[0]
        as_float = insert_node(
            node, "Cast", [found], attributes={"to": ir.DataType.FLOAT.value}
        ).outputs[0]
        factor = insert_node(node, "Gather", [scales, indices]).outputs[0]
        take_over(node, insert_node(node, "Mul", [as_float, factor]).outputs[0])
        tables.add(name)
    return len(tables)
