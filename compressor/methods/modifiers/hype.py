"""Noise on the hidden states between layers while a model is fine-tuned.

H. Yuan, Z. Yuan, C. Tan, F. Huang, S. Huang: HyPe: Better Pre-trained Language Model Fine-tuning
with Hidden Representation Perturbation, ACL 2023, arXiv 2212.08853. Before every layer, the first
included and behind the last none, in training alone:

    h <- h + e      e ~ N(0, s^2) or U(-s, s), fresh for each element, layer and step

The authors' code draws U[0, s) where the paper has U(-s, s); here it is the paper's. The paper
trains without hidden dropout, which overlaps with the noise: `--hype-dropout 0`. Objectives that
compare hidden states see them before noise is added, which happens in fp32. In mixed precision the
first product of a layer would round away a noise far below the number format's own steps, so that
nothing were left to train with: it is refused in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError, UsageError
from compressor.methods.contract import Context
from compressor.methods.option import option
from compressor.model.layers import layer_stacks

if TYPE_CHECKING:
    import torch
    from torch import nn

VERBS = ()
# The distance of two neighbours at 1: of elements around 1 a third would still move.
STEPS = {"bf16": 2.0**-7, "fp16": 2.0**-10}


@dataclass(frozen=True)
class Options:
    """Which noise, how much, and where."""

    hype_noise: str = option(
        "normal", "what it is drawn from; uniform on both sides", choices=("normal", "uniform")
    )
    hype_sigma: float = option(
        1e-5, "its standard deviation, or half width if uniform", low=0.0, source="the paper"
    )
    hype_layers: str = option(
        "all", "before which layers: all, top:K or bottom:K of them", source="the authors' code"
    )
    hype_dropout: float = option(
        -1.0,
        "hidden dropout meanwhile, 0 in the paper; -1 leaves the model's own",
        low=-1.0,
        high=0.99,
    )

    def __post_init__(self) -> None:
        where, _, count = self.hype_layers.partition(":")
        if self.hype_layers != "all" and (where not in ("top", "bottom") or not count.isdigit()):
            raise UsageError(
                f"--hype-layers {self.hype_layers}: expected all, top:K or bottom:K",
                where="--hype-layers",
            )
        if -1 < self.hype_dropout < 0:
            raise UsageError("--hype-dropout: a share from 0 on, or -1", where="--hype-dropout")


def chosen_layers(stack: nn.ModuleList, layers: str) -> list[nn.Module]:
    """The layers that noise comes before; bottom is next to the embeddings.

    Args:
        stack: all layers.
        layers: "all", "top:K" or "bottom:K".

    Raises:
        UsageError: K is 0, or more than there are.
    """
    where, _, count = layers.partition(":")
    every = list(stack)
    number = int(count or len(every))
    if not 0 < number <= len(every):
        raise UsageError(
            f"--hype-layers {layers}: this model has {len(every)} layers", where="--hype-layers"
        )
    return every[-number:] if where == "top" else every[:number]


def on_probabilities(model: nn.Module, name: str) -> bool:
    """Whether a dropout is that of the attention's probabilities, which are no hidden states.

    Args:
        model: a transformers model.
        name: of the dropout in it.
    """
    owner, _, own = name.rpartition(".")
    if own in ("attn_dropout", "attention_dropout"):
        return True
    parts = (part for part, _ in model.get_submodule(owner).named_children())
    return own == "dropout" and any(part.startswith("q") for part in parts)  # a query map


def noise_like(hidden: torch.Tensor, kind: str, sigma: float) -> torch.Tensor:
    """Fresh noise of the shape of `hidden` in fp32, from the global generator."""
    import torch

    made = torch.empty(hidden.shape, device=hidden.device)
    return made.normal_(0, sigma) if kind == "normal" else made.uniform_(-sigma, sigma)


def _stack(model: nn.Module) -> nn.ModuleList:
    stacks = list(layer_stacks(model).values())
    if len(stacks) != 1 or len(stacks[0]) != model.config.num_hidden_layers:
        raise InputError(
            f"hype puts noise between the layers of one stack; a {model.config.model_type} model "
            "has several, or one set of weights for all layers",
            hint="leave --with hype out",
        )
    return stacks[0]


class Modifier:
    """Listens in front of the layers while the model trains."""

    def __init__(self, options: Options, context: Context) -> None:
        step = STEPS.get(context.mixed_precision, 0.0)
        if 0 < options.hype_sigma < step:
            raise UsageError(
                f"--hype-sigma {options.hype_sigma:g} would be rounded away in "
                f"{context.mixed_precision}, whose numbers around 1 are {step:.2g} apart",
                hint=f"--precision fp32, or --hype-sigma {step:.2g} or more",
                where="--hype-sigma",
            )
        self.options = options
        model = getattr(context.model, "module", context.model)  # inside a DDP wrapper
        layers = chosen_layers(_stack(model), options.hype_layers)
        self.handles = [
            layer.register_forward_pre_hook(self._perturb, with_kwargs=True) for layer in layers
        ]
        self.dropped = self._without_dropout(model)

    def _without_dropout(self, model: nn.Module) -> list[tuple[nn.Module, float]]:
        """Set the hidden dropout; returns the modules and what they had."""
        from torch import nn

        found = [
            (module, module.p)
            for name, module in model.named_modules()
            if isinstance(module, nn.Dropout) and not on_probabilities(model, name)
        ]
        if self.options.hype_dropout < 0:
            return []
        for module, _ in found:
            module.p = self.options.hype_dropout
        return found

    def _perturb(
        self, layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not layer.training or not self.options.hype_sigma:
            return None
        hidden = arguments[0] if arguments else named["hidden_states"]  # [batch, length, hidden]
        noise = noise_like(hidden, self.options.hype_noise, self.options.hype_sigma)
        changed = (hidden.float() + noise).to(hidden.dtype)
        if arguments:
            return (changed, *arguments[1:]), named
        return arguments, {**named, "hidden_states": changed}

    def on_finish(self) -> None:
        """Leave nothing behind in the model."""
        for handle in self.handles:
            handle.remove()
        for module, share in self.dropped:
            module.p = share
