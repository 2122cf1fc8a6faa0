"""Training through the rounding of an int8 model, so that the weights learn to live with it.

B. Jacob and others: Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference, 2018, arXiv 1712.05877; O. Zafrir, G. Boudoukh, P. Izsak, M.
Wasserblat: Q8BERT, 2019, arXiv 1910.06188; learnt ranges after J. Choi and others: PACT, 2018,
arXiv 1805.06085. In every linear map of the layers

    W' = W + (s_w round(W / s_w) - W) without gradient      s_w anew in each step, one per output
    x' = the input on its grid of 256 values; the gradient passes where low <= x <= high

`moving` ranges follow the smallest and largest input of each step, low <- low + 0.01 (min - low);
`learnt` ones are the same times a factor e^f for either end, whose f is trained by the gradient of
the values that are cut off; `dynamic` inputs are rounded token by token, without a range. Rounding
to nearest; padding never enters a range. Weights follow `quantize --method dynamic`, inputs
`--method static`; Q8BERT has one scale a matrix, symmetric ranges that move by 1 / 10,000, and
rounds some outputs again.

Zeros stay zeros: a symmetric grid holds 0 (add `--with lock_sparsity`). The result is an int8
checkpoint in the compressed-tensors format, whose integers and scales an export takes over. Q8BERT
also rounds embeddings; here `export` does that, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError, UsageError
from compressor.methods.contract import Context
from compressor.methods.input_ranges import (
    HALF_RANGE,
    HIGHEST,
    LOWEST,
    MOVING_SHARE,
    SMALLEST_SCALE,
    activation_grid,
)
from compressor.methods.option import option
from compressor.methods.transforms.dynamic import (
    GRANULARITY_HELP,
    PORTABLE_HELP,
    linears_to_quantize,
    quantize_linears,
    quantize_rows,
)
from compressor.model.calibration import refuse_unreached
from compressor.model.quantized import attach, float_linears

if TYPE_CHECKING:
    import torch
    from torch import nn

VERBS = ()
QUANTIZES = True
BOUNDS, FACTORS = "input_bounds", "bound_factors"


@dataclass(frozen=True)
class Options:
    """How inputs are rounded, from when on, and what stays in float."""

    ranges: str = option(
        "moving",
        "ranges of the inputs: moving averages, learnt, or found token by token (dynamic)",
        choices=("moving", "learnt", "dynamic"),
        source="Prune Once for All",
    )
    symmetric: bool = option(False, "center the input ranges on 0 (wastes half of them after GELU)")
    qat_start: float = option(
        0.0, "where rounding begins, as a share of the training steps", low=0.0, high=1.0
    )
    exclude: str = option(
        "", "comma-separated parts of module names to keep in float, besides pooler and head"
    )
    portable: bool = option(True, PORTABLE_HELP)
    granularity: str = option("channel", GRANULARITY_HELP, choices=("channel", "tensor"))

    def __post_init__(self) -> None:
        if self.symmetric and self.ranges == "dynamic":
            raise UsageError(
                "--symmetric is about fixed ranges; --ranges dynamic is symmetric already",
                where="--symmetric",
            )


def straight_through(values: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """`rounded`, with the gradient of `values`."""
    return values + (rounded - values).detach()


def round_between(
    inputs: torch.Tensor, bounds: torch.Tensor, *, symmetric: bool = False
) -> torch.Tensor:
    """Inputs on the grid over `bounds`, with a gradient inside it, and to the bounds outside.

    Args:
        inputs: any shape.
        bounds: low and high, [2].
        symmetric: center the grid on 0.
    """
    scale, zero = activation_grid(*bounds.detach().tolist(), symmetric=symmetric)
    low, high = bounds.float()
    if symmetric:
        high = bounds.float().abs().amax()
        low = -high
    cut = inputs.float().minimum(high).maximum(low)
    rounded = ((cut / scale).round() + zero).clamp(LOWEST, HIGHEST) - zero
    return straight_through(cut, rounded * scale).to(inputs.dtype)


def round_tokens(inputs: torch.Tensor) -> torch.Tensor:
    """Inputs on a symmetric grid of each token's own, [..., width]."""
    scale = inputs.detach().float().abs().amax(-1, keepdim=True) / HALF_RANGE
    scale = scale.clamp(min=SMALLEST_SCALE)
    rounded = (inputs.float() / scale).round().clamp(LOWEST, HIGHEST) * scale
    return straight_through(inputs, rounded.to(inputs.dtype))


