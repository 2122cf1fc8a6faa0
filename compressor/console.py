"""The one place that prints: notes and progress to stderr, the result to stdout.

Colour and bars appear only when stderr is a terminal that wants them; a log gets plain lines,
one at the start, one about every thirty seconds, and one at the end.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

    from compressor.errors import CompressorError

LOG_INTERVAL_SECONDS = 30.0


@dataclass
class Settings:
    """What the user asked of the screen; set once by the command line."""

    quiet: bool = False
    debug: bool = False
    json: bool = False


settings = Settings()


def is_main_process() -> bool:
    """Whether this is the one process of a distributed launch that writes and prints."""
    return os.environ.get("RANK", "0") == "0"


def wants_colour(stream: TextIO) -> bool:
    """Whether escape codes may be written to `stream` (NO_COLOR, FORCE_COLOR, TERM, terminal)."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    colour = wants_colour(stream)
    # A log or a file has no width of its own: never wrap what a program may read.
    width = None if stream.isatty() else 200
    return Console(
        file=stream, force_terminal=colour, no_color=not colour, width=width, highlight=False
    )


def _say(text: str, style: str = "") -> None:
    if wants_colour(sys.stderr) and style:
        _console(sys.stderr).print(text, style=style, markup=False, soft_wrap=True)
    else:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def note(text: str) -> None:
    """One line about what is going on."""
    if not settings.quiet:
        _say(text)


def warn(text: str) -> None:
    """One line about something that the user would want to know."""
    if not settings.quiet:
        _say(f"warning: {text}", style="yellow")


def error(problem: CompressorError) -> None:
    """Print a failure: a JSON object with `--json`, words otherwise."""
    if settings.json:
        sys.stderr.write(json.dumps({"error": problem.as_dict()}) + "\n")
        return
    where = f"{problem.where}: " if problem.where not in problem.message else ""
    _say(f"error: {where}{problem.message}", style="bold red")
    if problem.hint:
        _say(f"  try: {problem.hint}")


def result(text: str) -> None:
    """The command's one line on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def result_json(value: Any) -> None:
    """The command's result as JSON on stdout."""
    result(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    to_stdout: bool = True,
    bold_rows: Iterable[int] = (),
    texts: int = 1,
) -> None:
    """A table for people; numbers (every column but the first few) are aligned to the right.

    Args:
        title: printed above the table; empty for none.
        columns: the headings.
        rows: cells as text.
        to_stdout: False when stdout already carries the command's one line.
        bold_rows: indices of rows to stress on a terminal.
        texts: how many columns, from the left, hold texts.
    """
    from rich import box
    from rich.table import Table

    stream = sys.stdout if to_stdout else sys.stderr
    if not to_stdout and settings.quiet:
        return
    drawn = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        drawn.add_column(column, justify="left" if index < texts else "right", no_wrap=True)
    stressed = set(bold_rows)
    for index, row in enumerate(rows):
        drawn.add_row(*row, style="bold" if index in stressed else None)
    screen = _console(stream)
    # Written by us: the library has its own idea of what to do when the reader has left.
    with screen.capture() as text:
        screen.print(drawn)
    stream.write(text.get())
    stream.flush()


def listing(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Plain aligned columns on stdout, where the last one may be long."""
    every = [tuple(columns), *(tuple(row) for row in rows)]
    widths = [max(len(row[index]) for row in every) for index in range(len(columns) - 1)]
    for row in every:
        cells = [f"{cell:{width}}" for cell, width in zip(row[:-1], widths, strict=True)]
        result("  ".join([*cells, row[-1]]))


def duration(seconds: float) -> str:
    """Seconds as `41 s`, `3 min 05 s` or `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: float) -> str:
    """Bytes as `90.9 MB` (powers of ten, like the papers and the hub)."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


class Progress:
    """Work with a known number of parts: a bar on a terminal, plain lines in a log.

    Use as a context manager; call `advance` after each part, with facts worth reading
    (`loss="0.31"`). The time left is shown from the second part on.
    """

    def __init__(self, label: str, total: int, *, done: int = 0, unit: str = "steps") -> None:
        self.label = label
        self.unit = unit
        self.total = total
        self.done = self._first = done
        self._facts = ""
        self._started = self._spoke = 0.0
        talks = not settings.quiet and not settings.json
        # FORCE_COLOR colours a log; a bar that redraws itself would only fill it.
        self._live = talks and sys.stderr.isatty() and wants_colour(sys.stderr)

    def __enter__(self) -> Progress:
        self._started = self._spoke = time.monotonic()
        if not self._live:
            note(f"{self.label}: {self.total} {self.unit}")
        return self

    def advance(self, count: int = 1, **facts: str) -> None:
        """Count `count` parts as done and show `facts` beside the time left."""
        self.done += count
        if facts:
            self._facts = "  ".join(f"{name} {value}" for name, value in facts.items())
        now = time.monotonic()
        if now - self._spoke >= (0.1 if self._live else LOG_INTERVAL_SECONDS):
            self._spoke = now
            self._draw(now)

    def _draw(self, now: float) -> None:
        made = self.done - self._first
        left = (now - self._started) / max(made, 1) * (self.total - self.done)
        text = f"{self.label}: {self.done}/{self.total}  {duration(left)} left"
        text += f"  {self._facts}" if self._facts else ""
        if self._live:
            filled = 20 * self.done // max(self.total, 1)
            bar = "━" * filled + "╌" * (20 - filled)
            sys.stderr.write(f"\r\x1b[2K{bar} {text}")
            sys.stderr.flush()
        else:
            note(text)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[2K")
        if kind is None:
            spent = duration(time.monotonic() - self._started)
            facts = f"  {self._facts}" if self._facts else ""
            note(f"{self.label}: done in {spent}{facts}")
