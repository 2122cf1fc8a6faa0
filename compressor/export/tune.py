"""Which of the graphs that may be fastest is, on this machine and at the user's shape.

They compute the same, but for rounding. Attention as one node or in parts, and residual sums apart
from the norms that follow or fused with them, differs between processors, shapes and versions of
ONNX Runtime. So does integer arithmetic: where it is slower than floats, the float graph is kept;
where its rounding costs too much on rows, one that rounds weights alone, or the float graph.

Measured on MiniLM, ms at 1 x 16 and 8 x 64, one thread of a busy processor with VNNI: int8 1.9 and
35 in the first form, 5.4 to 6.1 and 43 to 57 in the others; weights alone 8.0 and 118, float 15 and
127. Those two are therefore tried in the first form only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from compressor import console
from compressor.errors import CompressorError, GateError, InputError
from compressor.export.export import Exporter, NumberFormat
from compressor.export.judge import Judge
from compressor.export.session import Session, open_session
from compressor.measure.latency import Timer, measure_in_turns, timed
from compressor.measure.words import lost_text

PARTS = {"opset": 22}  # the last without a node for attention
FORMS: dict[str, dict[str, Any]] = {
    "attention as one node, sums apart": {},
    "attention as one node, sums fused": {"plain_sums": False},
    "attention in parts, sums apart": PARTS,
    "attention in parts, sums fused": {**PARTS, "plain_sums": False},
}
ALONE = {"int8 weights alone": {"round_inputs": False}}
# What says that a graph is not for use; what the machine lacks, or a signal, ends the whole.
REFUSALS = (InputError, GateError)
FLOAT = {"fp32": {"number_format": "fp32"}}  # last of its form: it takes the float graph away


@dataclass
class Candidate:
    """One graph.

    Attributes:
        name: number format and form.
        folder: where it lies.
        facts: what its export found.
        milliseconds: the median of a call.
        judged: see `Judge.judge`; empty without rows.
        problem: why there is none.
    """

    name: str
    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    milliseconds: float | None = None
    judged: dict[str, Any] = field(default_factory=dict)
    problem: CompressorError | None = None

    def row(self) -> dict[str, Any]:
        """What `run.json` and the card say about it."""
        if self.problem is not None:
            return {"name": self.name, "problem": self.problem.message}
        row = {"name": self.name, "p50_ms": self.milliseconds, "bytes": self.facts["bytes"]}
        row["parity"] = {key: self.facts["parity"][key] for key in ("error", "tolerance")}
        lost = self.judged.get("lost")
        known = {} if lost is None else {"lost": lost if np.isfinite(lost) else None}
        return {**row, **known, **self.judged.get("metrics", {})}


def kinds_of(number_format: NumberFormat, *, round_inputs: bool, own: bool) -> dict[str, Any]:
    """What is made of the first form: name -> options of `Exporter.finish`; of others, the first.

    Args:
        number_format: the one that was asked for.
        round_inputs: see `quantize_graph`.
        own: whether the integers are the checkpoint's own.
    """
    kinds = {number_format: {"number_format": number_format, "round_inputs": round_inputs}}
    if number_format == "int8":
        kinds |= {**(ALONE if round_inputs and not own else {}), **FLOAT}
    return kinds


def tuned_folder(
    folder: Path,
    shape: tuple[int, int],
    exporter: Exporter,
    *,
    number_format: NumberFormat = "int8",
    round_inputs: bool = True,
    judge: Judge | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Export every candidate, and leave the fastest that loses little enough in `folder`.

    Args:
        folder: exists.
        shape: rows of a call, and tokens of each.
        exporter: of the model.
        number_format: the one that was asked for; where it is int8, floats are tried as well.
        round_inputs: see `quantize_graph`.
        judge: scores graphs on rows; None keeps the fastest whatever it answers.

    Returns:
        what the kept export found, with its name as `kept`; and about the choice: shape, threads,
        candidates (see `Candidate.row`), kept, why; with a judge also metric, checkpoint, max_drop.

    Raises:
        InputError, GateError: no candidate can be exported; the error is that of the first.
        GateError: all of them lose too much.
    """
    kinds = kinds_of(number_format, round_inputs=round_inputs, own=exporter.weights is not None)
    with TemporaryDirectory(dir=folder, prefix=".tune-") as scratch:
        every = list(_exported(Path(scratch), exporter, kinds))
        ready = [one for one in every if one.problem is None]
        if not ready:
            raise every[0].problem
        _measure(ready, shape, judge)
        tuning = _report(every, shape, judge)
        kept, tuning["why"] = _chosen(ready, judge, tuning)
        tuning["kept"] = kept.name
        for file in kept.folder.iterdir():
            os.replace(file, folder / file.name)
    console.note(f"kept {kept.name}: {tuning['why']}")
    judged = {} if judge is None else judge.facts(kept.judged)
    return {**kept.facts, **judged, "kept": kept.name}, tuning


