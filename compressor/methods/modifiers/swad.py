"""Stochastic weight averaging, densely, inside the valley of the validation loss.

J. Cha, S. Chun, K. Lee, H.-C. Cho, S. Park, Y. Lee, S. Park: SWAD: Domain Generalization by Seeking
Flat Minima, NeurIPS 2021, arXiv 2102.08604. The weights of all steps between two evaluations form a
segment, and each evaluation scores the segment's mean. With the losses l_1, l_2, ... found there

    the valley begins at segment i     when l_i is the least of l_i ... l_(i + Ns - 1)
    its limit is                       (1 + r) mean(l_i ... l_(i + Ns - 1))
    it ends before segment j           when the least of l_j ... l_(j + Ne - 1) is above the limit,
                                       which is asked of the segments from j = i + Ns on

and the result is the mean of all segments from i to before j; at the end of training fewer than Ne
segments are left to judge by. Where the valley has not ended by then it goes to the last segment,
and where none has begun the last segment is the result, which is said. Evaluations are those of
`--eval-steps`: a dozen or more are needed, and fewer than Ns are refused. Segments whose place is
decided are not kept. Nothing but the validation rows of the run is looked at. A model that is
being pruned has a valley for each set of zeros: where they move, it is looked for anew. Statistics
of batch normalisation are collected anew, as by `swa`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.errors import UsageError
from compressor.methods.contract import Context
from compressor.methods.option import option
from compressor.methods.running_mean import RunningMean, other_zeros, renew_statistics

if TYPE_CHECKING:
    import torch

VERBS = ()
NEEDS_HELD_OUT = True


@dataclass(frozen=True)
class Options:
    """When the valley begins and ends."""

    swad_begin: int = option(
        3, "Ns, evaluations of which the first is the best", low=1, source="the authors' code"
    )
    swad_end: int = option(
        6, "Ne, evaluations that are all above the limit", low=1, source="the authors' code"
    )
    swad_tolerance: float = option(
        0.3, "r, by which the limit lies above the valley", low=0.0, source="the authors' code"
    )

    @property
    def copies(self) -> int:
        """Of the weights, in every state at most: the valley, open segments, the one begun."""
        return 1 + max(self.swad_begin, self.swad_end)


def valley(
    losses: Sequence[float], begin: int, end: int, tolerance: float
) -> tuple[int, int] | None:
    """The segments (first, one behind the last) of the valley; None before it has begun.

    Segments within it stay so whatever losses follow.

    Args:
        losses: of every segment so far.
        begin: Ns.
        end: Ne.
        tolerance: r.
    """
    for first in range(len(losses) - begin + 1):
        window = losses[first : first + begin]
        if window[0] == min(window):
            break
    else:
        return None
    limit = (1 + tolerance) * sum(window) / begin
    for last in range(first + begin, len(losses)):
        if min(losses[last : last + end]) > limit:
            return first, last
    return first, len(losses)


class Modifier:
    """Keeps the mean of the valley so far, and of each segment that may still belong to it."""

    looks_last = True
    replaces_weights = True

    def __init__(self, options: Options, context: Context) -> None:
        self.options, self.context = options, context
        self.model = getattr(context.model, "module", context.model)  # inside a DDP wrapper
        self.segment, self.inside = RunningMean(), RunningMean()
        self.open: list[RunningMean] = []  # the last segments
        self.losses: list[float] = []
        self.finished = False
        if 0 < context.evaluations < options.swad_begin:
            raise UsageError(
                f"swad looks for {options.swad_begin} evaluations of which the first is the best, "
                f"and this training has {context.evaluations}",
                hint=f"--eval-steps {max(1, context.total_steps // 20)}",
                where="--eval-steps",
            )

    def after_step(self, step: int) -> None:
        """Add the weights to the segment."""
        if self.segment.add(self.model) and self.segment.count == 1:
            console.note(f"the zeros moved at step {step + 1}: this segment begins anew")

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Let the segment's mean be scored, and give the weights back to the bit."""
        if not self.segment.count:
            yield
            return
        exact = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.segment.put_into(self.model)
        try:
            yield
        finally:
            self.model.load_state_dict(exact)

    def evaluated(self, step: int, loss: float) -> None:
        """Close the segment."""
        if self.finished or not self.segment.count:
            return
        newest = self.open[-1] if self.open else self.inside
        if newest.count and other_zeros(self.segment.mean, newest.mean):
            self.losses, self.open, self.inside = [], [], RunningMean()
        self.losses.append(loss)
        self.open.append(self.segment)
        self.segment = RunningMean()
        self._sort()

    def _sort(self) -> None:
        """Add open segments to the valley, and forget those that cannot belong to it."""
        found, number = self._found(), len(self.losses)
        if found is None:
            # The valley may begin with any of these, and the last one is kept where none does.
            self.open = self.open[-max(1, self.options.swad_begin - 1) :]
            return
        first, behind = found
        oldest = number - len(self.open)
        for mean in self.open[max(0, first - oldest) : max(0, behind - oldest)]:
            self.inside.merge(mean)
        ended = number - behind >= self.options.swad_end
        self.open = [] if ended else self.open[max(0, behind - oldest) :]

    def settled(self, step: int) -> bool:
        """Whether these weights are the valley's mean."""
        return self.finished

    def on_finish(self) -> None:
        """Put the mean of the valley's segments into the model."""
        self.finished = True
        whole, number = self._found(), len(self.losses)
        if whole is None and self.open:
            console.warn(
                f"swad: no valley began within {number} evaluations, so the mean of the last "
                "segment is kept; --eval-steps with a smaller number makes more"
            )
            whole, self.inside = (number - 1, number), self.open[-1]
        self.facts = {"swad_segments": list(whole or (0, 0)), "swad_averaged": self.inside.count}
        if whole is None:
            console.warn("swad: no step was made, so the weights stay as they are")
            return
        self.inside.put_into(self.model)
        renew_statistics(self.model, self.context)

    def _found(self) -> tuple[int, int] | None:
        options = self.options
        return valley(self.losses, options.swad_begin, options.swad_end, options.swad_tolerance)

    def on_kept(self) -> dict[str, Any]:
        """Which segments, counted from 0, and how many weights in all."""
        return self.facts

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The losses, the valley so far and the open segments."""
        import torch

        state = {"losses": torch.tensor(self.losses, dtype=torch.float64)}
        for number, mean in enumerate([self.inside, *self.open, self.segment]):
            state |= {f"{number}/{name}": value for name, value in mean.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take them back."""
        self.losses = state["losses"].tolist()
        groups: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in state.items():
            number, _, name = key.partition("/")
            if name:
                groups.setdefault(int(number), {})[name] = value
        loaded = []
        for number in sorted(groups):
            loaded.append(RunningMean())
            loaded[-1].load_state_dict(groups[number])
        self.inside, *self.open, self.segment = loaded
