"""The matrix products of a model's layers alone: what a call of it cannot be faster than."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def open_products(
    matrices: Sequence[tuple[int, int]], threads: int, device: str
) -> Callable[[int, int], Callable[[], object]]:
    """A candidate that computes the matrix products of a call and nothing else.

    Args:
        matrices: (out, in) of every matrix of the layers.
        threads: that it may use.
        device: "cpu" or "cuda".

    Returns:
        A function from (batch, length) to a ready call: x W^T in float32 for each matrix, with
        random x [batch * length, in].
    """
    import torch

    torch.set_num_threads(threads)
    weights = [torch.randn(shape, device=device) for shape in matrices]

    def prepare(batch: int, length: int) -> Callable[[], object]:
        tokens = batch * length
        inputs = {size: torch.randn(tokens, size, device=device) for _, size in matrices}
        return partial(_multiply, [(inputs[weight.shape[1]], weight) for weight in weights])

    return prepare


def _multiply(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    import torch

    with torch.inference_mode():
        for inputs, weight in pairs:
            torch.nn.functional.linear(inputs, weight)
    if pairs and pairs[0][0].is_cuda:
        torch.cuda.synchronize()
