"""What the numbers were measured on: processor, threads, memory, load and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

# Instructions that decide whether int8 is fast, as Linux spells them (x86, then Arm).
INT8_FEATURES = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx_vnni_int8",
    "avx512_bf16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
    "sve2",
    "svei8mm",
)

LIBRARIES = (
    "compressor",
    "torch",
    "transformers",
    "onnxruntime",
    "onnx",
    "compressed-tensors",
    "safetensors",
    "tokenizers",
    "numpy",
)


def machine_facts(threads: int, pinned: Sequence[int] = ()) -> dict[str, object]:
    """Facts about this machine before a measurement; `add_load_after` completes them.

    Args:
        threads: how many threads each measured model may use.
        pinned: the cores that it is held to.

    Returns:
        cpu, cores (logical, and `cores_allowed` that this process may run on), threads,
        pinned_cores, governor (how the system chooses the clock rate, None where it does not say),
        features (int8-relevant instructions), memory_bytes, load_average (`before` and `after`: 1,
        5 and 15 minutes, or None where the system has none), os, architecture, python, versions.
    """
    cores = os.cpu_count() or 1
    name, flags = _processor(Path("/proc/cpuinfo"))
    return {
        "cpu": name or platform.processor() or platform.machine(),
        "cores": cores,
        "cores_allowed": _cores_allowed(cores),
        "threads": threads,
        "pinned_cores": list(pinned),
        "governor": _governor(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "features": [feature for feature in INT8_FEATURES if feature in flags],
        "memory_bytes": _memory_bytes(),
        "load_average": {"before": _load_average(), "after": None},
        "os": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "versions": library_versions(LIBRARIES),
    }


def add_load_after(facts: dict[str, object]) -> dict[str, object]:
    """The same facts with the load average of this moment as `after`."""
    load = facts["load_average"]
    before = load["before"] if isinstance(load, dict) else None
    return {**facts, "load_average": {"before": before, "after": _load_average()}}


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Installed versions by package name, read from their metadata: nothing is imported."""
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _processor(cpuinfo: Path) -> tuple[str, frozenset[str]]:
    """Name and instruction flags of the first processor; empty where /proc has no such file."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", frozenset()
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        values.setdefault(key.strip().lower(), value.strip())
    # Arm says "Features" and often gives no model name.
    flags = values.get("flags") or values.get("features") or ""
    return values.get("model name") or values.get("hardware") or "", frozenset(flags.split())


def _governor(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _cores_allowed(cores: int) -> int:
    # Containers and taskset restrict a process to some cores; only Linux says which.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return cores


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _load_average() -> list[float] | None:
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):
        return None
