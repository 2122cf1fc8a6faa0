"""Making a model really smaller: fewer layers, with a config that says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compressor.errors import InputError
from compressor.model.layers import only_stack

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def keep_layers(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Keep the layers with the 0-based indices `kept`, in that order, and drop the others.

    The config's depth, its per-layer lists (`layer_types`, `no_rope_layers` and the like) and every
    layer's own index (a decoder's cache slot) follow, so that a reload builds exactly this model.

    Raises:
        InputError: an index that the model does not have, or no layer kept.
    """
    from torch import nn

    name, stack = only_stack(model)
    depth = len(stack)
    wrong = [index for index in kept if not 0 <= index < depth]
    if wrong or not kept:
        raise InputError(f"cannot keep layers {list(kept)} of a model with layers 0 to {depth - 1}")
    parent = model.get_submodule(name.rpartition(".")[0]) if "." in name else model
    setattr(parent, name.rpartition(".")[2], nn.ModuleList(stack[index] for index in kept))
    for position, layer in enumerate(getattr(parent, name.rpartition(".")[2])):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
    config = model.config
    for key, value in list(config.to_dict().items()):
        if "layer" in key and isinstance(value, list) and len(value) == depth:
            setattr(config, key, [value[index] for index in kept])
    config.num_hidden_layers = len(kept)
    _refuse_unlike_its_config(model)


def _refuse_unlike_its_config(model: PreTrainedModel) -> None:
    """Refuse a stack that a reload would build with other tensors (ModernBERT's first layer)."""
    import torch

    with torch.device("meta"):
        twin = type(model)(model.config)
    names, wanted = set(model.state_dict()), set(twin.state_dict())
    if names != wanted:
        raise InputError(
            f"a {model.config.model_type} model builds some layers differently by position: "
            f"these layers would need {', '.join(sorted(wanted ^ names)[:3])} to change",
            hint="keep the first layer first",
        )
