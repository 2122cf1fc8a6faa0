"""Zeros in weight matrices: which entries go, and keeping them gone.

A mask is a boolean tensor of its weight's shape, True where the weight lives. Counts are exact:
`floor(sparsity * entries)` entries are pruned, ties broken by position, so that a tensor of equal
values does not vanish as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from compressor.errors import InputError

if TYPE_CHECKING:
    import torch


def _keep_highest(scores: torch.Tensor, prune: int) -> torch.Tensor:
    """A flat mask that drops the `prune` lowest of flat `scores`; among equals the first go."""
    import torch

    if not prune:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(prune).values
    mask = scores > threshold
    equals_kept = scores.numel() - prune - int(mask.sum())
    if equals_kept:
        mask[(scores == threshold).nonzero().flatten()[-equals_kept:]] = True
    return mask


def unstructured(
    scores: Mapping[str, torch.Tensor], sparsity: float, scope: str
) -> dict[str, torch.Tensor]:
    """Masks that drop the lowest scores.

    Args:
        scores: a score per weight, by module name; any shapes.
        sparsity: share to prune, 0 <= sparsity < 1.
        scope: "uniform" prunes the same share of every matrix, "global" one threshold for all.
    """
    import torch

    if scope == "uniform":
        return {
            name: _keep_highest(score.flatten(), int(sparsity * score.numel())).view_as(score)
            for name, score in scores.items()
        }
    flat = torch.cat([score.flatten() for score in scores.values()])
    mask = _keep_highest(flat, int(sparsity * flat.numel()))
    parts = mask.split([score.numel() for score in scores.values()])
    return {
        name: part.view_as(score) for (name, score), part in zip(scores.items(), parts, strict=True)
    }


def n_of_m(score: torch.Tensor, keep: int, group: int) -> torch.Tensor:
    """A mask that keeps the `keep` highest of every `group` consecutive inputs of a row.

    Args:
        score: [out, in].
        keep: N of N:M pruning in the hardware's reading: 2:4 keeps 2 of 4.
        group: M, which must divide the number of inputs.

    Raises:
        InputError: the group does not divide the inputs.
    """
    import torch

    rows, inputs = score.shape
    if inputs % group:
        raise InputError(f"a matrix with {inputs} inputs has no whole groups of {group}")
    grouped = score.reshape(rows, inputs // group, group)  # [out, in/M, M]
    order = grouped.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(grouped, dtype=torch.bool)
    mask.scatter_(-1, order[..., :keep], True)
    return mask.reshape(rows, inputs)


def apply_masks(modules: Mapping[str, torch.nn.Module], masks: Mapping[str, torch.Tensor]) -> None:
    """Set the pruned entries of each module's weight to exactly zero, in place."""
    import torch

    with torch.no_grad():
        for name, mask in masks.items():
            # masked_fill, not a product: NaN * 0 is NaN and -1 * 0 is -0.
            modules[name].weight.masked_fill_(~mask, 0.0)


def sparsity_of(modules: Mapping[str, torch.nn.Module]) -> float:
    """Share of exact zeros over all weights of `modules`."""
    total = sum(module.weight.numel() for module in modules.values())
    zeros = sum(int((module.weight == 0).sum()) for module in modules.values())
    return zeros / max(total, 1)
