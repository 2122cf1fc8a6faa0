"""Attention as the one ONNX operator it is, for every family that asks Transformers for it.

Traced plainly, attention becomes some twenty nodes a layer (reshapes, transposes, two products, a
scale, a mask, a softmax) and the padding mask another twenty. Transformers lets a model look its
attention up by name, so the export registers one under which a layer is traced to a single
`Attention` node (ONNX opset 23) and the mask to a handful. Families that do not look it up
(MPNet, DeBERTa) are traced as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

NAME = "compressor_onnx"
MINIMUM_OPSET = 23  # the first with Attention


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The attention that `use_attention_node` gives to a model while it is traced.

    Args:
        module: the layer that asks; unused.
        query: [batch, heads, queries, head size].
        key: [batch, key heads, keys, head size].
        value: [batch, key heads, keys, head size].
        attention_mask: added to the scores, or None.
        scaling: factor of the scores; 1 / sqrt(head size) when absent.
        position_bias: T5's learned bias, added to the scores.

    Returns:
        The context [batch, queries, heads, head size], and None for the scores.
    """
    heads, head_size = query.shape[1], query.shape[-1]
    bias = attention_mask
    if position_bias is not None:
        bias = position_bias if attention_mask is None else position_bias + attention_mask
        # ONNX Runtime broadcasts the mask over heads and batch only when the axis has length 1.
        bias = bias.expand(query.shape[0], heads, query.shape[2], key.shape[2])
    context = torch.onnx.ops.attention(
        query.transpose(1, 2).flatten(2),  # [batch, queries, heads * head size]
        key.transpose(1, 2).flatten(2),
        value.transpose(1, 2).flatten(2),
        bias,
        q_num_heads=heads,
        kv_num_heads=key.shape[1],
        scale=float(head_size**-0.5 if scaling is None else scaling),
    )[0]
    return context.unflatten(2, (heads, -1)), None


def padding_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    *,
    mask_function: Callable | None = None,
    attention_mask: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> torch.Tensor | None:
    """The additive mask [batch, 1, queries, keys] of Transformers' eager attention, in few nodes.

    A mask that only hides padding is a row of `attention_mask`; Transformers builds it by indexing
    with two grids. Causal and sliding masks keep that general way.
    """
    from transformers.masking_utils import bidirectional_mask_function, eager_mask

    if mask_function is not bidirectional_mask_function:
        return eager_mask(
            batch_size,
            q_length,
            kv_length,
            q_offset,
            kv_offset,
            mask_function=mask_function,
            attention_mask=attention_mask,
            dtype=dtype,
            **options,
        )
    if attention_mask is None:
        return None
    hidden = torch.zeros(attention_mask.shape, dtype=dtype)
    hidden = hidden.masked_fill(~attention_mask.bool(), torch.finfo(dtype).min)
    return hidden[:, None, None, :].expand(batch_size, 1, q_length, kv_length)


@contextlib.contextmanager
def use_attention_node(model: torch.nn.Module, opset: int) -> Iterator[None]:
    """Trace `model` with `attention` inside the block; below opset 23 it is left as it is."""
    from transformers import AttentionInterface, AttentionMaskInterface

    if opset < MINIMUM_OPSET or not hasattr(model, "set_attn_implementation"):
        yield
        return
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, padding_mask)
    original = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(original)
