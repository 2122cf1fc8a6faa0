"""oBERT: the Fisher matrix and its inverse, the update by hand, and the cases it reduces to."""

from types import SimpleNamespace

import pytest
import torch

import tiny
from compressor.errors import InputError
from compressor.methods import fisher
from compressor.methods.transforms import obert
from compressor.methods.transforms.obert import Options, block_saliency, block_update, steps_to
from compressor.model.layers import encoder_linears, in_rows

ROWS = [[7, 20, 33, 8], [9, 41, 5, 2], [60, 12, 70, 71], [4, 4, 31, 50], [22, 6, 9, 14]]


def batches(labels=(0, 1, 1, 0, 1)):
    return [
        {
            "input_ids": torch.tensor([row]),
            "attention_mask": torch.ones(1, len(row), dtype=torch.long),
            "labels": torch.tensor([label]),
        }
        for row, label in zip(ROWS, labels, strict=True)
    ]


def of_tokens():
    return [{**batch, "labels": batch["input_ids"]} for batch in batches()]


def loaded(model=None, task="text-classification"):
    return SimpleNamespace(model=model or tiny.model(), task=task)


def weights_of(model):
    return {
        name: in_rows(module).detach().clone() for name, module in encoder_linears(model).items()
    }


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_inverse_is_that_of_the_recursion_over_gradients():
    gradients, damp = drawn(3, 12, 5), 1e-3  # [blocks, gradients, size]
    inverse = fisher.inverse_fisher(gradients.mT @ gradients / 12, damp)
    for block, several in enumerate(gradients):
        by_steps = torch.eye(5, dtype=torch.float64) / damp
        for one in several:  # Sherman and Morrison
            v = by_steps @ one
            by_steps -= v.outer(v) / (12 + one @ v)
        assert torch.allclose(inverse[block], by_steps, rtol=1e-6, atol=1e-8)


def test_few_large_gradients_in_float32_still_have_an_inverse():
    gradients = 1000 * drawn(200, 50, 3).float()  # rank 3 of 50
    inverse = fisher.inverse_fisher(gradients @ gradients.mT, 1e-12)
    assert inverse.isfinite().all()
    assert (inverse.diagonal(dim1=1, dim2=2) > 0).all()


def test_saliency_and_update_by_hand():
    fisher_matrix = torch.tensor([[[2.0, 1.9], [1.9, 2.0]]], dtype=torch.float64)
    inverse, weight = torch.linalg.inv(fisher_matrix), torch.tensor([[1.0, 3.0]]).double()
    # [F^-1]_ii = 2 / (4 - 3.61)
    expected = [w * w * 0.39 / 4 for w in (1.0, 3.0)]
    assert block_saliency(weight, inverse)[0].tolist() == pytest.approx(expected)
    after = block_update(weight, inverse, torch.tensor([[False, True]]))
    assert after[0].tolist() == pytest.approx([0.0, 3.95])  # 3 + F_01 / F_11
    assert after[0, 0] == 0.0


def test_the_updates_of_several_pruned_weights_add_up():
    inverse = torch.tensor([[[1.0, 0.5, 0.2], [0.5, 2.0, 0.4], [0.2, 0.4, 4.0]]])
    weight = torch.tensor([[1.0, 2.0, 3.0]])
    after = block_update(weight, inverse, torch.tensor([[False, False, True]]))
    # 3 - .2 * 1 / 1 - .4 * 2 / 2
    assert after[0].tolist() == pytest.approx([0.0, 0.0, 2.4])


def test_blocks_run_along_rows_and_end_in_zeros():
    matrix = torch.arange(1.0, 7.0).view(2, 3)
    blocks = fisher.in_blocks(matrix, 4)
    assert blocks.tolist() == [[1, 2, 3, 4], [5, 6, 0, 0]]
    assert torch.equal(fisher.from_blocks(blocks, matrix), matrix)


@pytest.mark.parametrize(
    ("family", "head", "task", "rows"),
    [
        ("bert", "AutoModelForSequenceClassification", "text-classification", batches()),
        ("gpt2", "AutoModelForCausalLM", "causal-lm", of_tokens()),
    ],
)
def test_fisher_matrix_of_a_model(family, head, task, rows, monkeypatch):
    monkeypatch.setattr(fisher, "GRADIENTS_TOGETHER", 2)  # two, two and one
    model = tiny.model(family, head=head)
    modules = encoder_linears(model)
    ones = {name: torch.ones_like(in_rows(module)).bool() for name, module in modules.items()}
    last = next(reversed(ones))
    ones[last][0, :7] = False
    found = fisher.fisher_inverses(loaded(model, task), modules, ones, rows, size=7, damp=0.01)
    assert torch.allclose(found[last][0], 100 * torch.eye(7), rtol=1e-4)  # pruned: no gradient
    expected = 0.01 * torch.eye(7)
    for batch in rows:
        gradient = torch.autograd.grad(model(**batch).loss, modules[last].weight)[0]
        one = in_rows(modules[last], gradient).flatten()[7:14]
        expected += one.outer(one) / len(rows)
    inverse = torch.linalg.inv(expected.double()).float()
    assert torch.allclose(found[last][1], inverse, rtol=1e-3, atol=1e-3)
    assert inverse.trace() < 690


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_huge_damping_is_magnitude_pruning(scope, family):
    model, other = tiny.model(family), tiny.model(family)
    obert.apply(loaded(model), batches(), Options(sparsity=0.4, scope=scope, damp=1e12))
    tiny.prune_smallest(other, 0.4, scope)
    theirs = weights_of(other)
    for name, mine in weights_of(model).items():
        assert torch.equal(mine == 0, theirs[name] == 0), name
        assert torch.allclose(mine, theirs[name], atol=1e-6), name


