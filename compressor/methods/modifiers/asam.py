"""Adaptive sharpness-aware minimization: large weights may be moved further than small ones.

J. Kwon, J. Kim, H. Park, I. K. Choi: ASAM: Adaptive Sharpness-Aware Minimization for
Scale-Invariant Learning of Deep Neural Networks, ICML 2021, arXiv 2102.11600. As `sam`, but

    T = |w| + eta      eps = rho T^2 g / (||T g|| + 1e-12)

so that sharpness does not depend on how a network's scale is spread over its layers. T is 1 for
biases and, other than in the authors' code, for the factors of norms, which are called weights too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.methods.ascent import ascent, descend_from, trained
from compressor.methods.contract import Context, Passes
from compressor.methods.option import option

if TYPE_CHECKING:
    import torch

VERBS = ()


@dataclass(frozen=True)
class Options:
    """How far it climbs, in units of the weights."""

    adaptive_rho: float = option(
        0.5, "length of the step uphill, in units of the weights", low=0.0, source="the paper"
    )
    adaptive_eta: float = option(
        0.01, "added to the size of every weight", low=0.0, source="the authors' code"
    )


def scale_of(parameter: torch.Tensor, eta: float) -> torch.Tensor:
    """T: |w| + eta of a matrix, 1 of a vector; the parameter's shape."""
    import torch

    values = parameter.detach()
    return values.abs() + eta if values.dim() > 1 else torch.ones_like(values)


class Modifier:
    """Takes two passes a step."""

    def __init__(self, options: Options, context: Context) -> None:
        self.options, self.parameters = options, trained(context)

    def gradients(self, passes: Passes) -> None:
        """Leave g' on the weights."""
        passes.uphill()
        scales = [scale_of(p, self.options.adaptive_eta) for p in self.parameters]
        steps = ascent(self.parameters, self.options.adaptive_rho, scales)
        descend_from(self.parameters, steps, passes)
