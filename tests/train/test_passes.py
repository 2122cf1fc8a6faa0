"""The passes of a step in the real loop: one batch, one dropout mask, and losses row by row."""

import copy
import os
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn

from compressor.errors import Interrupted, UsageError
from compressor.methods.modifiers import asam, delta_sam, sam
from compressor.train.accelerator import make_accelerator
from compressor.train.loop import train
from loops import OPTIONS, make_feeds, make_run

SHORT = replace(OPTIONS, epochs=1, weight_decay=0.1, precision="fp32")


@pytest.fixture(scope="module")
def feeds(tmp_path_factory):
    return make_feeds(tmp_path_factory.mktemp("rows"), train=96)


def made(module, **options):
    return lambda context: module.Modifier(module.Options(**options), context)


def watched(run):
    """The inputs and the first dropout's mask of every forward pass of the model."""
    model, seen = run.student.model, []

    def begin(_, arguments, named):
        seen.append({"training": model.training, "ids": named["input_ids"].clone()})

    def mask(_, arguments, output):
        seen[-1]["mask"] = output == 0

    model.bert.embeddings.register_forward_pre_hook(begin, with_kwargs=True)
    model.bert.embeddings.dropout.register_forward_hook(mask)
    return seen


@pytest.mark.parametrize("accumulate", [1, 2])
def test_both_passes_see_one_batch_and_one_dropout_mask(accumulate, feeds, tmp_path):
    options = replace(SHORT, accumulate=accumulate)
    run = make_run(feeds, tmp_path, options, modifiers=[made(sam)])
    run = replace(run, held_out=None)
    seen = watched(run)
    steps = train(run).steps
    assert len(seen) == 2 * accumulate * steps
    for first in range(0, len(seen), 2 * accumulate):
        for number in range(first, first + accumulate):
            one, two = seen[number], seen[number + accumulate]
            assert torch.equal(one["ids"], two["ids"])
            assert torch.equal(one["mask"], two["mask"])
            assert one["mask"].any()
    assert not torch.equal(seen[0]["mask"], seen[2 * accumulate]["mask"])


@pytest.mark.parametrize(
    ("modifier", "looks"),
    [
        (made(asam), 0),
        (made(delta_sam), 3),
        (made(delta_sam, delta_weight="grad-change/grad-norm"), 4),
        (made(delta_sam, delta_weight="uniform"), 0),
    ],
)
def test_how_many_passes_a_step_takes(modifier, looks, feeds, tmp_path):
    run = replace(make_run(feeds, tmp_path, SHORT, modifiers=[modifier]), held_out=None)
    seen = watched(run)
    steps = train(run).steps
    assert sum(one["training"] for one in seen) == 2 * steps
    assert sum(not one["training"] for one in seen) == looks * steps


