"""Bad rows, gathered: the first twenty with their lines, the rest as a count.

A reader yields `Bad` in place of a row that it cannot use. `refuse_bad` passes good rows through,
and at the first bad one stops, looks on for more of them, and raises once for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from compressor.errors import InputError, MachineError

LISTED = 20
# Looking on for more bad rows must not turn an early refusal of a 50 GB file into an hour.
LOOK_ON_ROWS = 100_000
EXCERPT_CHARACTERS = 80

Good = TypeVar("Good")


class Bad(NamedTuple):
    """A row that cannot be used.

    `excerpt` is the start of the row as it stands in the file, empty where it would not help.
    """

    problem: str
    excerpt: str = ""
    hint: str = ""


def excerpt(text: str) -> str:
    """The first 80 characters of a row on one line, with control characters made visible."""
    # Four times as many characters as are shown bounds the work on a line of megabytes.
    shown = text[: 4 * EXCERPT_CHARACTERS].rstrip("\r\n")
    printable = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)
    if len(printable) > EXCERPT_CHARACTERS or len(text) > 4 * EXCERPT_CHARACTERS:
        return printable[:EXCERPT_CHARACTERS] + " ..."
    return printable


@contextmanager
def kept_in(folder: Path, what: str) -> Iterator[None]:
    """Make the folder that rows are kept in while they are used, and say so where they cannot be.

    Raises:
        MachineError: something could not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as problem:
        raise MachineError(
            f"{what} cannot be written: {problem.strerror}",
            hint="free some disk space, or set TMPDIR to a larger disk",
            where=str(folder),
        ) from problem


def refuse_bad(
    rows: Iterable[tuple[int, Good | Bad]], path: Path, *, unit: str = "line"
) -> Iterator[tuple[int, Good]]:
    """Yield the good (line, row) pairs of `rows` up to the first bad one.

    Args:
        rows: pairs of a 1-based line number and a row or a `Bad`.
        path: the file that the rows come from, named in the refusal.
        unit: what the numbers count: "line", or "row" for binary files.

    Raises:
        InputError: there is a bad row. The message lists up to twenty of them.
    """
    following = iter(rows)
    for line, row in following:
        if isinstance(row, Bad):
            raise _refusal(line, row, following, path, unit)
        yield line, row


def _refusal(
    line: int,
    first: Bad,
    following: Iterator[tuple[int, Good | Bad]],
    path: Path,
    unit: str,
) -> InputError:
    found = [(line, first)]
    count = 1
    looked = 0
    whole = False
    try:
        for looked, (number, row) in enumerate(following, start=1):
            if isinstance(row, Bad):
                count += 1
                if len(found) < LISTED:
                    found.append((number, row))
            if looked == LOOK_ON_ROWS:
                break
        else:
            whole = True
    except InputError:
        # The rest cannot be read at all; what was found first is what gets reported.
        pass
    hint = next((bad.hint for _, bad in found if bad.hint), "")
    where = f"{path}:{line}"
    if count == 1:
        return InputError(_describe(first), hint=hint, where=where)
    lines = [f"{count} bad {unit}s" + ("" if whole else f" among the {looked:,} looked at")]
    lines += [f"  {unit} {number}: {_describe(bad)}" for number, bad in found]
    if count > len(found):
        lines.append(f"  and {count - len(found)} more")
    return InputError("\n".join(lines), hint=hint, where=where)


def _describe(bad: Bad) -> str:
    return f"{bad.problem}: {bad.excerpt}" if bad.excerpt else bad.problem
