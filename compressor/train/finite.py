"""Stops a training whose numbers are no numbers any more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from compressor.errors import DivergedError


def refuse_not_finite(
    parts: Mapping[str, float], step: int, rate: float, state: Path, *, without_norm: bool
) -> None:
    """Stop at a loss or gradient that is not finite.

    Args:
        parts: the loss, its parts and `gradient_norm` of one step.
        step: which one.
        rate: its learning rate.
        state: where the last finite weights are kept.
        without_norm: whether a gradient may be infinite.

    Raises:
        DivergedError: with what is not finite and what may help.
    """
    wrong = [name for name, value in parts.items() if not math.isfinite(value)]
    if without_norm:
        wrong = [name for name in wrong if name != "gradient_norm"]
    if wrong:
        raise DivergedError(
            f"training diverged at step {step}: {', '.join(wrong)} is not finite "
            f"(learning rate {rate:.2e}); the last finite weights are in {state}",
            hint="lower --lr, lengthen --warmup, or use --precision fp32",
        )
