"""ONNX graphs without running them: safe external data, finite weights, facts per weight."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from compressor.checkpoint.families import is_buffer, split_layer
from compressor.checkpoint.reading import open_regular, refuse_known_mistakes, shown
from compressor.checkpoint.shards import ONNX, ONNX_DATA
from compressor.checkpoint.values import TensorFacts, not_finite
from compressor.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_EXTERNAL_KEYS = ("location", "offset", "length", "checksum")
_DTYPES = {
    "FLOAT": "F32", "FLOAT16": "F16", "BFLOAT16": "BF16", "DOUBLE": "F64", "INT8": "I8",
    "UINT8": "U8", "INT4": "I4", "UINT4": "U4", "INT32": "I32",
}  # fmt: skip
_HOPS = 6  # MatMulInteger, Cast, Mul, Reshape, Transpose, Add: the way from a weight to a name


def open_graph(folder: Path) -> ModelProto:
    """Read a folder's graph, its external data left on disk and checked to lie in the folder.

    Raises:
        InputError: the file is no ONNX model, or points to data elsewhere.
        MachineError: it may not be read.
    """
    import onnx
    from google.protobuf.message import DecodeError

    path = folder / ONNX
    with open_regular(path) as handle:
        data = handle.read()
    refuse_known_mistakes(data[:200], path)
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise InputError(f"{ONNX} is not an ONNX model, or was cut off", where=str(path)) from None
    if not model.graph.node or not model.graph.output:
        raise InputError(f"{ONNX} holds no graph", where=str(path))
    if any(isinstance(text, bytes) for text in _texts(model.graph)):
        raise InputError(f"{ONNX} holds a name that is not UTF-8 text", where=str(path))
    for tensor in _all_tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_external(tensor, folder)
    return model


def _texts(graph: GraphProto) -> Iterator[str | bytes]:
    """The names that are looked at later; protobuf hands out bytes where they are not text."""
    for tensor in graph.initializer:
        yield tensor.name
        for entry in tensor.external_data:
            yield from (entry.key, entry.value)
    for node in graph.node:
        yield from (node.name, node.op_type, *node.input, *node.output)
        for entry in node.metadata_props:
            yield from (entry.key, entry.value)
        yield from (attribute.name for attribute in node.attribute)


def _all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model, also those in attributes, subgraphs and functions."""
    graphs: list[GraphProto] = [model.graph]
    nodes: list[NodeProto] = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        for graph in graphs:
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
        attributes = [attribute for node in nodes for attribute in node.attribute]
        graphs, nodes = [], []
        for attribute in attributes:
            yield from (attribute.t, *attribute.tensors)
            graphs.extend(attribute.graphs)
            if attribute.HasField("g"):
                graphs.append(attribute.g)


def _check_external(tensor: TensorProto, folder: Path) -> tuple[Path, int, int]:
    """The (file, offset, length) of a tensor outside the graph, if it is safe to read.

    Raises:
        InputError: any file but the one beside the graph, a link, or a range beyond its end.
    """
    fields = {entry.key: entry.value for entry in tensor.external_data}
    location = fields.get("location", "")
    what = f"{ONNX} keeps {shown(str(tensor.name))} in {shown(str(location))!r}"
    if location not in ONNX_DATA or not set(fields) <= set(_EXTERNAL_KEYS):
        raise InputError(
            f"{what}, which is refused: external data must be {' or '.join(ONNX_DATA)}, a file "
            "name inside the folder",
            hint="save it again with onnx.save_model(..., location='model.onnx.data')",
            where=str(folder / ONNX),
        )
    file = folder / location
    try:
        found = os.lstat(file)
    except FileNotFoundError:
        raise InputError(f"{what}, which is missing", where=str(file)) from None
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "a hard link"
        raise InputError(
            f"{what}, which is {kind} to a file that may lie elsewhere",
            hint="put a copy of the file itself there",
            where=str(file),
        )
    offset, length = fields.get("offset", "0"), fields.get("length", "")
    numbers = offset.isdecimal() and (length or "0").isdecimal() and len(offset + length) < 40
    first = int(offset) if numbers else 0
    count = int(length) if numbers and length else max(found.st_size - first, 0)
    if not numbers or first + count > found.st_size:
        raise InputError(
            f"{what} from byte {shown(offset)} on with {shown(length) or 'all'} bytes, but the "
            f"file holds {found.st_size:,} bytes",
            hint="copy or fetch it again",
            where=str(file),
        )
    return file, first, count


def read_values(tensor: TensorProto, folder: Path) -> NDArray[Any]:
    """The values of an initializer, of the shape that it declares.

    Raises:
        InputError: they do not fit that shape.
    """
    import onnx

    try:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            file, offset, length = _check_external(tensor, folder)
            held = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims)
            with open_regular(file) as handle:
                handle.seek(offset)
                held.raw_data = handle.read(length)
            tensor = held
        return onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError) as problem:
        raise InputError(
            f"{ONNX}: the values of {shown(tensor.name)} do not fit its shape "
            f"{list(tensor.dims)[:8]}: {problem}",
            where=str(folder / ONNX),
        ) from None


