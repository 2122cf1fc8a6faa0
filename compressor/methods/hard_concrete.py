"""Gates between 0 and 1 that can be exactly 0 and are learnt by gradient descent.

C. Louizos, M. Welling, D. P. Kingma: Learning Sparse Neural Networks through L0 Regularization,
2018, arXiv 1712.01312. With u uniform on (0, 1), one log alpha per gate, temperature b = 2/3 and
the interval (l, r) = (-0.1, 1.1):

    s = sigmoid((log u - log(1 - u) + log alpha) / b)        z = clamp(l + (r - l) s, 0, 1)
    P(z > 0) = sigmoid(log alpha - b log(-l / r))
"""

from __future__ import annotations

import math
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
