"""The values of tensors, whole or in pieces; the zeros of packed ones come back here.

numpy is loaded with the first values, so that a refusal of a header comes without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.checkpoint.header import STORED_AS, TensorInfo, broken
from compressor.checkpoint.reading import shown

CHUNK = 1 << 20  # values looked at in one go: a few MB, so memory stays flat


def widen(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """BF16 values, given as their bits, as float32 of the same shape."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def read_array(info: TensorInfo) -> NDArray[Any]:
    """The values of a tensor: a read-only memory map; BF16 and packed tensors are copied.

    Returns:
        An array of `info.shape`, float32 for BF16.
    """
    array = read_stored(info)
    return widen(array) if info.dtype == "BF16" else array


def read_stored(info: TensorInfo) -> NDArray[Any]:
    """As `read_array`, with BF16 as its bits."""
    stored = np.dtype(STORED_AS[info.dtype])
    if info.bitmask is None and info.numel:
        return np.memmap(info.file, stored, mode="r", offset=info.start, shape=info.shape)
    array = np.empty(info.numel, stored)
    end = 0
    for piece in stored_chunks(info):
        start, end = end, end + len(piece)
        array[start:end] = piece
    return array.reshape(info.shape)


def read_chunks(info: TensorInfo) -> Iterator[NDArray[Any]]:
    """The values of a tensor in flat pieces of at most `CHUNK`, so that memory stays flat."""
    for piece in stored_chunks(info):
        yield widen(piece) if info.dtype == "BF16" else piece


def stored_chunks(info: TensorInfo) -> Iterator[NDArray[Any]]:
    """As `read_chunks`, with BF16 as its bits.

    Raises:
        InputError: a packed tensor has more or fewer values than its bits say.
    """
    stored = np.dtype(STORED_AS[info.dtype])
    held = (info.end - info.start) // stored.itemsize
    taken = 0
    for first in range(0, info.numel, CHUNK):
        size = min(CHUNK, info.numel - first)
        place = info.start + taken * stored.itemsize
        if info.bitmask is None:
            yield np.fromfile(info.file, stored, size, offset=place)
            taken += size
            continue
        octets = np.fromfile(info.file, "u1", -(-size // 8), offset=info.bitmask + first // 8)
        there = np.unpackbits(octets, count=size, bitorder="little").view(bool)
        living = np.count_nonzero(there)
        if taken + living <= held:
            piece = np.zeros(size, stored)
            piece[there] = np.fromfile(info.file, stored, living, offset=place)
            yield piece
        taken += living
    if taken != held:
        raise broken(
            info.file,
            f"packed tensor {shown(info.name)} has {held:,} values, and its bits say {taken:,}",
        )
