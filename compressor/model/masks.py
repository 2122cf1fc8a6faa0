"""Zeros in weight matrices: which entries go, and keeping them gone.

A mask is a boolean tensor of its weight's shape, True where the weight lives. Counts are exact:
`floor(sparsity * entries)` entries are pruned, ties broken by position, so that a tensor of equal
values does not vanish as a whole. N:M keeps N of every M consecutive inputs of a row, as the
hardware counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from compressor.errors import InputError, UsageError

if TYPE_CHECKING:
    import torch

Pattern = tuple[int, int]

SPARSE = 0.01  # share of zeros from which a matrix has a pattern that counts


def parse_pattern(pattern: str) -> Pattern | None:
    """`2:4` as (2, 4); None for `unstructured`.

    Raises:
        UsageError: anything else, or N not below M.
    """
    if pattern == "unstructured":
        return None
    match = re.fullmatch(r"(\d+):(\d+)", pattern)
    if not match or not 0 < int(match[1]) < int(match[2]):
        raise UsageError(f"--pattern {pattern} is neither unstructured nor N:M with N < M (2:4)")
    return int(match[1]), int(match[2])


def refuse_ragged(inputs: Mapping[str, int], pattern: Pattern | None) -> None:
    """Refuse linear maps whose inputs N:M does not divide, before any work.

    Args:
        inputs: how many each map has, by module name.
        pattern: (N, M), or None.

    Raises:
        InputError: it names the first one.
    """
    for name, count in inputs.items():
        if pattern and count % pattern[1]:
            raise InputError(
                f"{name} has {count} inputs, which are no whole groups of {pattern[1]}",
                hint=f"--exclude {name}, or a pattern whose M divides {count}",
            )


def keep_highest(scores: torch.Tensor, prune: int) -> torch.Tensor:
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


def _highest_of_rows(scores: torch.Tensor, keep: int) -> torch.Tensor:
    """A mask that keeps the `keep` highest along the last axis; among equals the last stay."""
    import torch

    order = scores.argsort(dim=-1, stable=True)
    mask = torch.zeros_like(scores, dtype=torch.bool)
    return mask.scatter_(-1, order[..., scores.shape[-1] - keep :], True)


def unstructured(
    scores: Mapping[str, torch.Tensor], sparsity: float, scope: str
) -> dict[str, torch.Tensor]:
    """Masks that drop the lowest scores.

    Args:
        scores: a score per weight, by module name; any shapes.
        sparsity: share to prune, 0 <= sparsity < 1.
        scope: "row" prunes the same share of every row, where scores are [out, in]; "uniform" of
            every matrix; "global" sets one threshold for all.
    """
    import torch

    if scope == "row":
        return {
            name: _highest_of_rows(score, score.shape[1] - int(sparsity * score.shape[1]))
            for name, score in scores.items()
        }
    if scope == "uniform":
        return {
            name: keep_highest(score.flatten(), int(sparsity * score.numel())).view_as(score)
            for name, score in scores.items()
        }
    flat = torch.cat([score.flatten() for score in scores.values()])
    mask = keep_highest(flat, int(sparsity * flat.numel()))
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
    rows, inputs = score.shape
    if inputs % group:
        raise InputError(f"a matrix with {inputs} inputs has no whole groups of {group}")
    grouped = score.reshape(rows, inputs // group, group)  # [out, in/M, M]
    return _highest_of_rows(grouped, keep).reshape(rows, inputs)


def masks_of(
    scores: Mapping[str, torch.Tensor], sparsity: float, scope: str, pattern: Pattern | None
) -> dict[str, torch.Tensor]:
    """Masks [out, in] that drop the lowest scores [out, in], by N:M where there is a pattern.

    Args:
        scores: a score per weight, by module name, [out, in].
        sparsity: share to prune without a pattern.
        scope: see `unstructured`.
        pattern: (N, M), or None.
    """
    if pattern is None:
        return unstructured(scores, sparsity, scope)
    return {name: n_of_m(score, *pattern) for name, score in scores.items()}


def apply_masks(modules: Mapping[str, torch.nn.Module], masks: Mapping[str, torch.Tensor]) -> None:
    """Set the pruned entries of each module's weight to exactly zero, in place."""
    import torch

    with torch.no_grad():
        for name, mask in masks.items():
            # masked_fill, not a product: NaN * 0 is NaN and -1 * 0 is -0.
            modules[name].weight.masked_fill_(~mask, 0.0)


def zero_pattern(modules: Mapping[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    """Masks of the weights that live, of every module that has zeros at all."""
    masks = {name: module.weight.detach() != 0 for name, module in modules.items()}
    return {name: mask for name, mask in masks.items() if not mask.all()}


def living(weight: torch.Tensor) -> torch.Tensor | None:
    """Where a sparse matrix may change, a mask of its shape; None where it may change anywhere."""
    alive = weight != 0
    return alive if alive.float().mean() < 1 - SPARSE else None


def alive(weights: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The values of the shapes of the weights, zero where a sparse matrix of them has a zero."""
    held = [living(weight.detach()) if weight.dim() > 1 else None for weight in weights]
    return [v if keep is None else v * keep for v, keep in zip(values, held, strict=True)]


def silence_gradients(
    modules: Mapping[str, torch.nn.Module], masks: Callable[[], Mapping[str, torch.Tensor]]
) -> None:
    """Make gradients of pruned weights zero, as they are where a mask is part of the forward pass.

    Otherwise they count when gradients are clipped, and pull a step uphill towards a dense model.

    Args:
        modules: whose weights may be pruned; frozen ones have no gradient to silence.
        masks: gives the masks of this moment, by module name.
    """

    def silencing(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        def silenced(gradient: torch.Tensor) -> torch.Tensor:
            mask = masks().get(name)
            return gradient if mask is None else gradient.masked_fill(~mask, 0.0)

        return silenced

    for name, module in modules.items():
        if module.weight.requires_grad:
            module.weight.register_hook(silencing(name))


def sparsity_of(modules: Mapping[str, torch.nn.Module]) -> float:
    """Share of exact zeros over all weights of `modules`."""
    total = sum(module.weight.numel() for module in modules.values())
    zeros = sum(int((module.weight == 0).sum()) for module in modules.values())
    return zeros / max(total, 1)
