"""How far a student's softened answers are from a teacher's, in chunks of rows.

Scores over a vocabulary are by far the largest tensors of a step; taken whole, each of the eight
operations on them goes through memory. In chunks that fit the processor's caches, with the gradient
written down on the way, only the logits and one gradient do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

CHUNK = 32  # rows


class Divergence(torch.autograd.Function):
    """T^2 KL(softmax(z_t / T) || softmax(z_s / T)), mean over rows, in fp32.

    dL / dz_s = T (softmax(z_s / T) - softmax(z_t / T)) / rows
    """

    @staticmethod
    def forward(
        context: Any, student: torch.Tensor, teacher: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """The divergence of z_s [rows, classes] from z_t [rows, classes]; none to the teacher."""
        rows, wanted = len(student), context.needs_input_grad[0]
        total = torch.zeros((), device=student.device)
        gradient = torch.empty_like(student) if wanted else None  # [rows, classes]
        for first in range(0, rows, CHUNK):
            part = slice(first, first + CHUNK)
            learnt = (student[part].float() / temperature).log_softmax(-1)  # [chunk, classes]
            taught = (teacher[part].float() / temperature).log_softmax(-1)
            chances = taught.exp()
            total += (chances * taught.sub_(learnt)).sum()
            if gradient is not None:
                gradient[part] = learnt.exp_().sub_(chances).mul_(temperature / rows)
        context.save_for_backward(gradient)
        return temperature**2 * total / rows

    @staticmethod
    @once_differentiable
    def backward(context: Any, above: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """The gradient of z_s."""
        (gradient,) = context.saved_tensors
        return above.to(gradient.dtype) * gradient, None, None
