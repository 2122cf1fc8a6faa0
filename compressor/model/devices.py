"""Which processor computes, and a refusal where the one asked for is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.errors import MachineError

if TYPE_CHECKING:
    import torch


def choose_device(device: str) -> torch.device:
    """What `--device` means on this machine: "auto" takes the GPU where there is one.

    Args:
        device: "auto", "cpu" or "cuda".

    Raises:
        MachineError: "cuda" where torch sees no GPU.
    """
    import torch

    refuse_absent_gpu(device)
    on_gpu = device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def refuse_absent_gpu(device: str) -> None:
    """Refuse `cuda` on a machine without: what computed on the CPU instead would only be slow.

    Args:
        device: "auto", "cpu" or "cuda".

    Raises:
        MachineError: torch sees no GPU.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        build = "" if torch.version.cuda else ", and this torch is built without CUDA"
        raise MachineError(
            f"--device cuda: torch {torch.__version__} sees no GPU here{build}",
            hint="--device cpu, or install a torch built for the GPU's driver",
            where="--device",
        )
