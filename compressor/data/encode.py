"""Texts become token ids in flat files, so that memory does not grow with the data.

Every sequence stands once, without padding, in one long array on disk; `batches` pads a handful
at a time. The tokenizer is handed in: this room imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from compressor import console
from compressor.data.cut import cut_end, cut_up
from compressor.data.faults import kept_in
from compressor.data.rows import Row
from compressor.data.tasks import Task
from compressor.errors import InputError

CHUNK_ROWS = 1000
# Rows of a megabyte each must not come a thousand at a time.
CHUNK_CHARACTERS = 1_000_000
FIRST_LINES = 5
# Share of rows without a known word above which somebody should look at the data.
EMPTY_SHARE = 0.01


@dataclass(frozen=True)
class Encoded:
    """Sequences of token ids.

    Args:
        ids: int32 [tokens], all sequences one after the other, memory-mapped.
        offsets: int64 [sequences + 1]; sequence i is `ids[offsets[i]:offsets[i + 1]]`.
        types: uint8 [tokens], the token types of pairs; None where the tokenizer tells none apart.
        labels: int64 or float32 [sequences]; None for tasks that predict the text itself.
        max_length: the longest that a sequence may be, special tokens included.
        truncated: rows that lost words.
        longest: tokens of the longest row before it was cut.
        empty: rows without a text.
        unknown: rows of which the tokenizer knows no word.
    """

    ids: np.ndarray
    offsets: np.ndarray
    types: np.ndarray | None
    labels: np.ndarray | None
    max_length: int
    truncated: int = 0
    longest: int = 0
    empty: int = 0
    unknown: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, int64 [sequences]."""
        return np.diff(self.offsets)


def encode(
    rows: Iterable[Row],
    tokenizer: Any,
    task: Task,
    *,
    max_length: int,
    folder: Path,
    on_long: Literal["truncate", "error"] = "truncate",
) -> Encoded:
    """Tokenise rows into `ids.bin` (and `types.bin`) in `folder`.

    A labelled row that is too long loses words from its end, a pair from its longer text first.
    For masked-lm and causal-lm a long row becomes several sequences, each with its own special
    tokens; rows without a text are left out, and the texts of a pair stand one below the other.

    Args:
        rows: from `Dataset.rows`.
        tokenizer: a fast tokenizer of transformers.
        task: what the sequences are for.
        max_length: tokens of a sequence at most, special tokens included.
        folder: made when it is missing; files of an earlier call in it are overwritten.
        on_long: "error" refuses rows that would lose words.

    Raises:
        InputError: no rows, or a row is too long under `on_long="error"`.
        UsageError: `max_length` leaves no room for a word.
        MachineError: the folder cannot be written.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"{type(tokenizer).__name__} is not a fast tokenizer",
            hint="save the checkpoint with a tokenizer.json",
        )
    work = _Work(tokenizer, task, max_length, on_long)
    with (
        kept_in(folder, "token ids"),
        (folder / "ids.bin").open("wb") as ids,
        (folder / "types.bin").open("wb") as types,
    ):
        for chunk in chunks(rows):
            flat, flat_types = work.add(chunk)
            # Not `tofile`, which does not notice that the disk is full.
            ids.write(flat.data)
            if flat_types is not None:
                types.write(flat_types.data)
    return work.finish(folder)


def chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in lists that a tokenizer can take at once without filling the memory."""
    chunk: list[Row] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += sum(map(len, row.texts))
        if len(chunk) == CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


