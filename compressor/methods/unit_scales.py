"""Outputs of cut layers brought back towards the full model's, by least squares.

Layer by layer, on the outputs of the layers that were tuned before; `rescale` finds one factor per
unit that is left, with A the contributions of
the units that are left to `dense(x) + residual` at real tokens, b the same sum in the full model
less what the cut layer gives now, and delta the factor less 1:

    minimise || A^T A delta - A^T b ||^2 + || delta ||^2

solved by LSMR. The factors are multiplied into the columns of the output maps. Ours: `refit` gives
every weight and the bias of an output map a change of its own, D, with X the map's inputs and a
column of ones, G = X^T X and e a hundredth of its mean diagonal,

    (G + e I) D = X^T (b - A 1)

one linear system per map. Zeros of a sparse map stay zeros: each of its outputs has a system of its
own then, of the inputs that it listens to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.checkpoint.families import base_family
from compressor.checkpoint.pruned import Parts, parts_of
from compressor.methods.contract import Batch
from compressor.model.inputs import fed
from compressor.model.layers import only_stack
from compressor.model.masks import living
from compressor.model.pruned import widths_of

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

DAMPING = 1.0
RIDGE = 0.01  # of the mean diagonal, as SparseGPT damps its Hessian
LARGEST_SCALE = 10.0


class _SeenEnoughError(Exception):
    """Stops a forward pass whose first layer has been reached."""


@dataclass
class _State:
    """One batch on its way through the layers.

    Attributes:
        own: input of the cut layer, [rows, tokens, hidden].
        full: input of the full model's layer.
        arguments: what layers take after the hidden states.
        named: what they take by name.
        real: which tokens are real, [rows, tokens].
    """

    own: torch.Tensor
    full: torch.Tensor
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    real: torch.Tensor


def repair(
    model: PreTrainedModel, full: nn.ModuleList, batches: Iterable[Batch], how: str
) -> list[str]:
    """Tune the output maps of a cut model in place.

    The last feed-forward part of a classifier that reads the first token is tuned on that token
    alone; `refit` does the same in the last attention. `rescale` follows the paper: it leaves the
    first layer's attention as it is, and stops where the solution is not finite or a factor leaves
    [-10, 10]; the layers that follow keep their weights.

    Args:
        model: whose units were removed.
        full: its layers before that.
        batches: rows to tune on.
        how: "refit" or "rescale".

    Returns:
        the maps that were tuned, such as "1.attention" and "1.ffn".
    """
    import torch

    parts, width = parts_of(base_family(model.config.model_type)), widths_of(model)
    classifies = type(model).__name__.endswith("ForSequenceClassification")
    layers = only_stack(model)[1]
    tuned: list[str] = []
    with torch.no_grad():
        states = [_start(model, layers[0], batch) for batch in batches]
        for index, layer in enumerate(layers):
            last = index == len(layers) - 1
            for kind, unit in (("attention", width.group * width.head_width), ("ffn", 1)):
                first_only = last and classifies and parts.reads_first_token
                if how == "refit":
                    refit(layer, full[index], parts, kind, states, first_only=first_only)
                elif kind == "attention" and index == 0:
                    continue
                else:
                    first_only = first_only and kind == "ffn"
                    equations = _equations(layer, full[index], parts, kind, states, first_only)
                    scales = solve_scales(*by_unit(*equations, unit))
                    if scales is None:
                        return tuned
                    weight = _output_map(layer, parts, kind).weight
                    weight.mul_(scales.to(weight).repeat_interleave(unit))
                tuned.append(f"{index}.{kind}")
            for state in () if last else states:
                state.own = _run(layer, parts, state, state.own)["output"]
                state.full = _run(full[index], parts, state, state.full)["output"]
    return tuned


def _output_map(layer: nn.Module, parts: Parts, kind: str) -> nn.Module:
    return layer.get_submodule(parts.out if kind == "attention" else parts.down)


def _start(model: PreTrainedModel, layer: nn.Module, batch: Batch) -> _State:
    """What the first layer is called with; no layer has run yet, so both models share it."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def stop(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append((arguments, named))
        raise _SeenEnoughError

    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in fed(model, batch).items()}
    handle = layer.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(**inputs)
    except _SeenEnoughError:
        (hidden, *others), named = seen[0]
    finally:
        handle.remove()
    # A cache would grow with every call.
    named = {name: None if name == "past_key_values" else value for name, value in named.items()}
    return _State(hidden, hidden, tuple(others), named, inputs["attention_mask"].bool())


