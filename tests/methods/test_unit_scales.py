"""What is left, repaired: by hand, against the full model, and when to stop."""

import copy

import pytest
import torch

import tiny
from compressor.checkpoint.pruned import PARTS
from compressor.methods.unit_scales import by_unit, repair, solve_scales
from compressor.model.layers import only_stack
from compressor.model.pruned import remove_units

ALL = [0, 1, 2, 3]


def batch() -> dict[str, torch.Tensor]:
    texts = [row["text"] for row in tiny.rows(24)]
    made = tiny.tokenizer()(texts, padding=True, return_tensors="pt")
    return {**made, "labels": torch.zeros(24, dtype=torch.long)}


def hidden(model) -> torch.Tensor:
    inputs = {name: value for name, value in batch().items() if name in ("input_ids",)}
    inputs["attention_mask"] = batch()["attention_mask"]
    with torch.inference_mode():
        states = model(**inputs, output_hidden_states=True).hidden_states
    return torch.stack([state[inputs["attention_mask"].bool()] for state in states[1:]])


def test_a_twin_that_was_removed_doubles_the_other():
    # Units a and b contribute the same 1000 everywhere; without b, a must count twice.
    gram, right = torch.tensor([[1e6]]).double(), torch.tensor([1e6]).double()
    assert float(solve_scales(gram, right)) == pytest.approx(2.0)


def test_two_units_by_hand():
    # A = diag(10, 20), b = (5, -10): delta = (.5, -.5).
    gram, right = torch.tensor([[100.0, 0], [0, 400]]), torch.tensor([50.0, -200])
    assert solve_scales(gram.double(), right.double()).tolist() == pytest.approx([1.5, 0.5], 1e-3)


def test_factors_that_cannot_be_trusted_are_none():
    gram = torch.tensor([[100.0]]).double()
    assert solve_scales(gram, torch.tensor([899.0]).double()) is not None
    assert solve_scales(gram, torch.tensor([1000.0]).double()) is None
    assert solve_scales(gram, torch.tensor([float("nan")]).double()) is None


