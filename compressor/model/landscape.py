"""The loss around a model's weights: slices of its surface, and numbers for how sharp it is.

H. Li, Z. Xu, G. Taylor, C. Studer, T. Goldstein: Visualizing the Loss Landscape of Neural Nets,
2018, arXiv 1712.09913. A random direction d is made comparable between models by giving each filter
of it the size of the model's own:

    d_j <- d_j ||w_j|| / (||d_j|| + 1e-10)        j a row of a matrix; 0 for biases and norms

and the loss is drawn at w + a d, or at w + a d + b e. In numbers, with g the gradient at w:

    worst      L(w + rho g / ||g||) - L(w), and the same with T = |w|: rho T^2 g / ||T g||
    average    mean over normalised directions u of L(w + gamma u) - L(w)
    curvature  the largest eigenvalue of the Hessian by size (power iteration), and its trace,
               the mean of z^T H z over z = +-1 (Hutchinson)

`adaptive` figures do not change when a network's scale moves from one layer to the next; compare
different models by those. Zeros of sparse matrices stay zeros: the landscape is that of the sparse
model. Weights are put back from a copy after each look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from compressor.model.layers import is_turned
from compressor.model.masks import alive

if TYPE_CHECKING:
    import torch
    from torch import nn

    # What adds up to the loss, a batch's share after the other, so that one alone has a graph.
    Loss = Callable[[], Iterable[torch.Tensor]]
    Direction = dict[str, torch.Tensor]

TINY = 1e-10


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters by name, shared ones once."""
    return dict(model.named_parameters())


