"""Annealing distillation: the teacher's logits grow to full size, then labels take over.

A. Jafari, M. Rezagholizadeh, P. Sharma, A. Ghodsi: Annealing Knowledge Distillation, EACL 2021,
arXiv 2104.07163.

    stage one:  L = mean over rows of ||z_S - phi(T) z_T||^2,  phi(T) = 1 - (T - 1) / T_max
    stage two:  L = L_hard(z_S, y)

T falls from T_max to 1 within stage one. It is `continuation_kd` without a margin and with the
labels' weight as a step, and its functions are used here. A run is cut into equal phases as there.
The paper starts stage two from the best weights of stage one; here one run goes through both and
stage two starts from the last. Two commands, the second a `finetune` of the first's result, do it
the paper's way.
"""

from __future__ import annotations

from dataclasses import dataclass

from compressor.errors import UsageError
from compressor.methods.contract import Batch, Context, Loss
from compressor.methods.features import answers
from compressor.methods.objectives.continuation_kd import (
    phase_of,
    smoothing,
    squared_distance,
    temperature,
)
from compressor.methods.objectives.task import task_loss
from compressor.methods.option import option
from compressor.model.views import LOGITS, Views

VERBS = ("finetune", "distill", "prune")
NEEDS_TEACHER = True
NEEDS_LOGITS = True
ANY_TOKENIZER = True


@dataclass(frozen=True)
class Options:
    """The schedule and where the stages meet."""

    t_max: int = option(10, "T_max, number of levels of the teacher's scale", low=1, source="paper")
    phases: int = option(30, "equal parts of the run that the schedule counts", low=1)
    stage_one: int = option(20, "phases that learn from the teacher; the rest from labels", low=1)
    logit_distance: str = option(
        "sum", "squared distance as a sum over classes or their mean", choices=("sum", "mean")
    )


class Objective:
    """Follows the teacher's scale, then changes to labels."""

    student_shows = teacher_shows = frozenset({LOGITS})
    by_row = True

    def __init__(self, options: Options, context: Context) -> None:
        if options.stage_one > options.phases:
            raise UsageError(
                f"--stage-one {options.stage_one} is more than --phases {options.phases}",
                where="--stage-one",
            )
        self.options, self.task = options, context.task
        self.total_steps = context.total_steps
        self.before_step(0)

    def before_step(self, step: int) -> None:
        """Set the teacher's scale, and the stage, of optimizer step `step`."""
        options = self.options
        phase = phase_of(step, self.total_steps, options.phases)
        self.learns_labels = phase > options.stage_one
        self.phi = smoothing(temperature(phase, options.stage_one, options.t_max), options.t_max)

    def loss(self, batch: Batch, student: Views, teacher: Views) -> Loss:
        """The loss of one batch in the present stage, and the other for the log."""
        hard = task_loss(self.task, student.logits, batch["labels"])
        learnt, taught = answers(student.logits, batch), answers(teacher.logits, batch)
        form = self.options.logit_distance
        soft = squared_distance(learnt, taught, self.phi, form).mean()
        parts = {
            "annealing": soft.detach(),
            "hard": hard.detach(),
            "phi": hard.new_tensor(self.phi),
        }
        return Loss(hard if self.learns_labels else soft, parts)
