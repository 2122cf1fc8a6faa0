"""SparseGPT: prune column by column and let the remaining weights make up for what is gone.

E. Frantar, D. Alistarh: SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot,
2023, arXiv 2301.00774. On sample rows, without any training; X holds a map's inputs at real tokens.

    H = X^T X + damp * mean(diag X^T X) * I      H^-1 = U^T U, U upper triangular
    for the columns B of a block, from left to right
        s = w^2 / U_jj^2             the lowest go: over the block, or of each row's M at M columns
        e = (w_j - pruned w_j) / U_jj      w_k -= e U_jk for the later columns k

The update of the columns behind the block waits for its end. What a block prunes is counted
so that the matrix as a whole ends with floor(sparsity * weights) zeros. Inputs that are always zero
go first; the authors prune all of them, here no more go than were asked for. Maps that share an
input share H. A layer is pruned on what the pruned layers before it give. Left out: the factor
2 / tokens of H, which cancels, and rounding of the weights on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.errors import UsageError
from compressor.methods.contract import Batch
from compressor.methods.layerwise import change_layer_by_layer, inverse_factor
from compressor.methods.option import option, refuse_idle
from compressor.model.calibration import rows_in, sample_of
from compressor.model.layers import encoder_linears, input_counts, without
from compressor.model.masks import (
    Pattern,
    keep_highest,
    n_of_m,
    parse_pattern,
    refuse_ragged,
    sparsity_of,
)

if TYPE_CHECKING:
    import torch

    from compressor.model.load import Loaded

VERBS = ("prune",)


@dataclass(frozen=True)
class Options:
    """How much goes, in which pattern, and how the remaining weights are updated."""

    sparsity: float = option(
        0.5,
        "share of the weights to prune, at least 0 and below 1",
        low=0.0,
        high=0.9999,
        source="the paper",
    )
    pattern: str = option(
        "unstructured", "unstructured, or N:M such as 2:4 (then N/M sets the sparsity)"
    )
    samples: int = option(128, "number of rows to calibrate on", low=1, source="the paper")
    damp: float = option(
        0.01,
        "added to the diagonal of the inputs' products, as a share of its mean",
        low=1e-6,
        source="the paper",
    )
    block_size: int = option(
        128, "number of columns among which weights are compared", low=1, source="the paper"
    )
    exclude: str = option("", "comma-separated parts of module names to leave dense")

    def __post_init__(self) -> None:
        if parse_pattern(self.pattern):
            refuse_idle(self, ("sparsity",), f"with --pattern {self.pattern}")


def saliency(weight: torch.Tensor, factor: torch.Tensor, live: torch.Tensor) -> torch.Tensor:
    """w^2 / U_jj^2, [out, columns]; below all others where the input is always zero.

    Args:
        weight: [out, columns].
        factor: the columns' part of U, [columns, columns].
        live: [columns], whether the input is ever other than zero.
    """
    return (weight / factor.diagonal()).square().masked_fill(~live, -1.0)


def prune_block(
    block: torch.Tensor,
    factor: torch.Tensor,
    live: torch.Tensor,
    prune: int,
    pattern: Pattern | None,
) -> torch.Tensor:
    """Prune the columns of a block from left to right, in place.

    Args:
        block: [out, columns].
        factor: the block's part of U, [columns, columns].
        live: [columns], whether the input is ever other than zero.
        prune: how many weights go without a pattern.
        pattern: (N, M), or None; M divides the columns.

    Returns:
        The errors E [out, columns] that the columns behind the block have to make up for.
    """
    import torch

    if pattern is None:
        keep = keep_highest(saliency(block, factor, live).flatten(), prune).view_as(block)
    else:
        keep = torch.ones_like(block, dtype=torch.bool)
    errors = torch.zeros_like(block)
    for column in range(block.shape[1]):
        if pattern is not None and column % pattern[1] == 0:
            group = slice(column, column + pattern[1])
            scores = saliency(block[:, group], factor[group, group], live[group])
            keep[:, group] = n_of_m(scores, *pattern)
        errors[:, column] = block[:, column].masked_fill(keep[:, column], 0.0)
        errors[:, column] /= factor[column, column]
        block[:, column:] -= errors[:, column].outer(factor[column, column:])
    block.masked_fill_(~keep, 0.0)  # exactly, where the update left a rounding error
    return errors


def prune_matrix(
    weight: torch.Tensor,
    products: torch.Tensor,
    upper: torch.Tensor,
    options: Options,
) -> torch.Tensor:
    """The pruned and updated weights.

    Args:
        weight: W, float64 [out, in].
        products: X^T X, [in, in].
        upper: U, see `inverse_factor`.
        options: sparsity, pattern and block.
    """
    weight, pattern = weight.clone(), parse_pattern(options.pattern)
    rows, inputs = weight.shape
    live, done = products.diagonal() > 0, 0
    for start in range(0, inputs, options.block_size):
        end = min(start + options.block_size, inputs)
        prune = int(options.sparsity * (rows * end)) - done
        done += prune
        block = slice(start, end)
        errors = prune_block(weight[:, block], upper[block, block], live[block], prune, pattern)
        weight[:, end:] -= errors @ upper[block, end:]
    return weight


def needs_data(options: Options) -> bool:
    """Whether rows must be given."""
    return True


def apply(loaded: Loaded, batches: Iterable[Batch] | None, options: Options) -> dict[str, Any]:
    """Prune in place; the facts hold the sparsity, the rows used and the change of the outputs.

    Raises:
        InputError: no rows, a model or a matrix that does not fit, or `exclude` names nothing.
        UsageError: a pattern that makes no sense, or does not fit the block.
    """
    every = encoder_linears(loaded.model)
    modules, pattern = without(every, options.exclude), parse_pattern(options.pattern)
    if pattern and options.block_size % pattern[1]:
        raise UsageError(
            f"--block-size {options.block_size} holds no whole groups of {pattern[1]}",
            hint=f"--block-size {-(-options.block_size // pattern[1]) * pattern[1]}",
        )
    refuse_ragged(input_counts(modules), pattern)
    sample = sample_of(loaded.model, batches, options.samples, instead="--method magnitude")

    def prune(
        names: Sequence[str], weights: list[torch.Tensor], products: torch.Tensor
    ) -> list[torch.Tensor]:
        upper = inverse_factor(products, options.damp)
        return [prune_matrix(weight, products, upper, options) for weight in weights]

    error = change_layer_by_layer(loaded.model, modules, sample, prune)
    return {
        "sparsity": sparsity_of(every),
        "matrices": len(modules),
        "calibration_rows": rows_in(sample),
        "output_error": error,
    }
