"""Questions about the values of tensors: which are not finite, how many are not zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.checkpoint.header import FLOATS, TensorInfo
from compressor.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TensorFacts:
    """What is known about one parameter tensor.

    Attributes:
        name: of the parameter: `X.weight`, also where `X.weight_packed` is stored.
        shape: of the parameter, unpacked.
        dtype: how its values are stored: "F32", "I8", "I4" ...
        bits: of one value.
        numel: number of values.
        nonzero: number of values that do not stand for zero.
        in_encoder: whether it lies inside a transformer layer.
        layer: index of that layer, from 0.
        quantized_from: the float format that its scales restore; None for values as they are.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bits: int
    numel: int
    nonzero: int
    in_encoder: bool
    layer: int | None
    quantized_from: str | None


def refuse_not_finite(tensors: Mapping[str, TensorInfo], folder: Path) -> None:
    """Refuse NaN and infinity, with which a model still answers, always with the same class.

    Raises:
        InputError: the tensors, and how many values of each.
    """
    from compressor.checkpoint.arrays import read_chunks

    found = {
        name: counts
        for name, info in tensors.items()
        if info.dtype in FLOATS and any(counts := not_finite(read_chunks(info)))
    }
    if found:
        first = [
            f"{name} ({nan} NaN, {infinite} infinite of {tensors[name].numel:,})"
            for name, (nan, infinite) in list(found.items())[:3]
        ]
        more = f" and {len(found) - 3} more tensors" if len(found) > 3 else ""
        raise InputError(
            f"the weights hold values that are not finite: {', '.join(first)}{more}",
            hint="the training diverged or the file was damaged; take an earlier checkpoint",
            where=str(folder),
        )


def not_finite(chunks: Iterable[NDArray[Any]]) -> tuple[int, int]:
    """Number of NaN and number of infinite values in pieces of a float tensor."""
    import numpy as np

    nan = infinite = 0
    for chunk in chunks:
        if not np.isfinite(chunk).all():
            nan += int(np.isnan(chunk).sum())
            infinite += int(np.isinf(chunk).sum())
    return nan, infinite


def unpack(packed: NDArray[Any], bits: int, columns: int) -> NDArray[np.uint8]:
    """Undo compressed-tensors' packing into 32-bit words.

    Element i of a row occupies the bits from i * `bits` on, lowest first.

    Args:
        packed: [rows, words], 32-bit integers.
        bits: of one element, at most 8.
        columns: elements of a row.

    Returns:
        [rows, columns], with the offset 2**(bits - 1) still added.
    """
    import numpy as np

    octets = np.ascontiguousarray(packed).view(np.uint8)
    single = np.unpackbits(octets, axis=1, bitorder="little")[:, : columns * bits]
    weights = (1 << np.arange(bits)).astype(np.uint8)
    return single.reshape(len(packed), columns, bits) @ weights  # [rows, columns]
