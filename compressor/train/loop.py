"""The one training loop: every objective and every modifier runs in it.

One optimizer step is `closure` (forward and backward over the step's batches) and an update. The
random generators are seeded from (seed, step, process) when a closure begins, so that a second
closure of the same step sees the same dropout mask and a resumed run needs no generator state.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.errors import DivergedError, Interrupted
from compressor.methods.contract import Context
from compressor.train.accelerator import as_saved, unprepare
from compressor.train.criterion import Criterion
from compressor.train.dropout import cheap_dropout
from compressor.train.finite import refuse_not_finite
from compressor.train.judge import Judge
from compressor.train.optimizer import build_optimizer, planned_learning_rate, warmup_steps
from compressor.train.run import Metrics, Run, Trained
from compressor.train.signals import StopRequest
from compressor.train.state import (
    Position,
    load_optimizer,
    load_weights,
    optimizer_tensors,
    weights_of,
)
from compressor.train.teacher import make_teacher
from compressor.train.vocabulary import words_in_use

if TYPE_CHECKING:
    import torch


def train(run: Run) -> Trained:
    """Train `run.student` in place and leave it with the weights to keep.

    Raises:
        DivergedError: a loss or gradient was not finite; the last finite state is saved.
        Interrupted: a signal came; the state is saved.
    """
    # On its device first: the table that is set aside for the while does not move with the model.
    model = run.student.model.to(run.accelerator.device)
    with StopRequest() as stop, words_in_use(model, run.feed), cheap_dropout(model):
        loop = _Loop(run, stop)
        try:
            trained = loop.run_all()
            stop.check()
            return trained
        except (Interrupted, DivergedError):
            loop.save()
            raise
        finally:
            unprepare(model)


class _Loop:
    """The state of one training while it runs."""

    def __init__(self, run: Run, stop: StopRequest) -> None:
        import torch

        self.run, self.stop, self.options = run, stop, run.options
        self.accelerator = run.accelerator
        self.batches_per_step = run.options.accumulate * self.accelerator.num_processes
        self.steps_per_epoch = math.ceil(run.feed.batches_per_epoch / self.batches_per_step)
        self.total = math.ceil(run.options.epochs * self.steps_per_epoch)
        if run.options.max_steps:
            self.total = min(self.total, run.options.max_steps)
        self.bare = run.student.model.train()
        self.model = self.accelerator.prepare(self.bare)
        context = Context(
            model=self.model,
            task=run.feed.task.name,
            student_config=self.bare.config,
            teacher_config=run.teachers[0].loaded.model.config if run.teachers else None,
            total_steps=self.total,
            steps_per_epoch=self.steps_per_epoch,
            learning_rate=run.options.learning_rate,
            warmup_steps=warmup_steps(self.total, run.options),
            mixed_precision=self.accelerator.mixed_precision,
        )
        torch.manual_seed(run.seed)  # of the objectives' own parameters
        self.criterion = Criterion([make(context) for make in run.objectives], context)
        self.modifiers = [make(context) for make in run.modifiers]
        with self.accelerator.main_process_first():  # the others read what it computed
            self.teacher = make_teacher(
                run, self.criterion.teacher_shows, self.accelerator.device, stop.check
            )
        self.judge = Judge(self.criterion, run.held_out, self.teacher, run.feed)
        self.extra = self.criterion.module
        if self.extra is not None:
            self.extra.to(self.accelerator.device)
        trained = [self.bare] + ([self.extra] if self.extra is not None else [])
        self.optimizer = self.accelerator.prepare(build_optimizer(trained, run.options))
        self.position = Position()
        self.best: dict[str, torch.Tensor] = {}
        self.epoch, self.plan = -1, []
        self.finishing = False
        self.kept_step = 0
        self.rows_seen = 0

    # The story ---------------------------------------------------------------------------

    def run_all(self) -> Trained:
        started, evaluating = time.monotonic(), 0.0
        self._take_up()
        with console.Progress("training", self.total, done=self.position.step) as progress:
            if not self.position.evaluated:
                self._evaluate()
            while self.position.step < self.total:
                parts = self._step(self.position.step)
                self.position.step += 1
                self.position.log(parts, self.total)
                shown = {name: f"{value:.4f}" for name, value in parts.items()}
                progress.advance(**shown, **self.judge.shown(self.position.best))
                before = time.monotonic()
                if self._due(self.options.eval_steps or self.steps_per_epoch):
                    self.position.evaluated = False
                    self._evaluate()
                evaluating += time.monotonic() - before
                if self._due(self.options.save_steps):
                    self.save()
        spent = time.monotonic() - started
        metrics = self._finish()
        facts = [m.on_kept() for m in self.modifiers if hasattr(m, "on_kept")]
        return Trained(
            metrics=metrics,
            facts={name: value for found in facts for name, value in found.items()},
            metric=self.judge.metric,
            best_step=self.kept_step,
            steps=self.total,
            history=self.position.history,
            examples_per_second=self.rows_seen / max(spent - evaluating, 1e-9),
            seconds=time.monotonic() - started,
        )

    def _due(self, every: int) -> bool:
        """Whether work of this period falls after the step just done; the end has its own."""
        return self.position.step % every == 0 and self.position.step < self.total

    def _finish(self) -> Metrics:
        self.save()  # whatever stops the run from now on costs only what comes from now on
        self.finishing = True
        for modifier in self.modifiers:
            _call(modifier, "on_finish")
        self._evaluate()
        best = self.position.best
        if self.options.keep == "best" and self.best and best["step"] < self.total:
            load_weights(self.bare, self.best)
            kept = best
        else:  # the evaluation just made, if there was one
            kept = self.position.history[-1] if self.run.held_out is not None else {}
        self.bare.eval()
        self.kept_step = int(kept.get("step", self.total))
        return {name: value for name, value in kept.items() if name != "step"}

    # One step ----------------------------------------------------------------------------

    def _step(self, step: int) -> dict[str, float]:
        self.stop.check()
        rate = planned_learning_rate(
            step, self.total, self.options, steps_per_epoch=self.steps_per_epoch
        )
        self.criterion.before_step(step)
        for modifier in self.modifiers:
            if hasattr(modifier, "learning_rate"):
                rate = modifier.learning_rate(step, rate)
            _call(modifier, "before_step", step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parts: dict[str, float] = {}

        stepper = next((m for m in self.modifiers if hasattr(m, "step")), None)

        def closure() -> float:
            parts.clear()
            parts.update(self._forward_backward(step))
            rate = self.optimizer.param_groups[0]["lr"]
            # fp16's loss scaling meets infinite gradients on purpose and skips those steps.
            skips = self.accelerator.mixed_precision == "fp16"
            refuse_not_finite(parts, step, rate, self.run.state.path, without_norm=skips)
            return parts["loss"]

        if stepper is None:
            closure()
            self.optimizer.step()
        else:
            stepper.step(closure)
        for modifier in self.modifiers:
            _call(modifier, "after_step", step)
        return parts

    def _forward_backward(self, step: int) -> dict[str, float]:
        """Gradients of one step's batches, clipped; the mean loss and its parts."""
        import torch

        accelerator, accumulate = self.accelerator, self.options.accumulate
        torch.manual_seed((self.run.seed * 1_000_003 + step) * 4099 + accelerator.process_index)
        self.optimizer.zero_grad()
        sums: dict[str, float] = {}
        for micro in range(accumulate):
            self.stop.check()
            batch = self._batch(step, micro)
            last = micro == accumulate - 1
            with nullcontext() if last else accelerator.no_sync(self.model):
                with accelerator.autocast():
                    loss = self.criterion(batch, self.teacher)
                accelerator.backward(loss.total / accumulate)
            for name, value in {"loss": loss.total.detach(), **loss.parts}.items():
                sums[name] = sums.get(name, 0.0) + float(value) / accumulate
        if self.extra is not None and accelerator.num_processes > 1:
            for parameter in self.extra.parameters():  # outside the wrapper that would do it
                if parameter.grad is not None:
                    parameter.grad = accelerator.reduce(parameter.grad, "mean")
        norm = accelerator.clip_grad_norm_(self.model.parameters(), self.options.clip or math.inf)
        sums["gradient_norm"] = float(norm)
        return sums

    def _batch(self, step: int, micro: int) -> dict[str, torch.Tensor]:
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch != self.epoch:
            self.epoch, self.plan = epoch, self.run.feed.plan(epoch)
        process = self.accelerator.process_index
        place = (within * self.options.accumulate + micro) * self.accelerator.num_processes
        rows = self.plan[(place + process) % len(self.plan)]
        self.rows_seen += len(rows) * self.accelerator.num_processes
        return self.run.feed.batch(rows, self.accelerator.device, epoch, place + process)

    # Evaluation and the best weights ------------------------------------------------------

    def _evaluate(self) -> None:
        """Score the weights as they are, and remember them when they are the best so far."""
        position = self.position
        if self.run.held_out is not None:
            with as_saved(self.bare):
                metrics = self.judge.score(self.bare, self.stop.check)
            position.history.append({"step": position.step, **metrics})
            if self._settled() and self.judge.improves(metrics, position.best):
                position.best = {"step": position.step, **metrics}
                self.best = {name: value.clone() for name, value in weights_of(self.bare).items()}
        position.evaluated = True

    def _settled(self) -> bool:
        return all(
            modifier.settled(self.position.step - 1)
            for modifier in self.modifiers
            if hasattr(modifier, "settled")
        )

    # Going on ----------------------------------------------------------------------------

    def save(self) -> None:
        """Write the state, from the one process that writes.

        Not while finishing: modifiers may have changed the weights for good.
        """
        if self.finishing or not self.accelerator.is_main_process:
            return
        groups = {"model": weights_of(self.bare), "optimizer": optimizer_tensors(self.optimizer)}
        if self.best:
            groups["best"] = self.best
        if self.extra is not None:
            groups["objective"] = self.extra.state_dict()
        for number, modifier in enumerate(self.modifiers):
            if hasattr(modifier, "state_dict"):
                groups[f"modifier{number}"] = modifier.state_dict()
        self.run.state.save(self.position, groups)

    def _take_up(self) -> None:
        """Start fresh, or from the newest state."""
        found = self.run.state.load()
        if found is None:
            for modifier in self.modifiers:
                _call(modifier, "on_start")
            return
        self.position, groups = found
        load_weights(self.bare, groups["model"])
        load_optimizer(self.optimizer, groups.get("optimizer", {}))
        self.best = groups.get("best", {})
        if self.extra is not None:
            self.extra.load_state_dict(groups["objective"])
        for number, modifier in enumerate(self.modifiers):
            if hasattr(modifier, "load_state_dict"):
                state = groups.get(f"modifier{number}", {})
                device = self.accelerator.device
                modifier.load_state_dict({name: v.to(device) for name, v in state.items()})


def _call(modifier: Any, hook: str, *arguments: Any) -> None:
    """Call a modifier's hook where it has one."""
    if hasattr(modifier, hook):
        getattr(modifier, hook)(*arguments)
