"""Processes, device and number format of a training, by way of `accelerate`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from compressor.errors import UsageError
from compressor.model.devices import choose_device
from compressor.train.options import TrainingOptions

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator


SCALER = ("scale", "_growth_tracker")  # what a scaler of losses learns while it trains


def make_accelerator(options: TrainingOptions, device: str) -> Accelerator:
    """Processes, device and number format, as `accelerate launch` or one process wants them.

    Raises:
        UsageError: fp16 on a processor, where `accelerate` would compute in fp32 and say nothing.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    chosen = {"fp32": "no"}.get(options.precision, options.precision)
    if chosen == "auto":
        chosen = "bf16" if _gains_from_bf16(device) else "no"
    if chosen == "fp16" and choose_device(device).type == "cpu":
        raise UsageError(
            "--precision fp16 is for GPUs, and this trains on a processor",
            hint="--precision bf16, or --precision fp32",
            where="--precision",
        )
    # The step of a recipe before this one may have had another number format.
    AcceleratorState._reset_state()
    return Accelerator(cpu=device == "cpu", mixed_precision=chosen)


def _gains_from_bf16(device: str) -> bool:
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def scaler_group(scaler: torch.amp.GradScaler | None) -> dict[str, dict[str, torch.Tensor]]:
    """How much fp16's loss is scaled, and for how many steps it was, as a group of a state."""
    import torch

    if scaler is None:
        return {}
    state = scaler.state_dict()
    return {"scaler": {name: torch.tensor(state[name], dtype=torch.float64) for name in SCALER}}


def load_scaler(
    scaler: torch.amp.GradScaler | None, groups: dict[str, dict[str, torch.Tensor]]
) -> None:
    """Take back what `scaler_group` gave."""
    if scaler is not None:
        scale, steps = (groups["scaler"][name].item() for name in SCALER)
        known = scaler.state_dict()
        scaler.load_state_dict({**known, "scale": scale, "_growth_tracker": int(steps)})


@contextmanager
def as_saved(model: torch.nn.Module) -> Iterator[None]:
    """Let a prepared model compute, for the while, as it will when it is loaded again.

    In mixed precision `Accelerator.prepare` puts a forward pass in lower precision in front of the
    class's own, whose results are not those of the saved weights.
    """
    added = unprepare(model)
    try:
        yield
    finally:
        model.__dict__.update(added)


def unprepare(model: torch.nn.Module) -> dict[str, Any]:
    """Take off for good, and return, what `as_saved` takes off for a while."""
    names = [name for name in ("forward", "_original_forward") if name in model.__dict__]
    return {name: model.__dict__.pop(name) for name in names}
