"""Attention by plain matrix products while a model trains in bf16 on a processor.

Torch's fused kernel is quick forward and slow back there, and its way around dropout is slower than
plain products too: `tests/benchmarks/attention.py` shows what they save. The products keep the
scores of every pair of tokens for the way back, which long rows have no room for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from compressor.model.inputs import sides_of

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

LONGEST = 256  # tokens


@contextmanager
def plain_attention(
    model: PreTrainedModel, accelerator: Accelerator, max_length: int
) -> Iterator[None]:
    """For the while, let `model` attend by plain products where that trains faster.

    Args:
        model: with the kind of attention that it was loaded with.
        accelerator: tells where and in which number format it trains.
        max_length: of a text in tokens.
    """
    kind = model.config._attn_implementation
    slow = accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16"
    if not slow or kind != "sdpa" or _tokens(model, max_length) > LONGEST:
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(kind)


def _tokens(model: PreTrainedModel, max_length: int) -> int:
    """Of the longest row: an image has one for each patch."""
    if not hasattr(model.config, "patch_size"):
        return max_length
    sides = zip(sides_of(model.config.image_size), sides_of(model.config.patch_size), strict=True)
    return math.prod(image // patch for image, patch in sides) + 1
