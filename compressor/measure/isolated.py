"""A candidate in a process of its own: its memory, its threads, its first answer.

In one process the second runtime finds libraries loaded and threads awake that the first one paid
for, and memory cannot be told apart. Here each candidate has a fresh interpreter, which computes
only when it is asked to; the others sleep until their turn.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

from compressor import console
from compressor.errors import MachineError
from compressor.measure.latency import Call, Timer, timed

# From (batch, length) to a ready call.
Calls = Callable[[int, int], Call]
# A fresh interpreter; the server that starts them on Unix has nothing loaded.
START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


class Isolated:
    """A candidate that was opened in another process; as a context it ends that process.

    Attributes:
        open_ms: milliseconds that a fresh process took to open the candidate, its libraries
            included.
        first_ms: milliseconds of its first call; None before the first one.
    """

    def __init__(self, name: str, opened_by: Callable[[], Calls], cores: Sequence[int]) -> None:
        """Start the process and open the candidate in it.

        Args:
            name: of the candidate, for messages.
            opened_by: opens it; must be picklable.
            cores: that the process may run on, where the system can tell it.

        Raises:
            CompressorError: what opening it raised.
            MachineError: the process ended.
        """
        self._name = name
        self._pool = ProcessPoolExecutor(
            1, multiprocessing.get_context(START), _begin, (tuple(cores),)
        )
        self.first_ms: float | None = None
        try:
            self.open_ms: float = self._ask(_open, opened_by)
        except BaseException:
            self._pool.shutdown()
            raise

    def __enter__(self) -> Isolated:
        """The candidate itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._pool.shutdown()

    def prepare(self, batch: int, length: int) -> Timer:
        """A timer of calls on made-up rows; see `latency.timed`."""
        self._ask(_prepare, batch, length)

        def spend(count: int) -> list[float]:
            seconds: list[float] = self._ask(_time, count)
            if self.first_ms is None:
                self.first_ms = 1e3 * seconds[0]
            return seconds

        return spend

    def peak_memory_bytes(self) -> int | None:
        """The most memory that the process ever held, libraries included; None if unknown."""
        return self._ask(_peak_memory_bytes)

    def ask(self, what: Callable[[], Any]) -> Any:
        """What a function that can be pickled returns there."""
        return self._ask(what)

    def _ask(self, what: Callable[..., Any], *details: Any) -> Any:
        try:
            return self._pool.submit(what, *details).result()
        except BrokenProcessPool:
            raise MachineError(
                f"the process that measures {self._name} ended before it answered",
                hint="a lack of memory as a rule: measure fewer or smaller models at a time",
            ) from None


# What one process holds.
_calls: Calls
_timer: Timer
_turns = itertools.count()


def _begin(cores: tuple[int, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the other one ends this
    threading.Thread(target=_end_with_parent, daemon=True).start()
    console.settings.quiet = True  # what there is to say was said where the candidate was scored
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # returns when it was killed, too
    os._exit(1)


def _open(opened_by: Callable[[], Calls]) -> float:
    global _calls  # noqa: PLW0603 - the process exists for this one candidate
    started = time.perf_counter()
    _calls = opened_by()
    spent = time.perf_counter() - started
    gc.collect()
    gc.freeze()  # to go through a runtime's objects again takes longer than many a call
    return 1e3 * spent


def _prepare(batch: int, length: int) -> None:
    global _timer  # noqa: PLW0603
    _timer = timed(_calls(batch, length))


def _time(count: int) -> list[float]:
    if count == 1:  # the untimed call that begins a turn
        _scatter(next(_turns))
    return _timer(count)


def _scatter(turn: int) -> None:
    """Have the system place all threads anew, from another core each turn.

    Where a thread once shares a core with another program it stays for the whole run, which makes
    twins differ by a factor of two; so every turn draws its own luck.
    """
    tasks = Path("/proc/self/task")
    if not hasattr(os, "sched_setaffinity") or not tasks.exists():
        return
    allowed = sorted(os.sched_getaffinity(0))
    for cores in ({allowed[turn % len(allowed)]}, set(allowed)):
        for task in tasks.iterdir():
            with suppress(OSError):  # a thread that ended meanwhile
                os.sched_setaffinity(int(task.name), cores)


def _peak_memory_bytes() -> int | None:
    # getrusage would do, but for Linux, which hands the parent's peak on to a new program.
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return 1024 * int(lines["VmHWM"].split()[0])
