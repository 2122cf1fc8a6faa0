"""Whole layers removed from a model, with nothing trained.

H. Sajjad, F. Dalvi, N. Durrani, P. Nakov: On the Effect of Dropping Layers of Pre-trained
Transformer Models, 2020/2023, arXiv 2004.03844. With L layers numbered from 0 at the bottom and K
to drop:

    top        {L-K ... L-1}          bottom     {0 ... K-1}
    even       every second layer counted down from L-1      odd   the same from L-2
    symmetric  the K in the middle, floor((L-K)/2) kept below them
    contribution  the K whose output is most like their input, or all above a threshold:

        c_l = mean over rows of cos(h^(l-1), h^l)      h^0 the embeddings' output

with h the first token's state. Ours: h may be the mean over a row's tokens (for sentence encoders)
or every token by itself (for decoders, whose first token sees nothing but itself), taken where the
layers meet: what a model shows as its last hidden state may have passed a norm. The paper drops
from the pre-trained model and fine-tunes afterwards; dropping from a fine-tuned model without
training it again loses far more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.errors import InputError, UsageError
from compressor.methods.contract import Batch
from compressor.methods.features import real_tokens
from compressor.methods.option import option, refuse_idle
from compressor.model.fewer_layers import keeping_layers, stack_of
from compressor.model.inputs import fed
from compressor.model.layers import only_stack
from compressor.model.rewrite import Rewriting
from compressor.model.surgery import keep_layers

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from compressor.checkpoint.folder import Checkpoint
    from compressor.model.load import Loaded

VERBS = ("prune",)
CONTRIBUTION = "contribution"
STRATEGIES = ("top", "bottom", "alternate-even", "alternate-odd", "symmetric", CONTRIBUTION)


@dataclass(frozen=True)
class Options:
    """Which layers go."""

    drop: int = option(0, "number of layers to drop; 0 for half of them", low=0)
    strategy: str = option("top", "which layers to drop", choices=STRATEGIES, source="the paper")
    drop_layers: str = option("", "layers to drop, 0-based and comma-separated, instead of a rule")
    similarity_threshold: float = option(
        1.0,
        "contribution: drop the layers above this similarity instead of a number of them; "
        "1 for none",
        low=-1.0,
        high=1.0,
        source="0.95, 0.925 and 0.9 in the paper",
    )
    pool: str = option(
        "auto",
        "contribution: compare the first token, the mean over a row's tokens, or every token; auto "
        "takes every token of a decoder, the mean of a model without a head, the first of others",
        choices=("auto", "first", "mean", "tokens"),
        source="the paper",
    )
    samples: int = option(512, "contribution: rows to compare on", low=1)

    def __post_init__(self) -> None:
        if self.drop_layers:
            refuse_idle(self, ("drop", "strategy"), "with --drop-layers, which names them")
        compared = (self.similarity_threshold, self.pool, self.samples)
        if compared != (1.0, "auto", 512) and not needs_data(self):
            raise UsageError(
                "--similarity-threshold, --pool and --samples belong to --strategy contribution"
            )
        if self.similarity_threshold < 1:
            refuse_idle(self, ("drop",), "with --similarity-threshold, which decides how many go")


def dropped_layers(layers: int, drop: int, strategy: str) -> list[int]:
    """The 0-based indices to drop, ascending.

    Args:
        layers: L, depth of the model.
        drop: K, number of layers to drop, 1 <= K < L.
        strategy: one of `STRATEGIES`.

    Raises:
        UsageError: the strategy cannot drop so many layers.
    """
    if not 0 < drop < layers:
        raise UsageError(f"--drop {drop}: a model of {layers} layers can lose 1 to {layers - 1}")
    if strategy == "top":
        return list(range(layers - drop, layers))
    if strategy == "bottom":
        return list(range(drop))
    if strategy == "symmetric":
        below = (layers - drop) // 2
        return list(range(below, below + drop))
    # The paper numbers layers from 1, so "even" layers sit at odd 0-based positions.
    first = 1 if strategy == "alternate-even" else 0
    candidates = list(range(first, layers, 2))
    if drop > len(candidates):
        raise UsageError(
            f"--strategy {strategy} can drop at most {len(candidates)} of {layers} layers, "
            f"not {drop}"
        )
    return candidates[-drop:]


def _explicit(text: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise UsageError(f"--drop-layers {text} is not a list of numbers such as 9,10,11") from None


def similarities(
    hidden: Sequence[torch.Tensor], mask: torch.Tensor, pool: str
) -> tuple[torch.Tensor, int]:
    """Cosines of every layer's input and output, summed, and how many were summed.

    Args:
        hidden: [batch, length, width] each: the embeddings' output, then every layer's.
        mask: [batch, length], 1 at real tokens.
        pool: "first", "mean" or "tokens".

    Returns:
        [layers], and the number of rows or tokens.
    """
    import torch
    from torch.nn import functional as F

    states = torch.stack(tuple(hidden)).float()  # [layers + 1, batch, length, width]
    if pool == "first":
        first = mask.argmax(dim=1)  # a decoder may be padded on the left
        states = states[:, torch.arange(len(mask)), first]  # [layers + 1, batch, width]
    elif pool == "mean":
        real = mask[:, :, None].float()
        states = (states * real).sum(2) / real.sum(1)  # [layers + 1, batch, width]
    else:
        states = states[:, mask.bool()]  # [layers + 1, tokens, width]
    cosines = F.cosine_similarity(states[:-1], states[1:], dim=-1)
    return cosines.sum(-1), cosines.shape[-1]


@contextmanager
def _between_layers(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """What enters each layer, [batch, length, width], then what leaves the last one."""
    states: list[torch.Tensor] = []

    def enters(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        states.append(arguments[0] if arguments else named["hidden_states"])

    def leaves(_: nn.Module, arguments: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    stack = only_stack(model)[1]
    handles = [layer.register_forward_pre_hook(enters, with_kwargs=True) for layer in stack]
    handles.append(stack[-1].register_forward_hook(leaves))
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def pool_of(model: PreTrainedModel, task: str | None) -> str:
    """Whose states `--pool auto` compares: "first", "mean" or "tokens"."""
    if any(getattr(module, "is_causal", False) for module in model.modules()):
        return "tokens"
    return "first" if task else "mean"


def contributions(
    model: PreTrainedModel, batches: Iterable[Batch], pool: str, samples: int
) -> list[float]:
    """c_l of every layer over the first `samples` rows.

    Args:
        model: whose layers are compared.
        batches: rows as the model takes them.
        pool: "first", "mean" or "tokens".
        samples: how many rows at most.

    Raises:
        InputError: there are no rows.
    """
    import torch

    device = next(model.parameters()).device
    total, count, rows = 0.0, 0, 0
    for batch in batches:
        inputs = {name: value[: samples - rows].to(device) for name, value in batch.items()}
        with torch.inference_mode(), _between_layers(model) as states:
            model.eval()(**fed(model, inputs))
        summed, compared = similarities(states, real_tokens(inputs, states[-1]), pool)
        total, count, rows = total + summed.cpu(), count + compared, rows + len(inputs["rows"])
        if rows == samples:
            break
    if not count:
        raise InputError("what a layer contributes is measured on rows, and there are none")
    return (total / count).tolist()


def most_alike(similarity: Sequence[float], drop: int, threshold: float) -> list[int]:
    """The 0-based indices of the layers to drop, ascending.

    Args:
        similarity: c_l of every layer.
        drop: how many; looked at where there is no threshold.
        threshold: drop what lies above it; 1 for none.

    Raises:
        UsageError: no layer or all layers lie above the threshold, or `drop` is out of range.
    """
    layers = len(similarity)
    shown = ", ".join(f"{value:.3f}" for value in similarity)
    if threshold < 1:
        gone = [index for index, value in enumerate(similarity) if value > threshold]
        if not 0 < len(gone) < layers:
            raise UsageError(
                f"--similarity-threshold {threshold}: {len(gone)} of {layers} layers lie above it; "
                f"their similarities are {shown}"
            )
        return gone
    if not 0 < drop < layers:
        raise UsageError(f"--drop {drop}: a model of {layers} layers can lose 1 to {layers - 1}")
    ranked = sorted(range(layers), key=lambda index: -similarity[index])
    return sorted(ranked[:drop])


def needs_data(options: Options) -> bool:
    """Whether rows must be given."""
    return options.strategy == CONTRIBUTION and not options.drop_layers


def chosen_layers(depth: int, options: Options) -> list[int]:
    """The 0-based indices to drop, ascending, where no data are asked.

    Raises:
        UsageError: the model does not have them, or would have none left.
    """
    if not options.drop_layers:
        return dropped_layers(depth, options.drop or max(1, depth // 2), options.strategy)
    gone = _explicit(options.drop_layers)
    if gone[0] < 0 or gone[-1] >= depth:
        raise UsageError(f"--drop-layers {gone}: the model has layers 0 to {depth - 1}")
    if len(gone) == depth:
        raise UsageError(f"--drop-layers {gone}: no layer would be left")
    return gone


def rewrite(checkpoint: Checkpoint, options: Options) -> Rewriting | None:
    """What dropping makes of a checkpoint; None where the model must be asked for contributions.

    Raises:
        InputError: there is no stack of layers to drop from.
        UsageError: the options ask for layers that are not there.
    """
    if needs_data(options):
        return None
    depth = stack_of(checkpoint)[1]
    gone = chosen_layers(depth, options)
    kept = [index for index in range(depth) if index not in gone]
    facts = _map(kept, gone)
    return replace(keeping_layers(checkpoint, kept), facts=lambda: facts)


def apply(loaded: Loaded, batches: Iterable[Batch] | None, options: Options) -> dict[str, Any]:
    """Drop what contributes least, in place; the facts hold the map new <- old."""
    depth = len(only_stack(loaded.model)[1])
    pool = options.pool if options.pool != "auto" else pool_of(loaded.model, loaded.task)
    similarity = contributions(loaded.model, batches or (), pool, options.samples)
    drop = options.drop or max(1, depth // 2)
    gone = most_alike(similarity, drop, options.similarity_threshold)
    kept = [index for index in range(depth) if index not in gone]
    keep_layers(loaded.model, kept)
    shown = [round(value, 4) for value in similarity]
    return {**_map(kept, gone), "similarity": shown, "pool": pool}


def _map(kept: list[int], gone: list[int]) -> dict[str, list[int]]:
    """The facts about which layers the new ones were, said aloud."""
    console.note(f"layers 0 to {len(kept) - 1} are the former {', '.join(map(str, kept))}")
    return {"kept_layers": kept, "dropped_layers": gone}
