"""What pruning on sample rows promises: exact zeros after a reload, and rows that matter."""

import json
from types import SimpleNamespace

import pytest
import torch
import transformers

import tiny
from compressor.cli import run
from compressor.errors import InputError, UsageError
from compressor.methods.layerwise import (
    change_layer_by_layer,
    inverse_factor,
    relative_error,
)
from compressor.methods.transforms import obert, sparsegpt, wanda
from compressor.model.calibration import input_products
from compressor.model.layers import encoder_linears, in_rows
from compressor.model.masks import masks_of

ROWS = [[7, 20, 33, 8], [9, 41, 5], [60, 12, 70, 71, 72, 6], [22, 3, 9, 14, 50], [31, 7]]
OTHERS = [[81, 80, 79], [77, 76, 75, 74], [66, 65], [64, 63, 62, 61, 59], [58, 57, 56, 55]]
METHODS = {"wanda": wanda, "sparsegpt": sparsegpt, "obert": obert}
LAYERWISE = [wanda, sparsegpt]
HEADS = {"gpt2": "AutoModelForCausalLM", "llama": "AutoModelForCausalLM"}


def batch_of(rows, pad_to=0, pad=0):
    length = max(pad_to, *(len(row) for row in rows))
    return {
        "input_ids": torch.tensor([row + [pad] * (length - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(r) + [0] * (length - len(r)) for r in rows]),
        "labels": torch.tensor([n % 2 for n in range(len(rows))]),
    }


def pruned(method, batches, family="bert", **options):
    """The matrices [out, in] of a new model after pruning."""
    model = tiny.model(family)
    loaded = SimpleNamespace(model=model, task="text-classification")
    method.apply(loaded, batches, method.Options(**options))
    return {name: in_rows(m).detach() for name, m in encoder_linears(model).items()}


def zeros_of(weights):
    return {name: weight == 0 for name, weight in weights.items()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one-shot")
    tiny.data(folder / "data", train=48, validation=16)
    tiny.checkpoint(folder / "bert")
    for family, head in HEADS.items():
        tiny.checkpoint(folder / family, family, head=head, labels=None)
    return folder


def by_command(here, family, words, name):
    """Prune by the command line, and the model before and after as transformers reads it."""
    task = "--task causal-lm " if family in HEADS else ""
    line = f"prune {family} {words} --data data {task}--force -o {name}"
    assert run(line.split()) == 0
    auto = getattr(transformers, HEADS.get(family, "AutoModelForSequenceClassification"))
    return auto.from_pretrained(here / family), auto.from_pretrained(here / name)


@pytest.mark.parametrize("family", ["bert", *HEADS])
@pytest.mark.parametrize("pattern", ["unstructured", "1:4"])
@pytest.mark.parametrize("method", METHODS)
def test_zeros_are_exact_after_a_reload_and_nothing_else_changes(
    method, pattern, family, here, monkeypatch
):
    monkeypatch.chdir(here)
    share = "--sparsity 0.3 " if pattern == "unstructured" else ""
    words = f"--method {method} {share}--pattern {pattern}"
    before, after = by_command(here, family, words, "out")
    linears = encoder_linears(after)
    assert linears
    inside = {f"{name}.weight" for name in linears}
    for name, value in after.state_dict().items():
        assert name in inside or torch.equal(value, before.state_dict()[name]), name
    total = zeros = 0
    for name, module in linears.items():
        gone = in_rows(module) == 0
        rows, inputs = gone.shape
        total, zeros = total + gone.numel(), zeros + int(gone.sum())
        if pattern == "1:4":
            assert (gone.reshape(rows, -1, 4).sum(-1) == 3).all(), name
        elif method == "wanda":
            assert gone.sum(1).tolist() == [int(inputs * 0.3)] * rows, name
        elif method == "sparsegpt":
            assert int(gone.sum()) == int(0.3 * (rows * inputs)), name
    if pattern == "unstructured" and method == "obert":
        assert zeros == int(0.3 * total)
    metrics = json.loads((here / "out" / "compression.json").read_text())["steps"][-1]["metrics"]
    assert metrics["sparsity"] == zeros / total
    assert metrics["calibration_rows"] == 48


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_chooses_the_rows(method, here, monkeypatch):
    monkeypatch.chdir(here)
    few = "--gradients 1" if method == "obert" else "--samples 6"
    models = [
        by_command(here, "bert", f"--method {method} {few} --seed {seed}", "seeded")[1]
        for seed in (0, 0, 1)
    ]
    first, again, other = (
        {name: m.weight == 0 for name, m in encoder_linears(model).items()} for model in models
    )
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("model", ["bare", "gpt2"])
def test_labelled_rows_calibrate_a_model_that_they_cannot_score(
    method, model, here, monkeypatch, capsys
):
    monkeypatch.chdir(here)
    if model == "bare":
        tiny.checkpoint(here / "bare", head="AutoModel", labels=None)
    line = f"prune {model} --method {method} --data data --force -o unscored"
    assert run(line.split()) == 0
    assert "give it no score" in capsys.readouterr().err
    metrics = json.loads((here / "unscored/compression.json").read_text())["steps"][-1]["metrics"]
    assert metrics["sparsity"] == pytest.approx(0.5)
    assert "accuracy" not in metrics


@pytest.mark.parametrize("method", METHODS.values())
def test_other_rows_give_other_zeros(method):
    one, other = (zeros_of(pruned(method, [batch_of(rows)])) for rows in (ROWS, OTHERS))
    assert not same(one, other)


def test_the_order_of_rows_is_no_matter_to_wanda():
    forth = pruned(wanda, [batch_of([row]) for row in ROWS])
    back = pruned(wanda, [batch_of([row]) for row in reversed(ROWS)])
    assert same(forth, back)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("method", METHODS.values())
def test_padding_is_no_matter(method, family):
    # One batch each way: the gradients of a batch are those of its mean loss.
    plain = pruned(method, [batch_of(ROWS)], family)
    padded = pruned(method, [batch_of(ROWS, pad_to=16)], family)
    for name, weight in plain.items():
        assert torch.equal(weight == 0, padded[name] == 0), name
        assert torch.allclose(weight, padded[name], atol=1e-3), name


@pytest.mark.parametrize("method", LAYERWISE)
def test_padding_taken_for_real_would_show(method):
    blind = batch_of(ROWS, pad_to=16)
    blind["attention_mask"] = torch.ones_like(blind["attention_mask"])
    plain, wrong = (zeros_of(pruned(method, [rows])) for rows in (batch_of(ROWS), blind))
    assert not same(plain, wrong)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sparsity", [0.5, 0.7])
def test_outputs_on_other_tokens_are_kept_best_by_sparsegpt_then_wanda(sparsity, seed):
    draw = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    weight = drawn(64, 96)
    mixing = drawn(96, 96) * drawn(96).exp()  # correlated inputs of unlike sizes
    here, elsewhere = (tokens.T @ tokens for tokens in (drawn(2000, 96) @ mixing for _ in "ab"))
    upper = inverse_factor(here, 0.01)
    options = sparsegpt.Options(sparsity=sparsity)
    masks = {
        "magnitude": masks_of({"": weight.abs()}, sparsity, "uniform", None)[""],
        "wanda": masks_of({"": wanda.wanda_scores(weight, here)}, sparsity, "row", None)[""],
    }
    error = {name: relative_error(weight, weight * mask, elsewhere) for name, mask in masks.items()}
    updated = sparsegpt.prune_matrix(weight, here, upper, options)
    error["sparsegpt"] = relative_error(weight, updated, elsewhere)
    assert error["sparsegpt"] < error["wanda"] < error["magnitude"]


def test_relative_error_is_that_of_the_outputs():
    draw = torch.Generator().manual_seed(0)
    tokens, before, after = (torch.randn(n, 5, generator=draw) for n in (9, 3, 3))
    change = tokens @ (after - before).T
    expected = change.square().sum() / (tokens @ before.T).square().sum()
    found = relative_error(before, after, tokens.T @ tokens)
    assert found == pytest.approx(float(expected), rel=1e-5)
    assert relative_error(before, after, torch.zeros(5, 5)) == 0.0


def test_a_layer_is_pruned_on_what_the_pruned_ones_before_give():
    model, dense = tiny.model(), tiny.model()
    rows = [{k: v for k, v in batch_of(ROWS).items() if k != "labels"}]
    seen = []

    def halve(names, weights, products):
        seen.append(products)
        return [weight * 0.5 for weight in weights]

    modules = encoder_linears(model)
    error = change_layer_by_layer(model, modules, rows, halve)
    assert error == pytest.approx(0.25)
    second = next(name for name in modules if ".layer.1." in name)
    now = input_products(model, {second: modules[second]}, rows)[(second,)]
    once = input_products(dense, {second: encoder_linears(dense)[second]}, rows)[(second,)]
    assert len(seen) == 8  # queries, keys and values share one
    assert torch.allclose(seen[4], now)
    assert not torch.allclose(now, once, rtol=0.01)


@pytest.mark.parametrize("method", METHODS.values())
def test_excluded_matrices_stay_dense_and_as_they_are(method):
    after = pruned(method, [batch_of(ROWS)], exclude="output.dense")
    before = {name: m.weight for name, m in encoder_linears(tiny.model()).items()}
    for name, weight in after.items():
        assert torch.equal(weight, before[name]) == ("output.dense" in name)


@pytest.mark.parametrize("method", METHODS.values())
def test_what_does_not_fit_is_refused(method):
    with pytest.raises(InputError, match="32 inputs"):
        pruned(method, [batch_of(ROWS)], pattern="2:3" if method is not sparsegpt else "2:64")
    with pytest.raises(UsageError, match="pattern"):
        pruned(method, [batch_of(ROWS)], pattern="4:2")
    with pytest.raises(InputError, match="names no linear"):
        pruned(method, [batch_of(ROWS)], exclude="outptu")
    with pytest.raises(InputError, match="leaves no linear layer"):
        pruned(method, [batch_of(ROWS)], exclude="layer.0,layer.1")
    with pytest.raises(InputError, match="sample rows"):
        pruned(method, [])


@pytest.mark.parametrize("method", LAYERWISE)
def test_encoder_decoders_are_refused(method):
    config = transformers.T5Config(
        d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=30
    )
    loaded = SimpleNamespace(model=transformers.T5ForConditionalGeneration(config))
    with pytest.raises(InputError, match="an encoder and a decoder") as refused:
        method.apply(loaded, [batch_of(ROWS)], method.Options())
    assert "magnitude" in refused.value.hint


def test_facts_of_a_model_rank_the_methods():
    def facts(method, **options):
        loaded = SimpleNamespace(model=tiny.model())
        rows = [batch_of(ROWS + OTHERS)] * 2
        return method.apply(loaded, rows, method.Options(sparsity=0.5, **options))

    by_wanda, by_sparsegpt = facts(wanda), facts(sparsegpt, samples=15)
    assert by_sparsegpt["output_error"] < by_wanda["output_error"]
    assert (by_wanda["calibration_rows"], by_sparsegpt["calibration_rows"]) == (20, 15)
    assert by_wanda["matrices"] == by_sparsegpt["matrices"] == 12
    assert by_wanda["sparsity"] == pytest.approx(0.5) == by_sparsegpt["sparsity"]