def test_columns_of_a_unit_are_added_up():
    gram, right = by_unit(torch.arange(16.0).view(4, 4), torch.tensor([1.0, 2, 3, 4]), 2)
    assert gram.tolist() == [[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [8 + 9 + 12 + 13, 10 + 11 + 14 + 15]]
    assert right.tolist() == [3, 7]


@pytest.mark.parametrize("how", ["rescale", "refit"])
@pytest.mark.parametrize("family", PARTS)
def test_a_cut_model_comes_closer_to_the_full_one(family, how):
    full = tiny.model(family, head="AutoModel", num_hidden_layers=3)
    cut = copy.deepcopy(full)
    heads = [[1]] * 3 if family == "llama" else [[0, 2, 3]] * 3
    remove_units(cut, heads, [list(range(0, 64, 2))] * 3)
    before = (hidden(full) - hidden(cut)).square().mean((1, 2))
    tuned = repair(cut, only_stack(full)[1], [batch()], how)
    first = [] if how == "rescale" else ["0.attention"]
    assert tuned == [*first, "0.ffn", "1.attention", "1.ffn", "2.attention", "2.ffn"]
    after = (hidden(full) - hidden(cut)).square().mean((1, 2))
    assert (after < before).all()
    assert not any(module._forward_pre_hooks for module in full.modules())


@pytest.mark.parametrize("how", ["rescale", "refit"])
def test_what_was_not_cut_is_not_changed(how):
    full = tiny.model("bert")
    same = copy.deepcopy(full)
    remove_units(same, [ALL, ALL], [list(range(64))] * 2)
    repair(same, only_stack(full)[1], [batch()], how)
    for wanted, found in zip(full.parameters(), same.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_removed_twin_is_given_back_exactly():
    full = tiny.model("bert")
    layer = only_stack(full)[1][0]
    with torch.no_grad():  # neuron 1 is neuron 0 once more
        for tensor in (layer.intermediate.dense.weight, layer.intermediate.dense.bias):
            tensor[1] = tensor[0]
        layer.output.dense.weight[:, 1] = layer.output.dense.weight[:, 0]
    cut = copy.deepcopy(full)
    remove_units(cut, [ALL, ALL], [[0, *range(2, 64)], list(range(64))])
    repair(cut, only_stack(full)[1], [batch()], "rescale")
    found = only_stack(cut)[1][0].output.dense.weight
    torch.testing.assert_close(
        found[:, 0], 2 * layer.output.dense.weight[:, 0], rtol=0.05, atol=1e-2
    )
    torch.testing.assert_close(hidden(cut), hidden(full), atol=0.05, rtol=0.05)


def test_new_weights_come_closer_than_factors():
    full = tiny.model("bert", head="AutoModel", num_hidden_layers=3)
    gaps = {}
    for how in ("rescale", "refit"):
        cut = copy.deepcopy(full)
        remove_units(cut, [[0, 2, 3]] * 3, [list(range(0, 64, 2))] * 3)
        repair(cut, only_stack(full)[1], [batch()], how)
        gaps[how] = (hidden(full) - hidden(cut)).square().mean((1, 2))
    assert (gaps["refit"] < gaps["rescale"]).all()


@pytest.mark.parametrize("how", ["rescale", "refit"])
def test_zeros_of_a_sparse_model_stay_and_the_rest_comes_closer(how):
    full = tiny.model("bert", head="AutoModel", num_hidden_layers=2)
    tiny.prune_smallest(full, 0.6)
    cut = copy.deepcopy(full)
    remove_units(cut, [[0, 2, 3]] * 2, [list(range(0, 64, 2))] * 2)
    zeros = {name: p == 0 for name, p in cut.named_parameters() if p.dim() > 1}
    before = (hidden(full) - hidden(cut)).square().mean()
    repair(cut, only_stack(full)[1], [batch()], how)
    assert all(torch.equal(dict(cut.named_parameters())[n] == 0, gone) for n, gone in zeros.items())
    assert (hidden(full) - hidden(cut)).square().mean() < before


def test_a_sum_of_removed_inputs_goes_to_the_bias_and_their_twins():
    """A neuron that always gives 1 is the bias's; one that copies another is its twin's."""
    full = tiny.model("bert", head="AutoModel", num_hidden_layers=1, hidden_act="relu")
    layer = only_stack(full)[1][0]
    with torch.no_grad():
        layer.intermediate.dense.weight[0] = 0
        layer.intermediate.dense.bias[0] = 1
        for tensor in (layer.intermediate.dense.weight, layer.intermediate.dense.bias):
            tensor[1] = tensor[2]
    cut = copy.deepcopy(full)
    remove_units(cut, [ALL], [list(range(2, 64))])
    assert repair(cut, only_stack(full)[1], [batch()], "refit") == ["0.attention", "0.ffn"]
    before = copy.deepcopy(full)
    remove_units(before, [ALL], [list(range(2, 64))])
    left = (hidden(cut) - hidden(full)).norm() / (hidden(before) - hidden(full)).norm()
    assert left < 0.1  # what the ridge holds back


@pytest.mark.parametrize("how", ["rescale", "refit"])
def test_padding_does_not_enter(how):
    full = tiny.model("bert", head="AutoModel")
    results = []
    for extra in (0, 7):
        cut = copy.deepcopy(full)
        remove_units(cut, [[0, 2], [1, 3]], [list(range(0, 64, 2))] * 2)
        rows = {
            k: torch.nn.functional.pad(v, (0, extra)) for k, v in batch().items() if v.dim() == 2
        }
        repair(cut, only_stack(full)[1], [rows], how)
        results.append(only_stack(cut)[1][1].output.dense.weight)
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("how", ["rescale", "refit"])
def test_a_classifier_is_tuned_last_on_its_first_token(how):
    """Tokens after the first differ by what a classifier never reads."""
    full = tiny.model("bert")
    cut = copy.deepcopy(full)
    remove_units(cut, [ALL, ALL], [list(range(64)), list(range(0, 64, 8))])
    bare = copy.deepcopy(cut.bert)
    repair(cut, only_stack(full)[1], [batch()], how)
    repair(bare, only_stack(full)[1], [batch()], how)
    inputs = {name: batch()[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        wanted = full.bert(**inputs).last_hidden_state[:, 0]
        first = cut.bert(**inputs).last_hidden_state[:, 0]
        every = bare(**inputs).last_hidden_state[:, 0]
    assert (first - wanted).square().mean() < (every - wanted).square().mean()
