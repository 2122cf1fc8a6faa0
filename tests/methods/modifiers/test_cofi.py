"""Gates: hand values, a budget that is met, removal that changes no answer, and a run resumed."""

import json
import os
import signal

import pytest
import torch

import tiny
from compressor.cli import run
from compressor.errors import InputError, UsageError
from compressor.methods.contract import Context
from compressor.methods.modifiers import cofi
from compressor.model.pruned import widths_of
from compressor.model.save import largest_difference, probe_inputs
from compressor.train import loop


def modifier(model=None, total=100, **options):
    context = Context(model or tiny.model(), "text-classification", total_steps=total)
    return cofi.Modifier(cofi.Options(**options), context)


def test_expected_share_and_penalty_by_hand():
    made = modifier(mac_ratio=0.5, gates_start=0, gates_ramp=0.5, gates_end=1)
    for name in ("units", "parts"):
        made.trained[name].data.zero_()
    # Every gate and every part are open with probability 0.831822.
    assert made.pruned_share().item() == pytest.approx(1 - 0.831822**2, abs=1e-6)
    assert [made.target(step) for step in (0, 24, 49, 80)] == pytest.approx([0.01, 0.25, 0.5, 0.5])
    made.multipliers = torch.tensor([2.0, 3.0])
    gap = 1 - 0.831822**2 - 0.25
    assert made.penalty(24).item() == pytest.approx(2 * gap + 3 * gap**2, abs=1e-5)


def test_multipliers_grow_while_too_little_is_pruned_and_begin_anew_on_the_other_side():
    made = modifier(mac_ratio=0.3, gates_start=0, gates_ramp=0, gates_end=1, gates_lr=0.05)
    for step in range(40):
        made.before_step(step)
        made.after_step(step)
    assert made.multipliers.tolist() == pytest.approx([-2, 2])
    assert made.trained["units"].max() < cofi.HIGHEST
    made.trained["units"].data.fill_(-4.0)  # far too much is pruned
    made.before_step(40)
    made.after_step(40)
    assert made.multipliers.tolist() == pytest.approx([0.05, 2.05])


@pytest.mark.parametrize("steps", [400, 1200])
def test_what_is_pruned_in_expectation_reaches_the_target(steps, capsys):
    model = tiny.model(num_hidden_layers=3)
    made = modifier(model, total=steps, mac_ratio=0.4)
    importance = torch.rand(len(made.part), generator=torch.Generator().manual_seed(0))
    for step in range(made.end):
        made.before_step(step)
        if made.active:
            made._draw(model.train(), ())
            (-0.3 * importance @ made.gates / len(importance)).backward()
        made.after_step(step)
    made.before_step(made.end)
    assert made.share == pytest.approx(0.6, abs=0.04)
    assert "arbitrary" not in capsys.readouterr().err
    assert importance[made.kept].mean() > importance[~made.kept].mean() + 0.15


def test_gates_that_close_too_early_are_named(capsys):
    made = modifier(total=20, mac_ratio=0.4)
    for step in range(made.end + 1):
        made.before_step(step)
        made.after_step(step)
    assert "of 60%: part of the choice is arbitrary" in capsys.readouterr().err


