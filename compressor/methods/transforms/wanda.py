"""Wanda: prune by weight times the size of its input, on sample rows, without any training.

M. Sun, Z. Liu, A. Bair, J. Z. Kolter: A Simple and Effective Pruning Approach for Large Language
Models, 2023, arXiv 2306.11695.

    S_ij = |W_ij| * ||X_j||_2

X_j holds input j over the real tokens of the rows; padding is left out. Weights are compared
within each row of W, that is for each output; `scope` uniform compares them within the matrix
instead. `pattern` N:M keeps the N highest of every M consecutive inputs of a row. A layer is pruned
on what the pruned layers before it give. Nothing but the zeros changes. Left out: the authors'
variant that gives every row a sparsity of its own by a cumulative threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.methods.contract import Batch
from compressor.methods.layerwise import change_layer_by_layer
from compressor.methods.option import option, refuse_idle
from compressor.model.calibration import rows_in, sample_of
from compressor.model.layers import encoder_linears, input_counts, without
from compressor.model.masks import masks_of, parse_pattern, refuse_ragged, sparsity_of

if TYPE_CHECKING:
    import torch

    from compressor.model.load import Loaded

VERBS = ("prune",)


@dataclass(frozen=True)
class Options:
    """How much goes, compared where, in which pattern, judged on how many rows."""

    sparsity: float = option(
        0.5,
        "share of the weights to prune, at least 0 and below 1",
        low=0.0,
        high=0.9999,
        source="the paper",
    )
    scope: str = option(
        "row",
        "compare weights within each row of a matrix (row) or within the matrix (uniform)",
        choices=("row", "uniform"),
        source="the paper",
    )
    pattern: str = option(
        "unstructured", "unstructured, or N:M such as 2:4 (then N/M sets the sparsity)"
    )
    samples: int = option(128, "number of rows to calibrate on", low=1, source="the paper")
    exclude: str = option("", "comma-separated parts of module names to leave dense")

    def __post_init__(self) -> None:
        if parse_pattern(self.pattern):
            refuse_idle(self, ("sparsity", "scope"), f"with --pattern {self.pattern}")


def wanda_scores(weight: torch.Tensor, products: torch.Tensor) -> torch.Tensor:
    """S = |W_ij| * ||X_j||, [out, in].

    Args:
        weight: W, [out, in].
        products: X^T X, [in, in]; its diagonal holds the squared norms.
    """
    return weight.abs() * products.diagonal().sqrt()


def needs_data(options: Options) -> bool:
    """Whether rows must be given."""
    return True


def apply(loaded: Loaded, batches: Iterable[Batch] | None, options: Options) -> dict[str, Any]:
    """Prune in place; the facts hold the sparsity, the rows used and the change of the outputs.

    Raises:
        InputError: no rows, a model or a matrix that does not fit, or `exclude` names nothing.
        UsageError: a pattern that makes no sense.
    """
    every = encoder_linears(loaded.model)
    modules, pattern = without(every, options.exclude), parse_pattern(options.pattern)
    refuse_ragged(input_counts(modules), pattern)
    sample = sample_of(loaded.model, batches, options.samples, instead="--method magnitude")

    def prune(
        names: Sequence[str], weights: list[torch.Tensor], products: torch.Tensor
    ) -> list[torch.Tensor]:
        scores = {str(n): wanda_scores(weight, products) for n, weight in enumerate(weights)}
        masks = masks_of(scores, options.sparsity, options.scope, pattern).values()
        return [w.masked_fill(~mask, 0.0) for w, mask in zip(weights, masks, strict=True)]

    error = change_layer_by_layer(loaded.model, modules, sample, prune)
    return {
        "sparsity": sparsity_of(every),
        "matrices": len(modules),
        "calibration_rows": rows_in(sample),
        "output_error": error,
    }
