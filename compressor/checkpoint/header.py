"""Reads the header of a safetensors file and refuses, by name and rule, what the format forbids.

A file is 8 bytes (length of the header, little-endian), the header (JSON: name -> dtype, shape,
data_offsets), then the values back to back. Nothing is read before its size is known to fit, so a
hostile header costs neither memory nor time.

A sparse tensor may be packed, which `packed.py` describes: its zeros are not stored, and come back
when it is read.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compressor.checkpoint.reading import open_regular, parse_object, refuse_known_mistakes, shown
from compressor.errors import InputError

# The format allows 100 MB, whose parsing takes a gigabyte; 5 MB describe 40,000 tensors.
MAX_HEADER_BYTES = 5_000_000
MAX_DIMENSIONS = 32
# BF16 has no numpy type: its bits are read as integers and widened.
STORED_AS = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
BYTES = {name: 1 if code == "?" else int(code[-1]) for name, code in STORED_AS.items()}
FLOATS = ("F16", "BF16", "F32", "F64")
# A packed tensor: which values are stored, these values, and the header's key for all shapes.
BITMASK, VALUES, SHAPES = ".bitmask", ".values", "packed_shapes"


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies.

    Attributes:
        name: as in the file.
        dtype: the format's name, such as "F32".
        shape: sizes of the dimensions.
        file: the safetensors file.
        start: first byte of the stored values, counted from the start of the file.
        end: byte after the last.
        bitmask: first byte of the bits that say which values are stored; None where all are.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int
    bitmask: int | None = None

    @property
    def numel(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all values, also of zeros that are not stored."""
        return self.numel * BYTES[self.dtype]

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
        raise broken(file, "its header does not start with {")
    entries = parse_object(text, file)
    metadata = entries.pop("__metadata__", {})
    _check_metadata(metadata, file)
    infos = [_entry(name, value, file, 8 + length) for name, value in entries.items()]
    infos.sort(key=lambda info: (info.start, info.end))
    _check_ranges(infos, 8 + length, size, file)
    return _joined({info.name: info for info in infos}, metadata.get(SHAPES, "{}"), file)


def header_bytes(
    entries: Mapping[str, tuple[str, tuple[int, ...]]],
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> bytes:
    """The first bytes of a safetensors file.

    Args:
        entries: dtype and shape of what is stored, by name, in the order of the values.
        shapes: of the packed tensors, if there are any.
    """
    metadata = {"format": "pt", **({SHAPES: json.dumps(shapes)} if shapes else {})}
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, (dtype, shape) in entries.items():
        start, end = end, end + math.prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # values are aligned
    return len(text).to_bytes(8, "little") + text


def broken(file: Path, rule: str) -> InputError:
    """The refusal of a file that breaks a rule of the format."""
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
        raise broken(
            file, f"its header claims {length:,} bytes, at most {MAX_HEADER_BYTES:,} are read"
        )
    if 8 + length > size:
        raise _cut(file, size, 8 + length, "its header alone needs")
    return length


def _check_metadata(metadata: Any, file: Path) -> None:
    texts = isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())
    if not texts:
        raise broken(file, "__metadata__ must map texts to texts")


def _entry(name: str, value: Any, file: Path, data_start: int) -> TensorInfo:
    """One line of the header, checked on its own."""

    def refuse(rule: str) -> InputError:
        return broken(file, f"tensor {shown(name)}: {rule}")

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
            raise broken(file, f"tensor {shown(info.name)}: its range of bytes {rule}")
        end = info.end
    if end != size:
        raise _cut(file, size, end, "its header promises")


def _joined(infos: dict[str, TensorInfo], shapes: str, file: Path) -> dict[str, TensorInfo]:
    """Put one entry in the place of the two that a packed tensor has."""
    for name, shape in parse_object(shapes.encode(), file).items():
        infos[name] = _packed(infos, name, shape, file)
    return dict(sorted(infos.items(), key=lambda item: item[1].start))


def _packed(infos: dict[str, TensorInfo], name: str, shape: Any, file: Path) -> TensorInfo:
    """Take a packed tensor's two entries out of `infos` and make one of them."""

    def refuse(rule: str) -> InputError:
        return broken(file, f"packed tensor {shown(name)}: {rule}")

    bitmask, values = (infos.pop(name + part, None) for part in (BITMASK, VALUES))
    if bitmask is None or values is None or name in infos:
        raise refuse(f"expected its {BITMASK} and its {VALUES}, and nothing else")
    if not _whole_numbers(shape) or len(shape) > MAX_DIMENSIONS:
        raise refuse(f"shape {shown(str(shape))} is not a list of sizes")
    octets = -(-math.prod(shape) // 8)
    if (bitmask.dtype, bitmask.shape) != ("U8", (octets,)):
        raise refuse(
            f"shape {shown(str(shape))} needs {octets:,} bytes of bits, found "
            f"{shown(str(list(bitmask.shape)))} of {bitmask.dtype}"
        )
    return replace(values, name=name, shape=tuple(shape), bitmask=bitmask.start)
