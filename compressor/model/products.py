"""The matrix products of a model's layers alone: what a call of it cannot be faster than."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from compressor.checkpoint.products import Products

if TYPE_CHECKING:
    import torch


def open_products(
    products: Products, threads: int, device: str
) -> Callable[[int, int], Callable[[], object]]:
    """A candidate that computes the matrix products of a call and nothing else.

    Args:
        products: what is multiplied.
        threads: that it may use.
        device: "cpu" or "cuda".

    Returns:
        A function from (batch, length) to a ready call, in float32 on random numbers: x W^T for
        each matrix, x [batch * length, in], and q k^T and its product with k for each attention,
        q and k [batch, heads, length, width].
    """
    import torch

    torch.set_num_threads(threads)
    weights = [torch.randn(shape, device=device) for shape in products.matrices]

    def prepare(batch: int, length: int) -> Callable[[], object]:
        widths = {shape[1] for shape in products.matrices}
        inputs = {n: torch.randn(batch * length, n, device=device) for n in widths}
        heads = {
            shape: torch.randn(2, batch, shape[0], length, shape[1], device=device)
            for shape in products.attentions
        }
        maps = [(inputs[weight.shape[1]], weight) for weight in weights]
        return partial(_multiply, maps, [heads[shape] for shape in products.attentions])

    return prepare


def _multiply(
    maps: Sequence[tuple[torch.Tensor, torch.Tensor]], attentions: Sequence[torch.Tensor]
) -> None:
    import torch

    with torch.inference_mode():
        for inputs, weight in maps:
            torch.nn.functional.linear(inputs, weight)
        for queries, keys in attentions:
            torch.matmul(torch.matmul(queries, keys.mT), keys)
    if maps and maps[0][0].is_cuda:
        torch.cuda.synchronize()
