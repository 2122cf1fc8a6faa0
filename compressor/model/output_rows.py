"""A language model's output matrix, applied only where somebody looks.

Scores over a vocabulary of tens of thousands cost more than all layers of a small model together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


@contextmanager
def picking(model: nn.Module, pick: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Hand the output matrix of `model` only what `pick` makes of its input, for the while.

    Does nothing where the matrix is no module of its own.

    Args:
        model: a transformers model, in evaluation or in training.
        pick: from hidden states [batch, length, width] to those that are asked about.
    """
    matrix = model.get_output_embeddings()
    if matrix is None:
        yield
        return

    def narrow(module: nn.Module, given: tuple[torch.Tensor, ...]) -> Any:
        return (pick(given[0]), *given[1:])

    handle = matrix.register_forward_pre_hook(narrow)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def only_at(model: nn.Module, chosen: torch.Tensor) -> Iterator[bool]:
    """Let a masked language model score the chosen positions only: logits [1, chosen, vocabulary].

    Args:
        model: a transformers model.
        chosen: bool [batch, length].

    Yields:
        whether it does; no other kind of model is changed.
    """
    narrows = type(model).__name__.endswith("ForMaskedLM")
    if not narrows or model.get_output_embeddings() is None:
        yield False
        return
    with picking(model, lambda hidden: hidden[chosen].unsqueeze(0)):
        yield True
