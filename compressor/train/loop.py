"""The one training loop: every objective and every modifier runs in it.

One optimizer step is a pass (forward and backward over the step's batches, `passes.py`), or what
a modifier makes of several, and an update.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.errors import DivergedError, Interrupted
from compressor.methods.contract import Context
from compressor.train.accelerator import as_saved, load_scaler, scaler_group, unprepare
from compressor.train.attention import plain_attention
from compressor.train.criterion import Criterion
from compressor.train.dropout import cheap_dropout
from compressor.train.judge import Judge
from compressor.train.modifiers import batch_changes, call_hook, in_order, the_ascending
from compressor.train.optimizer import build_optimizer, planned_learning_rate, warmup_steps
from compressor.train.passes import Passes
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
    from collections.abc import Sequence

    import torch


def train(run: Run) -> Trained:
    """Train `run.student` in place and leave it with the weights to keep.

    Raises:
        DivergedError: a loss or gradient was not finite; the last finite state is saved.
        Interrupted: a signal came; the state is saved.
    """
    # On its device first: the table that is set aside for the while does not move with the model.
    model = run.student.model.to(run.accelerator.device)
    attention = plain_attention(model, run.accelerator, run.options.max_length)
    with StopRequest() as stop, words_in_use(model, run.feed), cheap_dropout(model), attention:
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
        self._evaluate_every = run.options.eval_steps or self.steps_per_epoch
        self.bare = run.student.model.train()
        self.model = self.accelerator.prepare(self.bare)
        context = self._context()
        torch.manual_seed(run.seed)  # of the objectives' own parameters
        self.criterion = Criterion([make(context) for make in run.objectives], context)
        self.modifiers = in_order([make(context) for make in run.modifiers])
        self.ascending = the_ascending(self.modifiers, self.criterion)
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
        self.passes = Passes(
            run,
            self.model,
            self.criterion,
            self.teacher,
            self.optimizer,
            steps_per_epoch=self.steps_per_epoch,
            changes=batch_changes(self.modifiers, self.teacher),
            check=stop.check,
        )
        self.finishing, self.kept_step = False, 0
        self.facts: dict[str, Any] = {}

    def _context(self) -> Context:
        run = self.run
        return Context(
            model=self.model,
            task=run.feed.task.name,
            student_config=self.bare.config,
            teacher_config=run.teachers[0].loaded.model.config if run.teachers else None,
            total_steps=self.total,
            steps_per_epoch=self.steps_per_epoch,
            learning_rate=run.options.learning_rate,
            warmup_steps=warmup_steps(self.total, run.options),
            evaluations=math.ceil(self.total / self._evaluate_every) if run.held_out else 0,
            mixed_precision=self.accelerator.mixed_precision,
            seed=run.seed,
            batches=run.feed.once(self.accelerator.device),
        )

    # The story ---------------------------------------------------------------------------

    def run_all(self) -> Trained:
        started, evaluating = time.monotonic(), 0.0
        self._take_up()
        with console.Progress("training", self.total, done=self.position.step) as progress:
            if not self.position.evaluated:
                self._evaluate()
            while self.position.step < self.total and not self._enough():
                parts = self._step(self.position.step)
                self.position.step += 1
                self.position.log(parts, self.total)
                shown = {name: f"{value:.4f}" for name, value in parts.items()}
                progress.advance(**shown, **self.judge.shown(self.position.best))
                before = time.monotonic()
                if self._due(self._evaluate_every):
                    self.position.evaluated = False
                    self._evaluate()
                evaluating += time.monotonic() - before
                if self._due(self.options.save_steps):
                    self.save()
        self.total = self.position.step
        spent = time.monotonic() - started
        metrics = self._finish()
        for modifier in self.modifiers:
            if hasattr(modifier, "on_kept"):
                self.facts |= modifier.on_kept()
        return Trained(
            metrics=metrics,
            facts=self.facts,
            metric=self.judge.metric,
            best_step=self.kept_step,
            steps=self.total,
            history=self.position.history,
            examples_per_second=self.passes.rows_seen / max(spent - evaluating, 1e-9),
            seconds=time.monotonic() - started,
        )

    def _due(self, every: int) -> bool:
        """Whether work of this period falls after the step just done; the end has its own."""
        return self.position.step % every == 0 and self.position.step < self.total

    def _finish(self) -> Metrics:
        self.save()  # whatever stops the run from now on costs only what comes from now on
        if any(getattr(modifier, "replaces_weights", False) for modifier in self.modifiers):
            self._evaluate()  # as a modifier wants the last step's to be judged
            if self.run.held_out is not None:
                self.facts["last_weights"] = self._last_weights()
        self.finishing = True
        for modifier in reversed(self.modifiers):  # a mean is in place before it is cut or rounded
            call_hook(modifier, "on_finish")
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
            call_hook(modifier, "before_step", step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.passes.begin(step)
        if self.ascending is None:
            self.passes()
        else:
            self.ascending.gradients(self.passes)
        self.optimizer.step()
        # Weights that fp16's scaling left where they were are not counted twice.
        skipped = getattr(self.optimizer, "step_was_skipped", False)
        for modifier in self.modifiers:
            if not (skipped and getattr(modifier, "replaces_weights", False)):
                call_hook(modifier, "after_step", step)
            if hasattr(modifier, "learnt"):
                modifier.learnt(step, self.passes.mean_loss())
        return self.passes.parts

    # Evaluation and the best weights ------------------------------------------------------

    def _evaluate(self) -> None:
        """Score the weights as they are, and remember them when they are the best so far."""
        position = self.position
        if self.run.held_out is not None:
            with ExitStack() as stack:
                stack.enter_context(as_saved(self.bare))
                for modifier in self.modifiers:
                    if hasattr(modifier, "evaluating") and not self.finishing:
                        stack.enter_context(modifier.evaluating())
                metrics = self.judge.score(self.bare, self.stop.check)
                for modifier in self.modifiers:
                    if hasattr(modifier, "evaluated"):
                        modifier.evaluated(position.step, self.judge.loss())
            position.history.append({"step": position.step, **metrics})
            if self._settled(self.modifiers) and self.judge.improves(metrics, position.best):
                position.best = {"step": position.step, **metrics}
                self.best = {name: value.clone() for name, value in weights_of(self.bare).items()}
        position.evaluated = True

    def _last_weights(self) -> Metrics:
        """The scores of the weights of the last step themselves, for comparison."""
        if not any(hasattr(modifier, "evaluating") for modifier in self.modifiers):
            return dict(self.position.history[-1])
        with as_saved(self.bare):
            scores = self.judge.score(self.bare, self.stop.check)
        return {"step": self.position.step, **scores}

    def _enough(self) -> bool:
        """Whether a modifier wants no more steps, and all have done what takes steps."""
        wanted = any(each.enough() for each in self.modifiers if hasattr(each, "enough"))
        # A mean of weights is there whenever training ends.
        others = [each for each in self.modifiers if not getattr(each, "replaces_weights", False)]
        return wanted and self._settled(others)

    def _settled(self, modifiers: Sequence[Any]) -> bool:
        return all(
            modifier.settled(self.position.step - 1)
            for modifier in modifiers
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
        groups |= scaler_group(self.accelerator.scaler)
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
                call_hook(modifier, "on_start")
            return
        self.position, groups = found
        load_weights(self.bare, groups["model"])
        load_optimizer(self.optimizer, groups.get("optimizer", {}))
        self.best = groups.get("best", {})
        if self.extra is not None:
            self.extra.load_state_dict(groups["objective"])
        load_scaler(self.accelerator.scaler, groups)
        for number, modifier in enumerate(self.modifiers):
            if hasattr(modifier, "load_state_dict"):
                state = groups.get(f"modifier{number}", {}).items()
                modifier.load_state_dict({n: v.to(self.accelerator.device) for n, v in state})
