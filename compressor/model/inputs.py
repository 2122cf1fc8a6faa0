"""Which entries of a batch a model is fed.

One batch may feed several families: a BERT teacher tells the texts of a pair apart by their token
types, its DistilBERT student takes none.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

Array = TypeVar("Array")


def has_token_types(config: PretrainedConfig) -> bool:
    """Whether a family has a table of token types.

    Some take the argument and have none: GPT-2 would add the word embedding of the type's number.
    """
    return getattr(config, "type_vocab_size", 0) > 1


def sides_of(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of what a configuration gives as one number or as two."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def fed(model: nn.Module, batch: Mapping[str, Array]) -> dict[str, Array]:
    """The entries of `batch` that the forward of `model` names and has a use for.

    Args:
        model: a transformers model.
        batch: arrays or tensors by name; labels are never fed.
    """
    taken = set(inspect.signature(model.forward).parameters) - {"labels"}
    if not has_token_types(model.config):
        taken.discard("token_type_ids")
    return {name: value for name, value in batch.items() if name in taken}
