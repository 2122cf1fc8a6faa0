"""Latency of several models on one machine, measured in turns.

A machine changes speed while it is measured: other programs, heat, a busy neighbour. Timing one
model after the other charges that to whichever was unlucky. Here every candidate has a turn in
every round, and the order moves on by one each round, so what slows the machine slows all of
them alike and the ratio of two medians stays honest. Only numbers from one call of
`measure_in_turns` may be compared.

Turns have a price: the threads of the runtime that ran before may keep spinning on the cores, and
its weights fill the caches. Measured with PyTorch and two ONNX Runtime sessions on two cores, bare
turns made a 3.4 ms model look like 7 ms and a 12 ms one like 33 ms. So each turn starts with a
pause and one untimed call; medians then agree with those of a model that runs alone to about 3 %.
The pause outlasts PyTorch's threads. Those of ONNX Runtime burn 35 ms of processor time after
every call unless the session is opened with `session.force_spinning_stop` set to "1".

A candidate may live in this process (`timed`) or in one of its own (`measure/isolated.py`). A
process has luck of its own, too: where its memory and its threads came to lie makes two processes
with the same model differ by 2 to 3 % at calls of a millisecond. No turn shows that, so whoever
wants to know how sure a ratio is measures several processes of each and puts them together
(`pooled`).
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from compressor.console import Progress
from compressor.errors import UsageError

Call = Callable[[], object]
Timer = Callable[[int], list[float]]
Prepare = Callable[[int, int], Timer]

# However slow the models are: a median of fewer turns would be made up.
FEWEST_ROUNDS = 8
# Timed calls of a turn: as many as fill its time, for calls of a millisecond differ by much.
TURN_SECONDS = 0.02
CALLS_PER_TURN = (3, 20)
# Long enough for the thread pool of the runtime before to fall asleep.
PAUSE_SECONDS = 0.01

_WINDOW = 5
_STILL_FASTER = 0.95


def timed(call: Call) -> Timer:
    """A function that makes a number of calls one by one and returns the seconds of each.

    No garbage is collected meanwhile: it would be charged to the call that it falls into.

    Args:
        call: returns only when its result is complete (a GPU is synchronised).
    """

    def spend(count: int) -> list[float]:
        with _no_garbage_collection():
            return [_seconds_of(call) for _ in range(count)]

    return spend


def measure_in_turns(
    candidates: Mapping[str, Prepare],
    shapes: Sequence[tuple[int, int]],
    *,
    warmup: int = 10,
    rounds: int = 30,
    fewest: int = FEWEST_ROUNDS,
    seconds: float = 20.0,
    progress: Progress | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Time single calls of all candidates at every shape, in turns.

    Args:
        candidates: name -> function that prepares inputs of (batch, length) and returns a timer
            of calls on them, see `timed`.
        shapes: the (batch, length) pairs.
        warmup: fewest untimed calls of each candidate at first; more, up to five times as many,
            while it still gets faster.
        rounds: turns of each candidate; one turn is one untimed call and 3 to 20 timed ones, as
            many as fill 20 ms.
        fewest: turns that are made whatever they take.
        seconds: time budget of one shape. It cuts warm-up and rounds short, never below two calls
            and `fewest` turns of each candidate.
        progress: counts the shapes; one of its own if absent.

    Returns:
        name -> one row a shape, in the order of `shapes`: batch, length, p50_ms, p95_ms, p99_ms,
        per_second (batch / median) and starts_ms (a list of all timed calls, as the only one of a
        list, see `pooled`).

    Raises:
        UsageError: a shape, `rounds` or `seconds` that is not positive.
    """
    for batch, length in shapes:
        if batch < 1 or length < 1:
            raise UsageError(f"batch {batch} x length {length}: both must be at least 1")
    if rounds < 1 or warmup < 0 or seconds <= 0:
        raise UsageError("latency needs rounds >= 1, warm-up calls >= 0 and seconds > 0")
    if not candidates:
        return {}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in candidates}
    with nullcontext(progress) if progress else Progress("latency", len(shapes)) as shown:
        for batch, length in shapes:
            timers = {name: prepare(batch, length) for name, prepare in candidates.items()}
            counts = {
                name: _calls_per_turn(_warm_up(timer, warmup, seconds / 3 / len(timers)))
                for name, timer in timers.items()
            }
            spent = _take_turns(timers, counts, rounds, fewest, seconds * 2 / 3)
            for name, calls in spent.items():
                rows[name].append(_row(batch, length, [[1e3 * each for each in calls]]))
            shown.advance(batch=str(batch), length=str(length))
    return rows


def pooled(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One row of `measure_in_turns` from those of several processes at the same shape.

    Its medians are over all calls, and its `starts_ms` has the calls of each process by themselves.
    """
    starts = [calls for row in rows for calls in row["starts_ms"]]
    return _row(rows[0]["batch"], rows[0]["length"], starts)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _seconds_of(call: Call) -> float:
    started = time.perf_counter_ns()
    call()
    # A coarse clock may show no time at all; a rate must stay finite.
    return max(time.perf_counter_ns() - started, 1) / 1e9


def _warm_up(timer: Timer, fewest: int, seconds: float) -> list[float]:
    """Call at least `fewest` times and while it still gets faster; the seconds of the calls."""
    spent: list[float] = []
    for count in range(1, 5 * fewest + 1):
        spent += timer(1)
        if count >= fewest and _is_stable(spent):
            break
        if count >= 2 and sum(spent) > seconds:
            break
    return spent


def _is_stable(values: Sequence[float]) -> bool:
    """Whether the last calls are no longer faster than the ones before them."""
    if len(values) < 2 * _WINDOW:
        return False
    before = np.median(values[-2 * _WINDOW : -_WINDOW])
    return bool(np.median(values[-_WINDOW:]) >= _STILL_FASTER * before)


def _calls_per_turn(spent: Sequence[float]) -> int:
    few, many = CALLS_PER_TURN
    if not spent:
        return few
    return min(max(few, math.ceil(TURN_SECONDS / np.median(spent[-_WINDOW:]))), many)


def _take_turns(
    timers: Mapping[str, Timer],
    counts: Mapping[str, int],
    rounds: int,
    fewest: int,
    seconds: float,
) -> dict[str, list[float]]:
    """Seconds of the timed calls of all turns."""
    names = list(timers)
    spent: dict[str, list[float]] = {name: [] for name in names}
    started = time.perf_counter()
    for turn in range(rounds):
        if turn >= fewest and time.perf_counter() - started > seconds:
            break
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if len(names) > 1:
                time.sleep(PAUSE_SECONDS)
                timers[name](1)
            spent[name] += timers[name](counts[name])
    return spent


def _row(batch: int, length: int, starts_ms: Sequence[Sequence[float]]) -> dict[str, Any]:
    p50, p95, p99 = np.percentile(np.concatenate(starts_ms), [50, 95, 99])
    return {
        "batch": batch,
        "length": length,
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "per_second": float(1e3 * batch / p50),
        "starts_ms": [list(calls) for calls in starts_ms],
    }
