"""Sparse checkpoints that are small on disk: the zeros of a matrix are not stored.

The weight files `model.safetensors`, or shards and their index, become `model.packed.safetensors`
and so on: names that other tools do not take for weights, so that they refuse the folder instead
of misreading it. They are safetensors files in which a matrix X with enough zeros is two tensors,

    X.bitmask    U8, one bit for each value, row by row, the lowest bit of a byte first
    X.values     the values whose bit is 1, in the same order, in X's own number format

and whose metadata gives, as JSON under "packed_shapes", the shape of every such X. A value is left
out where all its bits are zero, so that what comes back is the same bit by bit, -0.0 included.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.checkpoint.header import (
    BITMASK,
    BYTES,
    VALUES,
    TensorInfo,
    header_bytes,
    read_header,
)
from compressor.checkpoint.reading import read_object
from compressor.checkpoint.shards import (
    INDEX,
    inference_files,
    packed_name,
    plain_name,
    weight_files,
)
from compressor.checkpoint.store import refuse_full, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

OVERHEAD = 200  # bytes by which two entries and a shape are longer than one entry, or fewer


def pack(folder: Path) -> None:
    """Store the zeros of the sparse matrices of a folder away, in place.

    A folder in which that would save nothing is left as it is, and a warning says so.

    Args:
        folder: a checkpoint that nobody else reads yet.
    """
    files = weight_files(folder)
    found = {file: _living(read_header(file)) for file in files}
    if not any(found.values()):
        console.warn("no matrix has enough zeros to store them away; --pack changes nothing")
        return
    for file in files:
        _write(file, folder / packed_name(file.name), found[file])
        file.unlink()
    _write_index(folder / INDEX, folder / packed_name(INDEX), packed_name)
    (folder / INDEX).unlink(missing_ok=True)


@contextmanager
def unpacked(folder: Path) -> Iterator[Path]:
    """A folder that other libraries read: the same one, or a copy with all zeros for the while.

    Args:
        folder: a checkpoint, packed or not.

    Raises:
        MachineError: there is no room for the copy.
    """
    files = weight_files(folder)
    if not any(file.name == packed_name(plain_name(file.name)) for file in files):
        yield folder
        return
    needed = sum(info.nbytes for file in files for info in read_header(file).values())
    refuse_full(Path(gettempdir()), needed, "name another place: TMPDIR=FOLDER", where=folder)
    with TemporaryDirectory(prefix="compressor-") as copy:
        for file in inference_files(folder):
            if file in files:
                _write(file, Path(copy, plain_name(file.name)), {})
            elif file.name != packed_name(INDEX):
                shutil.copyfile(file, Path(copy, file.name))
        _write_index(folder / packed_name(INDEX), Path(copy, INDEX), plain_name)
        yield Path(copy)


def _living(tensors: dict[str, TensorInfo]) -> dict[str, int]:
    """How many values remain of each matrix that is smaller without its zeros."""
    counts = {}
    for name, info in tensors.items():
        if len(info.shape) < 2:
            continue
        living = sum(int(there.sum()) for _, there in _chunks(info))
        if living * BYTES[info.dtype] + -(-info.numel // 8) + OVERHEAD < info.nbytes:
            counts[name] = living
    return counts


def _chunks(info: TensorInfo) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Pieces of a tensor, and which of their values have a bit that is not zero."""
    from compressor.checkpoint.arrays import stored_chunks

    for piece in stored_chunks(info):
        yield piece, piece.view(f"u{piece.dtype.itemsize}") != 0


def _write(source: Path, target: Path, living: dict[str, int]) -> None:
    """Write the tensors of a file, without the zeros of those that are named with what remains."""
    import numpy as np

    from compressor.checkpoint.arrays import stored_chunks

    tensors = read_header(source)
    entries: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, info in tensors.items():
        if name in living:
            entries[name + BITMASK] = ("U8", (-(-info.numel // 8),))
            entries[name + VALUES] = (info.dtype, (living[name],))
        else:
            entries[name] = (info.dtype, info.shape)
    shapes = {name: tensors[name].shape for name in living}
    with target.open("wb") as stream:
        stream.write(header_bytes(entries, shapes))
        for name, info in tensors.items():
            if name in living:
                for _, there in _chunks(info):
                    stream.write(np.packbits(there, bitorder="little").data)
                for piece, there in _chunks(info):
                    stream.write(piece[there].data)
            else:
                for piece in stored_chunks(info):
                    stream.write(piece.data)


def _write_index(source: Path, target: Path, renamed: Callable[[str], str]) -> None:
    """Write the index of shards, where there is one, with their new names."""
    if source.exists():
        index = read_object(source)
        shards = {name: renamed(shard) for name, shard in index["weight_map"].items()}
        write_json(target, {**index, "weight_map": shards})
