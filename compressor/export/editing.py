"""Small edits of an ONNX graph in memory, and writing it: shared by the rewrites of this room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

EXTERNAL_DATA_BYTES = 1_900_000_000  # a protobuf file ends at 2 GB


def remove_unused(model: ir.Model) -> None:
    """Drop nodes and weights that nothing reads any more."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer; None for anything that is computed."""
    return None if value is None else value.const_value


def add_initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """A weight called `name`; one that is there already under that name is reused."""
    if name in graph.initializers:
        return graph.initializers[name]
    tensor.name = name
    value = ir.Value(
        name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype)
    )
    graph.register_initializer(value)
    return value


def insert_node(
    before: ir.Node,
    kind: str,
    inputs: Sequence[ir.Value],
    *,
    outputs: int = 1,
    attributes: Mapping[str, Any] | None = None,
    domain: str = "",
) -> ir.Node:
    """Put a new node in front of `before`; names come from it and stay the same every time."""
    graph = before.graph
    count = graph.meta["inserted"] = graph.meta.get("inserted", 0) + 1
    node = ir.node(
        kind,
        inputs,
        attributes=attributes,
        domain=domain,
        num_outputs=outputs,
        name=f"{kind}_new_{count}",
    )
    for index, value in enumerate(node.outputs):
        value.name = f"{node.name}_{index}"
    graph.insert_before(before, node)
    return node


def take_over(node: ir.Node, value: ir.Value) -> None:
    """Everything that read `node`'s output reads `value`; a graph output keeps its name."""
    old = node.outputs[0]
    value.shape, value.type = old.shape, old.type
    name, is_output = old.name, old.is_graph_output()
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    if is_output:
        old.name, value.name = f"{name}_before", name
    node.graph.remove(node, safe=True)


def strip(graph: ir.Model) -> None:
    """Remove what differs between two exports or names this machine's source files."""
    graph.doc_string = graph.graph.doc_string = None
    graph.metadata_props.clear()
    graph.graph.metadata_props.clear()
    graph.producer_name, graph.producer_version = "compressor", None
    for value in (*graph.graph.inputs, *graph.graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
    for node in graph.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            value.doc_string = None


def save(graph: ir.Model, path: Path) -> None:
    """Write `graph` to `path`, with its weights in `<path>.data` when it would pass 2 GB."""
    weights = sum(value.const_value.nbytes for value in graph.graph.initializers.values())
    external = f"{path.name}.data" if weights > EXTERNAL_DATA_BYTES else None
    ir.save(graph, path, external_data=external)
