"""Rows become what a model reads: the student, and a teacher that reads in another way."""

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
    """Training rows and, where there are any, validation rows, as a model reads them.

    Args:
        dataset: the opened data.
        loaded: gives the reader.
        training: batch size and length limit.
        objectives: decide how text is masked.
        seed: order of the rows.
        folder: where tokens or pixels are kept while training.
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
    """The training rows as a teacher reads them.

    Args:
        teacher: gives the reader.
        feed: the same rows as the student reads them.
        dataset: the opened data.
        training: batch size and length limit.
        folder: for these rows alone, while training.
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
    """One split, kept in `folder`; see `feeds_of`."""
    from compressor.train.feed import feed_of

    made = feed_of(
        dataset.rows(split),
        loaded.reader,
        dataset.task,
        max_length=training.max_length,
        folder=folder,
        batch_size=training.batch_size,
        seed=seed,
        on_long=training.on_long,
    )
    if dataset.labels is not None and split != "train":
        warn_absent_classes(dataset, split, made.encoded.labels)
    return made


def rows_folder(state: Path) -> Path:
    """Each process of a launch reads the rows for itself."""
    return state / f"process-{os.environ.get('RANK', '0')}"
