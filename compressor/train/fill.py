"""A teacher's answers appended to arrays on disk, batch by batch, whatever stops the run.

An array that is not whole is `logits.partial`, and `filling.json` says how many batches of it are
safely on disk: the run after a killed one goes on from there. It is renamed to `logits.npy` once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from compressor import console
from compressor.checkpoint.reading import read_object
from compressor.checkpoint.store import write_json
from compressor.data.distinct import Distinct
from compressor.errors import MachineError

FILLING = "filling.json"
# Not the run's batch size: the last bits of an answer depend on which rows share a batch, and the
# answers must be the same whichever run writes them.
BATCH_ROWS = 32
BATCHES_BETWEEN_SYNCS = 50

Arrays = dict[str, np.ndarray]
Ask = Callable[[np.ndarray], Arrays]
Check = Callable[[], None]


def header(block: np.ndarray, length: int) -> bytes:
    """The head of an `.npy` file of `length` entries like those of `block`."""
    stream = BytesIO()
    described = {**np.lib.format.header_data_from_array_1_0(block), "fortran_order": False}
    described["shape"] = (int(length), *block.shape[1:])
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def fill(
    folder: Path,
    blocks: Arrays,
    rows: Distinct,
    ends: Arrays,
    ask: Ask,
    check: Check,
) -> None:
    """Ask for every distinct row and append what is shown to the arrays named in `blocks`."""
    batches = [rows.rows[i : i + BATCH_ROWS] for i in range(0, len(rows), BATCH_ROWS)]
    try:
        done = _done(folder, sorted(blocks))
        with ExitStack() as stack:
            streams = {}
            for name, block in blocks.items():
                place = int(ends[name][min(done * BATCH_ROWS, len(rows))]) * block[:1].nbytes
                head = header(block, ends[name][-1])
                path = folder / f"{name}.partial"
                streams[name] = stack.enter_context(path.open("r+b" if done else "wb"))
                streams[name].write(head)
                streams[name].seek(len(head) + place)
                streams[name].truncate()
            with console.Progress("teacher", len(batches), done=done) as progress:
                for number in range(done, len(batches)):
                    check()
                    shown = ask(batches[number])
                    for name, stream in streams.items():
                        # Not `tofile`, which does not notice that the disk is full.
                        stream.write(np.ascontiguousarray(shown[name]).data)
                    if (number + 1) % BATCHES_BETWEEN_SYNCS == 0:
                        _note_done(folder, streams, number + 1)
                    progress.advance()
            _note_done(folder, streams, len(batches))
        for name in streams:
            (folder / f"{name}.partial").rename(folder / f"{name}.npy")
        (folder / FILLING).unlink()
        _force(folder)
    except OSError as problem:
        raise MachineError(
            f"the teacher's answers cannot be written: {problem.strerror}",
            hint="free some disk space, or keep them elsewhere: --teacher-cache FOLDER",
            where=str(folder),
        ) from problem


def _done(folder: Path, names: list[str]) -> int:
    """How many batches of these arrays a killed run has left safely on disk."""
    note = folder / FILLING
    if not note.exists():
        return 0
    record = read_object(note)
    if record["arrays"] == names and all((folder / f"{name}.partial").exists() for name in names):
        return int(record["batches"])
    note.unlink()  # before its arrays begin anew
    _force(folder)
    return 0


def _note_done(folder: Path, streams: Mapping[str, BinaryIO], batches: int) -> None:
    """Force what was written to disk, then say so on disk."""
    for stream in streams.values():
        stream.flush()
        os.fsync(stream.fileno())
    partial = folder / f"{FILLING}.partial"
    write_json(partial, {"arrays": sorted(streams), "batches": batches})
    _force(partial)
    partial.replace(folder / FILLING)
    _force(folder)


def _force(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
