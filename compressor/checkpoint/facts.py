"""What the parameters of a checkpoint are and what they weigh, in every denominator we report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.checkpoint.arrays import read_array, read_chunks
from compressor.checkpoint.families import is_buffer, split_layer
from compressor.checkpoint.header import FLOATS, TensorInfo
from compressor.checkpoint.reading import shown
from compressor.checkpoint.shards import inference_files
from compressor.checkpoint.structure import COMPANION, weight_name
from compressor.checkpoint.values import TensorFacts, unpack
from compressor.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from compressor.checkpoint.folder import Checkpoint

_ROWS = 256  # rows of a packed matrix unpacked at a time


def tensor_facts(checkpoint: Checkpoint) -> list[TensorFacts]:
    """Every parameter of a checkpoint, in the order of the file.

    Constants (position ids, causal masks) are no parameters. Scales and zero points belong to
    the tensor that they scale: an int8 weight with its scale is one 8-bit tensor.

    Raises:
        InputError: packed or quantized values do not fit their companions.
    """
    if checkpoint.runtime == "onnxruntime":
        from compressor.checkpoint.onnx_graph import graph_facts

        return graph_facts(checkpoint.path)
    return [
        _facts(info, checkpoint)
        for info in checkpoint.tensors.values()
        if _is_parameter(info, checkpoint.tensors)
    ]


def sizes(checkpoint: Checkpoint, facts: Sequence[TensorFacts] | None = None) -> dict[str, int]:
    """Bytes in every denominator, and the number of parameters.

    Args:
        checkpoint: an opened folder.
        facts: its `tensor_facts`, where they are already known.

    Returns:
        "disk": files needed for inference; "weights": parameters x bits; "nonzero": non-zero
        parameters x bits; "encoder_weights" and "encoder_nonzero": the same inside the transformer
        layers;
        "parameters": how many there are, zeros included. Of the matrices inside the layers alone:
        "matrices": parameters x bits; "matrices_nonzero": non-zero parameters x bits, as papers
        count; "matrices_bitmask": these and one bit for each parameter that says where they lie;
        "matrices_index": these and 16 bits for each that say so.
    """
    known = tensor_facts(checkpoint) if facts is None else facts
    encoder = [fact for fact in known if fact.in_encoder]
    matrices = [fact for fact in encoder if len(fact.shape) == 2]
    entries = sum(fact.numel for fact in matrices)
    living = sum(fact.nonzero for fact in matrices)
    living_bits = sum(fact.nonzero * fact.bits for fact in matrices)
    return {
        "disk": checkpoint.disk_bytes,
        "weights": _bytes(sum(fact.numel * fact.bits for fact in known)),
        "nonzero": _bytes(sum(fact.nonzero * fact.bits for fact in known)),
        "encoder_weights": _bytes(sum(fact.numel * fact.bits for fact in encoder)),
        "encoder_nonzero": _bytes(sum(fact.nonzero * fact.bits for fact in encoder)),
        "matrices": _bytes(sum(fact.numel * fact.bits for fact in matrices)),
        "matrices_nonzero": _bytes(living_bits),
        "matrices_bitmask": _bytes(living_bits + entries),
        "matrices_index": _bytes(living_bits + 16 * living),
        "parameters": sum(fact.numel for fact in known),
    }


def compressed_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of all files that inference needs once zstd has packed them, in pieces of 16 MiB."""
    import pyarrow

    total = 0
    for file in inference_files(checkpoint.path):
        with file.open("rb") as stream:
            while piece := stream.read(1 << 24):
                total += pyarrow.compress(piece, codec="zstd").size
    return total


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def _is_parameter(info: TensorInfo, tensors: dict[str, TensorInfo]) -> bool:
    if COMPANION.search(info.name) or is_buffer(info.name, info.shape):
        return False
    return (
        info.dtype in FLOATS
        or info.name.endswith(".weight_packed")
        or f"{info.name}_scale" in tensors
    )


