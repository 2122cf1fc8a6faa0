"""Wanda: the score by hand, compared within a row, and nothing but zeros changed."""

from types import SimpleNamespace

import pytest
import torch

import tiny
from compressor.methods.transforms import wanda
from compressor.model.layers import encoder_linears, in_rows
from compressor.model.masks import masks_of

WEIGHT = torch.tensor([[4.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.0, 1.0]])
NORMS = torch.tensor([1.0, 8.0, 3.0, 1.0])
BATCH = {
    "input_ids": torch.tensor([[7, 20, 33, 8], [9, 41, 5, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
}


def masked(scores, sparsity, scope, pattern=None):
    mask = masks_of({"w": scores}, sparsity, scope, pattern)["w"]
    return WEIGHT.masked_fill(~mask, 0.0).tolist()


def test_score_and_rows_by_hand():
    scores = wanda.wanda_scores(WEIGHT, torch.diag(NORMS**2))
    assert scores.tolist() == [[4, 8, 6, 3], [1, 8, 3, 1]]
    expected = [[0, 1, 2, 0], [0, 1, 1, 0]]
    assert masked(scores, 0.5, "row") == expected
    assert masked(scores, 0.0, "row", (2, 4)) == expected
    assert masked(WEIGHT, 0.5, "row")[0] == [4, 0, 0, 3]  # magnitude alone


def test_one_threshold_for_the_matrix_by_hand():
    scores = wanda.wanda_scores(WEIGHT, torch.diag(NORMS**2))
    assert masked(scores, 0.25, "uniform") == [[4, 1, 2, 3], [0, 1, 1, 0]]


def test_the_norm_is_that_of_an_input_over_all_tokens():
    tokens = torch.tensor([[3.0, 1.0], [4.0, 1.0]])
    scores = wanda.wanda_scores(torch.tensor([[1.0, -2.0]]), tokens.T @ tokens)
    assert scores[0].tolist() == pytest.approx([5.0, 2 * 2**0.5])


def test_inputs_of_one_size_leave_magnitude_within_each_row():
    weight = torch.randn(12, 20, generator=torch.Generator().manual_seed(0))
    scores = {"w": wanda.wanda_scores(weight, torch.eye(20))}
    alone = {"w": weight.abs()}
    for goal in ((0.35, "row", None), (0.0, "row", (1, 4))):
        assert torch.equal(masks_of(scores, *goal)["w"], masks_of(alone, *goal)["w"])


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("scope", ["row", "uniform"])
def test_weights_that_stay_do_not_change(family, scope):
    model = tiny.model(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = wanda.Options(sparsity=0.3, scope=scope)
    facts = wanda.apply(SimpleNamespace(model=model), [BATCH], options)
    for name, value in model.state_dict().items():
        assert torch.equal(value[value != 0], before[name][value != 0])
    for name, module in encoder_linears(model).items():
        pruned = in_rows(module) == 0
        rows, inputs = pruned.shape
        if scope == "row":
            assert pruned.sum(1).tolist() == [int(inputs * 0.3)] * rows, name
        else:
            assert int(pruned.sum()) == int(rows * inputs * 0.3), name
            assert len(set(pruned.sum(1).tolist())) > 1, name
    assert facts["calibration_rows"] == 2
    assert facts["sparsity"] == pytest.approx(0.3, abs=0.02)
    assert 0 < facts["output_error"] < 1


def test_it_is_not_magnitude():
    model, other = tiny.model(), tiny.model()
    wanda.apply(SimpleNamespace(model=model), [BATCH], wanda.Options(scope="uniform"))
    tiny.prune_smallest(other)
    for one, two in zip(
        encoder_linears(model).values(), encoder_linears(other).values(), strict=True
    ):
        assert not torch.equal(one.weight == 0, two.weight == 0)
