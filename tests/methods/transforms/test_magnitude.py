"""One-shot magnitude pruning: exact counts, the right entries, N:M groups."""

from types import SimpleNamespace

import pytest
import torch

import tiny
from compressor.errors import InputError, UsageError
from compressor.methods.transforms import magnitude
from compressor.model.layers import encoder_linears
from compressor.model.masks import n_of_m, parse_pattern, unstructured


def test_the_smallest_go():
    scores = {"a": torch.tensor([[0.1, 0.4], [0.3, 0.2]]), "b": torch.tensor([1.0, 2.0])}
    uniform = unstructured(scores, 0.5, "uniform")
    assert uniform["a"].tolist() == [[False, True], [True, False]]
    assert uniform["b"].tolist() == [False, True]
    overall = unstructured(scores, 0.5, "global")
    assert overall["a"].tolist() == [[False, True], [False, False]]
    assert overall["b"].tolist() == [True, True]


def test_equal_scores_are_pruned_to_the_exact_count():
    mask = unstructured({"a": torch.ones(10)}, 0.3, "uniform")["a"]
    assert (~mask).sum() == 3


@pytest.mark.parametrize("shape", [(7,), (64, 33), (1000,)])
@pytest.mark.parametrize("sparsity", [0.0, 0.01, 0.5, 0.93])
def test_count_is_the_floor(shape, sparsity):
    score = torch.randn(shape, generator=torch.Generator().manual_seed(3)).abs()
    mask = unstructured({"a": score}, sparsity, "uniform")["a"]
    assert int((~mask).sum()) == int(sparsity * score.numel())
    if int(sparsity * score.numel()):
        assert score[~mask].max() <= score[mask].min()


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.93])
def test_every_row_loses_the_floor_of_its_inputs(sparsity):
    score = torch.randn(20, 33, generator=torch.Generator().manual_seed(3)).abs()
    score[4] = 1.0  # ties
    mask = unstructured({"a": score}, sparsity, "row")["a"]
    assert (~mask).sum(1).tolist() == [int(33 * sparsity)] * 20
    for kept, row in zip(mask, score, strict=True):
        assert kept.all() or row[~kept].max() <= row[kept].min()


def test_two_of_four_keeps_the_two_largest_of_each_group():
    score = torch.tensor([[4.0, 1.0, 3.0, 2.0, 0.1, 0.2, 0.3, 0.4]])
    assert n_of_m(score, 2, 4).tolist() == [[True, False, True, False, False, False, True, True]]


def test_groups_must_fit():
    with pytest.raises(InputError, match="6 inputs"):
        n_of_m(torch.ones(2, 6), 2, 4)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "gpt2"])
def test_only_the_matrices_inside_the_layers_are_pruned(family):
    model = tiny.model(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = magnitude.Options(sparsity=0.5)
    facts = magnitude.apply(SimpleNamespace(model=model), None, options)
    assert facts["sparsity"] == pytest.approx(0.5)
    inside = {f"{name}.weight" for name in encoder_linears(model)}
    for name, value in model.state_dict().items():
        if name in inside:
            assert int((value == 0).sum()) == value.numel() // 2
            assert torch.equal(value[value != 0], before[name][value != 0])
        else:
            assert torch.equal(value, before[name])


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_pattern_runs_along_the_inputs(family):
    model = tiny.model(family)
    magnitude.apply(SimpleNamespace(model=model), None, magnitude.Options(pattern="2:4"))
    for module in encoder_linears(model).values():
        weight = module.weight.T if family == "gpt2" else module.weight  # [out, in]
        groups = (weight != 0).reshape(weight.shape[0], -1, 4).sum(-1)
        assert (groups == 2).all()


def test_exclude_leaves_matrices_dense_and_a_typing_mistake_is_refused():
    model = tiny.model()
    magnitude.apply(SimpleNamespace(model=model), None, magnitude.Options(exclude="output.dense"))
    for name, module in encoder_linears(model).items():
        assert bool((module.weight == 0).any()) == ("output.dense" not in name)
    with pytest.raises(InputError, match="outptu"):
        magnitude.apply(SimpleNamespace(model=model), None, magnitude.Options(exclude="outptu"))


def test_inputs_that_a_pattern_does_not_divide_are_refused_by_name_before_any_change():
    model = tiny.model()  # 32 and 64 inputs
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=r"layer.0.attention.self.query has 32 inputs"):
        magnitude.apply(SimpleNamespace(model=model), None, magnitude.Options(pattern="2:3"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("pattern", ["4:2", "two", "0:4", "2:"])
def test_patterns_that_make_no_sense(pattern):
    with pytest.raises(UsageError, match="pattern"):
        parse_pattern(pattern)
