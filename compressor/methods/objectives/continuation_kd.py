"""Continuation distillation: from a shrunken, forgiving target to the full one, then to labels.

A. Jafari, I. Kobyzev, M. Rezagholizadeh, P. Poupart, A. Ghodsi: Continuation KD, Findings of EMNLP
2022, arXiv 2212.05998.

    phi   = 1 - (T - 1) / T_max
    L_CNT = mean over rows of max(0, ||z_S - phi z_T||^2 - m phi)
    L     = psi L_hard + (1 - psi) L_CNT

T starts at T_max and drops by one at every k-th i, k = max(1, floor(n / T_max)); psi(i) = i / rate
up to i = until and 1 from there on. Only the teacher's logits are scaled; there is no softmax.

In the paper i counts n = 30 epochs. Here a run of any length is cut into n equal phases, so that
the paper's numbers are the defaults of short runs too, and in a run of 30 epochs a phase is an
epoch. T stays at 1: the printed algorithm cuts once more, which gives phi = 1.1. As published,
psi takes over while T is 4, so phi is never 1 with a weight; `--psi-until` and `--psi-rate` change
that. The paper's margin is not reported. The distance is a sum over classes as written, or their
mean, and then the margin wants to be divided by the number of classes.

With one output L_hard is the squared error, and for language models a row is a real token; the
paper is silent on both. The best weights on validation rows are kept, as in every training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.methods.contract import Batch, Context, Loss
from compressor.methods.features import answers
from compressor.methods.objectives.task import task_loss
from compressor.methods.option import option
from compressor.model.views import LOGITS, Views

if TYPE_CHECKING:
    import torch

VERBS = ("finetune", "distill", "prune")
NEEDS_TEACHER = True
NEEDS_LOGITS = True
ANY_TOKENIZER = True


@dataclass(frozen=True)
class Options:
    """The schedules and what is forgiven."""

    t_max: int = option(10, "T_max, number of levels of the teacher's scale", low=1, source="paper")
    phases: int = option(
        30, "n, equal parts of the run that the schedules count", low=1, source="paper's epochs"
    )
    hinge_margin: float = option(
        1.0, "m, squared distance that is forgiven at full scale", low=0.0, source="our choice"
    )
    psi_rate: float = option(
        40.0,
        "the labels' weight in phase i is i / rate; 0 leaves it 0 up to --psi-until",
        low=0.0,
        source="paper",
    )
    psi_until: int = option(
        20, "last phase of that; afterwards only labels count", low=0, source="paper"
    )
    logit_distance: str = option(
        "sum",
        "squared distance as a sum over classes or their mean",
        choices=("sum", "mean"),
        source="paper",
    )


def phase_of(step: int, total_steps: int, phases: int) -> int:
    """i, from 1: the phase in which optimizer step `step` lies when a run has so many."""
    return min(phases, 1 + step * phases // max(1, total_steps))


def temperature(phase: int, phases: int, t_max: int) -> int:
    """T in phase i of n: T_max at first, one less at every k-th, at least 1."""
    every = max(1, phases // t_max)
    return max(1, t_max - phase // every)


def smoothing(temperature: int, t_max: int) -> float:
    """Phi: 1 / T_max at T_max, 1 at 1."""
    return 1 - (temperature - 1) / t_max


def label_weight(phase: int, rate: float, until: int) -> float:
    """Psi in phase i."""
    if phase > until:
        return 1.0
    return min(1.0, phase / rate) if rate else 0.0


def squared_distance(
    student: torch.Tensor, teacher: torch.Tensor, phi: float, form: str
) -> torch.Tensor:
    """||z_S - phi z_T||^2 of every row, [rows].

    Args:
        student: [rows, classes] logits.
        teacher: [rows, classes] logits.
        phi: scale of the teacher's.
        form: `sum` or `mean` over classes.
    """
    squares = (student.float() - phi * teacher.float()).square()  # [rows, classes]
    return squares.sum(-1) if form == "sum" else squares.mean(-1)


def hinge(distances: torch.Tensor, slack: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of what exceeds `slack`, and the share of rows that do.

    Args:
        distances: [rows].
        slack: m phi.
    """
    beyond = (distances - slack).relu()  # [rows]
    return beyond.mean(), (beyond > 0).float().mean()


class Objective:
    """Follows the schedules and mixes both losses."""

    student_shows = teacher_shows = frozenset({LOGITS})
    by_row = True

    def __init__(self, options: Options, context: Context) -> None:
        self.options, self.task = options, context.task
        self.total_steps = context.total_steps
        self.before_step(0)

    def before_step(self, step: int) -> None:
        """Set phi and psi of optimizer step `step`."""
        options = self.options
        phase = phase_of(step, self.total_steps, options.phases)
        level = temperature(phase, options.phases, options.t_max)
        self.phi = smoothing(level, options.t_max)
        self.psi = label_weight(phase, options.psi_rate, options.psi_until)

    def loss(self, batch: Batch, student: Views, teacher: Views) -> Loss:
        """The mixed loss of one batch."""
        options = self.options
        hard = task_loss(self.task, student.logits, batch["labels"])
        learnt, taught = answers(student.logits, batch), answers(teacher.logits, batch)
        distances = squared_distance(learnt, taught, self.phi, options.logit_distance)
        soft, active = hinge(distances, options.hinge_margin * self.phi)
        parts = {
            "continuation": soft.detach(),
            "hard": hard.detach(),
            "phi": hard.new_tensor(self.phi),
            "psi": hard.new_tensor(self.psi),
            "active": active,
        }
        return Loss(self.psi * hard + (1 - self.psi) * soft, parts)