def _facts(info: TensorInfo, checkpoint: Checkpoint) -> TensorFacts:
    name = weight_name(info.name)
    scale = checkpoint.tensors.get(f"{name}_scale")
    place = split_layer(name)
    shape, dtype, bits = info.shape, info.dtype, info.bits
    if name != info.name:
        shape, bits = unpacked_shape(info, checkpoint)
        dtype = f"I{bits}"
        nonzero = _count_packed(info, checkpoint, shape, bits)
    else:
        nonzero = _count(info, checkpoint.tensors.get(f"{name}_zero_point"))
    return TensorFacts(
        name=name,
        shape=shape,
        dtype=dtype,
        bits=bits,
        numel=math.prod(shape),
        nonzero=nonzero,
        in_encoder=place is not None,
        layer=place[1] if place else None,
        quantized_from=scale.dtype if scale else None,
    )


def _count(info: TensorInfo, zero_point: TensorInfo | None) -> int:
    """Values that do not stand for zero; with a zero point, that one does."""
    if zero_point is None:
        return sum(int(np.count_nonzero(chunk)) for chunk in read_chunks(info))
    values = read_array(info)
    try:
        zeros = _spread(read_array(zero_point), values.shape)
        return int(np.count_nonzero(values != zeros))
    except ValueError:
        raise _misfit(info, zero_point) from None


def _spread(zero_point: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Zero points per tensor, row or group of inputs, broadcast over a [rows, inputs] weight."""
    if zero_point.ndim == 2 and zero_point.shape[1] > 1:
        zero_point = np.repeat(zero_point, -(-shape[1] // zero_point.shape[1]), axis=1)
        zero_point = zero_point[:, : shape[1]]
    return np.broadcast_to(zero_point, shape)


def _misfit(info: TensorInfo, other: TensorInfo) -> InputError:
    return InputError(
        f"{shown(info.name)} of shape {list(info.shape)} does not fit {shown(other.name)} of "
        f"shape {list(other.shape)}",
        where=str(info.file),
    )


def unpacked_shape(info: TensorInfo, checkpoint: Checkpoint) -> tuple[tuple[int, int], int]:
    """The [rows, columns] of a packed weight, and the bits of one value.

    Raises:
        InputError: what the checkpoint says about it does not fit.
    """
    noted = checkpoint.tensors.get(f"{weight_name(info.name)}_shape")
    if noted is None or noted.numel != 2 or len(info.shape) != 2 or info.dtype != "I32":
        raise InputError(
            f"{shown(info.name)} is packed, but no weight_shape says what it unpacks to",
            where=str(info.file),
        )
    rows, columns = (int(size) for size in read_array(noted).reshape(-1))
    for bits in weight_bits(checkpoint):
        if columns >= 0 and info.shape == (rows, -(-columns * bits // 32)):
            return (rows, columns), bits
    raise _misfit(info, noted)


def weight_bits(checkpoint: Checkpoint) -> list[int]:
    """Bits of a weight, 1 to 8, by each group of the config's quantization that says so."""
    groups = (checkpoint.quantization or {}).get("config_groups")
    found = []
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        bits = weights.get("num_bits") if isinstance(weights, dict) else None
        if isinstance(bits, int) and 1 <= bits <= 8:
            found.append(bits)
    return found


def _count_packed(
    info: TensorInfo, checkpoint: Checkpoint, shape: tuple[int, int], bits: int
) -> int:
    """As `_count`, a few rows at a time."""
    rows, columns = shape
    packed = read_array(info)
    zeros: NDArray[Any] = np.full((1, 1), 1 << (bits - 1))
    zero_point = checkpoint.tensors.get(f"{weight_name(info.name)}_zero_point")
    try:
        if zero_point is not None:  # packed along the rows
            zeros = unpack(read_array(zero_point).T, bits, rows).T
        zeros = _spread(zeros, shape)
    except ValueError:
        raise _misfit(info, zero_point or info) from None
    nonzero = 0
    for first in range(0, rows, _ROWS):
        part = slice(first, first + _ROWS)
        nonzero += int(np.count_nonzero(unpack(packed[part], bits, columns) != zeros[part]))
    return nonzero
