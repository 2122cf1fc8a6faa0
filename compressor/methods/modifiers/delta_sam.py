"""Sharpness-aware minimization with dynamic reweighting: rows that curve most decide the climb.

W. Zhou, F. Liu, H. Zhang, M. Chen: Sharpness-Aware Minimization with Dynamic Reweighting, Findings
of EMNLP 2022, arXiv 2112.08772. Each row should climb by itself, which nobody can pay; one climb of
the batch comes nearer to that when rows weigh more whose gradient changes more. How they weigh is a
reconstruction, for the paper's own formula could not be checked: with one z ~ N(0, I) a step, and

    a_i = l_i(w)    b_i = l_i(w + s z)    c_i = l_i(w - s z)      without dropout and gradients
    d_i = |b_i + c_i - 2 a_i| / s^2       about z^T H_i z, whose mean is the trace of H_i
    o = d / mean(d)    o = clip(o, 1/k, k)    o = o / mean(o)
    g = grad mean_i o_i l_i(w)            eps = rho g / (||g|| + 1e-12)

and the optimizer steps from w with the plain gradient at w + eps. s is a share of the root mean
square of the weights, and zeros of sparse matrices stay zeros. A second difference is small: with
s = 1e-3, which others take, rounding of the three losses hides it in all but some rows of a small
model, so the default is ten times that. Where rounding hides it, the row is at most that curved and
weighs little; where it hides all, rows weigh alike. The record says how many were hidden. The looks
are taken in the weights' own number format, for bf16 would hide them all, and never through the
rounding of `qat`, which has no curvature.

Where the Hessians are multiples of the identity, d_i / ||g_i|| is the weight that makes up for the
shared climb; `--delta-weight grad-change/grad-norm` takes it, at a backward pass for each row.
Costs three more forward passes a step than `sam`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.methods.ascent import TINY, ascent, descend_from, moved, trained
from compressor.methods.contract import Context, Passes
from compressor.methods.option import option, refuse_idle
from compressor.model.masks import alive

if TYPE_CHECKING:
    import torch

VERBS = ()
# What rounding leaves of three losses that are added up: up to 1.6e-7 was seen, of losses near 1.
ROUNDING = 4e-7


@dataclass(frozen=True)
class Options:
    """How far it climbs, and how rows are weighed."""

    delta_rho: float = option(0.05, "length of the step uphill", low=0.0, source="SAM's")
    delta_noise: float = option(
        1e-2, "s, as a share of the root mean square of the weights", low=1e-8
    )
    delta_clip: float = option(4.0, "k, the largest weight of a row", low=1.0)
    delta_weight: str = option(
        "grad-change",
        "what a row weighs: how much its gradient changes, that over the gradient's norm (slow), "
        "or as much as any other (which is sam)",
        choices=("grad-change", "grad-change/grad-norm", "uniform"),
    )

    @property
    def weighs_rows(self) -> bool:
        """Whether rows of a batch need losses of their own."""
        return self.delta_weight != "uniform"

    def __post_init__(self) -> None:
        if not self.weighs_rows:
            refuse_idle(self, ("delta_noise", "delta_clip"), "with --delta-weight uniform")


def row_weights(
    here: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    noise: float,
    clip: float,
    norms: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight o of every row, and which rows had a difference that can be seen.

    Args:
        here: a, [rows].
        up: b, [rows].
        down: c, [rows].
        noise: s.
        clip: k.
        norms: ||g||, [rows], where it counts too.
    """
    import torch

    change = (up.double() + down.double() - 2 * here.double()).abs()  # [rows]
    seen = change > ROUNDING * here.double().abs().clamp(min=1.0)
    curvature = change / noise**2
    if norms is not None:
        curvature = curvature / norms.double().clamp(min=TINY)
    if not seen.any():
        return torch.ones_like(here), seen
    weights = (curvature / curvature.mean()).clamp(1 / clip, clip)
    return (weights / weights.mean()).to(here), seen


class Modifier:
    """Takes two passes and three looks a step."""

    def __init__(self, options: Options, context: Context) -> None:
        self.weighs_rows = options.weighs_rows
        self.options, self.parameters, self.seed = options, trained(context), context.seed
        self.now, self.rows, self.lost = 0, 0, 0
        self.looks, self.seconds = 0, 0.0

    def before_step(self, step: int) -> None:
        """Remember the step, which the noise depends on."""
        self.now = step

    def gradients(self, passes: Passes) -> None:
        """Leave the plain gradient at w + eps on the weights."""
        if not self.weighs_rows:
            passes.uphill()
        else:
            weights = self._weights(passes)  # [rows]
            passes.uphill(weights)
            lightest, heaviest = weights.aminmax()
            passes.parts |= {"lightest": float(lightest), "heaviest": float(heaviest)}
        descend_from(self.parameters, ascent(self.parameters, self.options.delta_rho), passes)

    def _weights(self, passes: Passes) -> torch.Tensor:
        import torch

        started = time.perf_counter()
        here = passes.row_losses()  # [rows]
        norms = passes.row_gradient_norms() if "norm" in self.options.delta_weight else None
        draw = torch.Generator(here.device).manual_seed(self.seed * 1_000_003 + self.now)
        drawn = [
            torch.randn(p.shape, generator=draw, device=p.device, dtype=torch.float32).to(p)
            for p in self.parameters
        ]
        steps = alive(self.parameters, drawn)
        squares = sum(float(p.detach().float().square().sum()) for p in self.parameters)
        moving = sum(int(step.count_nonzero()) for step in steps)
        noise = self.options.delta_noise * math.sqrt(squares / moving)
        with moved(self.parameters, steps, by=noise):
            up = passes.row_losses()
        with moved(self.parameters, steps, by=-noise):
            down = passes.row_losses()
        clip = self.options.delta_clip
        weights, seen = row_weights(here, up, down, noise, clip, norms)
        self.rows += len(seen)
        self.lost += int((~seen).sum())
        self.looks, self.seconds = self.looks + 1, self.seconds + time.perf_counter() - started
        return weights

    def on_kept(self) -> dict[str, Any]:
        """The share of rows whose curvature rounding hid, and the time of a step's three looks."""
        lost = self.lost / max(self.rows, 1)
        if lost > 0.5:
            console.warn(
                f"delta_sam: rounding hid the curvature of {lost:.0%} of the rows, so that it did "
                "little more than sam; a larger --delta-noise shows more"
            )
        spent = {"delta_looks_ms": 1000 * self.seconds / self.looks} if self.looks else {}
        return {"delta_lost_in_rounding": lost, **spent}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What was counted."""
        import torch

        return {"counts": torch.tensor([self.rows, self.lost])}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what was counted."""
        self.rows, self.lost = map(int, state["counts"])
