"""How much each linear map suffers from being quantized, and which few must stay in float."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.commands.scoring import refuse_unscored, split_feed
from compressor.errors import GateError, UsageError
from compressor.measure.gates import keeps, lost_between
from compressor.measure.words import lost_text

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from transformers import PreTrainedModel

    from compressor.checkpoint.folder import Checkpoint
    from compressor.commands.scoring import DatasetRows
    from compressor.commands.slots import Picked
    from compressor.data.dataset import Dataset
    from compressor.model.load import Loaded

ROWS, TOKENS = 64, 1024  # that outputs are compared on


def refuse_unjudged(
    checkpoint: Checkpoint, picked: Picked, dataset: Dataset | None, max_drop: float | None
) -> None:
    """Refuse what cannot be compared, before any work.

    Raises:
        UsageError: there are no rows, or a method that changes several maps together.
        InputError: the model has no head for the rows.
    """
    flag = "--sensitivity" if max_drop is None else "--max-drop"
    if dataset is None:
        raise UsageError(f"{flag} compares outputs on rows", hint="add --data DATA", where=flag)
    if max_drop is not None:
        refuse_unscored(checkpoint, dataset, flag)
    if getattr(picked.options, "smooth", 0):
        raise UsageError(
            f"{flag} looks at one map at a time, and --smooth changes several together",
            where="--smooth",
        )


class Sensitivity:
    """The maps of a model from the most to the least harmed.

    Attributes:
        harms: of quantizing one map alone, by its name: the mean KL divergence of the answers from
            the float model's, or their mean squared difference where there is one output.
    """

    def __init__(self, loaded: Loaded, rows: DatasetRows, picked: Picked) -> None:
        from compressor.model.quantized import quantized_modules

        self.loaded, self.rows = loaded, rows
        quantized = loaded.with_model(copy.deepcopy(loaded.model))
        picked.method.module.apply(quantized, rows, picked.options)
        self.modules = quantized_modules(quantized.model)
        found = self._harms()
        self.harms = dict(sorted(found.items(), key=lambda item: -item[1]))

    def _harms(self) -> dict[str, float]:
        from compressor.model.calibration import first_rows
        from compressor.model.inputs import fed

        model = self.loaded.model
        sample = first_rows(self.rows, ROWS)
        batches = [fed(model, batch) for batch in sample]
        most = max(1, TOKENS // len(batches))
        wanted = [_answers(model, batch, most) for batch in batches]
        harms = {}
        with console.Progress("sensitivity", len(self.modules), unit="maps") as progress:
            for name in self.modules:
                with self._quantized([name]):
                    found = [_answers(model, batch, most) for batch in batches]
                harms[name] = _difference(wanted, found)
                progress.advance()
        return harms

    @contextmanager
    def _quantized(self, names: Sequence[str]) -> Iterator[None]:
        """Put the quantized maps with these names into the float model for the while."""
        model = self.loaded.model
        before = {name: model.get_submodule(name) for name in names}
        for name in names:
            model.set_submodule(name, self.modules[name])
        try:
            yield
        finally:
            for name, module in before.items():
                model.set_submodule(name, module)

    def show(self) -> None:
        """Print the ranking."""
        console.note("harm of quantizing one map alone, the largest first:")
        for name, harm in self.harms.items():
            console.note(f"  {harm:.3e}  {name}")

    def kept_in_float(self, dataset: Dataset, max_drop: float, folder: Path) -> list[str]:
        """The fewest maps, the most harmed first, without which no more than `max_drop` is lost.

        Args:
            dataset: with validation rows.
            max_drop: points of the task's metric, or per cent of one without a bound.
            folder: for tokens.

        Raises:
            GateError: even with all but one in float more is lost.
        """
        from compressor.train.evaluate import evaluate, torch_forward

        loaded, metric = self.loaded, dataset.task.metric
        feed = split_feed(dataset, "validation", loaded, self.rows.max_length, 0, folder)
        ranking, drops = list(self.harms), []

        def score() -> float:
            return evaluate(torch_forward(loaded.model), feed).metrics.get(metric, math.nan)

        self.whole = score()
        for count in range(len(ranking)):
            with self._quantized(ranking[count:]):
                drops.append(lost_between(metric, score(), self.whole))
            console.note(f"{count} maps in float: lost {lost_text(metric, drops[-1])}")
            if keeps("max-drop", drops[-1], max_drop):
                return ranking[:count]
        best = min(range(len(drops)), key=drops.__getitem__)
        raise GateError(
            f"--max-drop {max_drop:g} cannot be met: the least that is lost is "
            f"{lost_text(metric, drops[best])}, with {best} of {len(ranking)} maps in float",
            where="--max-drop",
            facts=self._refused(metric, drops),
        )

    def lost_at_last(self, metrics: dict[str, float], metric: str, max_drop: float) -> float:
        """What the quantized model lost; a method may change what it made of the others.

        Raises:
            GateError: more than `max_drop`.
        """
        lost = lost_between(metric, metrics.get(metric, math.nan), self.whole)
        if not keeps("max-drop", lost, max_drop):
            raise GateError(
                f"--max-drop {max_drop:g} is not met: quantized anew with the most harmed maps in "
                f"float, the model lost {lost_text(metric, lost)}",
                where="--max-drop",
                facts={**self._refused(metric, [lost]), "metrics": metrics},
            )
        return lost

    def _refused(self, metric: str, lost: Sequence[float]) -> dict[str, Any]:
        """The numbers of a refusal: harms, the float model's score, and what was lost.

        Args:
            metric: of the task.
            lost: one number for each attempt: with no map in float, with one, ...
        """
        known = [drop if math.isfinite(drop) else None for drop in lost]
        whole = self.whole if math.isfinite(self.whole) else None
        return {"metric": metric, "in_float": whole, "lost": known, "sensitivity": self.harms}


def without_harmed(picked: Picked, names: Sequence[str]) -> Any:
    """The method's options with these maps left out as well."""
    patterns = [picked.options.exclude, *names]
    return replace(picked.options, exclude=",".join(filter(None, patterns)))


def _answers(model: PreTrainedModel, batch: dict[str, torch.Tensor], most: int) -> torch.Tensor:
    """Logits, or hidden states of a model without a head, [rows or tokens, outputs].

    Args:
        model: a transformers model.
        batch: what it is fed.
        most: real tokens at most, where it answers for each: a vocabulary is large.
    """
    import torch

    device = next(model.parameters()).device
    with torch.no_grad():
        output = model.eval()(**{name: value.to(device) for name, value in batch.items()})
    found = output["logits" if "logits" in output else "last_hidden_state"].float().cpu()
    mask = batch.get("attention_mask")
    if mask is not None and found.dim() == 3 and found.shape[:2] == mask.shape:
        return found[mask.bool().cpu()][:most]
    return found.flatten(0, -2)[:most]


def _difference(wanted: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> float:
    # In float32 a small divergence would drown in rounding.
    total = 0.0
    for want, have in zip(wanted, found, strict=True):
        if want.shape[-1] == 1:
            total += float((want - have).double().square().sum())
        else:
            first, second = (each.double().log_softmax(-1) for each in (want, have))
            total += float((first.exp() * (first - second)).sum())
    return total / sum(map(len, wanted))