class Modifier:
    """Rounds weights and inputs in the forward pass, and turns the model into integers at last."""

    def __init__(self, options: Options, context: Context) -> None:
        import torch
        from torch import nn

        self.options = options
        self.model = getattr(context.model, "module", context.model)  # inside a DDP wrapper
        self.modules = linears_to_quantize(self.model, options.exclude)
        self.start = int(options.qat_start * context.total_steps)
        self.how = {"portable": options.portable, "granularity": options.granularity}
        self.rounding = False
        self.mask: torch.Tensor | None = None
        self.seen: dict[nn.Module, torch.Tensor] = {}  # smallest and largest input of this step
        if options.ranges == "learnt" and _processes() > 1:
            raise InputError(
                "learnt ranges are trained by one process",
                hint="--ranges moving, or one process",
                where="--ranges",
            )
        for module in self.modules.values():
            if options.ranges != "dynamic":
                # On the modules, so that bounds are stored, judged and taken back with weights.
                device = module.weight.device
                module.register_buffer(BOUNDS, torch.zeros(2, device=device))
                if options.ranges == "learnt":
                    factors = nn.Parameter(torch.zeros(2, device=device))
                    module.register_parameter(FACTORS, factors)
            module.forward = partial(self._forward, module)
        self.handle = self.model.register_forward_pre_hook(self._see_mask, with_kwargs=True)

    def _see_mask(self, model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.mask = named.get("attention_mask")

    def _forward(self, module: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional as F

        if self.options.ranges != "dynamic" and module.training:
            self._observe(module, inputs)
        if not self.rounding:
            return F.linear(inputs, module.weight, module.bias)
        values, scale = quantize_rows(module.weight, **self.how)
        weight = straight_through(module.weight, values * scale)
        if self.options.ranges == "dynamic":
            rounded = round_tokens(inputs)
        else:
            rounded = round_between(inputs, self._bounds(module), symmetric=self.options.symmetric)
        return F.linear(rounded, weight, module.bias)

    def _bounds(self, module: nn.Linear) -> torch.Tensor:
        """Low and high, [2]; those of the first step where there was none before."""
        bounds = getattr(module, BOUNDS)
        bounds = bounds if bounds.any() else self.seen.get(module, bounds)
        factors = getattr(module, FACTORS, None)
        return bounds if factors is None else bounds * factors.exp()

    def _observe(self, module: nn.Linear, inputs: torch.Tensor) -> None:
        """Note a module's inputs at real tokens; 0 is always inside."""
        import torch

        seen = inputs.detach()
        if self.mask is not None and self.mask.shape == seen.shape[:-1]:
            seen = seen.masked_fill(~self.mask.bool()[..., None], 0.0)
        found = torch.stack([seen.amin().clamp(max=0), seen.amax().clamp(min=0)]).float()
        if module in self.seen:
            before = self.seen[module]
            found = torch.stack([before[0].minimum(found[0]), before[1].maximum(found[1])])
        self.seen[module] = found

    def before_step(self, step: int) -> None:
        """Begin to round when it is time."""
        self.rounding = step >= self.start
        self.seen.clear()  # of a step that was stopped half-way

    def after_step(self, step: int) -> None:
        """Let the bounds follow what the step saw, in every process alike."""
        import torch

        for module, found in self.seen.items():
            if _processes() > 1:
                torch.distributed.all_reduce(found[:1], torch.distributed.ReduceOp.MIN)
                torch.distributed.all_reduce(found[1:], torch.distributed.ReduceOp.MAX)
            bounds = getattr(module, BOUNDS)
            if bounds.any():
                bounds.lerp_(found, MOVING_SHARE)
            else:
                bounds.copy_(found)
        self.seen.clear()

    def settled(self, step: int) -> bool:
        """Whether the weights after `step` have been trained with rounding."""
        return step >= self.start

    def on_finish(self) -> None:
        """Judge with rounding in any case: that is what is saved."""
        self.rounding = True

    def on_kept(self) -> dict[str, Any]:
        """Put integers in the place of the weights.

        Raises:
            InputError: a map was never fed anything.
        """
        self.handle.remove()
        grids = {}
        if self.options.ranges != "dynamic":
            fed = [name for name, module in self.modules.items() if getattr(module, BOUNDS).any()]
            refuse_unreached(self.modules, fed, ", or --ranges dynamic")
        for name, module in self.modules.items():
            del module.forward  # the class's own shows again
            if self.options.ranges != "dynamic":
                low, high = self._bounds(module).detach().tolist()
                grids[name] = activation_grid(low, high, symmetric=self.options.symmetric)
                for extra in (BOUNDS, FACTORS):
                    if hasattr(module, extra):
                        delattr(module, extra)
        rows, error = quantize_linears(self.modules, **self.how)
        attach(self.model, rows, grids or None, symmetric=self.options.symmetric)
        return {
            "linears_quantized": len(rows),
            "linears_float": float_linears(self.model),
            "weight_error": error,
        }

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Whether it rounds, for an evaluation before the next step; bounds are the model's."""
        import torch

        return {"rounding": torch.tensor(self.rounding)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what `state_dict` returned."""
        self.rounding = bool(state["rounding"])


def _processes() -> int:
    import torch

    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1