def _exported(scratch: Path, exporter: Exporter, kinds: dict[str, Any]) -> Iterator[Candidate]:
    """Every candidate; a float graph is traced once for all that is made of it."""
    main = next(iter(kinds))
    whole = main == "fp32"
    for number, (form, options) in enumerate(FORMS.items()):
        source = _new(scratch / f"float-{number}")
        limit = exporter.tolerance if whole else None
        trace = partial(exporter.trace, source, **options, tolerance=limit, final=whole)
        traced = _tried(trace)
        for kind, how in kinds.items() if not number else [(main, kinds[main])]:
            place = _new(scratch / f"{number}-{kind.replace(' ', '-')}")
            found = traced
            if not isinstance(traced, CompressorError):
                found = _tried(partial(exporter.finish, source, traced, place, **how))
            name = f"{kind}, {form}"
            if isinstance(found, CompressorError):
                console.warn(f"{name}: left out, {found.message}")
                yield Candidate(name, place, problem=found)
            else:
                yield Candidate(name, place, found)
        shutil.rmtree(source)


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _tried(work: Callable[[], dict[str, Any]]) -> dict[str, Any] | CompressorError:
    try:
        return work()
    except REFUSALS as problem:
        return problem


def _measure(ready: list[Candidate], shape: tuple[int, int], judge: Judge | None) -> None:
    """Fill in the time of every candidate, in turns, and its score."""
    threads = torch.get_num_threads()
    sessions = {one.name: open_session(one.folder, threads=threads) for one in ready}
    prepared = {name: partial(_timer, session) for name, session in sessions.items()}
    times = measure_in_turns(prepared, [shape])
    for one in ready:
        one.milliseconds = times[one.name][0]["p50_ms"]
    if judge is not None:
        with console.Progress("scoring", len(ready), unit="graphs") as progress:
            for one in ready:
                one.judged = judge.judge(sessions[one.name])
                progress.advance()


def _timer(session: Session, batch: int, length: int) -> Timer:
    ones = np.ones((batch, length), dtype=np.int64)
    inputs = dict.fromkeys(session.input_names, ones)
    inputs["token_type_ids"] = np.zeros_like(ones)
    return timed(lambda: session.run(inputs))


def _report(every: list[Candidate], shape: tuple[int, int], judge: Judge | None) -> dict[str, Any]:
    """What the choice is made by; printed, too."""
    report: dict[str, Any] = {"shape": list(shape), "threads": torch.get_num_threads()}
    report["candidates"] = [one.row() for one in every]
    if judge is not None:
        report |= {"metric": judge.metric, "checkpoint": judge.whole, "max_drop": judge.max_drop}
    for one in every:
        if one.problem is None:
            lost = f"  lost {lost_text(judge.metric, one.judged['lost'])}" if judge else ""
            time = f"{one.milliseconds:8.3f} ms at {shape[0]}x{shape[1]}"
            console.note(f"  {time}  {one.name}{lost}")
    return report


def _chosen(
    ready: list[Candidate], judge: Judge | None, report: dict[str, Any]
) -> tuple[Candidate, str]:
    """The candidate to keep, and the reason in words.

    Raises:
        GateError: all lose too much.
    """
    fastest = min(ready, key=lambda one: one.milliseconds)
    if judge is None:
        return fastest, f"the fastest of {len(ready)}; without --data none was scored"
    allowed = [one for one in ready if judge.allows(one.judged["lost"])]
    least = min(ready, key=lambda one: one.judged["lost"])
    if not allowed:
        raise GateError(
            f"--max-drop {judge.max_drop:g} cannot be met: of {len(ready)} graphs the one that "
            f"loses least ({least.name}) lost {lost_text(judge.metric, least.judged['lost'])}",
            where="--max-drop",
            facts={"tuning": report},
        )
    kept = min(allowed, key=lambda one: one.milliseconds)
    limit = lost_text(judge.metric, judge.max_drop)
    why = f"the fastest of {len(allowed)} that lose no more than {limit}"
    faster = [one for one in ready if one.milliseconds < kept.milliseconds]
    return kept, f"{why}; {len(faster)} faster lose more" if faster else why
