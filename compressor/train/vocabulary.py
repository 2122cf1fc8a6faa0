"""Training only the word embeddings that the rows use.

Of a vocabulary of tens of thousands, a data set uses a few thousand pieces. The others get a
gradient of exactly zero, and still it is cleared, normed and stepped over at every step. Here the
table that trains holds the rows in use, and the rest stands still beside it. The result is the
same but for weight decay, which no longer shrinks the words that the data says nothing about.
`tests/benchmarks/distill_throughput.py` shows what that saves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from compressor.train.feed import Feed


@contextmanager
def words_in_use(model: PreTrainedModel, feed: Feed) -> Iterator[None]:
    """For the while, let `model` train the embeddings of the feed's words only.

    Does nothing where other words can come up (language models) or where the table is shared with
    another part of the model.
    """
    table = model.get_input_embeddings()
    if not (feed.task.labelled and _stands_alone(model, table)):
        yield
        return
    owner, name = _place_of(model, table)
    pad = [] if table.padding_idx is None else [table.padding_idx]
    used = np.union1d(np.flatnonzero(np.bincount(feed.encoded.ids)), pad).astype(np.int64)
    small = _small_table(table, used)
    setattr(owner, name, small)
    try:
        yield
    finally:
        small.give_back()
        setattr(owner, name, table)


def _stands_alone(model: PreTrainedModel, table: nn.Module) -> bool:
    from torch import nn

    if type(table) is not nn.Embedding or table.max_norm is not None:
        return False
    every = model.named_parameters(remove_duplicate=False)
    return sum(parameter is table.weight for _, parameter in every) == 1


def _place_of(model: nn.Module, table: nn.Module) -> tuple[nn.Module, str]:
    path = next(name for name, module in model.named_modules() if module is table)
    owner, _, name = path.rpartition(".")
    return model.get_submodule(owner), name


def _small_table(table: nn.Embedding, used: np.ndarray) -> nn.Module:
    import torch
    from torch import nn
    from torch.nn import functional as F

    class WordsInUse(nn.Module):
        """Looks up trained rows by their place, and all others in the full table."""

        def __init__(self) -> None:
            super().__init__()
            device = table.weight.device
            self.used = torch.from_numpy(used).to(device)
            self.place = torch.full((table.num_embeddings,), -1, device=device)
            self.place[self.used] = torch.arange(len(used), device=device)
            padding = table.padding_idx
            self.padding = None if padding is None else int(self.place[padding])
            self.weight = nn.Parameter(table.weight.detach()[self.used].clone())  # [used, width]

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            """[...] ids to [..., width] embeddings."""
            place = self.place[ids]
            found = F.embedding(place.clamp(min=0), self.weight, self.padding)
            other = place < 0
            if other.any():  # held-out rows
                found = torch.where(other[..., None], table.weight.detach()[ids], found)
            return found

        def give_back(self) -> None:
            """Write the trained rows into the full table."""
            with torch.no_grad():
                table.weight[self.used] = self.weight

    return WordsInUse()