def test_gates_begin_wide_open_and_evaluation_has_no_noise():
    model = tiny.model()
    inputs = probe_inputs(model)
    with torch.no_grad():
        plain = model(**inputs).logits
        made = modifier(model, gates_start=0)
        made.before_step(0)
        torch.testing.assert_close(model.eval()(**inputs).logits, plain)
        made.trained["units"].data.fill_(-1.0)
        gated = model(**inputs).logits
        assert (gated - plain).abs().max() > 1e-4
        torch.testing.assert_close(model(**inputs).logits, gated)
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        assert not torch.equal(model(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("family", ["bert", "distilbert", "llama"])
def test_what_is_closed_stays_zero_and_its_removal_changes_no_answer(family):
    model = tiny.model(family, num_hidden_layers=3)
    made = modifier(model, total=10, mac_ratio=0.5, gates_start=0, gates_ramp=0, gates_end=0.5)
    torch.manual_seed(0)
    for name in ("units", "parts"):
        made.trained[name].data.uniform_(-4, 4)
    made.before_step(5)
    assert made.settled(5)
    assert not made.settled(4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    inputs = probe_inputs(model)
    for step in range(5, 10):
        model.train()(**inputs).logits.square().sum().backward()
        optimizer.step()
        made.after_step(step)
    model.eval()
    with torch.no_grad():
        before = model(**inputs).logits
    made.on_finish()
    parameters = sum(p.numel() for p in model.parameters())
    facts = made.on_kept()
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, before, rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in model.parameters()) < parameters
    assert 0.48 * facts["macs_before"] < facts["macs_after"] <= 0.5 * facts["macs_before"]
    assert facts["heads_per_layer"] == list(widths_of(model).heads)
    assert min(facts["heads_per_layer"] + facts["ffn_per_layer"]) >= 1


def test_gates_that_are_half_open_are_multiplied_into_the_weights():
    model, gated = tiny.model(), tiny.model()
    made = modifier(gated, mac_ratio=1.0, gates_start=0, gates_ramp=0, gates_end=0.5)
    inputs = probe_inputs(model)
    made.trained["units"].data.uniform_(-0.5, 0.5)
    made.before_step(0)
    with torch.no_grad():
        half_open = gated(**inputs).logits
    made.before_step(50)
    assert made.kept.all()
    assert largest_difference(gated, model, inputs) > 1e-4
    with torch.no_grad():
        torch.testing.assert_close(gated(**inputs).logits, half_open, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gates_start": 0.5, "gates_ramp": 0.2}, "are not in this order"),
        ({"mac_ratio": 0.001}, "the smallest result that this model allows has"),
    ],
)
def test_refusals(options, words):
    with pytest.raises(UsageError, match=words):
        modifier(**options)


def test_half_precision_is_refused_in_words():
    context = Context(tiny.model(), "text-classification", mixed_precision="fp16")
    with pytest.raises(InputError, match="gradients that fp16 scales"):
        cofi.Modifier(cofi.Options(), context)


def test_what_is_cut_is_not_rounded_before(workshop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = f"prune {workshop}/teacher --method cofi --with qat --data {workshop}/data -o x"
    assert run(words.split()) == 2
    assert "prune with cofi first, then compressor finetune --with qat" in capsys.readouterr().err


def test_a_run_ends_small_and_a_resumed_one_the_same(workshop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = f"prune {workshop}/teacher --method cofi --mac-ratio 0.5 --gates-lr 0.3 --epochs 4"
    words += f" --teacher {workshop}/teacher --objective soft_labels --objective matched_layers"
    words += f" --matched-layers 2 --data {workshop}/data --batch-size 16"
    assert run([*words.split(), "-o", "whole"]) == 0
    metrics = json.loads((tmp_path / "whole/compression.json").read_text())["steps"][-1]["metrics"]
    assert metrics["macs_after"] <= 0.5 * metrics["macs_before"]
    config = json.loads((tmp_path / "whole/config.json").read_text())
    assert config["heads_per_layer"] == metrics["heads_per_layer"]
    assert metrics["accuracy"] > 0.7

    for stop_at in (30, 60):  # while gates are trained, and after they were closed
        step = loop._Loop._step

        def stopping(self, number, step=step, stop_at=stop_at):
            if number == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(self, number)

        with monkeypatch.context() as patch:
            patch.setattr(loop._Loop, "_step", stopping)
            assert run([*words.split(), "-o", f"cut-{stop_at}"]) == 143
        assert run([*words.split(), "--resume", "-o", f"cut-{stop_at}"]) == 0
        weights = [tmp_path / name / "model.safetensors" for name in ("whole", f"cut-{stop_at}")]
        assert weights[0].read_bytes() == weights[1].read_bytes()
