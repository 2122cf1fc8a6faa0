"""What the five kinds of method agree on with the loop and the verbs.

A method is one file in `students/`, `objectives/`, `modifiers/`, `transforms/` or `generators/`;
its name is the file's name. The file holds

- a module docstring: title, authors, year, source, equation, what was kept and left out;
- `VERBS`: the verbs that list it under `--method` (`--with` takes every modifier);
- `Options`: a frozen dataclass made with `option(...)`: flags, recipe keys and provenance;
- the wiring of its kind:

| kind | the file defines |
| --- | --- |
| student | `build(teacher, options) -> Loaded` |
| objective | `class Objective(options, context)`: `loss(batch, student, teacher) -> Loss`; \
`NEEDS_TEACHER`; `NEEDS_LOGITS`, whether it looks at the answers of a head; `ANY_TOKENIZER = True` \
where it looks at nothing else, so that a teacher of rows may cut them into other tokens; \
`UNLABELLED = True` where it learns from rows without a label too, `ONE_CLASS = True` where a row \
must have a single class; perhaps `TASKS`, the only tasks that it serves, and a property `masking` \
of its options, how text is masked in training |
| modifier | `class Modifier(options, context)` with any of the hooks of `ModifierHooks`; \
`CHANGES_SHAPE = True` where it leaves other shapes, `QUANTIZES = True` where it leaves integers, \
`COUNTS_ZEROS = True` where it promises a share of zeros, `KEEPS_ZEROS = True` where it holds \
those that are there, \
`MIXES_LABELS = True` where it makes rows of several classes, `NEEDS_HELD_OUT = True` where it \
chooses by validation rows; perhaps `TASKS`; its options may have `sets_rate`, whether \
the schedule has no say, `weighs_rows`, whether it asks for losses of single rows, and `copies`, \
of the weights in every saved state |
| transform | `needs_data(options)`, whether it draws on rows, labels included; \
`apply(loaded, rows, options) -> facts`, which changes the model in place (`rows` are `Rows`: to \
iterate over them gives batches) and may give `loaded` another tokenizer; facts whose names end \
in `_ms` are times of this run and no part of the lineage; or \
`rewrite(checkpoint, options) -> Rewriting` where values and names are enough, so that a \
checkpoint of any size passes (None leaves it to `apply`) |
| generator | `generate(loaded, rows, options, work) -> iterator of Example`: new rows, from the \
training rows, which it reads once; `MODEL_TASK`, the task whose head the model must have |

Torch is imported inside functions so that help and `methods` answer without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from compressor.model.views import LOGITS, Views

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn
    from transformers import PretrainedConfig

Batch = Mapping[str, "torch.Tensor"]


@dataclass
class Loss:
    """What an objective returns: the scalar to minimise and its unweighted parts for the log."""

    total: torch.Tensor
    parts: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Context:
    """What the loop tells objectives and modifiers about the run.

    Attributes:
        model: the module being trained.
        task: name of the task, a key of `compressor.data.tasks.TASKS`.
        student_config: the configuration of that module.
        teacher_config: the configuration of the teacher's model, or None without a teacher.
        total_steps: optimizer steps of the whole run.
        steps_per_epoch: optimizer steps in one pass over the training rows.
        learning_rate: the peak learning rate.
        warmup_steps: steps in which it rises to the peak.
        evaluations: times that validation rows are scored after steps; 0 without such rows.
        mixed_precision: "no", "bf16" or "fp16".
        seed: of everything random.
        batches: the training rows once, in batches on the model's device.
    """

    model: torch.nn.Module
    task: str
    student_config: PretrainedConfig | None = None
    teacher_config: PretrainedConfig | None = None
    total_steps: int = 0
    steps_per_epoch: int = 0
    learning_rate: float = 0.0
    warmup_steps: int = 0
    evaluations: int = 0
    mixed_precision: str = "no"
    seed: int = 0
    batches: Callable[[], Iterator[Batch]] = lambda: iter(())


class Objective(Protocol):
    """What training minimises.

    The loop runs student and teacher and hands over what they show, so that several objectives
    share one forward pass. An objective may own parameters that are trained and never saved, as
    `module`, and may have `before_step(step)`, called before each optimizer step.

    Attributes:
        student_shows: what it looks at in the student: LOGITS, HIDDEN, ATTENTION.
        teacher_shows: the same for the teacher; empty when it asks no teacher.
        module: parameters of its own, if it has any.
        labelled_only: whether it looks at the logits of labelled tokens alone; where all
            objectives of a masked language model do, `loss` gets only those: logits
            [1, labelled, vocabulary] and labels [labelled].
        by_row: whether a batch's loss is the mean of what it is for each row alone.
    """

    student_shows: frozenset[str] = frozenset({LOGITS})
    teacher_shows: frozenset[str] = frozenset()
    module: nn.Module | None = None
    labelled_only: bool = False
    by_row: bool = False

    def loss(self, batch: Batch, student: Views, teacher: Views) -> Loss:
        """The loss of one batch."""
        ...


class Passes(Protocol):
    """Forward and backward passes over the batches of one step, alike in their dropout masks.

    Attributes:
        parts: what the log shows of the step: the loss, its parts and the gradient's norm.
    """

    parts: dict[str, float]

    def __call__(self) -> float:
        """Leave the clipped gradient of the mean loss on the weights; returns the loss."""
        ...

    def row_losses(self) -> torch.Tensor:
        """Each row's own loss, [rows], without dropout and gradients."""
        ...

    def row_gradient_norms(self) -> torch.Tensor:
        """The norm of each row's own gradient, [rows], without dropout; a pass back for each."""
        ...

    def uphill(self, weights: torch.Tensor | None = None) -> float:
        """As a call, for the direction alone: the gradient is not clipped, and may be scaled.

        Args:
            weights: [rows], which each row's loss is multiplied by.
        """
        ...


