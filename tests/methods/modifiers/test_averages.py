"""Averages of weights: exact means, valleys, precision, resumption, and what is saved."""

import json
import math
import re

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import tiny
from compressor.cli import run
from compressor.errors import UsageError
from compressor.methods.contract import Context
from compressor.methods.modifiers import swa, swad
from compressor.methods.running_mean import RunningMean
from compressor.train.judge import Judge


def scalar(value=0.0, kind=torch.float32):
    model = nn.Linear(1, 1, bias=False).to(kind)
    model.weight.data.fill_(value)
    return model


def averaged(values, **options):
    """The mean after every step whose weights are `values`."""
    model = scalar()
    context = Context(model, "text-classification", total_steps=len(values))
    modifier = swa.Modifier(swa.Options(**options), context)
    means = []
    for step, value in enumerate(values):
        model.weight.data.fill_(value)
        modifier.after_step(step)
        means.append(float(modifier.mean.mean["weight"]) if modifier.mean.count else None)
    return model, modifier, means


def test_the_running_mean_by_hand():
    _, _, means = averaged([1.0, 3.0, 8.0], swa_start=0.0, swa_every=1)
    assert means == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("steps", "start", "every", "count"),
    [(1000, 0.5, 50, 11), (7, 0.5, 2, 2), (100, 0.55, 5, 10), (100, 55, 5, 10)],
)
def test_which_steps_are_averaged(steps, start, every, count):
    values = [float(step + 1) for step in range(steps)]  # the weights after t steps are t
    model, modifier, _ = averaged(values, swa_start=start, swa_every=every)
    first = {0.5: math.ceil(steps / 2)}.get(start, 55)
    chosen = [float(t) for t in range(first, steps + 1, every)]
    assert modifier.on_kept() == {"swa_start_step": first, "swa_averaged": count}
    assert len(chosen) == count
    modifier.on_finish()
    assert model.weight.item() == pytest.approx(sum(chosen) / count, rel=1e-6)


def test_the_mean_is_kept_in_fp32():
    model, mean = scalar(1.0, torch.bfloat16), RunningMean()
    mean.add(model)
    model.weight.data.fill_(1.0078125)  # the next number
    for _ in range(399):
        mean.add(model)
    assert float(mean.mean["weight"]) == pytest.approx(1 + 0.0078125 * 399 / 400, abs=1e-6)


def test_the_mean_of_a_noisy_walk_has_less_noise():
    draw = torch.Generator().manual_seed(0)
    x, last, means = torch.zeros(4000), None, torch.zeros(4000)
    model = nn.Linear(4000, 1, bias=False)
    mean = RunningMean()
    for step in range(300):
        x = x - 0.5 * (x + torch.randn(4000, generator=draw))
        if step >= 100:
            model.weight.data.copy_(x[None])
            mean.add(model)
            last = x
    means = mean.mean["weight"]
    assert float(last.var()) == pytest.approx(1 / 3, rel=0.1)
    assert float(means.var()) == pytest.approx(1 / 200, rel=0.15)


def test_zeros_that_move_begin_the_mean_anew():
    model, mean = nn.Linear(10, 1, bias=False), RunningMean()
    model.weight.data = torch.tensor([[0.0] * 5 + [1.0] * 5])
    assert not mean.add(model)
    assert not mean.add(model)
    model.weight.data = torch.tensor([[0.0] * 6 + [3.0] * 4])
    assert mean.add(model)
    assert mean.count == 1
    mean.put_into(model)
    assert model.weight.flatten().tolist() == [0.0] * 6 + [3.0] * 4


def test_tied_weights_stay_tied_and_integers_are_those_of_the_last_step():
    model = tiny.model(head="AutoModelForMaskedLM", labels=None)
    mean = RunningMean()
    mean.add(model)
    mean.put_into(model)
    words = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight.data_ptr() == words.data_ptr()
    assert not [name for name in mean.mean if "position_ids" in name]


