"""SIGINT and SIGTERM as a question that long work asks itself between two steps."""

from __future__ import annotations

import signal
from types import FrameType

from compressor.errors import Interrupted


class StopRequest:
    """Remembers the first signal; a second SIGINT ends the process at once.

    Use as a context manager around long work, and call `check` in every loop of it: training,
    evaluation, teacher passes.
    """

    def __init__(self) -> None:
        self.received = 0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def check(self) -> None:
        """Raise `Interrupted` when a signal has come."""
        if self.received:
            name = signal.Signals(self.received).name
            raise Interrupted(
                f"stopped by {name}",
                signal_number=self.received,
                hint="the same command with --resume goes on from here",
            )

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
