"""A checkpoint with fewer layers, by the names of its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from compressor.checkpoint.families import FAMILIES, base_family, split_layer
from compressor.errors import InputError
from compressor.model.rewrite import Rewriting

if TYPE_CHECKING:
    from compressor.checkpoint.folder import Checkpoint


def stack_of(checkpoint: Checkpoint) -> tuple[str, int]:
    """Name and depth of the one stack of layers.

    Raises:
        InputError: there are several, or one layer serves at all depths (ALBERT).
    """
    family = checkpoint.model_type
    known = FAMILIES.get(base_family(family))
    if known is not None and known.stored_layers:
        raise InputError(
            f"a {family} model shares its layers, so there are none to drop",
            hint="use a student of another family, or prune and quantize the shared layer",
            where=str(checkpoint.path),
        )
    places = [place for place in map(split_layer, checkpoint.tensors) if place]
    stacks = sorted({stack for stack, _, _ in places})
    if len(stacks) != 1:
        raise InputError(
            f"a {family} model has {len(stacks)} stacks of layers ({', '.join(stacks) or 'none'}); "
            "layers can be dropped where there is exactly one",
            where=str(checkpoint.path),
        )
    return stacks[0], 1 + max(index for _, index, _ in places)


def keeping_layers(checkpoint: Checkpoint, kept: Sequence[int]) -> Rewriting:
    """The checkpoint with the layers `kept` alone, 0-based, which become the layers 0, 1, ...

    Raises:
        InputError: see `stack_of`; or a layer would lack a tensor that its new place needs.
    """
    stack, depth = stack_of(checkpoint)
    names: dict[str, str] = {}
    inner: dict[int, set[str]] = {index: set() for index in range(depth)}
    for name in checkpoint.tensors:
        place = split_layer(name)
        if place is None:
            names[name] = name
            continue
        _, index, rest = place
        inner[index].add(rest)
        if index in kept:
            names[name] = f"{stack}.{kept.index(index)}.{rest}"
    for new, old in enumerate(kept):
        if inner[new] != inner[old]:
            raise InputError(
                f"a {checkpoint.model_type} model builds some layers differently by position: "
                f"layer {old} cannot become layer {new}",
                hint="keep the first layer first",
                where=str(checkpoint.path),
            )
    return Rewriting(_shorter(checkpoint, kept, depth), names)


def _shorter(checkpoint: Checkpoint, kept: Sequence[int], depth: int) -> dict[str, Any]:
    """The config of a model with the layers `kept`, its lists by layer (`layer_types`) included."""
    family = FAMILIES.get(base_family(checkpoint.model_type))
    config = dict(checkpoint.config)
    for key, value in config.items():
        if isinstance(value, list) and len(value) == depth and "layer" in key:
            config[key] = [value[index] for index in kept]
    return config | {family.layers if family else "num_hidden_layers": len(kept)}
