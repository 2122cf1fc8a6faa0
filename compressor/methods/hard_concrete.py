"""Gates between 0 and 1 that can be exactly 0 and are learnt by gradient descent.

C. Louizos, M. Welling, D. P. Kingma: Learning Sparse Neural Networks through L0 Regularization,
2018, arXiv 1712.01312. With u uniform on (0, 1), one log alpha per gate, temperature b = 2/3 and
the interval (l, r) = (-0.1, 1.1):

    s = sigmoid((log u - log(1 - u) + log alpha) / b)        z = clamp(l + (r - l) s, 0, 1)
    P(z > 0) = sigmoid(log alpha - b log(-l / r))
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1
SMALLEST_UNIFORM = 1e-6  # the logarithms stay finite


def sample(log_alpha: torch.Tensor) -> torch.Tensor:
    """Gates z drawn with torch's own generator; the same shape, with gradients."""
    import torch

    u = torch.rand_like(log_alpha).clamp(SMALLEST_UNIFORM, 1 - SMALLEST_UNIFORM)
    s = ((u.log() - (1 - u).log() + log_alpha) / TEMPERATURE).sigmoid()
    return (LOW + (HIGH - LOW) * s).clamp(0, 1)


def typical(log_alpha: torch.Tensor) -> torch.Tensor:
    """Gates without noise, clamp(l + (r - l) sigmoid(log alpha), 0, 1), for evaluation."""
    return (LOW + (HIGH - LOW) * log_alpha.sigmoid()).clamp(0, 1)


def open_probability(log_alpha: torch.Tensor) -> torch.Tensor:
    """P(z > 0)."""
    return (log_alpha - TEMPERATURE * math.log(-LOW / HIGH)).sigmoid()


def trained_tensors(
    trained: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """What a resumed run needs of the gates and of the optimizer that trains them, by name."""
    state = {name: value.detach() for name, value in trained.items()}
    for name, parameter in trained.items():
        moments = optimizer.state.get(parameter, {})
        state |= {f"{name}.{key}": value for key, value in moments.items()}
    return state


def take_back(
    trained: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, torch.Tensor],
) -> None:
    """Take back what `trained_tensors` returned.

    Args:
        trained: the gates, in the optimizer's order.
        optimizer: with one group.
        state: may hold more.
    """
    import torch

    found = {}
    for number, (name, parameter) in enumerate(trained.items()):
        with torch.no_grad():
            parameter.copy_(state[name])
        prefix = f"{name}."
        moments = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        found |= {number: moments} if moments else {}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": found, "param_groups": groups})
