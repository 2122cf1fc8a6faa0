"""What a forward pass shows besides its answer: hidden states, and queries, keys and values.

`output_attentions` is not used: it gives probabilities after the softmax, and with the usual
kernel an empty tuple and one warning. Queries, keys and values are read where the layer computes
them, from its own linear maps, and a model whose maps cannot be told apart is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError
from compressor.model.first_token import only_first_token
from compressor.model.inputs import fed
from compressor.model.layers import is_linear, layer_stacks, only_stack

if TYPE_CHECKING:
    import torch
    from torch import nn

LOGITS, HIDDEN, ATTENTION = "logits", "hidden", "attention"

_NAMES = {
    "queries": ("query", "q_lin", "q_proj", "query_proj", "q"),
    "keys": ("key", "k_lin", "k_proj", "key_proj", "k"),
    "values": ("value", "v_lin", "v_proj", "value_proj", "v"),
}
# One matrix for all three, whose output holds queries, keys and values one after the other.
_FUSED = ("c_attn", "Wqkv")


@dataclass(frozen=True)
class Views:
    """What one forward pass showed; what was not asked for is empty.

    Attributes:
        logits: [batch, classes], or [batch, length, vocabulary]; None for a model without a head.
        hidden: [batch, length, width] each: the embeddings' output, then every layer's.
        queries: [batch, length, heads x head width] of every layer, as its linear map gives them.
        keys: the same of the keys.
        values: the same of the values.
    """

    logits: torch.Tensor | None = None
    hidden: tuple[torch.Tensor, ...] = ()
    queries: tuple[torch.Tensor, ...] = ()
    keys: tuple[torch.Tensor, ...] = ()
    values: tuple[torch.Tensor, ...] = ()

    def rows(self, chosen: slice) -> Views:
        """The same of some rows of the batch."""
        lists = {
            name: tuple(tensor[chosen] for tensor in getattr(self, name))
            for name in ("hidden", "queries", "keys", "values")
        }
        return Views(None if self.logits is None else self.logits[chosen], **lists)


def look(
    model: nn.Module, inputs: Mapping[str, torch.Tensor], shows: frozenset[str], *, bare: nn.Module
) -> Views:
    """Run `model` and keep what `shows` asks for.

    Args:
        model: what is called; perhaps a wrapper that spreads work over processes.
        inputs: a batch; only what the model takes of it is fed.
        shows: any of LOGITS, HIDDEN, ATTENTION.
        bare: the transformers model inside `model`.

    Raises:
        InputError: the model does not show what was asked for.
    """
    extra: dict[str, Any] = {"output_hidden_states": True} if HIDDEN in shows else {}
    inputs = fed(bare, inputs)
    seen: dict[str, list[torch.Tensor]] = {}
    with ExitStack() as stack:
        if ATTENTION in shows:
            stack.enter_context(_listening(bare, seen))
        if shows <= {LOGITS}:
            stack.enter_context(only_first_token(bare))
        embedded = stack.enter_context(_before_noise(bare)) if HIDDEN in shows else []
        output = model(**inputs, **extra)
    hidden = tuple(output.hidden_states or ()) if HIDDEN in shows else ()
    hidden = (*embedded, *hidden[len(embedded) :])
    _refuse_blind(bare, shows, hidden, seen)
    return Views(
        logits=getattr(output, "logits", None),
        hidden=hidden,
        **{name: tuple(tensors) for name, tensors in seen.items()},
    )


def _refuse_blind(
    bare: nn.Module,
    shows: frozenset[str],
    hidden: tuple[torch.Tensor, ...],
    seen: dict[str, list[torch.Tensor]],
) -> None:
    """Refuse lists that are too short: a `zip` over them would give a loss of exactly zero."""
    depth, family = bare.config.num_hidden_layers, bare.config.model_type
    if HIDDEN in shows and len(hidden) != depth + 1:
        raise InputError(
            f"this {family} model showed {len(hidden)} hidden states, expected {depth + 1}: the "
            f"embeddings' and those of {depth} layers"
        )
    for name, tensors in seen.items():
        if len(tensors) != depth:
            raise InputError(
                f"this {family} model showed {name} of {len(tensors)} layers, expected {depth}"
            )


@contextmanager
def _before_noise(bare: nn.Module) -> Iterator[list[torch.Tensor]]:
    """What the first layer gets, where something changes it there; empty elsewhere.

    Some families show the embeddings' output as it is after such a change.
    """
    seen: list[torch.Tensor] = []
    stacks = list(layer_stacks(bare).values())
    if len(stacks) != 1 or not stacks[0][0]._forward_pre_hooks:
        yield seen
        return

    def keep(layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen[:] = [arguments[0] if arguments else named["hidden_states"]]

    handle = stacks[0][0].register_forward_pre_hook(keep, with_kwargs=True, prepend=True)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def _listening(bare: nn.Module, seen: dict[str, list[torch.Tensor]]) -> Iterator[None]:
    """Collect the outputs of every layer's query, key and value maps in `seen`."""
    handles = []

    def keep(names: tuple[str, ...]) -> Any:
        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            parts = output.chunk(len(names), dim=-1)
            for name, part in zip(names, parts, strict=True):
                seen[name].append(part)

        return hook

    seen.update({name: [] for name in _NAMES})
    try:
        for layer in only_stack(bare)[1]:
            for names, module in attention_maps(layer, bare.config.model_type):
                handles.append(module.register_forward_hook(keep(names)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def attention_maps(layer: nn.Module, family: str) -> list[tuple[tuple[str, ...], nn.Module]]:
    """The linear maps of one layer that make its queries, keys and values.

    Returns:
        (what the map gives, the map): three entries, or one for all three.

    Raises:
        InputError: they cannot be told apart.
    """
    found: dict[str, list[nn.Module]] = {}
    for name, module in layer.named_modules():
        if is_linear(module):
            found.setdefault(name.rpartition(".")[2], []).append(module)
    fused = [module for name in _FUSED for module in found.get(name, ())]
    if len(fused) == 1:
        return [(tuple(_NAMES), fused[0])]
    maps = [
        ((part,), module)
        for part, names in _NAMES.items()
        for name in names
        for module in found.get(name, ())
    ]
    if [names[0] for names, _ in maps] != list(_NAMES):
        raise InputError(
            f"cannot tell the query, key and value maps of a {family} layer apart; its linear maps "
            f"are called {', '.join(found)}",
            hint="use a method that compares answers or hidden states",
        )
    return maps
