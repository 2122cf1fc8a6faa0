"""What methods that compare student and teacher share: layer maps, projections, masked means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from compressor.methods.contract import Batch

MAPS = "uniform, top, bottom, last, or pairs student:teacher such as 1:2,2:4"


def layer_pairs(
    layer_map: str, student: int, teacher: int, flag: str = "--layer-pairs"
) -> list[tuple[int, int]]:
    """Which student layer learns from which teacher layer, as indices of the hidden-state lists.

    Index 0 is the embeddings' output and 1 the first layer's.

    Args:
        layer_map: `uniform` (m to m N / M), `top` (m to m + N - M), `bottom` (m to m), `last`
            (only the last to the last), or pairs.
        student: M, the student's depth.
        teacher: N, the teacher's depth.
        flag: where the map was typed, for the messages.

    Raises:
        UsageError: the depths do not fit the map, or it cannot be read.
    """
    own = range(1, student + 1)
    if layer_map == "last":
        return [(student, teacher)]
    if layer_map == "uniform":
        if teacher % student:
            raise UsageError(
                f"a uniform map needs a depth that divides the teacher's {teacher} layers; the "
                f"student has {student}",
                hint=f"{flag} top, bottom, or pairs such as 1:2,2:4",
            )
        return [(m, m * teacher // student) for m in own]
    if student > teacher and layer_map in ("top", "bottom"):
        raise UsageError(f"the student has {student} layers and the teacher only {teacher}")
    if layer_map == "top":
        return [(m, m + teacher - student) for m in own]
    if layer_map == "bottom":
        return [(m, m) for m in own]
    try:
        pairs = [tuple(map(int, pair.split(":"))) for pair in layer_map.split(",")]
        wrong = [p for p in pairs if not (0 <= p[0] <= student and 0 <= p[1] <= teacher)]
        wrong += [p for p in pairs if len(p) != 2]
    except (ValueError, IndexError):
        raise UsageError(f"{flag} {layer_map} is none of: {MAPS}", where=flag) from None
    if wrong:
        raise UsageError(
            f"{flag} {layer_map}: the student has layers 0 to {student}, the teacher 0 to "
            f"{teacher}, where 0 is the embeddings' output",
            where=flag,
        )
    return pairs


def answers(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Logits as [rows, classes]: as they are, or those of the real tokens of a language model.

    Args:
        logits: [batch, classes], or [batch, length, vocabulary].
        batch: what they answer to; of tokens every real one counts, masked or not.
    """
    if logits.dim() == 2:
        return logits
    real = batch["attention_mask"].bool()  # [batch, length]
    return logits.flatten(0, 1) if real.all() else logits[real]


def real_tokens(batch: Batch, states: torch.Tensor) -> torch.Tensor:
    """The mask of a batch, [batch, length], 1 at real tokens: all, where nothing is padded.

    Args:
        batch: with `attention_mask`, or of images, which have none.
        states: what a layer made of it, [batch, length, width].
    """
    mask = batch.get("attention_mask")
    return states.new_ones(states.shape[:2]).long() if mask is None else mask


def per_token_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of [batch, length] numbers over the real tokens of `mask` [batch, length]."""
    real = mask.to(values.dtype)
    return (values * real).sum() / real.sum()


def hidden_distance(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Mean squared difference over real tokens and the width.

    Args:
        student: [batch, length, width] hidden states, projected where the widths differ.
        teacher: [batch, length, width].
        mask: [batch, length], 1 at real tokens.
    """
    return per_token_mean((student.float() - teacher.float()).square().mean(-1), mask)


def projection(student_width: int, teacher_width: int) -> nn.Module:
    """A learnt map between widths; nothing where they are the same."""
    from torch import nn

    if student_width == teacher_width:
        return nn.Identity()
    return nn.Linear(student_width, teacher_width)