class ModifierHooks(Protocol):
    """The hooks that a modifier may define; the loop calls those that are there.

    Attributes:
        looks_last: whether its hooks come after those of the modifiers that change weights.
        replaces_weights: whether `on_finish` leaves other weights than the last step; those are
            scored before it, too.
        weighs_rows: whether `gradients` asks for the losses of single rows.
    """

    looks_last: bool = False
    replaces_weights: bool = False
    weighs_rows: bool = False

    def batch(self, batch: Batch, draw: np.random.Generator) -> Batch:
        """A training batch in place of `batch`, by chance from `draw` alone: passes see the same.

        Labels may become shares of the classes, float [batch, classes]; `rows`, which tells the
        rows of the data, is left out where the inputs are no longer theirs.
        """
        ...

    def gradients(self, passes: Passes) -> None:
        """Leave on the weights the gradient that the optimizer is to step with.

        In place of one plain pass; one modifier of a run may have it. A pass raises when the run
        is stopped or diverges, and the weights are saved as they then are: a modifier that has
        moved them for a moment puts them back in a `finally`.
        """

    def evaluating(self) -> AbstractContextManager[None]:
        """Other weights for the while that the model is scored on the validation rows."""
        ...

    def evaluated(self, step: int, loss: float) -> None:
        """After the model was scored behind optimizer step `step` (1-based), with its mean loss."""

    def on_start(self) -> None:
        """Before the first step of a fresh run; a resumed run calls `load_state_dict` instead."""

    def before_step(self, step: int) -> None:
        """Before the forward pass of optimizer step `step` (0-based)."""

    def after_step(self, step: int) -> None:
        """After the optimizer has changed the weights in step `step`."""

    def learning_rate(self, step: int, planned: float) -> float:
        """The learning rate of `step` in place of the schedule's `planned` one."""
        ...

    def learnt(self, step: int, loss: float) -> None:
        """After step `step` (0-based), with the mean training loss of its rows in all processes."""

    def enough(self) -> bool:
        """Whether training ends here, before its epochs are over."""
        ...

    def settled(self, step: int) -> bool:
        """Whether the weights after `step` obey what the modifier promises.

        Only such weights compete for the best evaluation.
        """
        ...

    def on_finish(self) -> None:
        """After the last step, before the model is saved; those that look last come first."""

    def on_kept(self) -> dict[str, Any]:
        """After the weights to keep are in place: may change the model's shape, not its answers.

        Returns facts for the lineage.
        """
        ...

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Tensors that a resumed run needs."""
        ...

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what `state_dict` returned."""


class Rows(Protocol):
    """What a transform may draw from the user's rows, as often as it wants."""

    def __iter__(self) -> Iterator[Batch]:
        """Batches of training rows in a seeded order, cut to the longest input."""
        ...

    def texts(self) -> Iterator[list[str]]:
        """The texts of every row of every split, whole, a chunk of them at a time.

        The texts of a pair stand one by one, or one below the other where the task makes one
        input of them.
        """
        ...


class Kept(Protocol):
    """JSON values that a stopped run leaves to the one that goes on with it, in order."""

    def __len__(self) -> int:
        """How many there are; a resumed run finds those of the run before."""
        ...

    def __getitem__(self, number: int) -> Any:
        """The value with this number, as read back."""
        ...

    def append(self, value: Any) -> None:
        """Keep one more value, which is on the disk when this returns."""
        ...


@dataclass(frozen=True)
class Work:
    """What `generate` tells a generator about the run.

    A generator passes everything that takes long through `kept`, in pieces of about a minute, and
    makes its rows from what it reads there. Rows must depend on the inputs, the options and the
    seed alone, so that a resumed run ends in the same bytes.

    Attributes:
        seed: of everything random.
        kept: what was worked out already.
    """

    seed: int
    kept: Kept
