"""What a training is made of, and what it came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compressor.methods.contract import Context
from compressor.train.cache import Keeping
from compressor.train.options import TrainingOptions
from compressor.train.state import StateFolder

if TYPE_CHECKING:
    from accelerate import Accelerator

    from compressor.model.load import Loaded
    from compressor.train.feed import Feed

Metrics = dict[str, float]


@dataclass(frozen=True)
class Taught:
    """One model to learn from.

    Attributes:
        loaded: the teacher.
        weight: its share in the mean of several teachers' logits.
        feed: the training rows in its own tokens, where they are not the student's.
    """

    loaded: Loaded
    weight: float = 1.0
    feed: Feed | None = None


@dataclass(frozen=True)
class Run:
    """Everything one training needs.

    Attributes:
        student: the model that is trained, in place.
        objectives: each makes one objective from the run's context; their losses add up.
        modifiers: each makes one modifier from the run's context.
        feed: the training rows.
        held_out: the validation rows, if there are any.
        options: how long and how fast.
        seed: order of rows, dropout, masked tokens.
        state: where to keep what a resumed run needs.
        accelerator: processes, device and number format.
        teachers: the models to learn from.
        keeping: how the teachers' answers are kept.
    """

    student: Loaded
    objectives: list[Callable[[Context], Any]]
    modifiers: list[Callable[[Context], Any]]
    feed: Feed
    held_out: Feed | None
    options: TrainingOptions
    seed: int
    state: StateFolder
    accelerator: Accelerator
    teachers: Sequence[Taught] = ()
    keeping: Keeping = field(default_factory=Keeping)


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        metrics: of the weights that were kept; empty without a validation split.
        metric: the one that the best weights were chosen by.
        best_step: optimizer steps after which the kept weights were reached.
        steps: optimizer steps of the whole run.
        history: entries with `step`, and mean losses and `gradient_norm`, or metrics.
        examples_per_second: training rows a second, evaluation excluded.
        seconds: wall time of this call.
        facts: what modifiers say about the result.
    """

    metrics: Metrics
    metric: str
    best_step: int
    steps: int
    history: list[dict[str, Any]]
    examples_per_second: float
    seconds: float
    facts: dict[str, Any]