def check_graph(folder: Path, *, scan_values: bool) -> None:
    """Refuse a folder whose graph is unreadable, points elsewhere or holds NaN.

    Infinity is no fault here: attention masks are folded into graphs as constants with -inf.

    Raises:
        InputError: with the initializers that hold NaN, or what `open_graph` refuses.
    """
    model = open_graph(folder)
    for tensor in model.graph.initializer if scan_values else ():
        if _dtype(tensor) in ("F32", "F16", "BF16", "F64"):
            nan, _ = not_finite([read_values(tensor, folder).astype("f4", copy=False)])
            if nan:
                raise InputError(
                    f"{ONNX} holds values that are not finite: {shown(tensor.name)} ({nan} NaN)",
                    where=str(folder / ONNX),
                )


def _dtype(tensor: TensorProto) -> str | None:
    import onnx

    try:
        return _DTYPES.get(onnx.TensorProto.DataType.Name(tensor.data_type))
    except ValueError:
        return None


def graph_facts(folder: Path) -> list[TensorFacts]:
    """The weights of a graph: its float initializers, and integers that have a scale.

    Raises:
        InputError: as `open_graph`, or values that do not fit their shape.
    """
    graph = open_graph(folder).graph
    by_name = {tensor.name: tensor for tensor in graph.initializer}
    companions = _companions(graph, by_name)
    helpers = {name for found in companions.values() for name in (found.scale, found.zero_point)}
    consumers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            consumers[name].append(node)
    facts = []
    for name, tensor in by_name.items():
        dtype = _dtype(tensor)
        quantized = name in companions
        # Scalars are the traced code's own constants: epsilons, scaling factors, -inf.
        constant = name in helpers or not tensor.dims or is_buffer(name, tuple(tensor.dims))
        if constant or dtype is None or (dtype[0] in "IU" and not quantized):
            continue
        values = read_values(tensor, folder)
        scale, zero_point, axis = companions.get(name, _Companions("", "", 0))
        zeros = read_values(by_name[zero_point], folder) if zero_point in by_name else None
        layer = _layer(name, consumers, by_name)
        facts.append(
            TensorFacts(
                name=name.removesuffix("_quantized"),
                shape=values.shape,
                dtype=dtype,
                bits=int(dtype.lstrip("BFIU")),
                numel=values.size,
                nonzero=_nonzero(values, zeros, axis),
                in_encoder=layer is not None,
                layer=layer,
                quantized_from=_dtype(by_name[scale]) if scale in by_name else None,
            )
        )
    return facts


class _Companions(NamedTuple):
    """Names of an integer initializer's scale and zero point, and the axis that they run along."""

    scale: str
    zero_point: str
    axis: int


def _companions(graph: GraphProto, by_name: dict[str, TensorProto]) -> dict[str, _Companions]:
    """What belongs to each integer initializer, from the nodes and from the names."""
    found = {}
    for node in graph.node:
        inputs = [*node.input, "", "", "", ""]
        if node.op_type == "DequantizeLinear" and inputs[0] in by_name:
            axes = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
            found[inputs[0]] = _Companions(inputs[1], inputs[2], axes[0] if axes else 1)
    for name in by_name:
        base = name.removesuffix("_quantized")
        if base != name and f"{base}_scale" in by_name:
            found.setdefault(name, _Companions(f"{base}_scale", f"{base}_zero_point", -1))
    for node in graph.node:
        inputs = [*node.input, "", "", "", ""]
        if node.op_type == "MatMulInteger" and inputs[1] in by_name:
            found.setdefault(inputs[1], _Companions("", inputs[3], -1))
    return found


def _nonzero(values: NDArray[Any], zeros: NDArray[Any] | None, axis: int) -> int:
    """Values that do not stand for zero, where each slice along `axis` has its own zero."""
    if zeros is None or not zeros.size:
        return int(np.count_nonzero(values))
    if (zeros == zeros.flat[0]).all():
        return int(np.count_nonzero(values != zeros.flat[0]))
    shape = [1] * values.ndim
    try:
        shape[axis] = zeros.size
        return int(np.count_nonzero(values != zeros.reshape(shape)))
    except (IndexError, ValueError):
        raise InputError(
            f"{ONNX}: {zeros.size} zero points do not fit axis {axis} of shape {list(values.shape)}"
        ) from None


def _layer(
    name: str, consumers: dict[str, list[NodeProto]], by_name: dict[str, TensorProto]
) -> int | None:
    """The transformer layer that a weight belongs to.

    An exporter may rename a weight (`val_56`); then the first node on its way that still says
    where it comes from decides: by its scope, by its path, or by a named weight that it adds.
    """
    if "." in name:
        place = split_layer(name)
        return place[1] if place else None
    nodes = consumers.get(name, [])
    for _ in range(_HOPS):
        for node in nodes:
            for text in _origins(node, by_name):
                place = split_layer(f"{text}.weight")
                return place[1] if place else None
        nodes = [after for node in nodes for output in node.output for after in consumers[output]]
    return None


def _origins(node: NodeProto, by_name: dict[str, TensorProto]) -> Iterator[str]:
    """Texts that tell which module a node was traced from, the surest first."""
    for entry in node.metadata_props:
        if entry.key == "namespace":
            yield entry.value.rpartition("/")[0].rpartition("/")[2].partition(":")[0]
    if node.name.startswith("/"):
        yield node.name
    yield from (name for name in node.input if name in by_name and "." in name)
