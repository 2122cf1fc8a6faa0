"""Which processor computes, and a refusal where the one asked for is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


def common_device(wanted: str, *, graphs: bool) -> str:
    """Where models that are compared all run: "cpu" or "cuda".

    Args:
        wanted: "auto", "cpu" or "cuda"; auto takes the GPU where every runtime can use it, for
            times of two devices say nothing about two models.
        graphs: whether ONNX Runtime runs some of them.

    Raises:
        MachineError: "cuda" where torch sees no GPU.
    """
    if wanted == "auto" and graphs:
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            return "cpu"
    return choose_device(wanted).type


def gpu_facts(device: str) -> dict[str, Any] | None:
    """Name and memory of the GPU that computes; None for a processor."""
    if device != "cuda":
        return None
    import torch

    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
    }


def peak_gpu_bytes() -> int | None:
    """The most GPU memory that torch held in this process; None where it held none."""
    import sys

    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated())