@dataclass
class _Work:
    """What `encode` keeps from chunk to chunk."""

    tokenizer: Any
    task: Task
    max_length: int
    on_long: str
    lengths: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    has_types: bool | None = None
    rows: int = 0
    truncated: int = 0
    longest: int = 0
    empty: int = 0
    empty_lines: list[int] = field(default_factory=list)
    unknown: int = 0

    def add(self, chunk: list[Row]) -> tuple[np.ndarray, np.ndarray | None]:
        """Tokenise a chunk: ids int32 [tokens] and types uint8 [tokens] of its sequences."""
        self._count_empty(chunk)
        if not self.task.labelled:
            chunk = [row for row in chunk if any(text.strip() for text in row.texts)]
        if not chunk:
            return np.empty(0, np.int32), None
        pair = len(chunk[0].texts) == 2 and self.task.labelled
        # Cut here and not by the tokenizer: it also makes every piece that is cut off, for a pair
        # every combination of the pieces of both texts, and does not tell how long a row was.
        output = self.tokenizer(
            *self._texts(chunk, pair),
            padding=False,
            truncation=False,
            return_attention_mask=False,
            # A student that takes no token types may have a teacher that does.
            return_token_type_ids=True if pair else None,
            verbose=False,
        )
        ids: list[list[int]] = output["input_ids"]
        types: list[list[int]] | None = output.get("token_type_ids")
        if self.has_types is None:
            # All zero is what models assume that are given none.
            self.has_types = types is not None and any(map(any, types))
        pieces = self._fit(chunk, output, pair)
        flat = _flat((ids[i] if keep is None else _take(ids[i], keep) for i, keep in pieces))
        lengths = np.array([len(ids[i]) if keep is None else len(keep) for i, keep in pieces])
        if not lengths.all():
            flat, lengths = _fill(flat, lengths, _filler(self.tokenizer))
        self.lengths.append(lengths)
        self._count_unknown(flat, lengths, pair)
        if self.task.labelled:
            kind = np.float32 if self.task.name == "regression" else np.int64
            self.labels.append(np.array([row.label for row in chunk], dtype=kind))
        if not self.has_types or types is None:
            return flat, None
        taken = _flat(types[i] if keep is None else _take(types[i], keep) for i, keep in pieces)
        return flat, taken.astype(np.uint8)

    def _texts(self, chunk: list[Row], pair: bool) -> list[list[str]]:
        if pair:
            return [[row.texts[0] for row in chunk], [row.texts[1] for row in chunk]]
        return [[row.one_text for row in chunk]]

    def _fit(
        self, chunk: list[Row], output: Any, pair: bool
    ) -> list[tuple[int, np.ndarray | None]]:
        """(row of the chunk, positions to keep, None for all) of every sequence to write."""
        pieces: list[tuple[int, np.ndarray | None]] = []
        for index, ids in enumerate(output["input_ids"]):
            self.longest = max(self.longest, len(ids))
            if len(ids) <= self.max_length:
                pieces.append((index, None))
                continue
            # None for special tokens, 0 and 1 for the first and second text
            texts = np.array([-1 if t is None else t for t in output.encodings[index].sequence_ids])
            if not self.task.labelled:
                pieces += [(index, keep) for keep in cut_up(texts, self.max_length)]
                continue
            self._refuse_long(chunk[index], len(ids))
            self.truncated += 1
            pieces.append((index, cut_end(texts, self.max_length)))
        return pieces

    def _refuse_long(self, row: Row, length: int) -> None:
        if self.on_long == "error":
            raise InputError(
                f"a row of {length} tokens; at most {self.max_length} fit",
                hint="raise --max-length, or allow --on-long truncate",
                where=f"{row.file}:{row.line}",
            )

    def _count_empty(self, chunk: list[Row]) -> None:
        self.rows += len(chunk)
        blank = [row.line for row in chunk if not all(text.strip() for text in row.texts)]
        self.empty += len(blank)
        self.empty_lines += blank[: FIRST_LINES - len(self.empty_lines)]

    def _count_unknown(self, flat: np.ndarray, lengths: np.ndarray, pair: bool) -> None:
        unknown_id = self.tokenizer.unk_token_id
        if unknown_id is None:
            return
        starts = np.cumsum(lengths) - lengths
        unknown = np.add.reduceat(flat == unknown_id, starts, dtype=np.int64)
        words = lengths - self.tokenizer.num_special_tokens_to_add(pair=pair)
        self.unknown += int(np.count_nonzero((words > 0) & (unknown >= words)))

    def finish(self, folder: Path) -> Encoded:
        """Say what happened to the rows and map the files."""
        if not self.lengths:
            raise InputError(
                f"none of the {self.rows:,} rows has a text" if self.rows else "no rows",
                hint="see that the text columns are the right ones: --text-columns",
            )
        self._warn()
        offsets = np.concatenate([[0], *self.lengths]).cumsum(dtype=np.int64)
        types = folder / "types.bin"
        return Encoded(
            ids=np.memmap(folder / "ids.bin", dtype=np.int32, mode="r"),
            offsets=offsets,
            types=np.memmap(types, dtype=np.uint8, mode="r") if self.has_types else None,
            labels=np.concatenate(self.labels) if self.labels else None,
            max_length=self.max_length,
            truncated=self.truncated,
            longest=self.longest,
            empty=self.empty,
            unknown=self.unknown,
        )

    def _warn(self) -> None:
        if self.truncated:
            console.warn(
                f"{self.truncated:,} of {self.rows:,} rows are cut to {self.max_length} tokens; "
                f"the longest has {self.longest:,}"
            )
        if self.empty > EMPTY_SHARE * self.rows:
            fate = "kept" if self.task.labelled else "left out"
            lines = ", ".join(map(str, self.empty_lines))
            more = ", ..." if self.empty > len(self.empty_lines) else ""
            console.warn(
                f"{self.empty:,} of {self.rows:,} rows have an empty text and are {fate} "
                f"(lines {lines}{more})"
            )
        if self.unknown > EMPTY_SHARE * self.rows:
            console.warn(
                f"{self.unknown:,} of {self.rows:,} rows hold no word that the tokenizer knows"
            )


def _flat(sequences: Iterable[Iterable[int]]) -> np.ndarray:
    return np.fromiter(chain.from_iterable(sequences), dtype=np.int32)


def _take(values: list[int], keep: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.int32)[keep]


def _filler(tokenizer: Any) -> int:
    names = ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id")
    return next((i for i in (getattr(tokenizer, n, None) for n in names) if i is not None), 0)


def _fill(flat: np.ndarray, lengths: np.ndarray, token: int) -> tuple[np.ndarray, np.ndarray]:
    """Give sequences without any token one: attention over nothing is not a number."""
    nothing = lengths == 0
    starts = np.cumsum(lengths) - lengths
    return np.insert(flat, starts[nothing], token), np.where(nothing, 1, lengths)
