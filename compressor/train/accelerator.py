"""Processes, device and number format of a training, by way of `accelerate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.train.options import TrainingOptions

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(options: TrainingOptions, device: str) -> Accelerator:
    """Processes, device and number format, as `accelerate launch` or one process wants them."""
    from accelerate import Accelerator

    chosen = {"fp32": "no"}.get(options.precision, options.precision)
    if chosen == "auto":
        chosen = "bf16" if _gains_from_bf16(device) else "no"
    return Accelerator(cpu=device == "cpu", mixed_precision=chosen)


def _gains_from_bf16(device: str) -> bool:
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))
