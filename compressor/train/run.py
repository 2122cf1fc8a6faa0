"""What a training is made of, and what it came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.methods.contract import Context
from compressor.train.options import TrainingOptions
from compressor.train.state import StateFolder

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from compressor.model.load import Loaded
    from compressor.train.evaluate import Evaluation
    from compressor.train.feed import Feed

Metrics = dict[str, float]


@dataclass(frozen=True)
class Run:
    """Everything one training needs.

    Attributes:
        student: the model that is trained, in place.
        objective: makes the objective from the run's context.
        modifiers: each makes one modifier from the run's context.
        feed: the training rows.
        evaluate: scores a module on the validation split, checking for signals; None without one.
        options: how long and how fast.
        seed: order of rows, dropout, masked tokens.
        state: where to keep what a resumed run needs.
        accelerator: processes, device and number format.
        teacher: the model to learn from, if the objective asks for one.
    """

    student: Loaded
    objective: Callable[[Context], Any]
    modifiers: list[Callable[[Context], Any]]
    feed: Feed
    evaluate: Callable[[torch.nn.Module, Callable[[], None]], Evaluation] | None
    options: TrainingOptions
    seed: int
    state: StateFolder
    accelerator: Accelerator
    teacher: Loaded | None = None


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        metrics: of the weights that were kept; empty without a validation split.
        best_step: optimizer steps after which the kept weights were reached.
        steps: optimizer steps of the whole run.
        history: entries with `step`, and `loss` and its parts, or metrics.
        examples_per_second: training rows a second, evaluation excluded.
        seconds: wall time of this call.
    """

    metrics: Metrics
    best_step: int
    steps: int
    history: list[dict[str, float]]
    examples_per_second: float
    seconds: float
