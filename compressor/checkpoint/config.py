"""config.json and its neighbours: read before transformers reads them, refused where unsafe."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressor.checkpoint.families import FAMILIES, OWN_PREFIX, is_known
from compressor.checkpoint.reading import nearest, read_object, shown
from compressor.errors import InputError

_RUNS_CODE = "it makes the loading library fetch and run code that came with the checkpoint"
_UNSAFE_KEYS = {
    "auto_map": _RUNS_CODE,
    "custom_pipelines": _RUNS_CODE,
    "trust_remote_code": _RUNS_CODE,
    "transformers_weights": "it makes the loading library read another file of weights",
}
# The files that the loading library reads beside config.json.
_READ_TOO = (
    "tokenizer_config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
)
# CVE-2026-4372: such a key may name a kernel on the hub, which is then fetched and run.
_IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation")


def read_config(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """The folder's config.json; it and the configs beside it are searched for unsafe keys.

    Args:
        folder: a checkpoint folder.
        names: the names of the files in it.

    Raises:
        InputError: a config is broken, or holds a key that can run foreign code.
    """
    config = read_object(folder / "config.json")
    refuse_unsafe_keys(config, folder / "config.json")
    for name in _READ_TOO:
        if name in names:
            refuse_unsafe_keys(read_object(folder / name), folder / name)
    return config


def refuse_unsafe_keys(config: dict[str, Any], where: Path) -> None:
    """Refuse keys, at any depth, that make `from_pretrained` run code or read other files.

    Raises:
        InputError: with the key's path and the reason.
    """
    left: list[tuple[str, Any]] = [("", config)]
    while left:
        path, value = left.pop()
        if isinstance(value, list):
            left += [(f"{path}[{index}]", item) for index, item in enumerate(value)]
        if not isinstance(value, dict):
            continue
        for key, item in value.items():
            here = f"{path}.{key}" if path else key
            reason = _UNSAFE_KEYS.get(key, "")
            # transformers 4 left a harmless flag `_attn_implementation_autoset` behind.
            if _IMPLEMENTATION.match(key) and not isinstance(item, bool):
                reason = "it may name a kernel that is fetched from the hub and run"
            if reason:
                raise InputError(
                    f"{where.name} holds the key {shown(here)}: {reason}",
                    hint=f"if you trust it, remove {shown(key)} from {where.name}",
                    where=str(where),
                )
            left.append((here, item))


def model_type_of(config: dict[str, Any], where: Path) -> str:
    """The config's model type, which must be one that can be opened.

    Raises:
        InputError: it is missing, or not in the table of families.
    """
    found = config.get("model_type")
    choices = f"{', '.join(FAMILIES)}, and types that begin with {OWN_PREFIX}"
    if not isinstance(found, str):
        what = "is missing" if found is None else f"is {shown(str(found))}, expected a name"
        raise InputError(f"model_type {what}; known: {choices}", where=str(where))
    if not is_known(found):
        similar = nearest(found, list(FAMILIES))
        raise InputError(
            f"model_type {shown(found)} is not known; known: {choices}",
            hint=f"the nearest is {similar}" if similar else "",
            where=str(where),
        )
    return found


def size_in(config: dict[str, Any], key: str, where: Path) -> int | None:
    """A size that a config gives, or None when it leaves it to the library's default.

    Raises:
        InputError: it is there and not a positive whole number.
    """
    value = config.get(key) if key else None
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise InputError(
            f"{key} is {shown(str(value))}, expected a positive whole number", where=str(where)
        )
    return value


def labels_in(config: dict[str, Any], where: Path) -> tuple[str, ...] | None:
    """The names of the classes in the order of their ids; None when the config names none.

    Raises:
        InputError: id2label is not a map from 0, 1, 2 ... to names.
    """
    names = config.get("id2label")
    if names is None:
        return None
    try:
        by_id = {int(key): str(value) for key, value in names.items()}
        return tuple(by_id[index] for index in range(len(names)))
    except (AttributeError, ValueError, KeyError):
        raise InputError(
            f"id2label is {shown(str(names))}; expected a map from 0, 1, 2 ... to names",
            where=str(where),
        ) from None


def architecture_in(config: dict[str, Any]) -> str | None:
    """The first of the config's architectures, such as "BertForMaskedLM"."""
    found = config.get("architectures")
    return found[0] if isinstance(found, list) and found and isinstance(found[0], str) else None


def quantization_in(config: dict[str, Any], where: Path) -> dict[str, Any] | None:
    """The config's quantization_config, which must be one that reloads correctly.

    Raises:
        InputError: another method than compressed-tensors, a status that loads without scales,
            or sparse bitmasks, which load as random weights.
    """
    found = config.get("quantization_config")
    if found is None:
        return None
    if not isinstance(found, dict):
        raise InputError("quantization_config is not an object", where=str(where))
    method = found.get("quant_method")
    if method != "compressed-tensors":
        raise InputError(
            f"the weights are quantized by {shown(str(method))}; only compressed-tensors is read",
            hint="start from the checkpoint that was quantized",
            where=str(where),
        )
    status = found.get("quantization_status")
    if status != "compressed":
        raise InputError(
            f"quantization_status is {shown(str(status))}, expected compressed: the integers "
            "would be used without their scales",
            where=str(where),
        )
    sparsity = found.get("sparsity_config") or {}
    layout = sparsity.get("format", "dense") if isinstance(sparsity, dict) else sparsity
    if layout != "dense":
        raise InputError(
            f"the weights are stored as {shown(str(layout))}, which the loading library "
            "replaces by random numbers",
            hint="save them as dense tensors with zeros",
            where=str(where),
        )
    return found
