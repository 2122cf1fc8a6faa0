"""Encoded rows as torch batches, the same ones for the same seed whatever happened before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.data.batches import PLAIN, Masking, collate, plan_batches, token_weights
from compressor.data.pixels import Pixels

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedTokenizerBase

    from compressor.data.encode import Encoded
    from compressor.data.rows import Row
    from compressor.data.tasks import Task
    from compressor.model.reader import Reader


@dataclass(frozen=True)
class Feed:
    """The rows of one split, ready to be batched.

    Attributes:
        encoded: tokenised rows, or images.
        tokenizer: gives padding, mask and special ids; None for images.
        task: decides labels and masking.
        batch_size: rows per batch.
        seed: order of the rows and choice of masked tokens.
        masking: how many tokens of a masked LM's rows are masked, and which.
    """

    encoded: Encoded | Pixels
    tokenizer: PreTrainedTokenizerBase | None
    task: Task
    batch_size: int
    seed: int = 0
    masking: Masking = PLAIN

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in one pass over the rows."""
        return -(-len(self.encoded) // self.batch_size)

    def plan(self, epoch: int, *, shuffle: bool = True) -> list[np.ndarray]:
        """The row numbers of every batch of an epoch, bucketed by length."""
        return plan_batches(
            self.encoded.lengths, self.batch_size, seed=self.seed, epoch=epoch, shuffle=shuffle
        )

    @cached_property
    def _token_weights(self) -> np.ndarray | None:
        """How readily each token is masked; None where all are alike."""
        smoothing = self.masking.smoothing
        if smoothing == 0:
            return None
        return token_weights(self.encoded.ids, len(self.tokenizer), smoothing)

    def arrays(self, rows: np.ndarray, *key: int, multiple_of: int = 1) -> dict[str, np.ndarray]:
        """The arrays of the given rows, texts padded; `key` picks a masked LM's masked tokens."""
        import numpy as np

        if isinstance(self.encoded, Pixels):
            return self.encoded.batch(rows)
        options: dict[str, Any] = {"multiple_of": multiple_of}
        if self.task.name == "masked-lm":
            options |= {
                "mask_rng": np.random.default_rng([self.seed, *key]),
                "mask_id": self.tokenizer.mask_token_id,
                "vocab_size": len(self.tokenizer),
                "special_ids": self.tokenizer.all_special_ids,
                "masking": self.masking,
                "weights": self._token_weights,
            }
        return collate(
            self.encoded, rows, pad_id=self.tokenizer.pad_token_id, task=self.task, **options
        )

    def once(self, device: torch.device) -> Callable[[], Iterator[dict[str, torch.Tensor]]]:
        """A function that goes through the rows of the first epoch, in batches on `device`."""

        def batches() -> Iterator[dict[str, torch.Tensor]]:
            for number, rows in enumerate(self.plan(0)):
                yield self.batch(rows, device, 0, number)

        return batches

    def batch(self, rows: np.ndarray, device: torch.device, *key: int) -> dict[str, torch.Tensor]:
        """`arrays` as tensors on `device`, with the row numbers under `rows`."""
        import torch

        # A GPU's matrix units want widths of 8; for a CPU every column of padding is work.
        arrays = self.arrays(rows, *key, multiple_of=8 if device.type == "cuda" else 1)
        batch = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        batch["rows"] = torch.from_numpy(rows)
        return batch


def feed_of(
    rows: Iterable[Row],
    reader: Reader,
    task: Task,
    *,
    max_length: int,
    folder: Path,
    batch_size: int,
    seed: int = 0,
    on_long: str = "truncate",
) -> Feed:
    """Rows as a model reads them, kept in `folder`.

    Args:
        rows: from `Dataset.rows`.
        reader: of the model.
        task: of the rows.
        max_length: longest input in tokens; the model may take less.
        folder: where tokens or pixels are kept.
        batch_size: rows per batch.
        seed: order of the rows and choice of masked tokens.
        on_long: what is done with longer inputs, "truncate" or "error".

    Raises:
        InputError, MachineError: see `compressor.data.encode` and `compressor.data.pixels`.
    """
    encoded = reader.encode(rows, task, max_length=max_length, folder=folder, on_long=on_long)
    return Feed(encoded, reader.tokenizer, task, batch_size, seed)
