"""oBERT: prune what the loss feels least, by the gradients of the task loss, and update the rest.

E. Kurtic et al.: The Optimal BERT Surgeon, 2022, arXiv 2203.07259, as one-shot pruning: no training
before or after. F is the empirical Fisher matrix of each block of B consecutive weights of a row
by row flattened matrix, from m gradients g of the loss of a batch, without dropout:

    F = damp * I + 1/m sum g g^T          rho_i = w_i^2 / (2 [F^-1]_ii), the lowest go
    w' = w - F^-1 (w_q / [F^-1]_qq)       summed over the pruned q, which then become 0

Pruned weights stay pruned and have no gradient; `recomputations` reach the sparsity in as many
steps of equal shares of what is left (with N:M, of at least one more zero in every M) and estimate
F anew for each. F is summed and inverted at once, which gives the matrix of the authors' recursion
over gradients (Sherman-Morrison). float32 sums resolve no less than a rounding error of F's trace,
so that much is added to damp. F takes 4 B bytes for a weight: matrices are taken together as long
as F and waiting gradients stay below 2.5 GB (a larger matrix comes alone); the gradients are
computed again for the next ones. Left out: groups of four weights, and the gradual version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError
from compressor.methods.contract import Batch
from compressor.methods.fisher import fisher_inverses, from_blocks, in_blocks, taken_together
from compressor.methods.option import option, refuse_idle
from compressor.model.calibration import no_rows, rows_in
from compressor.model.layers import encoder_linears, in_rows, input_counts, without
from compressor.model.masks import Pattern, masks_of, parse_pattern, refuse_ragged, sparsity_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from compressor.model.load import Loaded

VERBS = ("prune",)


@dataclass(frozen=True)
class Options:
    """How much goes, compared where, in which pattern, and how the loss is probed."""

    sparsity: float = option(
        0.5, "share of the weights to prune, at least 0 and below 1", low=0.0, high=0.9999
    )
    scope: str = option(
        "global",
        "compare weights within each matrix (uniform) or across all of them (global)",
        choices=("uniform", "global"),
        source="the paper",
    )
    pattern: str = option(
        "unstructured", "unstructured, or N:M such as 2:4 (then N/M sets the sparsity)"
    )
    gradients: int = option(
        1024,
        "number of gradients, one for each batch of 16 rows; fewer where the rows run out",
        low=1,
        source="the paper",
    )
    fisher_block: int = option(
        50, "number of neighbouring weights whose interplay is estimated", low=1, source="the paper"
    )
    damp: float = option(
        1e-7,
        "added to the diagonal of the Fisher matrix; a huge one gives magnitude pruning",
        low=1e-12,
        source="the paper",
    )
    recomputations: int = option(
        1,
        "steps in which the sparsity is reached, each with new gradients (pays from 0.7 up)",
        low=1,
        source="the paper",
    )
    exclude: str = option("", "comma-separated parts of module names to leave dense")

    def __post_init__(self) -> None:
        if parse_pattern(self.pattern):
            refuse_idle(self, ("sparsity", "scope"), f"with --pattern {self.pattern}")


def block_saliency(weight: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """The saliency rho = w^2 / (2 [F^-1]_ii), [blocks, size].

    Args:
        weight: w, [blocks, size].
        inverse: F^-1, [blocks, size, size].
    """
    return weight.square() / (2 * inverse.diagonal(dim1=-2, dim2=-1))


def block_update(weight: torch.Tensor, inverse: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """w', [blocks, size]: pruned weights are exactly 0, the others make up for them.

    Args:
        weight: w, [blocks, size].
        inverse: F^-1, [blocks, size, size].
        keep: bool [blocks, size], False at pruned weights.
    """
    gone = (weight / inverse.diagonal(dim1=-2, dim2=-1)).masked_fill(keep, 0.0)
    moved = weight - (inverse @ gone.unsqueeze(-1)).squeeze(-1)
    return moved.masked_fill(~keep, 0.0)


def steps_to(
    sparsity: float, pattern: Pattern | None, steps: int
) -> list[tuple[float, Pattern | None]]:
    """What to prune to, step by step, as (sparsity, pattern); the last step is the goal.

    Args:
        sparsity: the goal without a pattern.
        pattern: (N, M), or None.
        steps: how many; with a pattern at most one for each of the M - N.
    """
    if pattern is None:
        return [(1 - (1 - sparsity) ** (k / steps), None) for k in range(1, steps)] + [
            (sparsity, None)
        ]
    keep, group = pattern
    kept = {group - (group - keep) * k // steps for k in range(1, steps + 1)} - {group}
    return [(sparsity, (number, group)) for number in sorted(kept, reverse=True)]


def rows_with_labels(
    loaded: Loaded, batches: Iterable[Batch] | None, gradients: int
) -> list[Batch]:
    """The first `gradients` batches.

    Raises:
        InputError: there are none, they have no labels, or those of another task than the head's.
    """
    if loaded.task is None:
        raise InputError(
            "oBERT prunes by the loss of a task, and this model has no head for one",
            hint="--method sparsegpt, or train a head: compressor finetune",
        )
    kept = list(islice(batches or (), gradients))
    if not kept:
        raise no_rows()
    labels = kept[0].get("labels")
    if labels is None:
        raise InputError("oBERT prunes by the loss on labels, and these rows have none")
    of_tokens, of_scores = labels.ndim == 2, labels.is_floating_point()
    if of_tokens != loaded.task.endswith("-lm") or of_scores != (loaded.task == "regression"):
        raise InputError(
            f"the labels of the rows do not fit the model's task, {loaded.task}",
            hint=f"--task {loaded.task}",
        )
    return kept


def prune_once(
    loaded: Loaded,
    modules: Mapping[str, nn.Module],
    keep: Mapping[str, torch.Tensor],
    batches: Sequence[Batch],
    options: Options,
    goal: tuple[float, Pattern | None],
) -> dict[str, torch.Tensor]:
    """Estimate F, prune to `goal` and update the rest, in place.

    Args:
        loaded: the model and its task.
        modules: the linear maps to prune.
        keep: bool [out, in] by name, False at weights that are pruned already.
        batches: rows with labels.
        options: scope, block and damp.
        goal: sparsity and pattern.

    Returns:
        The new `keep`.
    """
    import torch

    size = options.fisher_block
    groups = taken_together(modules, size)
    weights = {name: in_rows(module).detach() for name, module in modules.items()}
    blocks = {name: in_blocks(weight, size) for name, weight in weights.items()}
    inverse: dict[str, torch.Tensor] = {}

    def estimate(names: list[str]) -> None:
        inverse.clear()  # before the next ones need the memory
        here = {name: modules[name] for name in names}
        inverse.update(fisher_inverses(loaded, here, keep, batches, size=size, damp=options.damp))

    scores, moved = {}, {}
    for names in groups:
        estimate(names)
        for name in names:
            score = from_blocks(block_saliency(blocks[name], inverse[name]), weights[name])
            scores[name] = score.masked_fill(~keep[name], -1.0)
    masks = masks_of(scores, goal[0], options.scope, goal[1])
    masks = {name: mask & keep[name] for name, mask in masks.items()}
    # Backwards, as F of the last group is still at hand; all F are those of the unchanged model.
    for names in reversed(groups):
        if names is not groups[-1]:
            estimate(names)
        for name in names:
            kept = in_blocks(masks[name], size)
            moved[name] = block_update(blocks[name], inverse[name], kept)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(from_blocks(moved[name], weight))
    return masks


def needs_data(options: Options) -> bool:
    """Whether rows must be given."""
    return True


def apply(loaded: Loaded, batches: Iterable[Batch] | None, options: Options) -> dict[str, Any]:
    """Prune in place; the facts hold the sparsity, the rows and how many gradients they gave.

    Raises:
        InputError: no rows or labels, a matrix that does not fit, or `exclude` names nothing.
        UsageError: a pattern that makes no sense.
    """
    every = encoder_linears(loaded.model)
    modules, pattern = without(every, options.exclude), parse_pattern(options.pattern)
    refuse_ragged(input_counts(modules), pattern)
    rows = rows_with_labels(loaded, batches, options.gradients)
    keep = {name: in_rows(module).detach() != 0 for name, module in modules.items()}
    for goal in steps_to(options.sparsity, pattern, options.recomputations):
        keep = prune_once(loaded, modules, keep, rows, options, goal)
    return {
        "sparsity": sparsity_of(every),
        "matrices": len(modules),
        "calibration_rows": rows_in(rows),
        "gradients": len(rows),
    }
