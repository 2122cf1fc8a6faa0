"""Numbers that multiply what every head and neuron hands on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from compressor.checkpoint.families import base_family
from compressor.checkpoint.pruned import parts_of
from compressor.model.layers import only_stack

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

HEADS, NEURONS = 0, 1


def output_maps(model: PreTrainedModel) -> list[tuple[nn.Module, nn.Module]]:
    """Of every layer the map that joins the heads and the map out of the feed-forward part.

    Their columns are the units: a head, or group of heads, owns a run of neighbouring ones.
    """
    parts = parts_of(base_family(model.config.model_type))
    return [
        (layer.get_submodule(parts.out), layer.get_submodule(parts.down))
        for layer in only_stack(model)[1]
    ]


def multiply_units(
    model: PreTrainedModel, factors: Callable[[int, int], torch.Tensor | None]
) -> list[Any]:
    """Put factors behind every unit, until the handles that are returned are removed.

    Args:
        model: of a family in `compressor.checkpoint.pruned.PARTS`.
        factors: gives the factors of a layer's HEADS or NEURONS, [rows or 1, units], whenever the
            layer runs; None leaves them as they are.
    """

    def hook_of(layer: int, kind: int) -> Callable[..., Any]:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
            found = factors(layer, kind)
            if found is None:
                return None
            spread = found.repeat_interleave(inputs[0].shape[-1] // found.shape[-1], dim=-1)
            return (inputs[0] * spread[:, None],)  # [rows, tokens, units x width of a unit]

        return hook

    return [
        module.register_forward_pre_hook(hook_of(layer, kind))
        for layer, maps in enumerate(output_maps(model))
        for kind, module in enumerate(maps)
    ]
