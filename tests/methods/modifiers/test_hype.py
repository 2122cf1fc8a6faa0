"""Noise between layers: how many draws, of which kind, where, and never outside training."""

import pytest
import torch
from torch import nn

import tiny
from compressor.cli import run
from compressor.errors import UsageError
from compressor.methods.contract import Context
from compressor.methods.modifiers import hype
from compressor.model.layers import only_stack
from compressor.model.views import HIDDEN, look


def modified(model, precision="no", **options):
    context = Context(model, "text-classification", mixed_precision=precision)
    return hype.Modifier(hype.Options(**options), context)


def inputs(rows=8, length=40):
    draw = torch.Generator().manual_seed(3)
    return {"input_ids": torch.randint(5, 60, (rows, length), generator=draw)}


@pytest.fixture
def drawn(monkeypatch):
    """Every noise that is drawn."""
    seen = []
    original = hype.noise_like

    def watch(hidden, kind, sigma):
        seen.append(original(hidden, kind, sigma))
        return seen[-1]

    monkeypatch.setattr(hype, "noise_like", watch)
    return seen


@pytest.mark.parametrize(("kind", "deviation"), [("normal", 0.1), ("uniform", 0.1 / 3**0.5)])
def test_every_layer_gets_fresh_noise_of_the_right_kind(kind, deviation, drawn):
    model = tiny.model(num_hidden_layers=6).train()
    modified(model, hype_noise=kind, hype_sigma=0.1)
    torch.manual_seed(0)
    model(**inputs(32, 60))
    assert len(drawn) == 6
    for noise in drawn:
        assert noise.shape == (32, 60, 32)
        assert abs(float(noise.mean())) < 3 * 0.1 / noise.numel() ** 0.5
        assert float(noise.std()) == pytest.approx(deviation, rel=0.02)
        assert float(noise.min()) < -0.09
    assert not torch.equal(drawn[0], drawn[1])


def test_outside_training_nothing_changes():
    model = tiny.model().eval()
    before = model(**inputs()).logits
    modifier = modified(model, hype_sigma=0.5)
    assert torch.equal(model(**inputs()).logits, before)
    assert not torch.equal(model.train()(**inputs()).logits, before)
    modifier.on_finish()
    assert not any(layer._forward_pre_hooks for layer in only_stack(model)[1])


@pytest.mark.parametrize("family", ["bert", "distilbert", "mpnet", "gpt2"])
def test_hidden_states_are_shown_before_the_noise(family):
    sizes = {"dropout": 0.0} if family == "distilbert" else {"hidden_dropout_prob": 0.0}
    model = tiny.model(family, num_hidden_layers=2, **sizes).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    shows = frozenset({HIDDEN})
    clean = look(model, inputs(), shows, bare=model).hidden
    modified(model, hype_sigma=0.5)
    noisy = look(model, inputs(), shows, bare=model).hidden
    assert len(noisy) == len(clean) == 3
    torch.testing.assert_close(noisy[0], clean[0])
    assert not torch.allclose(noisy[1], clean[1], atol=0.1)


@pytest.mark.parametrize(("layers", "count"), [("all", 4), ("top:1", 1), ("bottom:3", 3)])
def test_noise_comes_before_the_chosen_layers_and_not_after_the_last(layers, count, drawn):
    model = tiny.model(num_hidden_layers=4).train()
    stack = only_stack(model)[1]

    for layer in stack:
        layer.forward = lambda hidden_states, *_, **__: hidden_states
    modified(model, hype_sigma=0.1, hype_layers=layers)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    body = model.bert
    embedded = body.embeddings(**inputs())
    found = body(**inputs()).last_hidden_state
    assert len(drawn) == count
    torch.testing.assert_close(found, embedded + sum(drawn))


def test_the_loss_comes_back_as_the_noise_goes():
    model = tiny.model().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    labels = torch.arange(8) % 2

    def loss(sigma):
        modifier = modified(model, hype_sigma=sigma)
        torch.manual_seed(0)
        found = model(**inputs(), labels=labels).loss.item()
        modifier.on_finish()
        return found

    plain = loss(0.0)
    distances = [abs(loss(sigma) - plain) for sigma in (1e-1, 1e-2, 1e-3)]
    assert distances[0] > 3 * distances[1] > 9 * distances[2] > 0


@pytest.mark.parametrize(
    ("precision", "sigma", "refused"),
    [("bf16", 1e-5, True), ("fp16", 1e-4, True), ("bf16", 1e-2, False), ("no", 1e-5, False)],
)
def test_noise_that_would_be_rounded_away_is_refused(precision, sigma, refused):
    if not refused:
        modified(tiny.model(), precision, hype_sigma=sigma)
        return
    with pytest.raises(UsageError, match="rounded away") as error:
        modified(tiny.model(), precision, hype_sigma=sigma)
    assert "--precision fp32" in error.value.hint


@pytest.mark.parametrize("layers", ["some", "top:", "top:0", "bottom:9", "middle:2"])
def test_layers_that_are_not_there_are_refused(layers):
    with pytest.raises(UsageError, match="--hype-layers"):
        modified(tiny.model(), hype_layers=layers)


SHARES = {
    "distilbert": {"dropout": 0.2, "attention_dropout": 0.3},
    "gpt2": {"resid_pdrop": 0.2, "embd_pdrop": 0.2, "attn_pdrop": 0.3},
}
USUAL = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3}


@pytest.mark.parametrize(
    "family",
    ["bert", "roberta", "electra", "distilbert", "mpnet", "deberta-v2", "gpt2"],
)
def test_dropout_is_set_for_the_while_but_not_that_of_the_attention(family):
    from transformers import AutoConfig, AutoModel

    body = AutoModel.from_config(
        AutoConfig.for_model(
            family, num_hidden_layers=2, hidden_size=32, num_attention_heads=4,
            intermediate_size=64, **SHARES.get(family, USUAL),
        )
    )  # fmt: skip

    def shares():
        found = [module.p for module in body.modules() if isinstance(module, nn.Dropout)]
        return [round(p, 3) for p in found if p]

    before = shares()
    assert {0.2, 0.3} <= set(before)
    modifier = modified(body, hype_dropout=0.0)
    assert shares() == [p for p in before if p == 0.3]
    modifier.on_finish()
    assert shares() == before


@pytest.mark.parametrize("family", ["distilbert", "gpt2", "llama", "mpnet"])
def test_other_families(family, drawn):
    model = tiny.model(family).train()
    modified(model, hype_sigma=0.1)
    model(**inputs())
    assert len(drawn) == 2


def test_nothing_of_it_is_in_the_result(workshop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = f"--data {workshop}/data --epochs 1 --batch-size 16"
    words = f"finetune {workshop}/teacher {flags} --with hype --precision"
    assert run(f"{words} bf16 -o noisy".split()) == 2
    assert "--hype-sigma 1e-05 would be rounded away" in capsys.readouterr().err
    assert run(f"{words} fp32 -o noisy".split()) == 0
    assert run("export noisy --weights fp32 -o noisy-graph".split()) == 0
    assert run(f"export {workshop}/teacher --weights fp32 -o plain-graph".split()) == 0
    import onnx

    kinds = [
        [node.op_type for node in onnx.load(f"{name}-graph/model.onnx").graph.node]
        for name in ("noisy", "plain")
    ]
    assert kinds[0] == kinds[1]
