"""Heads and neurons pruned by gates that are trained together with the weights.

M. Xia, Z. Zhong, D. Chen: Structured Pruning Learns Compact and Accurate Models, ACL 2022, arXiv
2204.00408. A gate z of the hard-concrete distribution multiplies what every head and every neuron
hands on, and another the whole attention or feed-forward part of its layer:

    MHA(x) = z_MHA sum over h of z_h head_h(x)          FFN(x) = z_FFN gelu(x U) diag(z) D

The expected share of the layers' multiply-accumulates that is pruned, S, is driven to the target T
by a penalty whose multipliers rise from step to step, while T rises linearly from 0:

    S = 1 - sum of cost P(z_unit > 0) P(z_part > 0) / sum of cost
    l1 (S - T) + l2 (S - T)^2

When the gates close, units are kept in the order of P(z_unit > 0) P(z_part > 0) as long as the
budget lasts; gates are multiplied into the weights, the others' outputs become zero and stay zero
for the rest of the training, and at the end they are physically removed. For the paper's layer
distillation add `--teacher T --objective matched_layers --objective soft_labels`.

Different: the budget counts multiply-accumulates as `fisher` does, and is met exactly, where the
paper counts parameters and meets the target in expectation; every layer keeps one head and one
neuron; one run prunes and fine-tunes; embeddings are trained too. The multipliers take steps of
`gates_lr` as under the paper's Adam, and l1 begins anew when S passes T: in runs of some hundred
steps S would overshoot by far. Left out: gates of the hidden dimensions, which would change the
shape of everything outside the layers too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.errors import InputError, UsageError
from compressor.methods.contract import Context
from compressor.methods.hard_concrete import (
    open_probability,
    sample,
    take_back,
    trained_tensors,
    typical,
)
from compressor.methods.option import option
from compressor.methods.unit_budget import counted_costs
from compressor.methods.unit_masks import HEADS, NEURONS, multiply_units, output_maps
from compressor.methods.units import within_budget
from compressor.model.pruned import remove_units, widths_of

if TYPE_CHECKING:
    import torch
    from torch import nn

VERBS = ("prune",)
CHANGES_SHAPE = True
FAR = 0.05  # of the target, when the gates close
LOWEST, HIGHEST = math.log(0.01), math.log(100)  # of log alpha, as in the authors' code


@dataclass(frozen=True)
class Options:
    """The budget, and when the gates are trained."""

    mac_ratio: float = option(
        0.4,
        "share of the layers' multiply-accumulates to keep; embeddings, pooler and head are not "
        "counted",
        low=0.0,
        high=1.0,
        source="60 % sparsity in the paper",
    )
    sequence_length: int = option(32, "tokens of the sequence that is counted", low=1)
    gates_start: float = option(
        0.05, "where the gates begin to move, as a share of the training steps", low=0.0, high=1.0
    )
    gates_ramp: float = option(
        0.3, "where the target reaches the budget, as such a share", low=0.0, high=1.0
    )
    gates_end: float = option(
        0.6, "where they close; the rest trains what is left", low=0.0, high=1.0
    )
    gates_lr: float = option(
        0.05,
        "learning rate of the gates, and step of the penalty's multipliers; the paper has 0.01 for "
        "runs of many thousands of steps",
        low=0.0,
    )

    def __post_init__(self) -> None:
        if not self.gates_start <= self.gates_ramp <= self.gates_end:
            raise UsageError(
                f"--gates-start {self.gates_start:g}, --gates-ramp {self.gates_ramp:g} and "
                f"--gates-end {self.gates_end:g} are not in this order"
            )


class Modifier:
    """Trains the gates, closes them, and removes what they closed."""

    def __init__(self, options: Options, context: Context) -> None:
        import torch

        if context.mixed_precision == "fp16":
            raise InputError(
                "cofi trains its gates by gradients that fp16 scales without telling them",
                hint="--precision bf16 or fp32",
            )
        self.options = options
        self.model = getattr(context.model, "module", context.model)  # inside a DDP wrapper
        self.widths = widths_of(self.model)
        self.start, self.ramp, self.end = (
            int(share * context.total_steps)
            for share in (options.gates_start, options.gates_ramp, options.gates_end)
        )
        device = next(self.model.parameters()).device
        counted = counted_costs(self.model, options.sequence_length)
        costs = (counted.head, counted.neuron)
        # One long vector: the units of the first layer's heads, its neurons, the next layer's ...
        self.sizes = [
            count
            for heads, neurons in zip(self.widths.heads, self.widths.ffn, strict=True)
            for count in (heads // self.widths.group, neurons)
        ]
        sizes = torch.tensor(self.sizes, device=device)
        self.part = torch.arange(len(sizes), device=device).repeat_interleave(sizes)
        self.costs = torch.tensor(costs, device=device, dtype=torch.float64)[self.part % 2]
        self.budget = int(options.mac_ratio * float(self.costs.sum()))
        least = len(self.widths.heads) * sum(costs)
        if self.budget < least:
            raise counted.too_small(options.mac_ratio, self.widths, least)
        units = torch.full((len(self.part),), HIGHEST, device=device, requires_grad=True)
        parts = torch.full((len(sizes),), HIGHEST, device=device, requires_grad=True)
        self.trained = {"units": units, "parts": parts}
        self.optimizer = torch.optim.Adam(self.trained.values(), lr=options.gates_lr)
        self.multipliers, self.share = torch.zeros(2, device=device), None  # l1, l2; S at closing
        self.kept: torch.Tensor | None = None  # which units stay, once that is decided
        self.active, self.gates = False, None
        self.handles = [
            self.model.register_forward_pre_hook(self._draw),
            *multiply_units(self.model, self._factors),
        ]

    def _draw(self, model: nn.Module, _: tuple[Any, ...]) -> None:
        """The gates of one forward pass, [units]."""
        if not self.active:
            self.gates = None
            return
        draw = sample if model.training else typical
        self.gates = draw(self.trained["units"]) * draw(self.trained["parts"])[self.part]

    def _factors(self, layer: int, kind: int) -> torch.Tensor | None:
        if self.gates is None:
            return None
        return self.gates.split(self.sizes)[2 * layer + kind][None]

    # The schedule ------------------------------------------------------------------------

    def before_step(self, step: int) -> None:
        """Open the gates to training, or close them for good."""
        if self.kept is None and step >= self.end:
            self._close()
        self.active = self.kept is None and step >= self.start
        self.optimizer.zero_grad()

    def after_step(self, step: int) -> None:
        """Move gates and multipliers, or put back the zeros that the optimizer moved."""
        import torch

        if self.kept is not None:
            self._hold()
        elif self.active:
            self.penalty(step).backward()
            if torch.distributed.is_initialized():
                for parameter in self.trained.values():
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= torch.distributed.get_world_size()
            self._raise_multipliers(step)
            self.optimizer.step()
            with torch.no_grad():
                for parameter in self.trained.values():
                    parameter.clamp_(LOWEST, HIGHEST)

    def _raise_multipliers(self, step: int) -> None:
        """Lean harder on the gap's side; what was leant on the other side is forgotten."""
        side = 1.0 if self.pruned_share().item() > self.target(step) else -1.0
        if side * float(self.multipliers[0]) < 0:
            self.multipliers[0] = 0.0
        self.multipliers[0] += side * self.options.gates_lr
        self.multipliers[1] += self.options.gates_lr

    def target(self, step: int) -> float:
        """T: the share of multiply-accumulates that is to be pruned in expectation."""
        risen = (step - self.start + 1) / max(1, self.ramp - self.start)
        return min(1.0, risen) * (1 - self.options.mac_ratio)

    def pruned_share(self) -> torch.Tensor:
        """S: the share that is pruned in expectation."""
        return 1 - (self._open().double() * self.costs).sum() / self.costs.sum()

    def _open(self) -> torch.Tensor:
        """P(z_unit > 0) P(z_part > 0), [units]."""
        parts = open_probability(self.trained["parts"])[self.part]
        return open_probability(self.trained["units"]) * parts

    def penalty(self, step: int) -> torch.Tensor:
        """l1 (S - T) + l2 (S - T)^2."""
        gap = self.pruned_share() - self.target(step)
        first, second = self.multipliers.tolist()
        return first * gap + second * gap.square()

    # Closing -----------------------------------------------------------------------------

    def _close(self) -> None:
        """Decide which units stay, and multiply their gates into the weights."""
        import torch

        with torch.no_grad():
            self.share = self.pruned_share().item()
            self.kept = within_budget(self._open(), self.costs, self.part, self.budget)
            units, parts = self.trained["units"], self.trained["parts"]
            self._scale(typical(units) * typical(parts)[self.part])
            self._hold()
        wanted = 1 - self.options.mac_ratio
        if abs(self.share - wanted) > FAR:
            console.warn(
                f"the gates closed when {self.share:.0%} was pruned in expectation, of "
                f"{wanted:.0%}: part of the choice is arbitrary; train longer, or raise --gates-lr"
            )
        self._let_go()

    def _let_go(self) -> None:
        self.active, self.gates = False, None
        for handle in self.handles:
            handle.remove()

    def _hold(self) -> None:
        self._scale(self.kept.float())

    def _scale(self, factors: torch.Tensor) -> None:
        """Multiply every unit's columns of its output map."""
        import torch

        by_part = factors.split(self.sizes)
        with torch.no_grad():
            for layer, maps in enumerate(output_maps(self.model)):
                for kind, module in enumerate(maps):
                    found = by_part[2 * layer + kind]
                    width = module.weight.shape[1] // len(found)
                    module.weight.mul_(found.repeat_interleave(width).to(module.weight))

    def settled(self, step: int) -> bool:
        """Whether the weights after `step` keep the budget."""
        return step >= self.end

    def on_finish(self) -> None:
        """Close the gates where they were to be trained to the last step."""
        if self.kept is None:
            self._close()

    def on_kept(self) -> dict[str, Any]:
        """Remove what was closed; the answers stay the same."""
        kept = [part.nonzero().flatten().tolist() for part in self.kept.split(self.sizes)]
        remove_units(self.model, kept[HEADS::2], kept[NEURONS::2])
        after = widths_of(self.model)
        return {
            "heads_per_layer": list(after.heads),
            "ffn_per_layer": list(after.ffn),
            "macs_before": int(self.costs.sum()),
            "macs_after": int(self.costs[self.kept].sum()),
            "pruned_in_expectation": self.share,
        }

    # Going on ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Gates, their optimizer's moments, multipliers, and what stays once it is decided."""
        import torch

        state = trained_tensors(self.trained, self.optimizer)
        state |= {"multipliers": self.multipliers, "active": torch.tensor(self.active)}
        if self.kept is not None:
            state |= {"kept": self.kept, "share": torch.tensor(self.share, dtype=torch.float64)}
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what `state_dict` returned."""
        take_back(self.trained, self.optimizer, state)
        self.multipliers.copy_(state["multipliers"])
        self.active = bool(state["active"])
        if "kept" in state:
            self.kept, self.share = state["kept"], float(state["share"])
            self._let_go()
