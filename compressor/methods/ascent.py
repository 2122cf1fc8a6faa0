"""Weights moved for a moment to where the loss is worse: what SAM and its relatives share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from compressor.methods.contract import Context, Passes

if TYPE_CHECKING:
    import torch

TINY = 1e-12  # added to the norm, as the authors do


def trained(context: Context) -> list[torch.nn.Parameter]:
    """The parameters of the model that are trained, shared ones once."""
    return [p for p in context.model.parameters() if p.requires_grad]


def ascent(
    parameters: Sequence[torch.Tensor],
    radius: float,
    scales: Sequence[torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """The step of length `radius` along the gradient, in scaled weights where there are scales.

        eps = radius T^2 g / (||T g|| + 1e-12)      T = 1 without scales; one norm over all

    Args:
        parameters: with gradients; one without any stays where it is.
        radius: rho.
        scales: T, of the shape of each parameter.

    Returns:
        eps of every parameter, in its own shape; zeros where the norm is not finite, so that the
        pass that follows meets the same gradient, which is then skipped or refused.
    """
    import torch

    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in parameters]
    scaled = gradients
    if scales is not None:
        scaled = [scale * g for scale, g in zip(scales, gradients, strict=True)]
    norm = torch.stack([g.float().norm() for g in scaled]).norm() + TINY
    if not norm.isfinite():
        return [torch.zeros_like(p) for p in parameters]
    steps = scaled if scales is None else [s * g for s, g in zip(scales, scaled, strict=True)]
    return [(radius / norm).to(step) * step for step in steps]


@contextmanager
def moved(
    parameters: Sequence[torch.nn.Parameter], steps: Sequence[torch.Tensor], by: float = 1.0
) -> Iterator[None]:
    """Add `by` times the steps for the while; afterwards every weight is as it was, to the bit."""
    import torch

    before = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.add_(step, alpha=by)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


def descend_from(
    parameters: Sequence[torch.nn.Parameter], steps: Sequence[torch.Tensor], passes: Passes
) -> None:
    """Leave the gradient of the moved weights on the weights as they are.

    The log keeps the loss of the weights themselves, and beside it `sharpness`, by how much it is
    worse where they were moved to.

    Args:
        parameters: what is moved.
        steps: where to.
        passes: of the step; the last one led uphill from the weights themselves.
    """
    here = dict(passes.parts)
    with moved(parameters, steps):
        there = passes()
    passes.parts = {**passes.parts, **here, "sharpness": there - here["loss"]}
