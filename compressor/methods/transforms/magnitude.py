"""One-shot magnitude pruning: the smallest weights become zero, nothing is trained.

S. Han, J. Pool, J. Tran, W. Dally: Learning both Weights and Connections, 2015, arXiv 1506.02626,
without the retraining. The score of a weight is |w|; what is pruned are the linear maps inside
the transformer layers, as in the BERT-pruning literature; embeddings, biases, norms, pooler and
head stay. With `pattern` N:M (2:4), the N largest of every M consecutive inputs of a row live
(A. Mishra et al., 2021, arXiv 2104.08378). Random weights can go instead, to compare with.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.checkpoint.families import FAMILIES, base_family, is_linear
from compressor.errors import UsageError
from compressor.methods.option import option, refuse_idle
from compressor.model.layers import without
from compressor.model.masks import Pattern, n_of_m, parse_pattern, refuse_ragged
from compressor.model.rewrite import Rewriting, read_tensor

if TYPE_CHECKING:
    import torch

    from compressor.checkpoint.folder import Checkpoint

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
    importance: str = option("magnitude", "which weights go first", choices=("magnitude", "random"))
    random_seed: int = option(0, "which draw, with --importance random", low=0)

    def __post_init__(self) -> None:
        if parse_pattern(self.pattern):
            refuse_idle(self, ("sparsity", "scope"), f"with --pattern {self.pattern}")
        if self.importance != "random" and self.random_seed:
            raise UsageError("--random-seed needs --importance random", where="--random-seed")
        if self.importance == "random" and self.scope == "global":
            raise UsageError(
                "--importance random draws in each matrix, so --scope global would do nothing",
                where="--scope",
            )


def bits_of(weight: torch.Tensor) -> torch.Tensor:
    """|w| of each weight as a whole number of the same order, int32 of the same shape."""
    import torch

    # The bits of a float without its sign grow with its magnitude. 16-bit floats are widened first.
    return weight.detach().abs().float().contiguous().view(torch.int32)


class Cut:
    """Which magnitudes are pruned where all matrices are compared, found without holding them.

    Three looks at the weights: how many there are under each upper half of 16 bits, then under each
    lower half within the upper half where the last pruned weight lies, then the pruning itself.

    Args:
        look: gives every matrix, in an order that stays the same.
        sparsity: share of all their weights to prune.
    """

    def __init__(self, look: Callable[[], Iterator[torch.Tensor]], sparsity: float) -> None:
        upper = sum(_counts(bits_of(weight) >> 16, 2**15) for weight in look())
        left = int(sparsity * int(upper.sum()))
        self.upper, left = _place(upper, left)
        lower = sum(
            _counts(bits[bits >> 16 == self.upper] & 0xFFFF, 2**16) for bits in map(bits_of, look())
        )
        low, self.equals = _place(lower, left)  # how many of the weights at the cut itself go
        self.at = self.upper << 16 | low

    def mask(self, weight: torch.Tensor) -> torch.Tensor:
        """True where a weight lives; among equals at the cut those that come first are pruned."""
        bits = bits_of(weight)
        gone, equal = bits < self.at, bits == self.at
        first = equal & (equal.flatten().cumsum(0).view_as(equal) <= self.equals)
        self.equals -= int(first.sum())
        return ~(gone | first)


def _counts(values: torch.Tensor, bins: int) -> torch.Tensor:
    import torch

    return torch.bincount(values.flatten(), minlength=bins)


def _place(counts: torch.Tensor, number: int) -> tuple[int, int]:
    """The bin where the last of the `number` smallest lies, and how many of it are among them."""
    import torch

    if not number:
        return 0, 0
    ends = counts.cumsum(0)
    place = int(torch.searchsorted(ends, number))
    return place, number - int(ends[place] - counts[place])


def drawn(name: str, weight: torch.Tensor, seed: int) -> torch.Tensor:
    """A random number for each weight, which depends on the tensor's name and the seed alone."""
    import torch

    # Of a longer number the generator would use the last 32 bits alone.
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    return torch.rand(weight.shape, generator=generator)


def mask_of(
    weight: torch.Tensor, sparsity: float, pattern: Pattern | None, *, transposed: bool
) -> torch.Tensor:
    """The mask of one matrix that is compared with no other.

    Args:
        weight: [out, in], or [in, out] where `transposed`.
        sparsity: share to prune without a pattern.
        pattern: (N, M), or None; runs along the inputs.
        transposed: how the matrix lies.
    """
    if pattern is None:
        return Cut(lambda: iter([weight]), sparsity).mask(weight)
    score = weight.detach().abs()
    return n_of_m(score.T, *pattern).T if transposed else n_of_m(score, *pattern)


def needs_data(options: Options) -> bool:
    """Whether rows must be given."""
    return False


def rewrite(checkpoint: Checkpoint, options: Options) -> Rewriting:
    """What pruning makes of a checkpoint; the facts hold the sparsity of the encoder's matrices.

    Raises:
        InputError: `exclude` names nothing, or the pattern does not divide a matrix's inputs.
        UsageError: the pattern makes no sense.
    """
    pattern = parse_pattern(options.pattern)
    linears = {
        name: info for name, info in checkpoint.tensors.items() if is_linear(name, info.shape)
    }
    chosen = without({name.removesuffix(".weight"): name for name in linears}, options.exclude)
    pruned = frozenset(chosen.values())
    family = FAMILIES.get(base_family(checkpoint.model_type))
    transposed = family is not None and family.transposed
    inputs = {name: linears[full].shape[0 if transposed else 1] for name, full in chosen.items()}
    refuse_ragged(inputs, pattern)
    cut = None
    if options.scope == "global" and pattern is None:
        kept = [info for name, info in linears.items() if name in pruned]
        cut = Cut(lambda: map(read_tensor, kept), options.sparsity)
    zeros = {}

    def change(name: str, weight: torch.Tensor) -> torch.Tensor:
        if name in pruned:
            random = options.importance == "random"
            scores = drawn(name, weight, options.random_seed) if random else weight
            if cut is None:
                mask = mask_of(scores, options.sparsity, pattern, transposed=transposed)
            else:
                mask = cut.mask(scores)
            weight = weight.masked_fill(~mask, 0.0)
        zeros[name] = int((weight == 0).sum())
        return weight

    def facts() -> dict[str, Any]:
        total = sum(info.numel for info in linears.values())
        return {"sparsity": sum(zeros.values()) / max(total, 1), "matrices": len(pruned)}

    names = {name: name for name in checkpoint.tensors}
    return Rewriting(checkpoint.config, names, change, frozenset(linears), facts)
