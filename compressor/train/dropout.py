"""Dropout with cheap random bits on a CPU.

PyTorch's CPU kernel draws one random number an element, on one thread, which tells in a small
model's step. Four 16-bit numbers out of one 64-bit draw decide the same thing: an element is
dropped with probability round(65536 p) / 65536, which is off by less than 1e-5.
`tests/benchmarks/distill_throughput.py` shows what that saves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

_LOWEST, _COUNT = -(2**15), 2**16  # of 16-bit integers


def dropped(values: torch.Tensor, p: float) -> torch.Tensor:
    """`values` with each element zeroed with probability `p`, the others divided by 1 - p.

    Args:
        values: [...] on the CPU.
        p: above 0 and below 1.
    """
    import torch

    # From the global generator, which the loop seeds anew for every step.
    draws = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[: values.numel()].view(values.shape)  # [...]
    kept = bits >= _LOWEST + round(p * _COUNT)
    return values * kept.to(values.dtype).mul_(1 / (1 - p))


@contextmanager
def cheap_dropout(model: nn.Module) -> Iterator[None]:
    """For the while, let the dropout layers of a model on a CPU use `dropped`."""
    from torch import nn

    class CheapDropout(nn.Dropout):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            if not self.training or not 1 / _COUNT < self.p < 1 - 1 / _COUNT:
                return super().forward(values)
            return dropped(values, self.p)

    on_cpu = next(model.parameters()).device.type == "cpu"
    layers = [each for each in model.modules() if on_cpu and type(each) is nn.Dropout]
    # The class is changed rather than the layer replaced, so that whoever holds a layer keeps it.
    for layer in layers:
        layer.__class__ = CheapDropout
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = nn.Dropout
