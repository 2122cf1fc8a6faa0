"""Costs and choices that a person can check by hand."""

import itertools

import pytest
import torch

from compressor.checkpoint.pruned import Widths
from compressor.methods.units import (
    by_rank,
    choose,
    head_macs,
    in_blocks,
    neuron_macs,
    rearranged,
    split_budget,
    split_evenly,
    within_budget,
)


def widths(**changes) -> Widths:
    sizes = {"heads": (12,) * 6, "ffn": (1536,) * 6, "kept": None}
    return Widths(**{**sizes, "head_width": 32, "group": 1, "hidden": 384, **changes})


def scores(*layers) -> list[torch.Tensor]:
    return [torch.tensor(layer, dtype=torch.float32) for layer in layers]


def test_costs_of_a_small_bert():
    head, neuron = head_macs(16, widths()), neuron_macs(16, 384)
    assert (head, neuron) == (802_816, 12_288)
    assert 72 * head + 9_216 * neuron == 171_048_960


def test_a_group_shares_its_key_and_value_maps():
    # Queries and output of three heads, keys and values of one: 8 maps of s d d_h.
    assert head_macs(16, widths(group=3)) == 8 * 16 * 384 * 32 + 3 * 2 * 16 * 16 * 32
    assert neuron_macs(16, 384, maps=3) == 3 * 16 * 384


@pytest.mark.parametrize("ratio", [0.75, 0.5, 0.35, 0.9, 1.0])
def test_the_budget_is_kept_and_used_up(ratio):
    draw = torch.Generator().manual_seed(0)
    heads = [torch.rand(12, generator=draw) for _ in range(6)]
    neurons = [torch.rand(1536, generator=draw) / 100 for _ in range(6)]
    head, neuron = 802_816, 12_288
    budget = int(ratio * 171_048_960)
    k, n = split_budget(heads, neurons, budget, head, neuron)
    assert k * head + n * neuron <= budget
    assert k * head + (n + 1) * neuron > budget or n == 9_216
    kept = choose(heads, k), choose(neurons, n)
    assert sum(map(len, kept[0])) == k
    assert sum(map(len, kept[1])) == n
    assert all(layer for layer in (*kept[0], *kept[1]))


def test_the_best_split_is_found_among_all():
    draw = torch.Generator().manual_seed(1)
    heads = [torch.rand(3, generator=draw) for _ in range(2)]
    neurons = [torch.rand(4, generator=draw) for _ in range(2)]
    head, neuron, budget = 5, 2, 23
    k, n = split_budget(heads, neurons, budget, head, neuron)
    found = sum(
        float(layer[units].sum())
        for layers, count in ((heads, k), (neurons, n))
        for layer, units in zip(layers, choose(layers, count), strict=True)
    )
    best = 0.0
    for count in range(2, 7):
        others = min((budget - count * head) // neuron, 8)
        if others >= 2:
            best = max(best, largest_sum(heads, count) + largest_sum(neurons, others))
    assert found == pytest.approx(best)


def largest_sum(layers: list[torch.Tensor], count: int) -> float:
    """By trying every set that leaves no layer empty."""
    units = [(index, float(value)) for index, layer in enumerate(layers) for value in layer]
    sets = itertools.combinations(units, count)
    full = (chosen for chosen in sets if {layer for layer, _ in chosen} == set(range(len(layers))))
    return max(sum(value for _, value in chosen) for chosen in full)


def test_heads_alone_never_exceed_the_budget():
    # All worth lies in the heads, of which the budget pays three and the least of neurons.
    found = split_budget(scores([9, 9, 9], [9, 9, 9]), scores([0, 0], [0, 0]), 35, 10, 1)
    assert found == (3, 4)
    assert split_budget(scores([1], [1]), scores([1], [1]), 21, 10, 1) is None
    assert split_budget(scores([1], [1]), scores([1], [1]), 22, 10, 1) == (2, 2)


def test_every_layer_keeps_its_best_however_small():
    layers, values = by_rank(scores([9, 8, 7], [1, 2]))
    assert layers.tolist() == [0, 1, 0, 0, 1]
    assert values.tolist() == [9, 2, 8, 7, 1]
    assert choose(scores([9, 8, 7], [1, 2]), 3) == [[0, 1], [1]]


def test_blocks_follow_the_ranking_and_leave_the_rest_out():
    assert [block.tolist() for block in in_blocks(scores([1, 5, 2, 4, 3]), 2)] == [[9, 5]]
    # Blocks 5 + 4, 3 + 2 | 6 + 0: the best of both layers, then the 5 of the first.
    assert choose(scores([1, 5, 2, 4, 3], [0, 6]), 3, block=2) == [[1, 2, 3, 4], [0, 1]]
    assert choose(scores([1, 5, 2, 4, 3], [0, 6]), 2, block=2) == [[1, 3], [0, 1]]


def test_the_same_numbers_in_every_layer():
    heads, neurons = scores([3, 2, 1], [3, 2, 1]), scores([1, 1, 1, 1], [1, 1, 1, 1])
    assert split_evenly(heads, neurons, 26, 5, 1, [1, 2, 3]) == (2, 3)
    assert split_evenly(heads, neurons, 26, 5, 1, [1, 3]) == (1, 4)
    assert split_evenly(heads, neurons, 10, 5, 1, [1, 2, 3]) is None
    assert choose(heads, 2, evenly=True) == [[0, 1], [0, 1]]
    assert choose(scores([1, 5, 2, 4], [9, 8, 1, 2]), 1, block=2, evenly=True) == [[1, 3], [0, 1]]


def test_rearrangement_finds_the_pair_that_cancels():
    vectors = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [0.9, 0.9]]).T  # [mini-batches, units]
    importance = vectors.square().sum(0)
    assert importance.tolist() == pytest.approx([2, 2, 1.62])
    kept = choose([importance], 1)[0]
    gone = [unit for unit in range(3) if unit not in kept]
    assert 2 in gone  # the diagonal alone removes the third and one of the others,
    assert float(vectors[:, gone].sum(1).square().sum()) == pytest.approx(3.62)
    assert rearranged(vectors, importance, kept) == [2]  # together the first two cost nothing
    assert rearranged(vectors, importance, [0]) == rearranged(vectors, importance, [1]) == [2]


def test_rearrangement_keeps_the_number_and_what_is_best_already():
    vectors = torch.eye(4) * torch.tensor([1.0, 2.0, 3.0, 4.0])
    importance = vectors.square().sum(0)
    assert rearranged(vectors, importance, [2, 3]) == [2, 3]
    assert rearranged(vectors, importance, [0, 1, 2, 3]) == [0, 1, 2, 3]


def test_units_are_chosen_by_score_within_the_budget():
    scores = torch.tensor([0.9, 0.1, 0.8, 0.3, 0.2, 0.7])
    costs = torch.tensor([4.0, 4.0, 1.0, 1.0, 4.0, 1.0])
    part = torch.tensor([0, 0, 1, 1, 2, 3])
    # Units 0, 2, 4, 5 are the best of their parts; of the others only 3 fits into what is left.
    assert within_budget(scores, costs, part, 11.0).nonzero().flatten().tolist() == [
        0, 2, 3, 4, 5,
    ]  # fmt: skip
