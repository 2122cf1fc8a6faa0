"""Forward and backward passes over the batches of one step, as often as a modifier wants them.

The random generators are seeded from (seed, step, process) when a pass begins, so that a second
pass of the same step sees the same dropout mask and a resumed run needs no generator state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np

from compressor.methods.contract import Batch, Loss
from compressor.train.accelerator import as_saved
from compressor.train.finite import refuse_not_finite
from compressor.train.run import Run

if TYPE_CHECKING:
    import torch

    from compressor.train.criterion import Criterion
    from compressor.train.teacher import Teacher


class Passes:
    """The passes of the step that `begin` names; a call makes the plain one.

    Attributes:
        parts: what the last pass gave: the loss, its parts and, but uphill, the gradient's norm.
        rows_seen: rows of all steps so far, over all processes, each once.
    """

    def __init__(
        self,
        run: Run,
        model: torch.nn.Module,
        criterion: Criterion,
        teacher: Teacher | None,
        optimizer: torch.optim.Optimizer,
        *,
        steps_per_epoch: int,
        changes: Sequence[Callable[[Batch, np.random.Generator], Batch]],
        check: Callable[[], None],
    ) -> None:
        self.run, self.accelerator = run, run.accelerator
        self.model, self.criterion, self.teacher = model, criterion, teacher
        self.optimizer, self.steps_per_epoch, self.check = optimizer, steps_per_epoch, check
        self.changes = changes
        self.parts: dict[str, float] = {}
        self.step, self.rows_seen = 0, 0
        self._epoch, self._plan = -1, []

    def begin(self, step: int) -> None:
        """Name the step whose batches the next passes see."""
        self.step = step
        self.rows_seen += sum(map(len, self._rows())) * self.accelerator.num_processes

    def __call__(self) -> float:
        """Gradients of the mean loss, clipped; returns the loss.

        Raises:
            DivergedError: the loss or the gradient is not finite.
        """
        loss = self._backward(lambda batch, _: self.criterion(batch, self.teacher))
        largest = self.run.options.clip or math.inf
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), largest)
        self.parts["gradient_norm"] = float(norm)
        # fp16's loss scaling meets infinite gradients on purpose and skips those steps.
        skips = self.accelerator.mixed_precision == "fp16"
        rate = self.optimizer.param_groups[0]["lr"]
        refuse_not_finite(self.parts, self.step, rate, self.run.state.path, without_norm=skips)
        return loss

    def uphill(self, weights: torch.Tensor | None = None) -> float:
        """The gradient's direction: not clipped, and scaled where fp16 scales the loss.

        A call has to follow in the same step, for it undoes the scale and sees to what is not
        finite, which may be done once a step.

        Args:
            weights: [rows] of the step's batches in this process, in the order of `row_losses`,
                which each row's loss is multiplied by; the loss returned is the plain mean.
        """

        def loss(batch: Batch, first: int) -> Loss:
            if weights is None:
                return self.criterion(batch, self.teacher)
            losses, parts = self.criterion.by_row(batch, self.teacher)  # [rows]
            total = (losses * weights[first : first + len(losses)]).mean()
            return Loss(total, {"loss": losses.detach().mean(), **parts})

        return self._backward(loss)

    def row_losses(self) -> torch.Tensor:
        """Each row's own loss, [rows], in the weights' own format without dropout."""
        import torch

        with self._looking(), torch.no_grad():
            return torch.cat(list(self._own_losses()))

    def row_gradient_norms(self) -> torch.Tensor:
        """The norm of each row's own gradient, [rows], as exact: one backward pass a row."""
        import torch

        parameters = [p for p in self.criterion.bare.parameters() if p.requires_grad]
        norms = []
        with self._looking():
            for losses in self._own_losses():
                for loss in losses:
                    found = torch.autograd.grad(
                        loss, parameters, retain_graph=True, allow_unused=True
                    )
                    each = [g.float().norm() for g in found if g is not None]
                    norms.append(torch.stack(each).norm())
        return torch.stack(norms)

    def _own_losses(self) -> Iterator[torch.Tensor]:
        for batch in self._batches():
            yield self.criterion.by_row(batch, self.teacher, model=self.criterion.bare)[0]

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """The model as it is when it is judged: mixed precision would hide small differences."""
        bare = self.criterion.bare
        bare.eval()
        try:
            with as_saved(bare):
                yield
        finally:
            bare.train()

    def _backward(self, loss_of: Callable[[Batch, int], Loss]) -> float:
        import torch

        accelerator, options = self.accelerator, self.run.options
        torch.manual_seed(
            (self.run.seed * 1_000_003 + self.step) * 4099 + accelerator.process_index
        )
        self.optimizer.zero_grad()
        sums: dict[str, float] = {}
        seen = 0
        for micro, batch in enumerate(self._batches()):
            last = micro == options.accumulate - 1
            with nullcontext() if last else accelerator.no_sync(self.model):
                with accelerator.autocast():
                    loss = loss_of(batch, seen)
                accelerator.backward(loss.total / options.accumulate)
            seen += len(batch["labels"])
            for name, value in {"loss": loss.total.detach(), **loss.parts}.items():
                sums[name] = sums.get(name, 0.0) + float(value) / options.accumulate
        self._share_objectives()
        self.parts = sums
        return self.parts["loss"]

    def mean_loss(self) -> float:
        """The loss of the last pass, over the rows of all processes."""
        if self.accelerator.num_processes == 1:
            return self.parts["loss"]
        import torch

        own = torch.tensor(self.parts["loss"], device=self.accelerator.device)
        return float(self.accelerator.reduce(own, "mean"))

    def _share_objectives(self) -> None:
        """Average the gradients of the objectives' own parameters over the processes."""
        module = self.criterion.module
        if module is not None and self.accelerator.num_processes > 1:
            for parameter in module.parameters():  # outside the wrapper that would do it
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")

    def _place(self) -> int:
        """Number within the epoch of the step's first batch of this process."""
        within = self.step % self.steps_per_epoch
        first = within * self.run.options.accumulate * self.accelerator.num_processes
        return first + self.accelerator.process_index

    def _rows(self) -> list[list[int]]:
        """The rows of each batch of the step in this process."""
        epoch = self.step // self.steps_per_epoch
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self.run.feed.plan(epoch)
        places = self._places()
        return [self._plan[place % len(self._plan)] for place in places]

    def _places(self) -> list[int]:
        count, processes = self.run.options.accumulate, self.accelerator.num_processes
        return [self._place() + number * processes for number in range(count)]

    def _batches(self) -> Iterator[Batch]:
        for rows, place in zip(self._rows(), self._places(), strict=True):
            self.check()
            batch: Batch = self.run.feed.batch(rows, self.accelerator.device, self._epoch, place)
            for number, change in enumerate(self.changes):
                key = [self.run.seed, self._epoch, place, number]
                batch = change(batch, np.random.default_rng(key))
            yield batch
