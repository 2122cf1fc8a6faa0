"""Stochastic weight averaging: the mean of the weights of the later part of training.

P. Izmailov, D. Podoprikhin, T. Garipov, D. Vetrov, A. G. Wilson: Averaging Weights Leads to Wider
Optima and Better Generalization, 2018, arXiv 1803.05407; for compact language models P. Lu, I.
Kobyzev, M. Rezagholizadeh, A. Rashid, A. Ghodsi, P. Langlais: Improving Generalization of
Pre-trained Language Models via Stochastic Weight Averaging, Findings of EMNLP 2022, arXiv
2212.05956. Of T steps, from S = ceil(start T) on, every c steps:

    mean <- mean + (w - mean) / (n + 1)      n <- n + 1      n = floor((T - S) / c) + 1 in the end

at a constant learning rate, for under a falling one the weights hardly differ and the mean is the
last of them. So after the warm-up the rate stays at its peak, or at `swa_lr`, whatever schedule the
run has; `--swa-schedule planned` leaves it alone. The mean is kept in fp32; counters and other
integers are those of the last step. Running statistics of batch normalisation are collected anew
with the mean weights. Only the mean competes for the best evaluation; the last weights are scored
beside it, and the record has both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.errors import UsageError
from compressor.methods.contract import Context
from compressor.methods.option import option
from compressor.methods.running_mean import RunningMean, renew_statistics

if TYPE_CHECKING:
    import torch

VERBS = ()


@dataclass(frozen=True)
class Options:
    """Which weights are averaged, and how fast they move meanwhile."""

    swa_start: float = option(
        0.5, "where averaging begins: a share of the steps, or above 1 a step", low=0.0
    )
    swa_every: int = option(10, "steps between two weights that are averaged", low=1)
    swa_lr: float = option(0.0, "learning rate while averaging; 0 for the peak, --lr", low=0.0)
    swa_schedule: str = option(
        "constant",
        "constant: the learning rate stays after the warm-up; planned: it follows --schedule",
        choices=("constant", "planned"),
        source="the paper",
    )

    @property
    def sets_rate(self) -> bool:
        """Whether the schedule of the training has no say."""
        return self.swa_schedule == "constant"

    @property
    def copies(self) -> int:
        """Of the weights, in every state: the mean."""
        return 1

    def __post_init__(self) -> None:
        if self.swa_lr and self.swa_schedule == "planned":
            raise UsageError("--swa-lr does nothing with --swa-schedule planned", where="--swa-lr")
        if self.swa_start > 1 and self.swa_start % 1:
            raise UsageError(
                f"--swa-start {self.swa_start:g}: above 1 it is a step, which is a whole number",
                hint="a share of the steps lies between 0 and 1",
                where="--swa-start",
            )


def first_step(start: float, total: int) -> int:
    """S, the step after which weights are averaged, of a share of all steps, or a step."""
    # 0.55 x 100 is 55.00000000000001.
    return max(1, int(start) if start > 1 else math.ceil(round(start * total, 6)))


class Modifier:
    """Averages the weights after a step, once everything else has changed them."""

    looks_last = True
    replaces_weights = True

    def __init__(self, options: Options, context: Context) -> None:
        self.options, self.context = options, context
        self.model = getattr(context.model, "module", context.model)  # inside a DDP wrapper
        self.start = first_step(options.swa_start, context.total_steps)
        if options.swa_start > max(1, context.total_steps):
            raise UsageError(
                f"--swa-start {options.swa_start:g}: this training has {context.total_steps} steps",
                where="--swa-start",
            )
        self.mean, self.finished = RunningMean(), False

    def learning_rate(self, step: int, planned: float) -> float:
        """The peak after the warm-up, and `swa_lr` while averaging."""
        if self.options.swa_schedule == "planned" or step < self.context.warmup_steps:
            return planned
        averaging = step + 1 >= self.start
        return (averaging and self.options.swa_lr) or self.context.learning_rate

    def after_step(self, step: int) -> None:
        """Add the weights after step t = `step` + 1 where it is their turn."""
        late = step + 1 - self.start
        if late >= 0 and late % self.options.swa_every == 0 and self.mean.add(self.model):
            console.note(f"the zeros moved at step {step + 1}: averaging begins anew")

    def settled(self, step: int) -> bool:
        """Whether these weights are the mean: a single step's never compete with it."""
        return self.finished

    def on_finish(self) -> None:
        """Put the mean into the model."""
        self.finished = True
        if not self.mean.count:
            console.warn("swa: training ended before averaging began, so the last weights stay")
            return
        self.mean.put_into(self.model)
        renew_statistics(self.model, self.context)

    def on_kept(self) -> dict[str, Any]:
        """How many weights were averaged, and since when."""
        return {"swa_start_step": self.start, "swa_averaged": self.mean.count}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The mean so far."""
        return self.mean.state_dict()

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back the mean."""
        self.mean.load_state_dict(state)