def normalised(weight: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """The direction with each row as long as the weight's; zero for a vector.

    Args:
        weight: [rows, ...], or a vector; axes of length 1 in front say nothing.
        direction: of the same shape.
    """
    import torch

    shape = weight.shape
    while weight.dim() > 1 and len(weight) == 1:
        weight, direction = weight[0], direction[0]
    if weight.dim() < 2:
        return torch.zeros_like(weight).view(shape)
    sizes = weight.flatten(1).norm(dim=1)  # [rows]
    own = direction.flatten(1).norm(dim=1) + TINY
    return (direction * (sizes / own).view(-1, *[1] * (weight.dim() - 1))).view(shape)


def random_direction(model: nn.Module, seed: int) -> Direction:
    """A Gaussian direction, filter by filter as long as the model's weights."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    weights = {name: weight.detach() for name, weight in weights_of(model).items()}
    drawn = [torch.randn(w.shape, generator=draw).to(w) for w in weights.values()]
    moving = alive(list(weights.values()), drawn)
    turned = {f"{name}.weight" for name, module in model.named_modules() if is_turned(module)}
    return {
        name: normalised(w.T, d.T).T if name in turned else normalised(w, d)
        for (name, w), d in zip(weights.items(), moving, strict=True)
    }


@contextmanager
def displaced(model: nn.Module) -> Iterator[Callable[[Sequence[tuple[float, Direction]]], None]]:
    """Move the weights away from where they are, as often as wanted; they come back to the bit.

    Yields:
        A function that sets them to w + the sum of amount times direction.
    """
    import torch

    weights = weights_of(model)
    before = {name: weight.detach().clone() for name, weight in weights.items()}

    def move(steps: Sequence[tuple[float, Direction]]) -> None:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])
                for amount, direction in steps:
                    weight.add_(direction[name], alpha=amount)

    try:
        yield move
    finally:
        move(())


def _value(loss: Loss) -> float:
    return sum(float(share) for share in loss())


def line(
    model: nn.Module, loss: Loss, direction: Direction, places: Sequence[float]
) -> list[float]:
    """The loss at w + a d for every a of `places`."""
    import torch

    found = []
    with displaced(model) as move, torch.no_grad():
        for place in places:
            move([(place, direction)])
            found.append(_value(loss))
    return found


def surface(
    model: nn.Module, loss: Loss, directions: tuple[Direction, Direction], places: Sequence[float]
) -> Iterator[list[float]]:
    """The loss at w + a d + b e: a list over `places` of a for every b, one after the other."""
    import torch

    first, second = directions
    with displaced(model) as move, torch.no_grad():
        for up in places:
            row = []
            for across in places:
                move([(across, first), (up, second)])
                row.append(_value(loss))
            yield row


def _gradient(model: nn.Module, loss: Loss) -> tuple[float, list[torch.Tensor]]:
    """The loss and its gradient."""
    import torch

    parameters = list(weights_of(model).values())
    value, sums = 0.0, [torch.zeros_like(p) for p in parameters]
    for share in loss():
        value += float(share.detach())
        _add(sums, torch.autograd.grad(share, parameters, allow_unused=True))
    return value, sums


def _add(sums: list[torch.Tensor], found: Sequence[torch.Tensor | None]) -> None:
    for total, one in zip(sums, found, strict=True):
        if one is not None:
            total.add_(one.detach())


def sharpness(
    model: nn.Module, loss: Loss, *, rho: float, gamma: float, seeds: Sequence[int]
) -> tuple[float, dict[str, float]]:
    """The loss, and by how much it rises around the weights.

    Args:
        model: the model.
        loss: of all rows.
        rho: length of the step along the gradient.
        gamma: length of the random steps, in lengths of the weights.
        seeds: of their directions.

    Returns:
        (loss, rises): `worst`, `adaptive_worst` and `average`, as above.
    """
    here, gradients = _gradient(model, loss)

    def rise(direction: Direction, length: float) -> float:
        return line(model, loss, direction, [length])[0] - here

    around = [rise(random_direction(model, seed), gamma) for seed in seeds]
    return here, {
        "worst": rise(_uphill(model, gradients, adaptive=False), rho),
        "adaptive_worst": rise(_uphill(model, gradients, adaptive=True), rho),
        "average": sum(around) / len(around),
    }


def _uphill(model: nn.Module, gradients: Sequence[torch.Tensor], *, adaptive: bool) -> Direction:
    """T^2 g / ||T g||, where T is |w|, or 1."""
    import torch

    weights = weights_of(model)
    scales = [w.detach().abs() if adaptive else torch.ones_like(w) for w in weights.values()]
    steps = alive(list(weights.values()), [s * g for s, g in zip(scales, gradients, strict=True)])
    norm = torch.stack([step.norm() for step in steps]).norm() + TINY
    return {
        name: scale * step / norm for name, scale, step in zip(weights, scales, steps, strict=True)
    }


def _hessian_times(
    model: nn.Module, loss: Loss, vector: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    import torch

    parameters = list(weights_of(model).values())
    sums = [torch.zeros_like(p) for p in parameters]
    for share in loss():
        found = torch.autograd.grad(share, parameters, create_graph=True, allow_unused=True)
        slope = sum((g * v).sum() for g, v in zip(found, vector, strict=True) if g is not None)
        _add(sums, torch.autograd.grad(slope, parameters, allow_unused=True))
    return alive(parameters, sums)


def largest_eigenvalue(model: nn.Module, loss: Loss, *, steps: int, seed: int) -> float:
    """The eigenvalue of the Hessian that is largest by size; it may be below zero at a saddle.

    Args:
        model: with attention whose second derivative exists ("eager").
        loss: of all rows.
        steps: of the power iteration.
        seed: of its beginning.
    """
    import torch

    draw = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(p.shape, generator=draw).to(p) for p in weights_of(model).values()]
    vector, found = alive(list(weights_of(model).values()), drawn), 0.0
    for _ in range(steps):
        norm = torch.stack([v.norm() for v in vector]).norm() + TINY
        vector = [v / norm for v in vector]
        product = _hessian_times(model, loss, vector)
        found = float(sum((h * v).sum() for h, v in zip(product, vector, strict=True)))
        vector = product
    return found


def trace(model: nn.Module, loss: Loss, seeds: Sequence[int]) -> float:
    """The trace of the Hessian over the weights that may move: the mean of z^T H z, z = +-1."""
    import torch

    sums = []
    for seed in seeds:
        draw = torch.Generator().manual_seed(seed)
        drawn = [
            (torch.randint(0, 2, p.shape, generator=draw) * 2 - 1).to(p)
            for p in weights_of(model).values()
        ]
        signs = alive(list(weights_of(model).values()), drawn)
        product = _hessian_times(model, loss, signs)
        sums.append(float(sum((h * z).sum() for h, z in zip(product, signs, strict=True))))
    return sum(sums) / len(sums)


def difference(model: nn.Module, other: Mapping[str, torch.Tensor]) -> Direction | None:
    """The direction that leads to another model's weights; None where their shapes differ."""
    weights = weights_of(model)
    same = set(weights) == set(other) and all(
        weight.shape == other[name].shape for name, weight in weights.items()
    )
    if not same:
        return None
    return {name: other[name].to(weight) - weight.detach() for name, weight in weights.items()}
