"""Between the splits of a data set: which one to score, what they share, what one lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor import console
from compressor.data.dataset import Dataset
from compressor.data.labels import listed
from compressor.data.rows import Row
from compressor.errors import InputError

if TYPE_CHECKING:
    import numpy as np

FIRST_LINES = 5


def split_for_evaluation(dataset: Dataset, wanted: str = "") -> str:
    """Name the split to evaluate on: the wanted one, or validation where there is one, else test.

    Raises:
        InputError: the data lacks the wanted one, or has neither; training rows are no evaluation.
    """
    if wanted:
        dataset.require(wanted)
        return wanted
    for split in ("validation", "test"):
        if dataset.has(split):
            return split
    raise InputError(
        "neither validation nor test rows; an evaluation on training rows would mean nothing",
        hint="add a validation file to the folder, or name a file test.jsonl",
        where=dataset.source.name,
    )


def warn_absent_classes(dataset: Dataset, split: str, labels: np.ndarray) -> None:
    """Warn when a class of the data set has no row in `split` (case 30).

    Args:
        dataset: the data set.
        split: the split that was encoded, for the message.
        labels: its class ids, int64 [rows].
    """
    import numpy as np

    if dataset.labels is None:
        return
    counts = np.bincount(labels, minlength=len(dataset.labels))
    absent = [name for name, rows in zip(dataset.labels, counts, strict=True) if not rows]
    if absent:
        console.warn(
            f"{dataset.source.name}: no {split} row has the label "
            f"{listed(absent)} ({len(labels):,} rows)"
        )


def overlap(dataset: Dataset, a: str, b: str) -> tuple[int, list[int]]:
    """How many rows of split `b` have the texts of a row of split `a`.

    Eight bytes are held for each row, whatever its length.

    Returns:
        The count, and the line numbers of the first five.
    """
    import numpy as np

    seen = np.unique(np.fromiter(map(_text_hash, dataset.rows(a)), dtype=np.uint64))
    count = 0
    lines: list[int] = []
    for row in dataset.rows(b):
        key = np.uint64(_text_hash(row))
        place = np.searchsorted(seen, key)
        if place < len(seen) and seen[place] == key:
            count += 1
            if len(lines) < FIRST_LINES:
                lines.append(row.line)
    return count, lines


def overlap_text(dataset: Dataset, split: str = "validation") -> str:
    """A sentence about rows of `split` that stand in the training rows too; empty without any."""
    if not (dataset.has("train") and dataset.has(split)):
        return ""
    count, lines = overlap(dataset, "train", split)
    shown = ", ".join(map(str, lines)) + (" ..." if count > len(lines) else "")
    text = f"{count} {split} rows stand in the training rows too (lines {shown})"
    return text if count else ""


def refuse_overlap(dataset: Dataset, split: str = "validation") -> None:
    """Refuse rows to score on that stand in the training rows too.

    Raises:
        InputError: there are some.
    """
    text = overlap_text(dataset, split)
    if text:
        raise InputError(text, where="--no-overlap")


def _text_hash(row: Row) -> int:
    import hashlib

    text = "\0".join(row.texts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