def _run(
    layer: nn.Module, parts: Parts, state: _State, hidden: torch.Tensor
) -> dict[str, torch.Tensor]:
    """One layer's output and what enters the modules that matter here."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen[name] = inputs[0]

        return hook

    watched = {
        "attention": parts.out,
        "ffn": parts.down,
        "attention_sum": parts.attention_sum,
        "ffn_sum": parts.ffn_sum,
    }
    handles = [
        layer.get_submodule(path).register_forward_pre_hook(keep(name))
        for name, path in watched.items()
        if path
    ]
    try:
        output = layer(hidden, *state.arguments, **state.named)
    finally:
        for handle in handles:
            handle.remove()
    seen["output"] = output[0] if isinstance(output, tuple) else output
    seen.setdefault("ffn_sum", seen["output"])
    return seen


def _inputs_and_gap(
    layer: nn.Module,
    full: nn.Module,
    parts: Parts,
    kind: str,
    state: _State,
    first_only: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What enters a layer's output map, and what its output lacks, [tokens, width] each."""
    own = _run(layer, parts, state, state.own)
    wanted = _run(full, parts, state, state.full)
    gap = wanted[f"{kind}_sum"] - own[f"{kind}_sum"]
    if first_only:
        return own[kind][:, 0], gap[:, 0]
    return own[kind][state.real], gap[state.real]


def _equations(
    layer: nn.Module,
    full: nn.Module,
    parts: Parts,
    kind: str,
    states: list[_State],
    first_only: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A^T A and A^T b of the single columns of a layer's output map, over all batches."""
    weight = _output_map(layer, parts, kind).weight
    gram, right = 0.0, 0.0
    for state in states:
        inputs, gap = _inputs_and_gap(layer, full, parts, kind, state, first_only)
        gram = gram + (inputs.T @ inputs).double()
        right = right + (inputs * (gap @ weight)).sum(0).double()
    return gram * (weight.T @ weight).double(), right


def refit(
    layer: nn.Module,
    full: nn.Module,
    parts: Parts,
    kind: str,
    states: list[_State],
    *,
    first_only: bool,
) -> None:
    """Change a layer's output map, in place, to what brings its output closest to the full one's.

    Args:
        layer: of the cut model.
        full: the same layer of the full model.
        parts: what the family's parts are called.
        kind: "attention" or "ffn".
        states: all batches, as they enter the layer.
        first_only: look at each row's first token alone.
    """
    import torch

    output = _output_map(layer, parts, kind)
    gram, right = 0.0, 0.0
    for state in states:
        inputs, gap = _inputs_and_gap(layer, full, parts, kind, state, first_only)
        if output.bias is not None:
            inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)
        gram = gram + (inputs.T @ inputs).double()  # [inputs (+ 1), inputs (+ 1)]
        right = right + (inputs.T @ gap).double()  # [inputs (+ 1), hidden]
    ridge = RIDGE * gram.diagonal().mean().clamp(min=1e-12)
    change = _change(gram + ridge * torch.eye(len(gram)).to(gram), right, living(output.weight))
    change = change.to(output.weight)
    output.weight += change[: output.weight.shape[1]].T
    if output.bias is not None:
        output.bias += change[-1]


def _change(gram: torch.Tensor, right: torch.Tensor, alive: torch.Tensor | None) -> torch.Tensor:
    """Solve gram D = right for D [inputs (+ 1), hidden], of what is alive alone.

    Args:
        gram: [inputs (+ 1), inputs (+ 1)], the last one the bias where there is one.
        right: [inputs (+ 1), hidden].
        alive: [hidden, inputs], True where the map's weight may change; None for everywhere.
    """
    import torch

    if alive is None:
        return torch.linalg.solve(gram, right)
    change = torch.zeros_like(right)
    bias = range(alive.shape[1], len(gram))
    for row, listens in enumerate(alive):
        own = torch.tensor([*listens.nonzero().flatten().tolist(), *bias], device=gram.device)
        change[own, row] = torch.linalg.solve(gram[own][:, own], right[own, row])
    return change


def by_unit(
    gram: torch.Tensor, right: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Equations of single columns as those of units of `width` neighbouring columns."""
    units = len(right) // width
    gram = gram.view(units, width, units, width).sum((1, 3))
    return gram, right.view(units, width).sum(1)


def solve_scales(gram: torch.Tensor, right: torch.Tensor) -> torch.Tensor | None:
    """The factors of the units, [units], or None where they cannot be trusted.

    Args:
        gram: A^T A, [units, units].
        right: A^T b, [units].
    """
    import torch
    from scipy.sparse.linalg import lsmr

    delta = lsmr(gram.cpu().numpy(), right.cpu().numpy(), damp=DAMPING)[0]
    scales = 1.0 + torch.from_numpy(delta)
    return scales if bool((scales.abs() <= LARGEST_SCALE).all()) else None
