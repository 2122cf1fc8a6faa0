"""The last layer of a classifier, computed for the one token that the answer is read from.

The head of a BERT-like classifier looks at the first token alone. In the last layer all other
tokens matter only through their keys and values: their queries, attention and feed-forward
network are computed to be thrown away. Leaving them out saves 10 / 12 of that layer's matrix
products, more than a quarter of those of three layers, and changes the answer and every gradient
by rounding only. `tests/benchmarks/distill_throughput.py` shows what that saves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from compressor.checkpoint.families import base_family
from compressor.model.layers import only_stack

if TYPE_CHECKING:
    import torch
    from torch import nn


@contextmanager
def only_first_token(model: nn.Module) -> Iterator[None]:
    """For the while, let the last layer of `model` give its first token only: [batch, 1, width].

    Does nothing where the head is not known to look at that token alone, or where the layer may
    not be skipped into. Hidden states of the last layer are short meanwhile.
    """
    forward = _FORWARDS.get(base_family(model.config.model_type))
    # A kernel of one's own choosing may lay out masks in its own way.
    usual = model.config._attn_implementation in ("sdpa", "eager")
    chunked = getattr(model.config, "chunk_size_feed_forward", 0)
    decoder = getattr(model.config, "is_decoder", False)
    classifies = type(model).__name__.endswith("ForSequenceClassification")
    if forward is None or not classifies or not usual or chunked or decoder:
        yield
        return
    last = only_stack(model)[1][-1]

    def short(hidden: torch.Tensor, mask: torch.Tensor | None = None, *_: Any, **given: Any) -> Any:
        mask = given.get("attention_mask", mask)
        return forward(last, hidden, None if mask is None else mask[:, :, :1])

    last.forward = short  # shadows the method of the class
    try:
        yield
    finally:
        del last.forward


def _attend(
    attention: nn.Module,
    maps: tuple[nn.Module, nn.Module, nn.Module],
    hidden: torch.Tensor,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """What the first token attends to: [batch, 1, heads x head width].

    Args:
        attention: the module whose kernel, scale and dropout are used.
        maps: its query, key and value maps.
        hidden: [batch, length, width].
        mask: [batch, 1, 1, length], or None where every token is real.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def in_heads(states: torch.Tensor) -> torch.Tensor:
        return states.unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)

    query, key, value = maps
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, _eager)
    attended, _ = attend(
        attention,
        in_heads(query(hidden[:, :1])),  # [batch, heads, 1, head width]
        in_heads(key(hidden)),  # [batch, heads, length, head width]
        in_heads(value(hidden)),
        mask,
        dropout=attention.dropout.p if attention.training else 0.0,
        scaling=attention.scaling,
    )
    return attended.flatten(2)


def _eager(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    dropout: float,
    scaling: float,
) -> tuple[torch.Tensor, None]:
    from torch.nn import functional as F

    scores = query @ key.mT * scaling  # [batch, heads, 1, length]
    scores = scores if mask is None else scores + mask
    weights = F.dropout(scores.softmax(-1), dropout, module.training)
    return (weights @ value).transpose(1, 2), None


def _bert(layer: nn.Module, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    own = layer.attention.self
    attended = _attend(own, (own.query, own.key, own.value), hidden, mask)
    return layer.feed_forward_chunk(layer.attention.output(attended, hidden[:, :1]))


def _distilbert(layer: nn.Module, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    own = layer.attention
    attended = own.out_lin(_attend(own, (own.q_lin, own.k_lin, own.v_lin), hidden, mask))
    attended = layer.sa_layer_norm(attended + hidden[:, :1])
    return layer.output_layer_norm(layer.ffn(attended) + attended)


_FORWARDS: dict[str, Callable[..., torch.Tensor]] = {
    "bert": _bert,
    "camembert": _bert,
    "electra": _bert,
    "roberta": _bert,
    "xlm-roberta": _bert,
    "distilbert": _distilbert,
}