def test_batch_normalisation_is_collected_anew():
    model = nn.Sequential(nn.BatchNorm1d(3))
    data = [torch.randn(8, 3) + 5 for _ in range(4)]

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.config = model, tiny.config()

        def forward(self, values):
            return self.inner(values)

    # A batch tells its rows and labels too, which no forward takes.
    batches = [{"values": one, "rows": torch.arange(8), "labels": torch.ones(8)} for one in data]
    outer = Named()
    context = Context(outer, "text-classification", batches=lambda: iter(batches))
    for module, options in ((swa, swa.Options(swa_start=0.0)), (swad, swad.Options())):
        modifier = module.Modifier(options, context)
        model[0].running_mean.fill_(9.0)
        modifier.after_step(0)
        if module is swad:
            modifier.evaluated(1, 1.0)
        modifier.on_finish()
        torch.testing.assert_close(model[0].running_mean, torch.stack(data).mean((0, 1)))
        assert model[0].momentum == 0.1


RATES = [
    ({}, [0.25, 0.5, 1.0, 1.0]),
    ({"swa_lr": 2.0}, [0.25, 0.5, 1.0, 2.0]),
    ({"swa_schedule": "planned"}, [0.25, 0.5, 0.4, 0.2]),
]


@pytest.mark.parametrize(("options", "wanted"), RATES)
def test_the_rate_is_constant_after_the_warm_up(options, wanted):
    context = Context(
        scalar(), "text-classification", total_steps=4, learning_rate=1.0, warmup_steps=2
    )
    modifier = swa.Modifier(swa.Options(swa_start=1.0, **options), context)
    planned = [0.25, 0.5, 0.4, 0.2]
    assert [modifier.learning_rate(s, p) for s, p in enumerate(planned)] == wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"swa_start": 2.5}, "--swa-start 2.5: above 1 it is a step, which is a whole number"),
        ({"swa_lr": 1e-3, "swa_schedule": "planned"}, "--swa-lr does nothing with"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        swa.Options(**options)


VALLEYS = [
    ([5, 4, 3, 3.1, 3.2, 3.1, 9, 9, 9, 9], (2, 6)),  # limit 1.3 x 3.1 = 4.03
    ([5, 4, 3, 3.1, 3.2, 3.1, 3.0, 3.1], (2, 8)),  # never ends
    ([5, 4, 3], None),  # always falling
    ([3, 4, 5], (0, 3)),
    ([1, 1.1, 1.2, 9, 9, 9], (0, 3)),  # fewer than four are left, and all are above the limit
    ([1, 1.1, 1.2, 9, 1.3, 9], (0, 5)),
]


@pytest.mark.parametrize(("losses", "wanted"), VALLEYS)
def test_where_the_valley_begins_and_ends(losses, wanted):
    assert swad.valley(losses, begin=3, end=4, tolerance=0.3) == wanted


def test_the_mean_of_the_valley_counts_every_step():
    model = scalar()
    modifier = swad.Modifier(
        swad.Options(swad_begin=1, swad_end=1), Context(model, "text-classification")
    )
    # Segments of steps with the weights (9), (1, 2), (6, 6, 6); the last one is out of the valley.
    step = 0
    for weights, loss in (([9.0], 5.0), ([1.0, 2.0], 5.1), ([6.0, 6.0, 6.0], 50.0)):
        for weight in weights:
            model.weight.data.fill_(weight)
            modifier.after_step(step)
            step += 1
        with modifier.evaluating():
            assert model.weight.item() == pytest.approx(sum(weights) / len(weights))
        assert model.weight.item() == weights[-1]
        modifier.evaluated(step, loss)
    modifier.on_finish()
    assert model.weight.item() == pytest.approx((9 + 1 + 2) / 3)
    assert modifier.on_kept() == {"swad_segments": [0, 2], "swad_averaged": 3}


def test_a_valley_is_one_of_a_single_set_of_zeros():
    model = nn.Linear(10, 1, bias=False)
    context = Context(model, "text-classification")
    modifier = swad.Modifier(swad.Options(swad_begin=1, swad_end=1), context)
    # The loss rises as zeros come: the lowest one belongs to the dense weights.
    for step, (zeros, loss) in enumerate([(0, 1.0), (5, 2.0), (6, 3.0), (6, 3.1)]):
        model.weight.data = torch.tensor([[0.0] * zeros + [float(step)] * (10 - zeros)])
        modifier.after_step(step)
        modifier.evaluated(step + 1, loss)
    modifier.on_finish()
    assert model.weight.flatten().tolist() == [0.0] * 6 + [2.5] * 4
    assert modifier.on_kept() == {"swad_segments": [0, 2], "swad_averaged": 2}


def test_segments_whose_place_is_decided_are_not_kept():
    model = scalar()
    context = Context(model, "regression", total_steps=60, evaluations=60)
    modifier = swad.Modifier(swad.Options(), context)
    losses = [9.0, 8, 7, 6, 3, 3.1, 3.2, *[3.1] * 13, *[9.0] * 40]
    for step, loss in enumerate(losses):
        model.weight.data.fill_(step + 1.0)
        modifier.after_step(step)
        modifier.evaluated(step + 1, loss)
        copies = [modifier.inside, *modifier.open, modifier.segment]
        assert sum(bool(mean.mean) for mean in copies) <= modifier.options.copies
    modifier.on_finish()
    assert modifier.on_kept() == {"swad_segments": [4, 20], "swad_averaged": 16}
    assert model.weight.item() == pytest.approx(sum(range(5, 21)) / 16)
    assert not modifier.open


def test_too_few_evaluations_for_a_valley_are_refused_and_no_valley_is_said(here, capsys):
    assert run("finetune teacher --data data --epochs 2 --with swad -o out".split()) == 2
    assert "--eval-steps" in capsys.readouterr().err
    words = "finetune teacher --data data --epochs 1 --eval-steps 1 --batch-size 32 --with swad"
    assert run(f"{words} --swad-begin 4 --lr 1e-2 -o out".split()) == 0
    step = json.loads((here / "out/compression.json").read_text())["steps"][-1]["metrics"]
    said = "no valley began" in capsys.readouterr().err
    # Of ten evaluations; a valley that four of them show begins at the seventh at the latest.
    assert said == (step["swad_segments"] == [9, 10])


@pytest.mark.parametrize("module", [swa, swad])
def test_where_nothing_was_averaged_the_weights_stay(module, capsys):
    model = scalar(3.0)
    modifier = module.Modifier(module.Options(), Context(model, "regression", total_steps=9))
    modifier.on_finish()
    assert model.weight.item() == 3.0
    assert "stay" in capsys.readouterr().err
    assert modifier.on_kept()[f"{module.__name__.rpartition('.')[2]}_averaged"] == 0


@pytest.mark.parametrize("module", [swa, swad])
def test_a_round_trip_of_the_state_changes_nothing(module):
    def build():
        model = scalar()
        options = swa.Options(swa_every=1, swa_start=0.0) if module is swa else swad.Options()
        return model, module.Modifier(options, Context(model, "regression", total_steps=9))

    def walk(model, modifier, steps):
        for step in steps:
            model.weight.data.fill_(step**2)
            modifier.after_step(step)
            if module is swad and step % 2:
                modifier.evaluated(step, 1.0 + step)

    model, modifier = build()
    walk(model, modifier, range(9))
    modifier.on_finish()
    first, half = build()
    walk(first, half, range(5))
    second, other = build()
    other.load_state_dict({name: v.clone() for name, v in half.state_dict().items()})
    walk(second, other, range(5, 9))
    other.on_finish()
    assert torch.equal(second.weight, model.weight)
    assert other.on_kept() == modifier.on_kept()


@pytest.fixture
def here(workshop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "data"):
        (tmp_path / name).symlink_to(workshop / name)
    return tmp_path


QUICK = "--data data --epochs 3 --batch-size 16 --lr 1e-3"


def test_the_mean_is_what_is_saved_and_the_last_weights_are_scored_beside_it(here, monkeypatch):
    dumped, add = {}, RunningMean.add

    def dumping(self, model):
        for name, value in model.named_parameters():
            dumped.setdefault(name, []).append(value.detach().clone())
        return add(self, model)

    monkeypatch.setattr(RunningMean, "add", dumping)
    assert run(f"finetune teacher {QUICK} --with swa --swa-every 2 -o mean".split()) == 0
    record = json.loads((here / "mean/compression.json").read_text())["steps"][-1]["metrics"]
    steps = record["last_weights"]["step"]
    assert record["swa_averaged"] == (steps - steps // 2) // 2 + 1
    assert 0 < record["last_weights"]["accuracy"] <= 1
    saved = load_file(here / "mean/model.safetensors")
    assert all(len(states) == record["swa_averaged"] for states in dumped.values())
    for name, states in dumped.items():
        if name in saved:  # but words that never occur
            wanted = torch.stack(states).double().mean(0)
            found = saved[name].double()
            if found.shape == wanted.shape:
                torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)


def test_under_a_falling_rate_the_mean_hardly_moves(here):
    distances = {}
    for schedule in ("constant", "planned"):
        flags = f"{QUICK} --with swa --swa-every 1 --swa-start 0.9 --swa-schedule {schedule}"
        assert run(f"finetune teacher {flags} -o {schedule}".split()) == 0
        raw = "--schedule constant" if schedule == "constant" else ""
        assert run(f"finetune teacher {QUICK} {raw} --keep last -o raw-{schedule}".split()) == 0
        mean, last = (
            load_file(here / name / "model.safetensors") for name in (schedule, f"raw-{schedule}")
        )
        apart = sum(float((mean[name] - last[name]).square().sum()) for name in last)
        distances[schedule] = apart**0.5
    assert 0 < distances["planned"] < 0.3 * distances["constant"]


def test_the_last_weights_are_those_of_a_run_without_it(here, monkeypatch):
    monkeypatch.setattr(swa.Modifier, "on_finish", lambda self: setattr(self, "finished", True))
    flags = f"{QUICK} --keep last"
    assert run(f"finetune teacher {flags} --schedule constant -o plain".split()) == 0
    assert run(f"finetune teacher {flags} --with swa -o raw".split()) == 0
    plain, raw = (load_file(here / name / "model.safetensors") for name in ("plain", "raw"))
    assert all(torch.equal(plain[name], raw[name]) for name in plain)


def test_under_swad_the_last_weights_are_scored_themselves(here, monkeypatch):
    scored, stepped = [], []
    score, after_step = Judge.score, swad.Modifier.after_step

    def scoring(self, model, check):
        scored.append(model.classifier.weight.detach().clone())
        return score(self, model, check)

    def stepping(self, step):
        stepped.append(self.model.classifier.weight.detach().clone())
        after_step(self, step)

    monkeypatch.setattr(Judge, "score", scoring)
    monkeypatch.setattr(swad.Modifier, "after_step", stepping)
    assert run(f"finetune teacher {QUICK} --with swad -o out".split()) == 0
    segment, last, _ = scored[-3:]
    assert torch.equal(last, stepped[-1])
    assert not torch.equal(segment, last)


@pytest.mark.parametrize(
    "words",
    [
        "distill teacher --layers 1 --with swa --with sam",
        "prune teacher --method gmp --sparsity 0.5 --with swa --swa-start 0.8 --swa-every 1",
        "finetune teacher --with swad --eval-steps 1 --with hype --hype-sigma 0.01",
    ],
)
def test_together_with_other_methods(here, words):
    assert run(f"{words} {QUICK} --precision fp32 -o out".split()) == 0
    if "gmp" in words:
        assert zeros(here / "out") == {0.5}


def zeros(folder):
    """The shares of zeros of the query maps."""
    return {
        float((value == 0).float().mean())
        for name, value in load_file(folder / "model.safetensors").items()
        if name.endswith("query.weight")
    }


@pytest.mark.parametrize(
    "flags",
    ["swad --eval-steps 2", "swa --swa-every 1 --prune-end 1", "swad --prune-end 1 --eval-steps 2"],
)
def test_pruned_to_the_end_and_averaged_the_model_is_as_sparse_as_asked(here, flags):
    words = f"prune teacher --method gmp --sparsity 0.75 {QUICK} --with {flags} -o out"
    assert run(words.split()) == 0
    assert zeros(here / "out") == {0.75}


def test_a_training_that_ends_early_keeps_its_last_weights(here, capsys):
    alrs = "--with alrs --alrs-period 0.1 --alrs-threshold 99 --alrs-slope 99 --alrs-decay 0.01"
    words = f"finetune teacher {QUICK} {alrs} --with swa --swa-schedule planned --swa-start 0.9"
    assert run(f"{words} -o out".split()) == 0
    assert "before averaging began" in capsys.readouterr().err


def test_a_valley_without_validation_rows_is_refused(here, capsys):
    (here / "few").mkdir()
    (here / "few/train.jsonl").write_bytes((here / "data/train.jsonl").read_bytes())
    words = "finetune teacher --data few --with swad -o out"
    assert run(words.split()) == 2
    assert "has none" in capsys.readouterr().err