@pytest.mark.parametrize(
    "modifier",
    [made(sam, rho=0.0), made(asam, adaptive_rho=0.0), made(delta_sam, delta_rho=0.0)],
    ids=["sam", "asam", "delta_sam"],
)
def test_a_radius_of_zero_trains_as_without_it_to_the_bit(modifier, feeds, tmp_path):
    found = []
    for name, modifiers in (("plain", []), ("none", [modifier])):
        run = make_run(feeds, tmp_path / name, SHORT, modifiers=modifiers)
        train(run)
        found.append({n: v.clone() for n, v in run.student.model.state_dict().items()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


class Looking:
    """Calls `look(passes)` in place of the first step's gradients."""

    def __init__(self, look):
        self.look, self.done = look, False

    def gradients(self, passes):
        if not self.done:
            self.look(passes)
        self.done = True
        passes()


def looked(look, feeds, folder, options):
    once = replace(options, max_steps=1)
    run = make_run(feeds, folder, once, modifiers=[lambda _: Looking(look)])
    train(replace(run, held_out=None))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_rows_are_looked_at_in_the_format_of_the_weights(precision, feeds, tmp_path):
    def look(passes):
        model = passes.criterion.bare
        for parameter in model.parameters():
            parameter.grad = None
        losses, norms = passes.row_losses(), passes.row_gradient_norms()
        assert model.training
        assert all(parameter.grad is None for parameter in model.parameters())
        batch = next(passes._batches())
        plain, lengths = [], []
        for row in range(len(losses)):
            clone = copy.deepcopy(model).eval()
            clone.__dict__.pop("forward", None)  # of mixed precision; the class's own is left
            inputs = {name: batch[name][[row]] for name in ("input_ids", "attention_mask")}
            loss = nn.functional.cross_entropy(clone(**inputs).logits, batch["labels"][[row]])
            loss.backward()
            plain.append(loss.detach())
            lengths.append(torch.stack([p.grad.norm() for p in clone.parameters()]).norm())
        torch.testing.assert_close(losses, torch.stack(plain), atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(norms, torch.stack(lengths), atol=2e-5, rtol=1e-3)

    looked(look, feeds, tmp_path, replace(SHORT, precision=precision, batch_size=16))


def test_weights_of_rows_reach_their_own_batch(feeds, tmp_path):
    def look(passes):
        def gradient(call):
            call()
            return passes.criterion.bare.classifier.weight.grad.clone()

        rows = passes.row_losses()
        half = torch.zeros_like(rows)
        half[: len(rows) // 2] = 1.0
        first = gradient(lambda: passes.uphill(half))
        second = gradient(lambda: passes.uphill(1 - half))
        whole = gradient(passes)
        assert not torch.allclose(first, second)
        torch.testing.assert_close(first + second, whole, atol=1e-6, rtol=1e-4)

    looked(look, feeds, tmp_path, replace(SHORT, accumulate=2, clip=0.0))


def in_fp16(run, scale):
    """The run as a GPU's fp16 trains, whose loss scaling a processor can do as well."""
    chosen = run.accelerator
    chosen.scaler, chosen.native_amp = torch.amp.GradScaler("cpu", init_scale=scale), True
    chosen.state._mixed_precision = "fp16"
    return replace(run, held_out=None)


def way_of(run):
    """How far each weight went in a training."""

    def weights():
        return torch.cat([p.detach().flatten() for p in run.student.model.parameters()])

    start = weights().clone()
    train(run)
    return weights() - start


@pytest.mark.parametrize("module", [sam, asam, delta_sam])
def test_the_scale_of_the_loss_changes_nothing(module, feeds, tmp_path):
    found = []
    for scale in (2.0**8, 2.0**12):
        run = make_run(feeds, tmp_path / str(scale), SHORT, modifiers=[made(module)])
        found.append(way_of(in_fp16(run, scale)))
    assert (found[0] - found[1]).norm() < 0.1 * found[0].norm()


@pytest.mark.parametrize("module", [sam, asam, delta_sam])
def test_steps_with_infinite_gradients_are_skipped(module, feeds, tmp_path):
    run = make_run(feeds, tmp_path, SHORT, modifiers=[made(module)])
    assert not way_of(in_fp16(run, 2.0**125)).any()


def test_a_resumed_run_goes_on_with_the_scale_of_the_loss(feeds, tmp_path):
    def scaled(folder, **options):
        watch = options.pop("watch", None)
        run = make_run(feeds, tmp_path / folder, replace(SHORT, **options), watch=watch)
        return in_fp16(run, 2.0**125)

    def stop(step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = scaled("whole")
    train(whole)
    with pytest.raises(Interrupted):
        train(scaled("cut", watch=stop))
    resumed = scaled("cut", resume=True)
    train(resumed)
    states = [run.accelerator.scaler.state_dict() for run in (whole, resumed)]
    assert states[0] == states[1]
    assert states[0]["scale"] < 2.0**125


def test_fp16_on_a_processor_is_refused():
    with pytest.raises(UsageError, match="is for GPUs"):
        make_accelerator(replace(SHORT, precision="fp16"), "cpu")
