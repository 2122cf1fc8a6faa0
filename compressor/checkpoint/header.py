"""Reads the header of a safetensors file and refuses, by name and rule, what the format forbids.

A file is 8 bytes (length of the header, little-endian), the header (JSON: name -> dtype, shape,
data_offsets), then the values back to back. Nothing is read before its size is known to fit, so a
hostile header costs neither memory nor time. numpy is loaded with the first values, so that a
refusal comes without it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.checkpoint.reading import open_regular, parse_object, refuse_known_mistakes, shown
from compressor.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The format allows 100 MB, whose parsing takes a gigabyte; 5 MB describe 40,000 tensors.
MAX_HEADER_BYTES = 5_000_000
MAX_DIMENSIONS = 32
CHUNK = 1 << 20  # values looked at in one go: a few MB, so memory stays flat
# BF16 has no numpy type: its bits are read as integers and widened.
STORED_AS = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
BYTES = {name: 1 if code == "?" else int(code[-1]) for name, code in STORED_AS.items()}
FLOATS = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies.

    Attributes:
        name: as in the file.
        dtype: the format's name, such as "F32".
        shape: sizes of the dimensions.
        file: the safetensors file.
        start: first byte, counted from the start of the file.
        end: byte after the last.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int

    @property
    def numel(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.end - self.start

    @property
    def bits(self) -> int:
        """Bits of one value."""
        return 8 * BYTES[self.dtype]


def read_header(file: Path) -> dict[str, TensorInfo]:
    """The tensors of a safetensors file, in the order of their bytes.

    Raises:
        InputError: the file is something else, cut off, has bytes to spare, or breaks a rule of
            the format.
        MachineError: it may not be read.
    """
    with open_regular(file) as handle:
        size = os.fstat(handle.fileno()).st_size
        head = handle.read(200)
        if head[8:9] != b"{":  # else the first bytes are a length and may spell anything
            refuse_known_mistakes(head, file)
        length = _header_length(head, size, file)
        handle.seek(8)
        text = handle.read(length)
    if not text.startswith(b"{"):
        raise _broken(file, "its header does not start with {")
    entries = parse_object(text, file)
    _check_metadata(entries.pop("__metadata__", {}), file)
    infos = [_entry(name, value, file, 8 + length) for name, value in entries.items()]
    infos.sort(key=lambda info: (info.start, info.end))
    _check_ranges(infos, 8 + length, size, file)
    return {info.name: info for info in infos}


def _broken(file: Path, rule: str) -> InputError:
    return InputError(
        f"{file.name} is not a valid safetensors file: {rule}",
        hint="copy or fetch the checkpoint again",
        where=str(file),
    )


def _cut(file: Path, found: int, promised: int, what: str) -> InputError:
    surplus = "bytes too many" if found > promised else "it was cut off"
    return InputError(
        f"{file.name} holds {found:,} bytes, {what} {promised:,}: {surplus}",
        hint="copy or fetch it again; was the disk full?",
        where=str(file),
    )


def _header_length(head: bytes, size: int, file: Path) -> int:
    if len(head) < 8:
        raise _cut(file, size, 8, "a safetensors file needs at least")
    length = int.from_bytes(head[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise _broken(
            file, f"its header claims {length:,} bytes, at most {MAX_HEADER_BYTES:,} are read"
        )
    if 8 + length > size:
        raise _cut(file, size, 8 + length, "its header alone needs")
    return length


def _check_metadata(metadata: Any, file: Path) -> None:
    texts = isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())
    if not texts:
        raise _broken(file, "__metadata__ must map texts to texts")


def _entry(name: str, value: Any, file: Path, data_start: int) -> TensorInfo:
    """One line of the header, checked on its own."""

    def refuse(rule: str) -> InputError:
        return _broken(file, f"tensor {shown(name)}: {rule}")

    if not name or not name.isprintable():
        raise refuse("its name is empty or cannot be printed")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise refuse("expected exactly dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in STORED_AS:
        raise refuse(f"dtype {shown(str(dtype))} is none of {', '.join(STORED_AS)}")
    if not _whole_numbers(shape) or len(shape) > MAX_DIMENSIONS:
        raise refuse(f"shape {shown(str(shape))} is not a list of sizes")
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise refuse(f"data_offsets {shown(str(offsets))} are not a range of bytes")
    needed = math.prod(shape) * BYTES[dtype]
    if needed != offsets[1] - offsets[0]:
        raise refuse(
            f"shape {shown(str(shape))} of {dtype} needs {needed:,} bytes, its range holds "
            f"{offsets[1] - offsets[0]:,}"
        )
    start, end = (data_start + offset for offset in offsets)
    return TensorInfo(name, dtype, tuple(shape), file, start, end)


def _whole_numbers(value: Any) -> bool:
    # `type`, not isinstance: True is an int to Python and not to JSON.
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_ranges(infos: list[TensorInfo], data_start: int, size: int, file: Path) -> None:
    """Byte ranges must follow each other without a hole, an overlap or a rest."""
    end = data_start
    for info in infos:
        if info.start != end:
            rule = "overlaps the tensor before it" if info.start < end else "leaves a hole before"
            raise _broken(file, f"tensor {shown(info.name)}: its range of bytes {rule}")
        end = info.end
    if end != size:
        raise _cut(file, size, end, "its header promises")


def widen(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """BF16 values, given as their bits, as float32 of the same shape."""
    import numpy as np

    return (bits.astype(np.uint32) << 16).view(np.float32)


def read_array(info: TensorInfo) -> NDArray[Any]:
    """The values of a tensor: a read-only memory map; BF16 is copied to float32.

    Returns:
        An array of `info.shape`.
    """
    import numpy as np

    stored = np.dtype(STORED_AS[info.dtype])
    if not info.numel:
        return np.empty(info.shape, np.float32 if info.dtype == "BF16" else stored)
    array = np.memmap(info.file, stored, mode="r", offset=info.start, shape=info.shape)
    return widen(array) if info.dtype == "BF16" else array


def read_chunks(info: TensorInfo) -> Iterator[NDArray[Any]]:
    """The values of a tensor in flat pieces of at most `CHUNK`, so that memory stays flat."""
    import numpy as np

    if not info.numel:
        return
    stored = np.dtype(STORED_AS[info.dtype])
    flat = np.memmap(info.file, stored, mode="r", offset=info.start, shape=(info.numel,))
    for first in range(0, info.numel, CHUNK):
        piece = flat[first : first + CHUNK]
        yield widen(piece) if info.dtype == "BF16" else piece
