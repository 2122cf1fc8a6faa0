"""SparseGPT: known cases, exact counts, and updates that do not depend on the block."""

import pytest
import torch

from compressor.errors import UsageError
from compressor.methods.layerwise import inverse_factor
from compressor.methods.transforms import sparsegpt
from compressor.methods.transforms.sparsegpt import Options, prune_matrix
from compressor.model.masks import keep_highest, n_of_m

DRAW = torch.Generator().manual_seed(0)


def drawn(*shape):
    return torch.randn(shape, generator=DRAW, dtype=torch.float64)


def correlated(inputs, tokens=500):
    mixed = drawn(tokens, inputs) @ drawn(inputs, inputs)  # [tokens, in]
    return mixed.T @ mixed


def pruned(weight, products, damp=0.0, **options):
    return prune_matrix(weight, products, inverse_factor(products, damp), Options(**options))


def test_factor_of_the_inverse():
    products = correlated(12)
    upper = inverse_factor(products, 0.01)
    damped = products + 0.01 * products.diagonal().mean() * torch.eye(12)
    assert torch.equal(upper, upper.triu())
    assert torch.allclose(upper.T @ upper @ damped, torch.eye(12, dtype=torch.float64), atol=1e-8)


def test_unrelated_inputs_leave_magnitude_within_each_block():
    weight = drawn(16, 20)
    after = pruned(weight, torch.eye(20, dtype=torch.float64), sparsity=0.4, block_size=10)
    for block in (slice(0, 10), slice(10, 20)):
        keep = keep_highest(weight[:, block].abs().flatten(), 64).view(16, 10)
        assert torch.equal(after[:, block], weight[:, block] * keep)


def test_the_remaining_weight_makes_up_for_the_pruned_one():
    products = torch.tensor([[2.0, 1.9], [1.9, 2.0]], dtype=torch.float64)
    after = pruned(torch.ones(1, 2, dtype=torch.float64), products, sparsity=0.5)
    assert after[0, 0] == 0.0
    assert after[0, 1].item() == pytest.approx(1.95, abs=1e-12)  # 1 + H_01 / H_11


def test_a_pruned_first_column_is_made_up_for_by_least_squares():
    products, weight = correlated(6), drawn(1, 6)
    weight[0, 0] = 1e-6  # the first to go
    keep = torch.tensor([[False, True, True, True, True, True]])
    after = pruned(weight, products, sparsity=1 / 6)
    assert torch.equal(after != 0, keep)
    right = torch.linalg.solve(products[1:, 1:], products[1:] @ weight[0])
    assert torch.allclose(after[0, 1:], right)


@pytest.mark.parametrize("block_size", [1, 7, 128, 1000])
@pytest.mark.parametrize("sparsity", [0.0, 0.37, 0.5, 0.93])
def test_the_whole_matrix_has_the_floor_of_its_share(block_size, sparsity):
    after = pruned(drawn(5, 61), correlated(61), sparsity=sparsity, block_size=block_size)
    assert int((after == 0).sum()) == int(sparsity * (5 * 61))


def test_pattern_is_exact_and_the_block_changes_nothing():
    weight, products = drawn(9, 32), correlated(32)
    results = [pruned(weight, products, pattern="1:4", block_size=size) for size in (4, 8, 32)]
    assert ((results[0] != 0).view(9, 8, 4).sum(-1) == 1).all()
    for other in results[1:]:
        assert torch.allclose(results[0], other, atol=1e-10)
    # The choice is made from weights that have been updated.
    upper = inverse_factor(products, 0.0)
    first = n_of_m((weight / upper.diagonal()).square(), 1, 4)
    assert torch.equal(first[:, :4], results[0][:, :4] != 0)
    assert not torch.equal(first, results[0] != 0)


def test_inputs_that_are_always_zero_go_first_and_no_more_than_asked_for():
    products, weight = correlated(8), drawn(4, 8)
    products[[2, 5]] = 0.0
    products[:, [2, 5]] = 0.0
    after = pruned(weight, products, sparsity=0.25)
    assert (after[:, [2, 5]] == 0).all()
    live = [0, 1, 3, 4, 6, 7]
    assert torch.allclose(after[:, live], weight[:, live])
    fewer = pruned(weight, products, sparsity=0.125)
    assert int((fewer == 0).sum()) == 4
    assert (fewer[:, live] != 0).all()
    nothing = pruned(weight, torch.zeros_like(products), sparsity=0.5)
    assert int((nothing == 0).sum()) == 16
    assert nothing.isfinite().all()


def test_damping_is_raised_and_said_so_where_there_is_no_factor(capsys):
    products = torch.ones(3, 3, dtype=torch.float64)
    upper = inverse_factor(products, 1e-18)
    said = capsys.readouterr().err.splitlines()
    assert said
    damp = 1e-18 * 10 ** len(said)
    assert said[-1].endswith(f"raised to {damp:g}")
    assert upper.isfinite().all()
    inverse_factor(products, 0.01)
    assert capsys.readouterr().err == ""


def test_a_block_that_cuts_a_group_is_refused():
    import tiny

    loaded = type("Loaded", (), {"model": tiny.model()})
    with pytest.raises(UsageError, match="30 holds no whole groups of 4") as refused:
        sparsegpt.apply(loaded, [], Options(pattern="2:4", block_size=30))
    assert refused.value.hint == "--block-size 32"
