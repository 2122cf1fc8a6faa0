"""DistilBERT's triple loss: the teacher's softened words, the masked words, the hidden states.

V. Sanh, L. Debut, J. Chaumond, T. Wolf: DistilBERT, a distilled version of BERT, 2019, arXiv
1910.01108; with the authors' code, which also trained DistilRoBERTa and DistilGPT2.

    L     = a_ce L_ce + a_mlm L_mlm + a_cos L_cos  (+ a_mse L_mse, off)
    L_ce  = T^2 mean over real tokens of KL(softmax(z_t / T) || softmax(z_s / T))
    L_mlm = mean over masked tokens of -log softmax(z_s)[the token that was there]
    L_cos = mean over real tokens of 1 - cos(h_s, h_t), h the last layer's output
    L_mse = mean over real tokens of |z_s - z_t|^2, summed over the vocabulary

Student and teacher read the same masked text. A causal model is asked for the next token in place
of the masked one. The paper writes L_ce as a cross-entropy, which has the same gradient. Masked
tokens are drawn as the code does, rare ones more often (`--mlm-smoothing`). The second
distillation during fine-tuning is `--method soft_labels`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import UsageError
from compressor.methods.contract import Batch, Context, Loss
from compressor.methods.objectives.cosine import cosine_loss
from compressor.methods.objectives.task import IGNORED
from compressor.methods.option import option
from compressor.model.views import HIDDEN, LOGITS, Views

if TYPE_CHECKING:
    import torch

    from compressor.data.batches import Masking

VERBS = ("finetune", "distill", "prune")
NEEDS_TEACHER = True
NEEDS_LOGITS = True
TASKS = ("masked-lm", "causal-lm")
# Positions whose scores over the vocabulary are worked on at once: 31 MB each for BERT's words.
CHUNK = 256


@dataclass(frozen=True)
class Options:
    """The weights of the terms, and how text is masked."""

    ce_weight: float = option(
        5.0, "a_ce, weight of the teacher's softened words", low=0.0, source="DistilBERT's code"
    )
    mlm_weight: float = option(
        2.0,
        "a_mlm, weight of the masked words (of the next ones in a causal model)",
        low=0.0,
        source="DistilBERT's code",
    )
    cosine_weight: float = option(
        1.0,
        "a_cos, weight of the angle between last hidden states",
        low=0.0,
        source="DistilBERT's code",
    )
    logit_mse_weight: float = option(
        0.0, "a_mse, weight of the squared distance of logits", low=0.0, source="DistilBERT's code"
    )
    temperature: float = option(
        2.0, "T, divides both logits before the softmax", low=0.01, source="DistilBERT's code"
    )
    ce_positions: str = option(
        "all",
        "where the teacher's words count: at all real tokens, or only at masked ones",
        choices=("all", "masked"),
        source="DistilBERT's code",
    )
    mlm_probability: float = option(
        0.15, "share of tokens that are masked", low=0.0, high=1.0, source="BERT"
    )
    mlm_smoothing: float = option(
        0.7,
        "a token is masked in proportion to its count to the power of minus this; 0 for all alike",
        low=0.0,
        source="DistilBERT's code",
    )

    @property
    def masking(self) -> Masking:
        """How the training rows are masked."""
        from compressor.data.batches import Masking

        return Masking(self.mlm_probability, self.mlm_smoothing)


def word_sums(
    student: torch.Tensor,
    teacher: torch.Tensor,
    compared: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    squares: bool = False,
) -> torch.Tensor:
    """KL(teacher || student) at T, -log p of the targets, and squared distance, each summed.

    Args:
        student: [positions, vocabulary] logits.
        teacher: [positions, vocabulary] logits.
        compared: bool [positions], where the teacher's words count.
        targets: int [positions], the right words; -100 where none is asked for.
        temperature: T.
        squares: False leaves the squared distance at 0 and saves a pass over the logits.

    Returns:
        [3] sums, none of them multiplied by T^2.
    """
    import torch
    from torch.nn import functional as F

    asked = targets != IGNORED
    negative_log = F.cross_entropy(student[asked].float(), targets[asked], reduction="sum")
    student, teacher = student[compared].float(), teacher[compared].float()  # [compared, V]
    log_student = (student / temperature).log_softmax(-1)
    log_teacher = (teacher / temperature).log_softmax(-1)
    divergence = F.kl_div(log_student, log_teacher, reduction="sum", log_target=True)
    distance = (student - teacher).square().sum() if squares else torch.zeros_like(divergence)
    return torch.stack([divergence, negative_log, distance])


def word_losses(
    student: torch.Tensor,
    teacher: torch.Tensor,
    compared: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    squares: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """L_ce, L_mlm and L_mse; a mean over nothing is 0.

    Arguments are those of `word_sums`. Scores over a vocabulary are by far the largest tensors of
    a step, so they are worked on in chunks, and again in the backward pass instead of kept.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    parts = zip(*(t.split(CHUNK) for t in (student, teacher, compared, targets)), strict=True)
    sums = torch.stack(
        [
            checkpoint(
                word_sums,
                *part,
                temperature,
                squares,
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for part in parts
        ]
    ).sum(0)  # [3]
    rows = compared.sum().clamp(min=1)
    asked = (targets != IGNORED).sum().clamp(min=1)
    return temperature**2 * sums[0] / rows, sums[1] / asked, sums[2] / rows


def targets_of(task: str, labels: torch.Tensor) -> torch.Tensor:
    """The word that each position should name, int [batch, length], -100 for none.

    Args:
        task: "masked-lm" or "causal-lm", where position t names token t + 1.
        labels: int [batch, length], -100 where nothing is asked.
    """
    if task == "masked-lm":
        return labels
    targets = labels.roll(-1, dims=1)
    targets[:, -1] = IGNORED
    return targets


class Objective:
    """Compares words and last hidden states."""

    def __init__(self, options: Options, context: Context) -> None:
        self.options, self.task = options, context.task
        shows = {LOGITS, HIDDEN} if options.cosine_weight else {LOGITS}
        self.student_shows = self.teacher_shows = frozenset(shows)
        _refuse_unlike(options, context)
        if options.ce_positions == "masked" and (
            self.task == "causal-lm" or options.mlm_probability == 0
        ):
            raise UsageError(
                "--ce-positions masked needs masked tokens, and here there are none",
                hint="--ce-positions all",
                where="--ce-positions",
            )

    def loss(self, batch: Batch, student: Views, teacher: Views) -> Loss:
        """The weighted terms of one batch."""
        options, mask = self.options, batch["attention_mask"]
        targets = targets_of(self.task, batch["labels"])  # [batch, length]
        compared = mask.bool() if options.ce_positions == "all" else targets != IGNORED
        soft, hard, squared = word_losses(
            student.logits.flatten(0, 1),
            teacher.logits.flatten(0, 1),
            compared.flatten(),
            targets.flatten(),
            options.temperature,
            squares=options.logit_mse_weight > 0,
        )
        total = options.ce_weight * soft + options.mlm_weight * hard
        parts = {"soft": soft.detach(), "hard": hard.detach()}
        if options.logit_mse_weight:
            total = total + options.logit_mse_weight * squared
            parts["logit_mse"] = squared.detach()
        if options.cosine_weight:
            cosine = cosine_loss(student.hidden[-1], teacher.hidden[-1], mask)
            total = total + options.cosine_weight * cosine
            parts["cosine"] = cosine.detach()
        return Loss(total, parts)


def _refuse_unlike(options: Options, context: Context) -> None:
    """Refuse a pair whose vectors cannot be compared.

    Raises:
        UsageError: their widths or vocabularies differ.
    """
    student = context.student_config.get_text_config()
    teacher = context.teacher_config.get_text_config()
    if options.cosine_weight and student.hidden_size != teacher.hidden_size:
        raise UsageError(
            f"distilbert compares hidden states, which are {student.hidden_size} wide in the "
            f"student and {teacher.hidden_size} in the teacher",
            hint="--cosine-weight 0, or a student as wide as its teacher: --student copy_layers",
            where="--cosine-weight",
        )
    if student.vocab_size != teacher.vocab_size:
        raise UsageError(
            f"distilbert compares scores of words, of which the student has {student.vocab_size} "
            f"and the teacher {teacher.vocab_size}",
            hint="use a student made from this teacher",
        )