@pytest.mark.parametrize("recomputations", [1, 3])
def test_counts_are_exact_and_the_rest_is_updated(recomputations):
    model = tiny.model()
    before, outside = weights_of(model), model.classifier.weight.clone()
    options = Options(sparsity=0.6, damp=1e-4, recomputations=recomputations)
    facts = obert.apply(loaded(model), batches(), options)
    after = weights_of(model)
    total = sum(weight.numel() for weight in after.values())
    assert sum(int((weight == 0).sum()) for weight in after.values()) == int(0.6 * total)
    assert any((weight != before[name])[weight != 0].any() for name, weight in after.items())
    assert torch.equal(model.classifier.weight, outside)
    assert facts == {
        "sparsity": pytest.approx(0.6, abs=1e-4),
        "matrices": 12,
        "calibration_rows": 5,
        "gradients": 5,
    }


def test_new_estimates_change_the_choice():
    once, thrice = tiny.model(), tiny.model()
    obert.apply(loaded(once), batches(), Options(sparsity=0.6))
    obert.apply(loaded(thrice), batches(), Options(sparsity=0.6, recomputations=3))
    others = weights_of(thrice)
    assert any(((w == 0) != (others[name] == 0)).any() for name, w in weights_of(once).items())


@pytest.mark.parametrize("recomputations", [1, 2])
def test_pattern_is_exact(recomputations):
    model = tiny.model()
    obert.apply(
        loaded(model), batches(), Options(pattern="2:4", damp=1e-4, recomputations=recomputations)
    )
    for weight in weights_of(model).values():
        assert ((weight != 0).reshape(len(weight), -1, 4).sum(-1) == 2).all()


def test_matrices_taken_one_by_one_give_the_same(monkeypatch):
    together, alone = tiny.model(), tiny.model()
    options = Options(sparsity=0.5, damp=1e-4)
    obert.apply(loaded(together), batches(), options)
    monkeypatch.setattr(obert, "taken_together", lambda modules, size: [[name] for name in modules])
    obert.apply(loaded(alone), batches(), options)
    others = weights_of(alone)
    for name, weight in weights_of(together).items():
        assert torch.allclose(weight, others[name], atol=1e-5), name


def test_matrices_are_taken_together_as_memory_allows():
    modules = {name: torch.nn.Linear(10, 10) for name in "abcd"}
    one = 4 * 100 * (50 + fisher.GRADIENTS_TOGETHER)
    assert fisher.taken_together(modules, 50) == [["a", "b", "c", "d"]]
    assert fisher.taken_together(modules, 50, 3 * one) == [["a", "b", "c"], ["d"]]
    assert fisher.taken_together(modules, 50, one - 1) == [["a"], ["b"], ["c"], ["d"]]


def test_zeros_from_before_come_first_and_stay():
    model = tiny.model()
    tiny.prune_smallest(model)
    before = weights_of(model)
    obert.apply(loaded(model), batches(), Options(sparsity=0.3))
    for name, weight in weights_of(model).items():
        assert torch.equal(weight, before[name]), name


def test_steps_prune_equal_shares_of_what_is_left():
    assert steps_to(0.5, None, 1) == [(0.5, None)]
    assert [sparsity for sparsity, _ in steps_to(0.875, None, 3)] == pytest.approx(
        [0.5, 0.75, 0.875]
    )
    assert steps_to(0.5, (2, 4), 1) == [(0.5, (2, 4))]
    assert steps_to(0.5, (2, 4), 9) == [(0.5, (3, 4)), (0.5, (2, 4))]


def test_fewer_gradients_take_the_first_batches():
    facts = obert.apply(loaded(), batches(), Options(gradients=2))
    assert (facts["gradients"], facts["calibration_rows"]) == (2, 2)


@pytest.mark.parametrize(
    ("task", "rows", "words"),
    [
        (None, batches(), "no head"),
        ("text-classification", [], "sample rows"),
        ("text-classification", None, "sample rows"),
        ("text-classification", [{"input_ids": torch.ones(1, 2)}], "have none"),
        ("text-classification", of_tokens(), "do not fit the model's task, text-classification"),
        ("causal-lm", batches(), "do not fit the model's task, causal-lm"),
        ("regression", batches(), "do not fit the model's task, regression"),
    ],
)
def test_rows_that_do_not_fit_are_refused(task, rows, words):
    with pytest.raises(InputError, match=words):
        obert.apply(loaded(task=task), rows, Options())


def test_gradients_that_are_not_finite_are_refused():
    model = tiny.model()
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        obert.apply(loaded(model), batches(), Options())
