"""One-shot magnitude pruning: exact counts, the right entries, N:M groups."""

import pytest
import torch
from safetensors.torch import load_file

import tiny
from compressor.checkpoint.folder import open_checkpoint
from compressor.errors import InputError, UsageError
from compressor.methods.transforms import magnitude
from compressor.model.layers import encoder_linears
from compressor.model.masks import n_of_m, parse_pattern, unstructured
from compressor.model.rewrite import rewrite


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


def pruned(model, folder, **options):
    """The facts, and the tensors that are written for `model`."""
    model.save_pretrained(folder / "whole")
    tiny.tokenizer().save_pretrained(folder / "whole")
    checkpoint = open_checkpoint(folder / "whole")
    rewriting = magnitude.rewrite(checkpoint, magnitude.Options(**options))
    (folder / "pruned").mkdir()
    rewrite(checkpoint, rewriting, folder / "pruned")
    return rewriting.facts(), load_file(folder / "pruned/model.safetensors")


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "gpt2"])
def test_only_the_matrices_inside_the_layers_are_pruned(family, tmp_path):
    model = tiny.model(family)
    facts, after = pruned(model, tmp_path, sparsity=0.5)
    assert facts["sparsity"] == pytest.approx(0.5)
    inside = {f"{name}.weight" for name in encoder_linears(model)}
    for name, before in load_file(tmp_path / "whole/model.safetensors").items():
        value = after[name]
        if name in inside:
            assert int((value == 0).sum()) == value.numel() // 2
            assert torch.equal(value[value != 0], before[value != 0])
        else:
            assert torch.equal(value, before)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_threshold_over_all_matrices(tmp_path, sparsity, ties, dtype):
    model = tiny.model().to(dtype)
    linears = encoder_linears(model)
    if ties:  # few different magnitudes, so that the cut goes through equals
        for module in linears.values():
            module.weight.data = (module.weight.data * 20).round() / 20
    scores = {name: module.weight.detach().abs() for name, module in linears.items()}
    facts, after = pruned(model, tmp_path, sparsity=sparsity, scope="global")
    total = sum(score.numel() for score in scores.values())
    born_zero = sum(int((score == 0).sum()) for score in scores.values())
    zeros = {name: after[f"{name}.weight"] == 0 for name in scores}
    count = sum(int(gone.sum()) for gone in zeros.values())
    assert count == max(int(sparsity * total), born_zero)
    assert facts["sparsity"] == pytest.approx(count / total)
    if sparsity:
        lost = torch.cat([scores[name][gone].flatten() for name, gone in zeros.items()])
        kept = torch.cat([scores[name][~gone].flatten() for name, gone in zeros.items()])
        assert lost.max() <= kept.min()


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_pattern_runs_along_the_inputs(family, tmp_path):
    model = tiny.model(family)
    _, after = pruned(model, tmp_path, pattern="2:4")
    for name in encoder_linears(model):
        weight = after[f"{name}.weight"]
        weight = weight.T if family == "gpt2" else weight  # [out, in]
        groups = (weight != 0).reshape(weight.shape[0], -1, 4).sum(-1)
        assert (groups == 2).all()


def test_exclude_leaves_matrices_dense_and_a_typing_mistake_is_refused(tmp_path):
    model = tiny.model()
    _, after = pruned(model, tmp_path, exclude="output.dense")
    for name in encoder_linears(model):
        assert bool((after[f"{name}.weight"] == 0).any()) == ("output.dense" not in name)
    with pytest.raises(InputError, match="outptu"):
        magnitude.rewrite(open_checkpoint(tmp_path / "whole"), magnitude.Options(exclude="outptu"))


def test_inputs_that_a_pattern_does_not_divide_are_refused_by_name_before_any_change(tmp_path):
    with pytest.raises(InputError, match=r"layer.0.attention.output.dense has 32 inputs"):
        pruned(tiny.model(), tmp_path, pattern="2:3")
    assert not (tmp_path / "pruned").exists()


@pytest.mark.parametrize("pattern", ["4:2", "two", "0:4", "2:"])
def test_patterns_that_make_no_sense(pattern):
    with pytest.raises(UsageError, match="pattern"):
        parse_pattern(pattern)


def test_random_weights_go_by_name_and_seed(tmp_path):
    zeros = {}
    for number, options in enumerate(({}, {}, {"random_seed": 1})):
        folder = tmp_path / str(number)
        folder.mkdir()
        model = tiny.model()
        _, tensors = pruned(model, folder, sparsity=0.6, importance="random", **options)
        names = [f"{name}.weight" for name in encoder_linears(model)]
        zeros[number] = {name: tensors[name] == 0 for name in names}
        for gone in zeros[number].values():
            assert int(gone.sum()) == int(0.6 * gone.numel())
    equal = [all(torch.equal(zeros[0][n], zeros[other][n]) for n in zeros[0]) for other in (1, 2)]
    assert equal == [True, False]
    first, second = list(zeros[0].values())[:2]
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    "options", [{"random_seed": 1}, {"importance": "random", "scope": "global"}]
)
def test_random_options_that_would_do_nothing(options):
    with pytest.raises(UsageError):
        magnitude.Options(**options)
