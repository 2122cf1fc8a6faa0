"""Rows become tokens: what the student reads, and a teacher whose tokenizer is another one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.commands.objectives import held_out_masking_of, masking_of
from compressor.commands.slots import Picked
from compressor.data.dataset import Dataset
from compressor.data.splits import warn_absent_classes
from compressor.train.options import TrainingOptions

if TYPE_CHECKING:
    from compressor.data.batches import Masking
    from compressor.model.load import Loaded
    from compressor.train.feed import Feed


def feeds_of(
    dataset: Dataset,
    loaded: Loaded,
    training: TrainingOptions,
    objectives: Sequence[Picked],
    seed: int,
    folder: Path,
) -> tuple[Feed, Feed | None]:
    """Tokenised training rows and, where there are any, validation rows.

    Args:
        dataset: the opened data.
        loaded: gives the tokenizer and the longest input.
        training: batch size and length limit.
        objectives: decide how text is masked.
        seed: order of the rows.
        folder: where the tokens are kept while training.
    """

    def feed(split: str, masking: Masking) -> Feed:
        made = _feed(dataset, split, loaded, training, seed, folder / f"rows-{split}")
        return replace(made, masking=masking)

    train = feed("train", masking_of(objectives))
    if not dataset.has("validation"):
        return train, None
    return train, feed("validation", held_out_masking_of(objectives))


def own_feed(
    teacher: Loaded, feed: Feed, dataset: Dataset, training: TrainingOptions, folder: Path
) -> Feed:
    """The training rows in a teacher's own tokens.

    Args:
        teacher: gives the tokenizer and the longest input.
        feed: the same rows in the student's tokens.
        dataset: the opened data.
        training: batch size and length limit.
        folder: for these tokens alone, while training.
    """
    return _feed(dataset, "train", teacher, training, feed.seed, folder)


def _feed(
    dataset: Dataset,
    split: str,
    loaded: Loaded,
    training: TrainingOptions,
    seed: int,
    folder: Path,
) -> Feed:
    """One split, tokenised into `folder`; see `feeds_of`."""
    from compressor.data.encode import encode
    from compressor.model.load import longest_input
    from compressor.train.feed import Feed

    encoded = encode(
        dataset.rows(split),
        loaded.tokenizer,
        dataset.task,
        max_length=min(training.max_length, longest_input(loaded)),
        folder=folder,
        on_long=training.on_long,
    )
    if dataset.labels is not None and split != "train":
        warn_absent_classes(dataset, split, encoded.labels)
    return Feed(encoded, loaded.tokenizer, dataset.task, training.batch_size, seed)


def rows_folder(state: Path) -> Path:
    """Each process of a launch tokenises for itself."""
    return state / f"process-{os.environ.get('RANK', '0')}"
