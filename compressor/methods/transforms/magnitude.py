"""One-shot magnitude pruning: the smallest weights become zero, nothing is trained.

S. Han, J. Pool, J. Tran, W. Dally: Learning both Weights and Connections, 2015, arXiv 1506.02626,
without the retraining. The score of a weight is |w|; what is pruned are the linear maps inside
the transformer layers, as in the BERT-pruning literature; embeddings, biases, norms, pooler and
head stay. With `pattern` N:M (2:4), the N largest of every M consecutive inputs of a row live
(A. Mishra et al., 2021, arXiv 2104.08378).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.methods.contract import Batch, option
from compressor.model.layers import encoder_linears, in_rows, without
from compressor.model.masks import (
    apply_masks,
    masks_of,
    parse_pattern,
    refuse_ragged,
    sparsity_of,
)

if TYPE_CHECKING:
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


def needs_data(options: Options) -> bool:
    """Whether rows must be given."""
    return False


def apply(loaded: Loaded, batches: Iterable[Batch] | None, options: Options) -> dict[str, Any]:
    """Prune in place; the facts hold the sparsity reached over the encoder's matrices."""
    every = encoder_linears(loaded.model)
    modules, pattern = without(every, options.exclude), parse_pattern(options.pattern)
    refuse_ragged(modules, pattern)
    scores = {name: in_rows(module).detach().abs() for name, module in modules.items()}
    masks = masks_of(scores, options.sparsity, options.scope, pattern)
    apply_masks(modules, {name: in_rows(modules[name], mask) for name, mask in masks.items()})
    return {"sparsity": sparsity_of(every), "matrices": len(modules)}
