"""AdamW and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from compressor.train.options import TrainingOptions

if TYPE_CHECKING:
    import torch


def build_optimizer(
    modules: Iterable[torch.nn.Module], options: TrainingOptions
) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves biases and norms alone.

    The fused kernel is about five times faster than the default on a CPU too.
    """
    import torch

    decayed, plain = [], []
    for module in modules:
        for parameter in module.parameters():
            if parameter.requires_grad:
                (decayed if parameter.dim() >= 2 else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, fused=True)


def planned_learning_rate(step: int, total_steps: int, options: TrainingOptions) -> float:
    """The schedule's learning rate of 0-based `step`.

    It rises linearly over the warm-up steps, then falls to zero (`linear`, `cosine`) or stays
    (`constant`). The first step of a warm-up already has a rate above zero.
    """
    warmup_steps = math.ceil(options.warmup * total_steps)
    if step < warmup_steps:
        return options.learning_rate * (step + 1) / (warmup_steps + 1)
    if options.schedule == "constant":
        return options.learning_rate
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if options.schedule == "cosine":
        return options.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    return options.learning_rate * (1 - done)
