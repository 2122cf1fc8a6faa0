"""What a graph may lose on rows against the checkpoint that it is made from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from compressor.errors import GateError
from compressor.export.session import Session, open_session
from compressor.measure.gates import lost_between
from compressor.measure.words import lost_text


@dataclass(frozen=True)
class Judge:
    """Scores graphs on the same rows as the checkpoint in PyTorch.

    Attributes:
        metric: the task's.
        whole: its value for the checkpoint.
        max_drop: points of it that a graph may lose, or per cent of one without a bound.
        metrics_of: all metrics of a graph that are defined on the rows.
    """

    metric: str
    whole: float
    max_drop: float
    metrics_of: Callable[[Session], dict[str, float]]

    def judge(self, session: Session) -> dict[str, Any]:
        """`metrics` of a graph, and `lost`: how much of `metric`; infinite where that is undefined.

        Args:
            session: the graph.
        """
        metrics = {name: round(value, 6) for name, value in self.metrics_of(session).items()}
        own = metrics.get(self.metric, math.nan)
        return {"metrics": metrics, "lost": round(lost_between(self.metric, own, self.whole), 4)}

    def allows(self, lost: float) -> bool:
        """Whether a graph that loses this much may be kept."""
        return lost <= self.max_drop

    def facts(self, judged: dict[str, Any]) -> dict[str, Any]:
        """What the lineage says about a graph that was kept: its metrics, and what was lost."""
        kept = {"metric": self.metric, "checkpoint": self.whole, "max_drop": self.max_drop}
        return {**judged["metrics"], "judged": {**kept, "lost": judged["lost"]}}

    def check(self, folder: Path) -> dict[str, Any]:
        """The facts of the one graph that there is.

        Args:
            folder: where it lies.

        Raises:
            GateError: it loses too much.
        """
        found = self.judge(open_session(folder, threads=torch.get_num_threads()))
        if self.allows(found["lost"]):
            return self.facts(found)
        lost = lost_text(self.metric, found["lost"])
        raise GateError(
            f"--max-drop {self.max_drop:g} is not met: the graph lost {lost}",
            hint="export --tune tries graphs that round less; quantize --max-drop leaves the most "
            "harmed maps in float",
            where="--max-drop",
            facts={**found["metrics"], "checkpoint": self.whole},
        )
