"""Where a verb takes methods, and which ones a command line names.

A slot is a flag whose value is a method: `--method gmp`, `--with swa`. The chosen methods decide
which other flags exist, so slots are read from the raw words before the command line is parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compressor.commands.options import as_record
from compressor.errors import UsageError
from compressor.methods.find import KINDS, Method, look_up, names


@dataclass(frozen=True)
class Slot:
    """A flag that names methods.

    Attributes:
        flag: as typed.
        kinds: kinds of method that it takes.
        default: names of the methods when the flag is absent, separated by commas; "" for none.
        help: help text.
        many: whether the flag may stand several times.
        or_model: whether a word that is no method's name is a checkpoint.
        default_with: replaces `default` on command lines that hold a certain flag.
    """

    flag: str
    kinds: tuple[str, ...]
    default: str
    help: str
    many: bool = False
    or_model: bool = False
    default_with: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The flag as a keyword."""
        return self.flag.removeprefix("--")


MODIFIERS = Slot("--with", ("modifiers",), "", "a modifier of the training; repeatable", many=True)
OBJECTIVE = Slot(
    "--objective",
    ("objectives",),
    "task",
    "what training minimises, soft_labels if there is a --teacher; repeat it to add losses up",
    many=True,
    default_with=(("--teacher", "soft_labels"),),
)


@dataclass(frozen=True)
class Picked:
    """A method with its options."""

    method: Method
    options: Any

    @property
    def name(self) -> str:
        """The method's name."""
        return self.method.name

    def record(self) -> dict[str, Any]:
        """Name and options for the lineage."""
        return {"method": self.name, "options": as_record(self.options)}


def record_together(picked: Sequence[Picked]) -> dict[str, Any]:
    """Names and options of methods used together, as one entry of the lineage."""
    options: dict[str, Any] = {}
    for one in picked:
        options.update(as_record(one.options))
    return {"method": "+".join(one.name for one in picked), **options}


@dataclass(frozen=True)
class Methods:
    """The methods of one command, by the keyword of their slot.

    Attributes:
        picked: the methods of each slot with their options.
        typed: what each slot's flag was given, word for word.
    """

    picked: dict[str, list[Picked]]
    typed: dict[str, Any]

    def one(self, slot: str) -> Picked:
        """The single method of a slot that always has one."""
        return self.picked[slot][0]

    def all(self, slot: str) -> list[Picked]:
        """The methods of a slot, perhaps none."""
        return self.picked.get(slot, [])


def values_of(flag: str, words: Sequence[str]) -> list[str]:
    """The values of a flag among raw words, in both spellings (`--f v`, `--f=v`)."""
    found = []
    for index, word in enumerate(words):
        if word == flag and index + 1 < len(words):
            found.append(words[index + 1])
        elif word.startswith(f"{flag}="):
            found.append(word.partition("=")[2])
    return found


def chosen_methods(
    slots: Sequence[Slot], words: Sequence[str], verb: str
) -> dict[str, list[Method]]:
    """The methods that a command line names or gets by default, by the slot's keyword.

    Raises:
        UsageError: a name that no method has.
    """
    chosen: dict[str, list[Method]] = {}
    for slot in slots:
        defaults = [names for flag, names in slot.default_with if values_of(flag, words)]
        named = values_of(slot.flag, words) or (*defaults, slot.default)[0].split(",")
        wanted = [word for word in named if word]
        if slot.or_model:
            known = {name for kind in slot.kinds for name in names(kind)}
            wanted = [word for word in wanted if word.replace("-", "_") in known]
        twice = [word for word in wanted if wanted.count(word) > 1]
        if twice and slot.many:
            raise UsageError(f"{slot.flag} names {twice[0]} {len(twice)} times", where=slot.flag)
        if len(wanted) > 1 and not slot.many:
            raise UsageError(f"{slot.flag} stands {len(wanted)} times; it takes one method")
        chosen[slot.name] = [look_up(word, slot.kinds, slot.flag, verb) for word in wanted]
    return chosen


def owners_of(flag: str) -> list[str]:
    """Names of the methods that have an option with this flag."""
    from compressor.methods.find import method

    every = [method(kind, name) for kind in KINDS for name in names(kind)]
    return [m.name for m in every if flag in m.flags()]
