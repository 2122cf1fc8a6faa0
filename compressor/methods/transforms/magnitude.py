"""One-shot magnitude pruning: the smallest weights become zero, nothing is trained.

S. Han, J. Pool, J. Tran, W. Dally: Learning both Weights and Connections, 2015, arXiv 1506.02626,
without the retraining. The score of a weight is |w|; what is pruned are the linear maps inside
the transformer layers, as in the BERT-pruning literature; embeddings, biases, norms, pooler and
head stay. With `pattern` N:M (2:4), the N largest of every M consecutive inputs of a row live
(A. Mishra et al., 2021, arXiv 2104.08378).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.errors import UsageError
from compressor.methods.contract import Batch, option
from compressor.model.layers import encoder_linears, without
from compressor.model.masks import apply_masks, n_of_m, sparsity_of, unstructured

if TYPE_CHECKING:
    import torch

    from compressor.model.load import Loaded

VERBS = ("prune",)


@dataclass(frozen=True)
class Options:
    """How much goes, compared where, in which pattern."""

    sparsity: float = option(
        0.5, "share of the weights to prune, at least 0 and below 1", low=0.0, high=0.9999
    )
    scope: str = option(
        "uniform",
        "compare weights within each matrix (uniform) or across all of them (global)",
        choices=("uniform", "global"),
    )
    pattern: str = option(
        "unstructured", "unstructured, or N:M such as 2:4 (then N/M sets the sparsity)"
    )
    exclude: str = option("", "comma-separated parts of module names to leave dense")


def parse_pattern(pattern: str) -> tuple[int, int] | None:
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


def magnitude_masks(
    modules: dict[str, torch.nn.Module], options: Options
) -> dict[str, torch.Tensor]:
    """The masks that `options` ask for, by module name."""
    scores = {name: module.weight.detach().abs() for name, module in modules.items()}
    pattern = parse_pattern(options.pattern)
    if pattern is None:
        return unstructured(scores, options.sparsity, options.scope)
    return {
        # GPT-2's Conv1D stores [in, out]; N:M runs along the inputs.
        name: n_of_m(score.T, *pattern).T
        if type(modules[name]).__name__ == "Conv1D"
        else n_of_m(score, *pattern)
        for name, score in scores.items()
    }


def needs_data(options: Options) -> bool:
    """Whether rows must be given."""
    return False


def apply(loaded: Loaded, batches: Iterable[Batch] | None, options: Options) -> dict[str, Any]:
    """Prune in place; the facts hold the sparsity reached over the encoder's matrices."""
    every = encoder_linears(loaded.model)
    modules = without(every, options.exclude)
    apply_masks(modules, magnitude_masks(modules, options))
    return {"sparsity": sparsity_of(every), "matrices": len(modules)}
