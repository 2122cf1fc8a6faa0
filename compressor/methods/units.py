"""What is left of a model's heads and neurons under a budget: costs, search, rearrangement.

A unit is an attention head, or a group of query heads that share one key and value head, or a
neuron inside the feed-forward part. With L layers, hidden width d, head width d_h and s tokens,

    MAC_head = 4 s d d_h + 2 s^2 d_h        MAC_neuron = 2 s d

multiply-accumulates; a gated feed-forward part has three maps and 3 s d. Scores come as one
tensor per layer, whose layers may hold different numbers of units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from compressor.checkpoint.pruned import Widths

Scores = Sequence["torch.Tensor"]


def head_macs(length: int, widths: Widths) -> int:
    """Multiply-accumulates of one head, or group of heads, for one sequence of `length` tokens."""
    projected = 2 * (widths.group + 1) * length * widths.hidden * widths.head_width
    return projected + 2 * length**2 * widths.group * widths.head_width


def neuron_macs(length: int, hidden: int, maps: int = 2) -> int:
    """The same of one neuron; `maps` is how many linear maps hold a row or column of it."""
    return maps * length * hidden


def in_blocks(scores: Scores, size: int) -> list[torch.Tensor]:
    """Each layer's units from the best down, in blocks of `size`: the sum of every block.

    What does not fill a last block is left out, and so is never kept.
    """
    ordered = [layer.sort(descending=True, stable=True).values for layer in scores]
    return [layer[: len(layer) // size * size].view(-1, size).sum(1) for layer in ordered]


def by_rank(scores: Scores, least: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """All units, the `least` best of every layer first and then the others from the best down.

    The first k of them are the k units with the largest sum that leave every layer so many.

    Returns:
        the layer of each unit and its score, [units] both.
    """
    import torch

    sizes = torch.tensor([len(layer) for layer in scores])
    layers = torch.arange(len(scores)).repeat_interleave(sizes)
    values = torch.cat(list(scores)).double().cpu()
    order = values.argsort(descending=True, stable=True)
    chosen = torch.zeros(len(values), dtype=torch.bool)
    for number in range(len(scores)):
        chosen[order[layers[order] == number][:least]] = True
    order = torch.cat([order[chosen[order]], order[~chosen[order]]])
    return layers[order], values[order]


def split_budget(
    heads: Scores,
    neurons: Scores,
    budget: float,
    head: float,
    neuron: float,
    least: tuple[int, int] = (1, 1),
) -> tuple[int, int] | None:
    """How many heads k and neurons n the budget is best spent on, over all layers.

        n(k) = floor((budget - k MAC_head) / MAC_neuron)
        the k whose best k heads and best n(k) neurons have the largest sum of scores

    Args:
        heads: scores of the heads.
        neurons: scores of the neurons, or of blocks of them.
        budget: multiply-accumulates, or milliseconds.
        head: cost of a head.
        neuron: cost of a neuron or block.
        least: heads, and neurons or blocks, that every layer keeps.

    Returns:
        (k, n), within the budget; None if it is too small.
    """
    head_sums = by_rank(heads, least[0])[1].cumsum(0)
    neuron_sums = by_rank(neurons, least[1])[1].cumsum(0)
    fewest_heads = sum(min(least[0], len(layer)) for layer in heads)
    fewest_neurons = sum(min(least[1], len(layer)) for layer in neurons)
    best, found = float("-inf"), None
    for k in range(fewest_heads, len(head_sums) + 1):
        left = budget - k * head
        n = min(int(left // neuron), len(neuron_sums)) if neuron else len(neuron_sums)
        if left < 0 or n < fewest_neurons:
            break  # more heads leave fewer neurons still
        value = float(head_sums[k - 1] + neuron_sums[n - 1])
        if value > best:
            best, found = value, (k, n)
    return found


def split_evenly(
    heads: Scores,
    neurons: Scores,
    budget: float,
    head: float,
    neuron: float,
    allowed: Sequence[int],
    least: int = 1,
) -> tuple[int, int] | None:
    """As `split_budget` with the same numbers in every layer.

    Args:
        heads: scores of the heads.
        neurons: scores of the neurons, or of blocks of them.
        budget: multiply-accumulates, or milliseconds, of all layers.
        head: cost of a head.
        neuron: cost of a neuron or block.
        allowed: the numbers of heads that a layer may have.
        least: neurons or blocks that every layer keeps.

    Returns:
        (k, n) of one layer; None if the budget is too small.
    """
    depth, widest = len(heads), min(len(layer) for layer in neurons)
    head_sums = sum(_sorted_sums(layer)[: max(allowed, default=0)] for layer in heads)
    neuron_sums = sum(_sorted_sums(layer)[:widest] for layer in neurons)
    best, found = float("-inf"), None
    for k in allowed:
        left = budget / depth - k * head
        n = min(int(left // neuron), widest) if neuron else widest
        if left < 0 or n < min(least, widest):
            continue
        value = float(head_sums[k - 1] + neuron_sums[n - 1])
        if value > best:
            best, found = value, (k, n)
    return found


def _sorted_sums(layer: torch.Tensor) -> torch.Tensor:
    return layer.sort(descending=True).values.double().cpu().cumsum(0)


def choose(
    scores: Scores, count: int, *, block: int = 1, evenly: bool = False, least: int = 1
) -> list[list[int]]:
    """The units that stay, by layer and ascending.

    Args:
        scores: of the units.
        count: how many blocks stay, over all layers or, with `evenly`, in each.
        block: units that are kept or removed together, of each layer's ranking.
        evenly: the same number in every layer.
        least: blocks that every layer keeps.
    """
    if evenly:
        counts = [count] * len(scores)
    else:
        layers = by_rank(in_blocks(scores, block), least)[0][:count]
        counts = layers.bincount(minlength=len(scores)).tolist()
    return [
        sorted(layer.argsort(descending=True, stable=True)[: number * block].tolist())
        for layer, number in zip(scores, counts, strict=True)
    ]


def rearranged(gradients: torch.Tensor, scores: torch.Tensor, kept: Sequence[int]) -> list[int]:
    """Swap units of one layer so that those removed cost least together.

    The cost of removing P is || sum over i in P of g_i ||^2, with cross terms. Every kept unit, the
    least important first, joins P once, and the unit whose absence leaves the smallest cost leaves.

    Args:
        gradients: g of every unit, [mini-batches, units].
        scores: importance that decides the order, [units].
        kept: the units that stay before; as many stay after.
    """
    import torch

    gone = torch.ones(gradients.shape[1], dtype=torch.bool)
    gone[list(kept)] = False
    vectors = gradients.double().cpu()
    squares = vectors.square().sum(0)  # [units]
    total = vectors[:, gone].sum(1)  # [mini-batches]
    for unit in sorted(kept, key=lambda unit: float(scores[unit])):
        gone[unit] = True
        total = total + vectors[:, unit]
        costs = total @ total - 2 * total @ vectors + squares  # of P without each unit
        leaves = int(costs.masked_fill(~gone, float("inf")).argmin())
        gone[leaves] = False
        total = total - vectors[:, leaves]
    return (~gone).nonzero().flatten().tolist()


def within_budget(
    scores: torch.Tensor, costs: torch.Tensor, part: torch.Tensor, budget: float
) -> torch.Tensor:
    """Which units stay: the best of every part, then the best of all that the budget allows.

    Args:
        scores: the higher the better, [units].
        costs: of each, [units].
        part: the part that each belongs to, [units], ascending from 0.
        budget: that the costs of what stays must not exceed.

    Returns:
        bool [units].
    """
    import torch

    order = scores.argsort(descending=True, stable=True).tolist()
    owners, prices = part.tolist(), costs.tolist()
    kept, seen, spent = set(), set(), 0.0
    for unit in order:
        if owners[unit] not in seen:
            seen.add(owners[unit])
            kept.add(unit)
            spent += prices[unit]
    for unit in order:
        if unit not in kept and spent + prices[unit] <= budget:
            kept.add(unit)
            spent += prices[unit]
    mask = torch.zeros_like(part, dtype=torch.bool)
    mask[sorted(kept)] = True
    return mask
