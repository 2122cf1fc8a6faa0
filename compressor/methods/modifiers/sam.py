"""Sharpness-aware minimization: the gradient is taken where the loss nearby is worst.

P. Foret, A. Kleiner, H. Mobahi, B. Neyshabur: Sharpness-Aware Minimization for Efficiently
Improving Generalization, 2020, arXiv 2010.01412. On one batch, with one dropout mask:

    g = grad L(w)      eps = rho g / (||g|| + 1e-12)      g' = grad L(w + eps)

and the optimizer steps from w with g'. One norm over all parameters. Every step costs two passes;
several batches a step (`--accumulate`) are all seen twice. Weight decay acts once, at w; what is
clipped is g', and g, whose length does not matter.

With several processes all of them climb along the mean gradient; the paper lets each climb by its
own. Of fp16's scaled loss g is taken as it is, for its length does not matter; a step whose g or g'
is infinite is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

from compressor.methods.ascent import ascent, descend_from, trained
from compressor.methods.contract import Context, Passes
from compressor.methods.option import option

VERBS = ()


@dataclass(frozen=True)
class Options:
    """How far it climbs."""

    rho: float = option(0.05, "length of the step uphill", low=0.0, source="the paper")


class Modifier:
    """Takes two passes a step."""

    def __init__(self, options: Options, context: Context) -> None:
        self.options, self.parameters = options, trained(context)

    def gradients(self, passes: Passes) -> None:
        """Leave g' on the weights."""
        passes.uphill()
        descend_from(self.parameters, ascent(self.parameters, self.options.rho), passes)
