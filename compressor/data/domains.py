"""Domains: where rows come from, and which of them a command uses.

A domain is the value of a column (`domain`), or the name of a folder where the data is a folder of
data folders. Rows that were not chosen are nobody's: no class is named after them, nothing is
trained, chosen or scored on them.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.data.columns import missing_column
from compressor.data.faults import Bad, excerpt, refuse_bad
from compressor.data.labels import listed
from compressor.data.readers import read_rows
from compressor.errors import InputError, UsageError

if TYPE_CHECKING:
    from compressor.data.source import Source

COLUMN = "domain"


@dataclass(frozen=True)
class Domains:
    """Which domains a command uses.

    Attributes:
        column: the column that names a row's domain; empty for `domain`.
        only: the domains to use; empty for all.
        without: the domains to leave out.
    """

    column: str = ""
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def chosen(self) -> bool:
        """Whether any domain is named; else all rows are used, whatever their domain."""
        return bool(self.only or self.without)

    def uses(self, name: str) -> bool:
        """Whether the rows of a domain are used."""
        return name not in self.without and (not self.only or name in self.only)


EVERY = Domains()


def domains_of(column: str, only: str, without: str) -> Domains:
    """What the flags say; names are separated by commas.

    Raises:
        UsageError: a column without a use.
    """

    def names(text: str) -> tuple[str, ...]:
        return tuple(name for name in map(str.strip, text.split(",")) if name)

    domains = Domains(column, names(only), names(without))
    if column and not domains.chosen:
        raise UsageError(
            f"--domain-column {column}: no domain is chosen by it",
            hint="add --without-domain NAME or --domain NAME",
            where="--domain-column",
        )
    return domains


def count_domains(source: Source, column: str = "") -> dict[str, Counter[str]]:
    """How many rows each split has of each domain; reads every row.

    Raises:
        InputError: a row that names no domain, or rows that cannot be read.
    """
    return {
        split: Counter(name for file in files for _, name, _ in _told_apart(source, file, column))
        for split, files in source.splits.items()
    }


def select(source: Source, domains: Domains) -> Source:
    """The source under a name that says which domains it has; splits that have none are gone.

    Raises:
        InputError: no row is of a domain that was named, or none is left.
    """
    counts = count_domains(source, domains.column)
    every = sorted({name for split in counts.values() for name in split})
    for flag, names in (("--domain", domains.only), ("--without-domain", domains.without)):
        for name in names:
            if name not in every:
                near = difflib.get_close_matches(name, every, n=1, cutoff=0.4)
                hint = f"did you mean {near[0]}?" if near else ""
                text = f"no row is of the domain {name!r}; there are {listed(every)}"
                raise InputError(text, hint=hint, where=flag)
    kept = {
        split: files
        for split, files in source.splits.items()
        if any(map(domains.uses, counts[split]))
    }
    if not kept:
        raise InputError("no domain is left", where="--without-domain")
    only = f" only {', '.join(domains.only)}" if domains.only else ""
    without = f" without {', '.join(domains.without)}" if domains.without else ""
    name = f"{source.name}{only}{without}"
    return replace(source, name=name, splits=kept, domains=domains)


def rows_of(source: Source, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of one of the source's files that are used, with their line numbers.

    Raises:
        InputError: a row that names no domain, or rows that cannot be read.
    """
    if not source.domains.chosen:
        yield from read_rows(file)
        return
    for line, name, row in _told_apart(source, file, source.domains.column):
        if source.domains.uses(name):
            yield line, row


def _told_apart(
    source: Source, file: Path, column: str
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Line, domain and row of every row of a file."""
    if source.is_parts and not column:
        for line, row in read_rows(file):
            yield line, file.parent.name, row
        return
    column = column or COLUMN
    for line, (name, row) in refuse_bad(_named(file, column), file):
        yield line, name, row


def _named(file: Path, column: str) -> Iterator[tuple[int, tuple[str, dict[str, Any]] | Bad]]:
    for number, (line, row) in enumerate(read_rows(file)):
        name = row.get(column)
        if column not in row:
            missing, hint = missing_column(column, list(row)), "--domain-column names another"
            if number == 0:  # and so in all others
                raise InputError(missing, hint=hint, where=str(file))
            yield line, Bad(missing, hint=hint)
        elif name is None or not str(name).strip():
            yield line, Bad(f"no domain in column {column!r}", excerpt(str(row)))
        else:
            yield line, (str(name).strip(), row)
