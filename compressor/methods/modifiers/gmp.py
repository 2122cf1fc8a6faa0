"""Gradual magnitude pruning while training.

M. Zhu, S. Gupta: To prune, or not to prune, 2017, arXiv 1710.01878; with the initial step of
E. Kurtic, D. Alistarh: GMP*, 2022, arXiv 2210.06384. Over the pruning window [t0, t1] the share of
zeros follows

    s(t) = s_f + (s_i - s_f) (1 - (t - t0) / (t1 - t0))^3

and stays s_f afterwards, when no mask changes any more. The score is |w| of the masked weights,
so what is pruned stays pruned; zeros of a model that is sparse already stay, too. Gradients of
pruned weights are zero, and the masks are applied again after every optimizer step: Adam's momentum
and weight decay would otherwise move the zeros. The rest of GMP* are flags of the training: a
learning rate that starts anew (`--cycle-epochs 2 --final-lr 0.01`) and a teacher's softened answers
alone (`--teacher`, `--temperature 5.5 --hard-weight 0`).

With `rewind` the learning rate stays near its peak while the ramp lasts, and decays afterwards
(O. Zafrir and others: Prune Once for All, 2021, arXiv 2111.05754). Of N steps with W of warm-up,
P = t1 - t0, and a mask update every f steps, as a multiple of the peak:

    before t0            (N - P - t) / (N - P - W)
    while t0 <= t < t1   (N - P - t0 - ((t - t0) mod f)) / (N - P - W)
    after                (N - t) / (N - P - W)

Ours: a window that opens late (the paper's t0 is 0), masks that are fixed from t1 on, where Prune
Once for All lets weights come back until 0.8 N, and the layers alone: it prunes the pooler, too,
which a masked language model of `transformers` does not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import UsageError
from compressor.methods.contract import Context
from compressor.methods.option import option
from compressor.model.layers import encoder_linears, without
from compressor.model.masks import apply_masks, silence_gradients, unstructured, zero_pattern

if TYPE_CHECKING:
    import torch

VERBS = ("prune",)
COUNTS_ZEROS = KEEPS_ZEROS = True


@dataclass(frozen=True)
class Options:
    """The ramp and what it covers."""

    sparsity: float = option(
        0.5, "share of zeros at the end, at least 0 and below 1", low=0.0, high=0.9999
    )
    initial_sparsity: float = option(
        0.0, "share pruned at once when the window opens", low=0.0, high=0.9999, source="Zhu, Gupta"
    )
    prune_start: float = option(
        0.0, "where the window opens, as a share of the training steps", low=0.0, high=1.0
    )
    prune_end: float = option(
        0.7, "where it closes; the rest trains with fixed masks", low=0.0, high=1.0
    )
    prunes_per_epoch: int = option(10, "mask updates in an epoch", low=1, source="GMP*")
    scope: str = option(
        "uniform",
        "the same sparsity in each matrix (uniform) or one threshold for all (global)",
        choices=("uniform", "global"),
        source="GMP*",
    )
    exclude: str = option("", "comma-separated parts of module names to leave dense")
    rewind: bool = option(
        False, "hold the learning rate near its peak while pruning", source="Prune Once for All"
    )

    def __post_init__(self) -> None:
        if self.initial_sparsity > self.sparsity >= 0:
            raise UsageError(
                f"--initial-sparsity {self.initial_sparsity} is above --sparsity {self.sparsity}"
            )
        if self.prune_end < self.prune_start:
            raise UsageError(
                f"--prune-end {self.prune_end} lies before --prune-start {self.prune_start}"
            )

    @property
    def sets_rate(self) -> bool:
        """Whether the schedule of the training has no say."""
        return self.rewind


def rewound_rate(
    step: int, *, start: int, end: int, every: int, total: int, warmup: int
) -> float | None:
    """The learning rate of `step` over its peak; None during warm-up, where the plan holds.

    Args:
        step: t.
        start: t0.
        end: t1.
        every: f, steps from one mask update to the next.
        total: N.
        warmup: W.
    """
    if step < warmup:
        return None
    outside = total - (end - start)
    if step < end:  # the clock of the decay stands still
        time = step if step < start else start + (step - start) % every
        return (outside - time) / max(1, outside - warmup)
    return (total - step) / max(1, outside - warmup)


def cubic_sparsity(time: float, start: float, end: float, initial: float, final: float) -> float:
    """s(t): the share of zeros at `time`, in any unit shared with `start` and `end`."""
    if time < start:
        return 0.0
    if time >= end:
        return final
    remaining = 1 - (time - start) / (end - start)
    return final + (initial - final) * remaining**3


class Modifier:
    """Updates the masks along the ramp and holds the zeros between updates."""

    def __init__(self, options: Options, context: Context) -> None:
        self.options, self.peak = options, context.learning_rate
        self.total, self.warmup = context.total_steps, context.warmup_steps
        self.modules = without(encoder_linears(context.model), options.exclude)
        self.start = int(options.prune_start * context.total_steps)
        self.end = int(options.prune_end * context.total_steps)
        self.every = max(1, context.steps_per_epoch // options.prunes_per_epoch)
        self.masks: dict[str, torch.Tensor] = {}
        silence_gradients(self.modules, lambda: self.masks)

    def on_start(self) -> None:
        """Take over the zeros that are there."""
        self.masks = zero_pattern(self.modules)

    def before_step(self, step: int) -> None:
        """Update the masks when `step` is one of the ramp's."""
        inside = self.start <= step < self.end and (step - self.start) % self.every == 0
        if inside or step == self.end:
            self._prune(step)

    def learning_rate(self, step: int, planned: float) -> float:
        """The planned rate, or the rewound one."""
        if not self.options.rewind:
            return planned
        share = rewound_rate(
            step,
            start=self.start,
            end=self.end,
            every=self.every,
            total=self.total,
            warmup=self.warmup,
        )
        return planned if share is None else share * self.peak

    def _prune(self, step: int) -> None:
        options = self.options
        share = cubic_sparsity(
            step, self.start, self.end, options.initial_sparsity, options.sparsity
        )
        scores = {name: module.weight.detach().abs() for name, module in self.modules.items()}
        for name, mask in self.masks.items():
            # A living weight may be exactly zero; a pruned one must still come first.
            scores[name] = scores[name].masked_fill(~mask, -1.0)
        masks = unstructured(scores, share, options.scope)
        # A model that was sparser than the ramp is yet keeps its zeros.
        self.masks = {name: mask & self.masks.get(name, mask) for name, mask in masks.items()}
        apply_masks(self.modules, self.masks)

    def after_step(self, step: int) -> None:
        """Put back the zeros that the optimizer moved."""
        apply_masks(self.modules, self.masks)

    def settled(self, step: int) -> bool:
        """Whether the weights after `step` have the sparsity asked for."""
        return step >= self.end

    def on_finish(self) -> None:
        """Prune what is left to prune when the window closes with the last step."""
        self._prune(self.end)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The masks."""
        return dict(self.masks)

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back the masks."""
        self.masks = dict(state)
