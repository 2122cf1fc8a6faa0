"""The loop: it learns, repeats itself exactly, resumes bit for bit, stops on NaN and on signals."""

import os
import signal
from dataclasses import replace
from math import inf

import numpy as np
import pytest
import torch

import tiny
from compressor.errors import DivergedError, InputError, Interrupted
from compressor.methods.contract import Loss
from compressor.methods.modifiers import gmp
from compressor.methods.objectives import task
from compressor.train import judge
from compressor.train.evaluate import evaluate, torch_forward
from compressor.train.loop import train
from compressor.train.state import LOSSES_KEPT, Position
from loops import OPTIONS, make_feeds, make_run


@pytest.fixture(scope="module")
def feeds(tmp_path_factory):
    return make_feeds(tmp_path_factory.mktemp("rows"), train=96)


def weights(run):
    return {name: value.clone() for name, value in run.student.model.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_it_learns(tmp_path):
    feeds = make_feeds(tmp_path, train=320)
    trained = train(make_run(feeds, tmp_path, replace(OPTIONS, epochs=6)))
    assert trained.metrics["accuracy"] > 0.9
    assert trained.steps == 120


def test_same_seed_same_weights_other_seed_other_weights(feeds, tmp_path):
    runs = [make_run(feeds, tmp_path / str(i), seed=seed) for i, seed in enumerate((1, 1, 2))]
    found = []
    for run in runs:
        train(run)
        found.append(weights(run))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_are_judged_and_left_as_a_reload_will_see_them(
    feeds, tmp_path, precision, monkeypatch
):
    lowered, judged = [], []

    def watch(step):
        """Note the format of the classifier's output, in training alone."""
        lower = run.student.model.classifier
        if not lower._forward_hooks:
            lower.register_forward_hook(
                lambda module, _, output: lowered.append(output.dtype) if module.training else None
            )

    def scored(*given, **named):
        judged.append(evaluate(*given, **named))
        return judged[-1]

    monkeypatch.setattr(judge, "evaluate", scored)
    run = make_run(feeds, tmp_path, replace(OPTIONS, precision=precision, keep="last"), watch=watch)
    train(run)
    assert set(lowered) == {torch.float32 if precision == "fp32" else torch.bfloat16}
    assert "forward" not in run.student.model.__dict__
    reloaded = tiny.model(seed=5).eval()
    reloaded.load_state_dict(run.student.model.state_dict())
    again = evaluate(torch_forward(reloaded), run.held_out)
    np.testing.assert_allclose(again.outputs, judged[-1].outputs, atol=1e-5)


@pytest.mark.parametrize("stop_at", [0, 1, 3, 5, 7, 11])
@pytest.mark.parametrize("pruned", [False, True])
def test_stopped_by_a_signal_and_resumed_it_ends_in_the_same_bytes(
    feeds, tmp_path, stop_at, pruned
):
    modifiers = []
    if pruned:
        modifiers = [lambda context: gmp.Modifier(gmp.Options(sparsity=0.6), context)]
    whole = make_run(feeds, tmp_path / "whole", modifiers=modifiers)
    wanted = train(whole)

    def stop(step):
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = make_run(feeds, tmp_path / "cut", modifiers=modifiers, watch=stop)
    with pytest.raises(Interrupted) as caught:
        train(stopped)
    assert caught.value.exit_code == 143
    assert "--resume" in caught.value.hint
    resumed = make_run(feeds, tmp_path / "cut", replace(OPTIONS, resume=True), modifiers=modifiers)
    found = train(resumed)
    assert same(weights(whole), weights(resumed))
    assert found.metrics == wanted.metrics
    assert found.best_step == wanted.best_step
    assert found.history == wanted.history


def test_a_signal_during_evaluation_repeats_the_evaluation(feeds, tmp_path, monkeypatch):
    whole = make_run(feeds, tmp_path / "whole")
    wanted = train(whole)
    run = make_run(feeds, tmp_path / "cut")
    calls = []

    def interrupted(self, model, check):
        calls.append(1)
        os.kill(os.getpid(), signal.SIGINT)
        return score(self, model, check)

    score = judge.Judge.score
    with monkeypatch.context() as patch:
        patch.setattr(judge.Judge, "score", interrupted)
        with pytest.raises(Interrupted) as caught:
            train(run)
    assert caught.value.exit_code == 130
    assert len(calls) == 1
    resumed = make_run(feeds, tmp_path / "cut", replace(OPTIONS, resume=True))
    found = train(resumed)
    assert same(weights(whole), weights(resumed))
    assert found.history == wanted.history


def history(total):
    """What is kept of losses that rise from 1 by 1, and of a gradient that overflows at first."""
    position = Position()
    for step in range(1, total + 1):
        position.step = step
        position.log({"loss": float(step), "gradient_norm": inf if step == 1 else 1.0}, total)
    assert position.sums == {}
    return position.history


def test_a_short_run_keeps_the_loss_of_every_step():
    first, second = (
        {"step": 1, "loss": 1, "gradient_norm": None},
        {"step": 2, "loss": 2, "gradient_norm": 1},
    )
    assert history(2) == [first, second]
    assert len(history(LOSSES_KEPT)) == LOSSES_KEPT


def test_a_long_run_keeps_means():
    kept = history(2 * LOSSES_KEPT + 1)
    assert kept[0] == {"step": 3, "loss": 2, "gradient_norm": 1}
    assert kept[-1] == {"step": 401, "loss": 400.5, "gradient_norm": 1}
    assert len(kept) == 134


def test_states_survive_a_crash_because_only_whole_ones_count(feeds, tmp_path):
    class CrashError(Exception):
        pass

    def crash(step):
        if step == 8:
            raise CrashError

    whole = make_run(feeds, tmp_path / "whole")
    train(whole)
    run = make_run(feeds, tmp_path / "cut", watch=crash)
    with pytest.raises(CrashError):
        train(run)
    assert run.state.steps() == [3, 6]
    resumed = make_run(feeds, tmp_path / "cut", replace(OPTIONS, resume=True))
    train(resumed)
    assert same(weights(whole), weights(resumed))


def test_an_unfinished_run_is_neither_lost_nor_mixed_up(feeds, tmp_path):
    def stop(step):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(make_run(feeds, tmp_path, watch=stop))
    with pytest.raises(InputError, match="unfinished run") as caught:
        make_run(feeds, tmp_path)
    assert "--resume" in caught.value.hint
    with pytest.raises(InputError, match=r"lr: 0.005 -> 0.1"):
        make_run(feeds, tmp_path, replace(OPTIONS, resume=True, learning_rate=0.1))


class Exploding:
    """An objective that returns NaN at its fourth step."""

    def __init__(self, context):
        self.inner = task.Objective(task.Options(), context)
        self.student_shows, self.teacher_shows = self.inner.student_shows, frozenset()
        self.calls = 0

    def loss(self, batch, student, teacher):
        self.calls += 1
        loss = self.inner.loss(batch, student, teacher)
        return Loss(loss.total * float("nan"), loss.parts) if self.calls == 4 else loss


def test_nan_stops_the_run_and_keeps_the_last_finite_weights(feeds, tmp_path):
    run = make_run(feeds, tmp_path, objective=Exploding)
    with pytest.raises(DivergedError, match="step 3") as caught:
        train(run)
    assert caught.value.exit_code == 5
    _, groups = run.state.load()
    assert all(torch.isfinite(value).all() for value in groups["model"].values())


class Gradients:
    """Keeps the gradients that the first step used."""

    def __init__(self, context):
        self.model, self.found = context.model, {}

    def after_step(self, step):
        named = self.model.named_parameters()
        self.found = {name: parameter.grad.clone() for name, parameter in named}


def test_accumulated_batches_have_the_gradient_of_one_large_batch(feeds, tmp_path):
    plan = feeds[0].plan(0)
    results = []
    for size, accumulate in ((32, 1), (16, 2)):
        options = replace(
            OPTIONS, batch_size=size, accumulate=accumulate, max_steps=1, clip=0.0, precision="fp32"
        )
        kept = []
        keep = lambda context, kept=kept: kept.append(Gradients(context)) or kept[0]  # noqa: E731
        run = make_run(feeds, tmp_path / str(size), options, modifiers=[keep])
        for module in run.student.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # its draws depend on the batch's shape
        fixed = [np.concatenate(plan[:2])] if size == 32 else plan[:2]
        train(replace(run, feed=FixedPlan(feeds[0], fixed)))
        results.append(kept[0].found)
    for name, gradient in results[0].items():
        torch.testing.assert_close(gradient, results[1][name], rtol=1e-4, atol=1e-6)


class FixedPlan:
    """A feed whose batches are given."""

    def __init__(self, feed, plan):
        self.feed, self.fixed = feed, plan

    def __getattr__(self, name):
        return getattr(self.feed, name)

    def plan(self, epoch, *, shuffle=True):
        return self.fixed


def test_only_settled_weights_compete_for_the_best(feeds, tmp_path):
    options = replace(OPTIONS, epochs=4)
    run = make_run(
        feeds,
        tmp_path,
        options,
        modifiers=[lambda c: gmp.Modifier(gmp.Options(sparsity=0.9, prune_end=0.6), c)],
    )
    trained = train(run)
    assert trained.best_step > 0.6 * trained.steps
    zeros = (run.student.model.bert.encoder.layer[0].output.dense.weight == 0).float().mean()
    assert zeros.item() == pytest.approx(0.9, abs=1e-3)
