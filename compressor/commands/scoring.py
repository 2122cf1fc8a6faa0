"""Rows for verbs that do not train: what a transform draws on, and the score of its result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from compressor import console
from compressor.data.dataset import Dataset
from compressor.errors import InputError, UsageError
from compressor.model.tasks import task_of

if TYPE_CHECKING:
    from compressor.checkpoint.folder import Checkpoint
    from compressor.methods.contract import Batch
    from compressor.model.load import Loaded
    from compressor.train.feed import Feed

BATCH_SIZE = 16


def split_feed(
    dataset: Dataset, split: str, loaded: Loaded, max_length: int, seed: int, folder: Path
) -> Feed:
    """The rows of a split as a model reads them.

    Args:
        dataset: the opened data.
        split: "train", "validation" or "test".
        loaded: gives the reader.
        max_length: longest input in tokens.
        seed: order of the rows.
        folder: where tokens or pixels are kept.
    """
    from compressor.train.feed import feed_of

    return feed_of(
        dataset.rows(split),
        loaded.reader,
        dataset.task,
        max_length=max_length,
        folder=folder / f"rows-{split}",
        batch_size=BATCH_SIZE,
        seed=seed,
    )


@dataclass(frozen=True)
class DatasetRows:
    """What a transform draws on; see `compressor.methods.contract.Rows`.

    Attributes:
        dataset: the opened data.
        loaded: gives the reader.
        max_length: longest input in tokens.
        seed: order of the batches.
        folder: where tokens or pixels are kept.
    """

    dataset: Dataset
    loaded: Loaded
    max_length: int
    seed: int
    folder: Path

    def __iter__(self) -> Iterator[Batch]:
        """Batches of training rows, or of the first split that there is."""
        import torch

        split = "train" if self.dataset.has("train") else next(iter(self.dataset.source.splits))
        feed = split_feed(self.dataset, split, self.loaded, self.max_length, self.seed, self.folder)
        for number, rows in enumerate(feed.plan(0)):
            yield feed.batch(rows, torch.device("cpu"), 0, number)

    def texts(self) -> Iterator[list[str]]:
        """The texts of every row of every split, a chunk at a time."""
        from compressor.data.encode import chunks

        for split in self.dataset.source.splits:
            for chunk in chunks(self.dataset.rows(split)):
                if self.dataset.task.labelled:
                    yield [text for row in chunk for text in row.texts]
                else:
                    yield [row.one_text for row in chunk]


def refuse_unscored(checkpoint: Checkpoint, dataset: Dataset, flag: str) -> None:
    """Refuse rows that give a checkpoint no score, before any work.

    Args:
        checkpoint: what is to be scored.
        dataset: the opened data.
        flag: what needs the score, for the message.

    Raises:
        UsageError: there are no validation rows.
        InputError: the model has no head for the rows.
    """
    if not dataset.has("validation"):
        raise UsageError(
            f"there is nothing to judge by: {dataset.source.name} has no validation rows",
            where=flag,
        )
    task = task_of(checkpoint)
    if task != dataset.task.name:
        head = f"a head for {task}" if task else "no head"
        raise InputError(
            f"{checkpoint.name} has {head}, and the rows are for {dataset.task.name}",
            hint=f"train it first: compressor finetune {checkpoint.path} --data DATA",
            where=flag,
        )


def validation_metrics(loaded: Loaded, dataset: Dataset, max_length: int) -> dict[str, float]:
    """The task's metrics of a model on the validation split, said aloud.

    Empty where there is no such split, or the model has no head for the task of the rows.
    """
    from compressor.train.evaluate import evaluate, torch_forward

    if loaded.task != dataset.task.name:
        head = f"a head for {loaded.task}" if loaded.task else "no head"
        console.warn(f"the model has {head}, so rows for {dataset.task.name} give it no score")
        return {}
    if not dataset.has("validation"):
        console.warn(f"{dataset.source.name} has no validation rows to score the result on")
        return {}
    with TemporaryDirectory(prefix="compressor-") as scratch:
        feed = split_feed(dataset, "validation", loaded, max_length, 0, Path(scratch))
        metrics = evaluate(torch_forward(loaded.model), feed).metrics
    console.note("validation: " + "  ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
    return {name: round(value, 6) for name, value in metrics.items()}
