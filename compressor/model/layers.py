"""Where a model keeps its transformer layers and the weight matrices inside them.

No table of families: a stack of layers is a `ModuleList` that holds linear maps and lies in no
other `ModuleList`. That finds `bert.encoder.layer`, `distilbert.transformer.layer`, `model.layers`,
`transformer.h`, and both stacks of an encoder-decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from compressor.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn


def is_linear(module: nn.Module) -> bool:
    """Whether `module` is a linear map: `nn.Linear`, or GPT-2's transposed `Conv1D`."""
    from torch import nn

    return isinstance(module, nn.Linear) or is_turned(module)


def is_turned(module: nn.Module) -> bool:
    """Whether `module` is GPT-2's `Conv1D`, a linear map whose weight is stored [in, out]."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def in_rows(module: nn.Module, stored: torch.Tensor | None = None) -> torch.Tensor:
    """The weight of a linear map as a view [out, in]; GPT-2's `Conv1D` stores [in, out].

    Args:
        module: the linear map.
        stored: another tensor to turn, from the weight's layout or back into it.
    """
    from torch import nn

    stored = module.weight if stored is None else stored
    return stored if isinstance(module, nn.Linear) else stored.T


def input_counts(modules: Mapping[str, nn.Module]) -> dict[str, int]:
    """How many inputs each linear map has."""
    return {name: in_rows(module).shape[1] for name, module in modules.items()}


def layer_stacks(model: nn.Module) -> dict[str, nn.ModuleList]:
    """Every stack of transformer layers by its dotted name, in the model's own order."""
    from torch import nn

    stacks: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in stacks)
        if inside or not isinstance(module, nn.ModuleList):
            continue
        if any(is_linear(part) for part in module.modules()):
            stacks[name] = module
    return stacks


def only_stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The one stack of layers of an encoder or a decoder.

    Raises:
        InputError: the model has several stacks, or shares one layer among all depths (ALBERT).
    """
    stacks = layer_stacks(model)
    family = model.config.model_type
    if len(stacks) != 1:
        raise InputError(
            f"a {family} model has {len(stacks)} stacks of layers ({', '.join(stacks) or 'none'}); "
            "layers can be copied or dropped where there is exactly one",
        )
    name, stack = next(iter(stacks.items()))
    if len(stack) != model.config.num_hidden_layers:
        raise InputError(
            f"a {family} model shares {len(stack)} set of weights among "
            f"{model.config.num_hidden_layers} layers, so there are no layers to copy or drop",
            hint="use a student of another family, or prune and quantize the shared layer",
        )
    return name, stack


def encoder_linears(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear map inside the layer stacks, by full module name.

    These are the matrices that pruning papers count: embeddings, pooler and head are not here.
    """
    found: dict[str, nn.Module] = {}
    for stack_name, stack in layer_stacks(model).items():
        for name, module in stack.named_modules():
            if is_linear(module):
                found[f"{stack_name}.{name}"] = module
    return found


def by_layer(model: nn.Module, modules: dict[str, nn.Module]) -> list[dict[str, nn.Module]]:
    """`modules` of each transformer layer, in the model's own order; layers without any left out.

    Args:
        model: the model that they belong to.
        modules: linear maps by full name, see `encoder_linears`.
    """
    prefixes = [
        f"{name}.{number}."
        for name, stack in layer_stacks(model).items()
        for number in range(len(stack))
    ]
    layers = [
        {name: module for name, module in modules.items() if name.startswith(prefix)}
        for prefix in prefixes
    ]
    return [layer for layer in layers if layer]


def without(names: dict[str, nn.Module], patterns: str) -> dict[str, nn.Module]:
    """Leave out the modules that a comma-separated list of patterns names.

    A pattern is a part of the dotted name (`attention.output`) or a glob (`*.layer.0.*`).

    Raises:
        InputError: a pattern names nothing, which is nearly always a typing mistake, or together
            they name everything.
    """
    kept = dict(names)
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        hit = [name for name in names if pattern in name or fnmatch(name, pattern)]
        if not hit:
            example = next(iter(names), "none")
            raise InputError(
                f"--exclude {pattern} names no linear layer; they are called like {example}"
            )
        for name in hit:
            kept.pop(name, None)
    if names and not kept:
        raise InputError(f"--exclude {patterns} leaves no linear layer to work on")
    return kept
