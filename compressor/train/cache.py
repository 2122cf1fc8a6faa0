"""A teacher's answers on disk, one for each distinct row, for every epoch, seed and run.

The folder holds `cache.json`, which says what the answers are bound to, `logits.npy` float32
[distinct rows, classes] and, when asked for, `hidden.npy` float16 [tokens of the distinct rows,
layers + 1, width]. Both are read memory-mapped. An array has that name only when it is whole; see
`compressor.train.fill`.

float16 halves the disk and rounds a state by 2^-11 of its size at most; a teacher that is asked
live under bf16 rounds by 2^-8.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compressor import console
from compressor.checkpoint.reading import read_object
from compressor.checkpoint.store import locked, write_json, writing
from compressor.data.distinct import Distinct
from compressor.errors import InputError, MachineError, UsageError
from compressor.model.views import HIDDEN, LOGITS
from compressor.train.fill import Arrays, Ask, Check, fill, header
from compressor.train.state import changes

RECORD = "cache.json"
_RECORD_BYTES = 10_000  # more than cache.json and what notes the progress come to
_WAIT_SECONDS = 0.2


@dataclass(frozen=True)
class Keeping:
    """How a teacher's answers are kept.

    Attributes:
        folder: where; None for a place that is removed with the run's state.
        limit: bytes that the folder may come to.
        hidden: whether hidden states are kept.
        bound_to: everything that decides the answers, as JSON.
    """

    folder: Path | None = None
    limit: int = 2 * 10**9
    hidden: bool = False
    bound_to: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cache:
    """The answers of a folder, all there.

    Attributes:
        arrays: LOGITS and HIDDEN, memory-mapped, in the order of the distinct rows.
        rows: which distinct row each row of the split is.
        ends: for each array where in it each distinct row begins, and the end of the last.
    """

    arrays: Arrays
    rows: Distinct
    ends: Arrays

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """Float32 [rows, classes]."""
        return np.asarray(self.arrays[LOGITS][self.rows.places[rows]])

    def hidden(self, rows: np.ndarray, length: int) -> np.ndarray:
        """[layers + 1, rows, length, width], zero after the end of a row.

        Args:
            rows: int [rows].
            length: tokens of the batch, padding included.
        """
        flat, ends = self.arrays[HIDDEN], self.ends[HIDDEN]
        places = self.rows.places[rows]
        starts = ends[places]
        columns = np.arange(length)
        real = columns < (ends[places + 1] - starts)[:, None]  # [rows, length]
        tokens = flat[(starts[:, None] + columns)[real]]  # [tokens, layers + 1, width]
        padded = np.zeros((flat.shape[1], *real.shape, flat.shape[2]), dtype=flat.dtype)
        padded[:, real] = tokens.swapaxes(0, 1)
        return padded


def refuse_unlike(folder: Path, bound_to: Mapping[str, Any]) -> None:
    """Refuse a folder that holds other answers, or something else.

    Args:
        folder: may be absent or empty.
        bound_to: what the answers must be bound to; only these keys are compared.

    Raises:
        InputError: with what differs.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / RECORD).is_file():
        raise InputError(
            f"{folder} is no teacher's cache: it has no {RECORD}",
            hint="name a folder that does not exist yet",
            where="--teacher-cache",
        )
    record = read_object(folder / RECORD)
    wanted = json.loads(json.dumps(bound_to))
    found = list(changes({key: record.get(key) for key in wanted}, wanted))
    if found:
        raise InputError(
            f"the teacher's answers in {folder} are others; they differ in {'; '.join(found)}",
            hint=f"name another folder: --teacher-cache, or make them again: rm -r {folder}",
            where="--teacher-cache",
        )


