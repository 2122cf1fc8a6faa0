"""A decoder's graph that goes on from what it has read: keys and values in, keys and values out.

Inputs are `input_ids` and `position_ids` [batch, length], `attention_mask` [batch, past + length],
and for every layer `past_key_values.N.key` and `.value` [batch, heads, past, head size], where
`past` may be 0. Outputs are `logits`, and `present.N.key` and `.value` with past + length entries.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir
import torch

from compressor.checkpoint.families import base_family
from compressor.checkpoint.pruned import widths_in
from compressor.export.session import PAST, POSITIONS

if TYPE_CHECKING:
    from transformers import PretrainedConfig

PRESENT, PARTS = "present", ("key", "value")
LENGTH, PAST_LENGTH = 7, 5  # of the traced example; torch takes equal sizes for one size


def position_ids(mask: torch.Tensor, length: int) -> torch.Tensor:
    """The place of each of the last `length` tokens among the real ones, [batch, length].

    Args:
        mask: [batch, past + length], 1 at real tokens.
        length: tokens of this call.
    """
    return (mask.cumsum(-1) - 1).clamp(min=0)[:, -length:]


def names(prefix: str, layers: int) -> list[str]:
    """`prefix.0.key`, `prefix.0.value`, `prefix.1.key` ..."""
    return [f"{prefix}.{layer}.{part}" for layer in range(layers) for part in PARTS]


class WithCache(torch.nn.Module):
    """A decoder with positional inputs, and its cache as plain tensors."""

    def __init__(self, model: torch.nn.Module, inputs: list[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs = [name for name in inputs if not name.startswith(PAST)]

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits, then the keys and values of every layer."""
        from transformers import DynamicCache

        count = len(self.inputs)
        cache, past = DynamicCache(), tensors[count:]
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        given = dict(zip(self.inputs, tensors[:count], strict=True))
        output = self.model(**given, past_key_values=cache, use_cache=True)
        kept = [(layer.keys, layer.values) for layer in output.past_key_values.layers]
        return (output.logits, *(tensor for pair in kept for tensor in pair))


def cached_example(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Inputs to trace a decoder with, in the order of the graph's."""
    mask = torch.ones(2, PAST_LENGTH + LENGTH, dtype=torch.long)
    example = {"input_ids": torch.zeros(2, LENGTH, dtype=torch.long), "attention_mask": mask}
    if POSITIONS in inspect.signature(model.forward).parameters:
        example[POSITIONS] = position_ids(mask, LENGTH)
    for layer, (heads, width) in enumerate(cache_sizes(model.config)):
        for name in (f"{PAST}.{layer}.{part}" for part in PARTS):
            example[name] = torch.zeros(2, heads, PAST_LENGTH, width)
    return example


def cache_sizes(config: PretrainedConfig) -> list[tuple[int, int]]:
    """Heads of the keys and values, and their width, of every layer."""
    config = config.get_text_config()
    if base_family(config.model_type) != config.model_type:  # layers that were pruned by heads
        widths = widths_in(config.to_dict(), Path("config.json"))
        return [(heads // widths.group, widths.head_width) for heads in widths.heads]
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return [(heads, width)] * config.num_hidden_layers


def dynamic_axes(example: Mapping[str, torch.Tensor]) -> tuple[dict[int, object], ...]:
    """Which axes of each input are free: batch and, whatever it is called, length."""
    free = torch.export.Dim.DYNAMIC
    return tuple(
        {0: free, 2: free} if name.startswith(PAST) else {0: free, 1: free} for name in example
    )


def name_axes(graph: ir.Graph) -> None:
    """Call the free axes batch, length and past, where the exporter has numbers for them."""
    known: dict[str, str] = {}
    for value in graph.inputs:
        axes = [str(axis) if isinstance(axis, int) else axis.value for axis in value.shape]
        known[axes[0]] = "batch"
        if value.name.startswith(PAST):
            known[axes[2]] = "past"
        else:
            known[axes[1]] = "past + length" if value.name == "attention_mask" else "length"

    def renamed(axis: object) -> object:
        text = None if isinstance(axis, int) else axis.value
        if text is None:
            return axis
        return ir.SymbolicDim(re.sub(r"\w+", lambda found: known.get(found[0], found[0]), text))

    values = [*graph.inputs, *(output for node in graph for output in node.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = ir.Shape([renamed(axis) for axis in value.shape])
