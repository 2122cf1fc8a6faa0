"""Methods found by their file names: the one way from a word on the command line to its file."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from compressor.errors import UsageError
from compressor.methods.option import flag_of

KINDS = ("students", "objectives", "modifiers", "transforms", "generators")


@dataclass(frozen=True)
class Method:
    """A method's file.

    Attributes:
        kind: one of `KINDS`.
        name: the file's name.
        module: the imported file.
    """

    kind: str
    name: str
    module: ModuleType

    @property
    def summary(self) -> str:
        """First sentence of the file's docstring."""
        return (self.module.__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ")

    @property
    def verbs(self) -> tuple[str, ...]:
        """The verbs that list this method."""
        return self.module.VERBS

    @property
    def options(self) -> type[Any]:
        """The dataclass of its options."""
        return self.module.Options

    def flags(self) -> list[str]:
        """Its options as they are typed."""
        return [flag_of(field) for field in fields(self.options)]


def names(kind: str) -> list[str]:
    """Names of the methods of a kind, sorted."""
    folder = Path(__file__).parent / kind
    return sorted(file.stem for file in folder.glob("[!_]*.py"))


def method(kind: str, name: str) -> Method:
    """Import the file of a method that exists."""
    module = importlib.import_module(f"compressor.methods.{kind}.{name}")
    return Method(kind, name, module)


def every() -> list[Method]:
    """All methods, by kind and name."""
    return [method(kind, name) for kind in KINDS for name in names(kind)]


def known(kinds: Sequence[str], flag: str, verb: str) -> list[str]:
    """Names of what a flag of a verb takes: every modifier, of other kinds the verb's own."""
    return [m.name for m in every() if m.kind in kinds and (flag == "--with" or verb in m.verbs)]


def look_up(name: str, kinds: tuple[str, ...], flag: str, verb: str) -> Method:
    """The method called `name` among `kinds`.

    Raises:
        UsageError: there is none that `verb` takes; the message has the nearest and the list.
    """
    wanted = name.replace("-", "_")
    for kind in kinds:
        if wanted in names(kind):
            found = method(kind, wanted)
            if flag == "--with" or verb in found.verbs:
                return found
    there = known(kinds, flag, verb)
    near = difflib.get_close_matches(wanted, there, n=1)
    raise UsageError(
        f"{flag} {name}: no such method for {verb}; there are {', '.join(there)}",
        hint=f"{flag} {near[0]}" if near else f"compressor methods --verb {verb}",
        where=flag,
    )