def open_cache(
    keeping: Keeping,
    rows: Distinct,
    lengths: np.ndarray,
    wanted: frozenset[str],
    ask: Ask,
    check: Check,
) -> Cache | None:
    """The answers for all rows, asked for where the folder does not have them yet.

    Args:
        keeping: where and how.
        rows: the distinct rows.
        lengths: tokens of every row of the split.
        wanted: LOGITS, HIDDEN or both.
        ask: from row numbers to what the teacher shows of them, LOGITS [rows, classes] and HIDDEN
            [tokens, layers + 1, width], the tokens of all rows one after the other.
        check: raises when the run should stop.

    Returns:
        None where the logits would be larger than the limit.

    Raises:
        InputError: the folder is bound to something else, or damaged.
        UsageError: the hidden states would be larger than the limit.
        MachineError: the disk is too full.
    """
    folder = Path(keeping.folder)
    refuse_unlike(folder, keeping.bound_to)
    counts = {LOGITS: np.ones(len(rows), dtype=np.int64), HIDDEN: lengths[rows.rows]}
    ends = {name: np.concatenate([[0], counts[name].cumsum()]) for name in (LOGITS, HIDDEN)}
    if absent := _absent(folder, wanted):
        # One short row tells the shapes.
        blocks = {name: ask(rows.rows[-1:])[name] for name in absent}
    else:
        blocks = {}
    needed = {
        name: len(header(block, ends[name][-1])) + block[:1].nbytes * int(ends[name][-1])
        for name, block in blocks.items()
    }
    if not _fits(keeping, folder, needed, wanted):
        return None
    if absent:
        with locked(folder, _Waiting(folder, check)):
            refuse_unlike(folder, keeping.bound_to)
            if not (folder / RECORD).exists():
                with writing(folder, force=True) as made:
                    write_json(made / RECORD, keeping.bound_to)
            # Perhaps another run has filled it while this one waited.
            blocks = {name: blocks[name] for name in _absent(folder, wanted)}
            if blocks:
                fill(folder, blocks, rows, ends, ask, check)
    arrays = {name: _opened(folder, name, ends[name][-1]) for name in wanted}
    return Cache(arrays, rows, ends)


class _Waiting:
    """What a run does while another one fills the folder: say so once, and look for signals."""

    def __init__(self, folder: Path, check: Check) -> None:
        self.folder, self.check, self.said = folder, check, False

    def __call__(self) -> None:
        if not self.said:
            console.note(f"another run is writing the teacher's answers to {self.folder}; waiting")
            self.said = True
        self.check()
        time.sleep(_WAIT_SECONDS)


def _absent(folder: Path, wanted: frozenset[str]) -> list[str]:
    return [name for name in sorted(wanted) if not (folder / f"{name}.npy").exists()]


def _fits(
    keeping: Keeping, folder: Path, needed: Mapping[str, int], wanted: frozenset[str]
) -> bool:
    """Whether the folder would keep to its limit and to the disk; a refusal for hidden states."""
    there = sum(file.stat().st_size for file in folder.glob("*.npy"))
    size = there + sum(needed.values()) + _RECORD_BYTES
    if size > keeping.limit:
        text = (
            f"the teacher's answers would take {console.size(size)}, and --cache-limit allows "
            f"{console.size(keeping.limit)}"
        )
        if HIDDEN in wanted:
            raise UsageError(
                text,
                hint=f"--cache-limit {-(-size // 10**6)}MB, or leave --cache-hidden out and the "
                "teacher is asked in every step",
                where="--cache-limit",
            )
        console.note(f"{text}: the teacher is asked in every step")
        return False
    free = shutil.disk_usage(folder.parent).free
    if sum(needed.values()) > free:
        raise MachineError(
            f"not enough room for the teacher's answers: {console.size(size)} needed, "
            f"{console.size(free)} free",
            hint="keep them elsewhere: --teacher-cache FOLDER",
            where=str(folder),
        )
    return True


def _opened(folder: Path, name: str, length: int) -> np.ndarray:
    """A whole array, memory-mapped."""
    file = folder / f"{name}.npy"
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except ValueError as problem:
        raise _damaged(file, str(problem)) from problem
    if len(array) != length:
        raise _damaged(file, f"it has {len(array):,} entries, expected {length:,}")
    return array


def _damaged(file: Path, why: str) -> InputError:
    return InputError(
        f"{file.name} is damaged: {why}",
        hint=f"make the answers again: rm -r {file.parent}",
        where=str(file),
    )
