"""The empirical Fisher matrix of a task loss, in blocks of neighbouring weights, and its inverse.

    F = damp * I + 1/m sum g g^T

for each block of B consecutive weights of a matrix taken row by row, from the gradients g of m
batches. F is summed for several gradients at once, since it is far larger than they are, and
inverted in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from compressor import console
from compressor.errors import InputError
from compressor.methods.contract import Batch
from compressor.methods.objectives.task import task_loss
from compressor.model.layers import in_rows
from compressor.model.views import LOGITS, look

if TYPE_CHECKING:
    import torch
    from torch import nn

    from compressor.model.load import Loaded

FISHER_BYTES = 2_500_000_000
GRADIENTS_TOGETHER = 8
# Inverted at once: 80 MB in float64 at the usual size of 50.
BLOCKS_TOGETHER = 4096
# The rounding errors of a sum in float32 can leave F with an eigenvalue that far below zero.
ROUNDING_ERRORS = 8


def in_blocks(matrix: torch.Tensor, size: int) -> torch.Tensor:
    """A matrix [out, in] row by row as [blocks, size]; zeros fill the last block."""
    from torch.nn import functional as F

    flat = matrix.flatten()
    return F.pad(flat, (0, -len(flat) % size)).view(-1, size)


def from_blocks(blocks: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The matrix of the shape of `like` [out, in] that `in_blocks` made [blocks, size] of."""
    return blocks.flatten()[: like.numel()].view(like.shape)


def inverse_fisher(products: torch.Tensor, damp: float) -> torch.Tensor:
    """F^-1 of every block, in place of `products`.

    Args:
        products: 1/m sum g g^T, [blocks, size, size]; overwritten.
        damp: added to the diagonal, besides the rounding error of the sums.
    """
    import torch

    rounding = ROUNDING_ERRORS * torch.finfo(products.dtype).eps
    for part in products.split(BLOCKS_TOGETHER):  # views
        fisher = part.double()
        diagonal = fisher.diagonal(dim1=-2, dim2=-1)  # [blocks, size], a view
        diagonal += damp + rounding * diagonal.sum(-1, keepdim=True)
        part.copy_(torch.cholesky_inverse(torch.linalg.cholesky(fisher)))
    return products


def taken_together(
    modules: Mapping[str, nn.Module], size: int, limit: int = FISHER_BYTES
) -> list[list[str]]:
    """Names of the matrices whose F and waiting gradients fit `limit` bytes together.

    Args:
        modules: the linear maps.
        size: B.
        limit: bytes; a matrix above it comes alone.
    """
    groups: list[list[str]] = []
    left = 0
    for name, module in modules.items():
        needed = 4 * module.weight.numel() * (size + GRADIENTS_TOGETHER)
        if needed > left or not groups:
            groups.append([])
            left = limit
        groups[-1].append(name)
        left -= needed
    return groups


def gradients_of(
    loaded: Loaded, modules: Sequence[nn.Module], batches: Iterable[Batch]
) -> Iterator[list[torch.Tensor]]:
    """The gradient of each batch's task loss by each weight, [out, in], without dropout."""
    import torch

    model = loaded.model.eval()
    weights = [module.weight for module in modules]
    device = weights[0].device
    for batch in batches:
        on_device = {name: value.to(device) for name, value in batch.items()}
        logits = look(model, on_device, frozenset({LOGITS}), bare=model).logits
        loss = task_loss(loaded.task, logits, on_device["labels"])
        found = torch.autograd.grad(loss, weights, materialize_grads=True)
        yield [in_rows(m, one) for m, one in zip(modules, found, strict=True)]


def fisher_inverses(
    loaded: Loaded,
    modules: Mapping[str, nn.Module],
    keep: Mapping[str, torch.Tensor],
    batches: Sequence[Batch],
    *,
    size: int,
    damp: float,
) -> dict[str, torch.Tensor]:
    """F^-1 [blocks, size, size] of each module.

    Args:
        loaded: the model and its task.
        modules: the linear maps, which must fit into memory together.
        keep: bool [out, in] by name; weights at False have no gradient.
        batches: rows with labels.
        size: B.
        damp: added to the diagonal.

    Raises:
        InputError: a gradient is not finite.
    """
    import torch

    sums = {}
    for name, module in modules.items():
        blocks = -(-module.weight.numel() // size)
        sums[name] = torch.zeros(blocks, size, size, device=module.weight.device)
    waiting: list[list[torch.Tensor]] = []

    def add() -> None:
        for name, *matrices in zip(modules, *waiting, strict=True):
            masked = [in_blocks(one * keep[name], size) for one in matrices]
            stacked = torch.stack(masked, dim=-1)  # [blocks, size, gradients]
            sums[name].baddbmm_(stacked, stacked.mT, alpha=1 / len(batches))
        waiting.clear()  # before the next ones need the memory

    with console.Progress("gradients", len(batches), unit="gradients") as progress:
        found = gradients_of(loaded, list(modules.values()), batches)
        for number, gradient in enumerate(found, start=1):
            waiting.append(gradient)
            if number % GRADIENTS_TOGETHER == 0 or number == len(batches):
                add()
            progress.advance()
    for name, products in sums.items():
        if not products.isfinite().all():
            raise InputError(f"the gradients of {name} are not finite on the calibration rows")
        inverse_fisher(products, damp)
    return sums
