"""ALRS: a learning rate that falls when the training loss stops falling.

H. Chen, S. Shao, Z. Wang, Z. Shang, J. Chen, X. Ji, X. Wu: Bootstrap Generalization Ability from
Loss Landscape Perspective, ECCV 2022 Workshops, arXiv 2209.08473, and its code. With l_t the mean
training loss of period t, and d = l_{t-1} - l_t:

    |d| < threshold  and  d / l_t < slope         lr <- lr decay      (`plateau`, the competition)
     d  < threshold  and  d / l_{t-1} < slope     lr <- lr decay      (`rise`, an earlier version)

so that the earlier one slows down on a rising loss, too. Training ends when lr falls below
`floor` of the peak, or when its epochs are over. Between warm-up and end no other schedule has a
say. Losses are means over a whole period and all processes, for a single step's are too noisy, and
never of validation rows. Kept: both conditions, thresholds, decay. Left out: the absolute floor of
5e-5, which belongs to SGD at a peak of 0.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.methods.contract import Context
from compressor.methods.option import option

if TYPE_CHECKING:
    import torch

VERBS = ()


@dataclass(frozen=True)
class Options:
    """When the rate falls, by how much, and when it is low enough."""

    alrs_period: float = option(
        1.0, "epochs whose losses are averaged and compared with those before", low=0.0
    )
    alrs_threshold: float = option(
        0.02, "smallest fall of the loss that is progress", low=0.0, source="the authors' code"
    )
    alrs_slope: float = option(
        0.02, "the same as a share of the loss", low=0.0, source="the authors' code"
    )
    alrs_decay: float = option(
        0.9, "what the rate is multiplied with", low=0.0, high=1.0, source="the authors' code"
    )
    alrs_guard: str = option(
        "plateau",
        "plateau: a rising loss keeps the rate; rise: it lowers it, too",
        choices=("plateau", "rise"),
    )
    alrs_floor: float = option(
        1e-4, "share of --lr below which training ends", low=0.0, high=1.0, source="the paper"
    )

    @property
    def sets_rate(self) -> bool:
        """Whether the schedule of the training has no say."""
        return True


class Modifier:
    """Sets the rate of every step after the warm-up."""

    def __init__(self, options: Options, context: Context) -> None:
        self.options, self.context = options, context
        self.period = max(1, round(options.alrs_period * context.steps_per_epoch))
        self.rate = context.learning_rate
        self.before: float | None = None  # mean loss of the last whole period
        self.total, self.count = 0.0, 0

    def learning_rate(self, step: int, planned: float) -> float:
        """The warm-up's rate, then our own."""
        return planned if step < self.context.warmup_steps else self.rate

    def learnt(self, step: int, loss: float) -> None:
        """Add the step's loss; at the end of a period lower the rate if it made no progress.

        While the rate still rises a loss that stands still says nothing.
        """
        if step < self.context.warmup_steps:
            return
        self.total, self.count = self.total + loss, self.count + 1
        if self.count < self.period:
            return
        now, self.total, self.count = self.total / self.count, 0.0, 0
        if self.before is not None and self._stands_still(self.before, now):
            self.rate *= self.options.alrs_decay
        self.before = now

    def _stands_still(self, before: float, now: float) -> bool:
        fall, options = before - now, self.options
        if options.alrs_guard == "plateau":
            return abs(fall) < options.alrs_threshold and fall < options.alrs_slope * now
        return fall < options.alrs_threshold and fall < options.alrs_slope * before

    def enough(self) -> bool:
        """Whether the rate is too low to go on."""
        return self.rate < self.options.alrs_floor * self.context.learning_rate

    def on_kept(self) -> dict[str, float]:
        """Where the rate ended."""
        return {"alrs_last_rate": self.rate}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The rate and the losses so far."""
        import torch

        before = float("nan") if self.before is None else self.before
        values = [self.rate, before, self.total, float(self.count)]
        return {"alrs": torch.tensor(values, dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take them back."""
        self.rate, before, self.total, count = state["alrs"].tolist()
        self.before, self.count = None if math.isnan(before) else before, int(count)
