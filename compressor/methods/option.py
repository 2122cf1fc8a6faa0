"""Options: the one declaration behind a flag, a recipe's key and a record."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from compressor.errors import UsageError


def option(
    default: Any,
    text: str,
    *,
    source: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    flag: str = "",
    file: bool = False,
) -> Any:
    """A field of an options dataclass: the one declaration behind flag, recipe key and record.

    Args:
        default: the value when the user says nothing.
        text: the help sentence.
        source: where the default comes from (a paper, a measurement).
        low: smallest value allowed.
        high: largest value allowed.
        choices: the allowed words, for text options.
        flag: the spelling on the command line where it differs from the field's name.
        file: whether the value is the path of a file, of which the record has name and hash.
    """
    metadata = {
        "help": text,
        "source": source,
        "low": low,
        "high": high,
        "choices": choices,
        "flag": flag,
        "file": file,
    }
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(field: Any) -> str:
    """The long flag of an option's field."""
    return "--" + (field.metadata.get("flag") or field.name.replace("_", "-")).partition("/")[0]


def refuse_idle(options: Any, flagged: Sequence[str], because: str) -> None:
    """Refuse options that were set and would do nothing.

    Args:
        options: an options dataclass.
        flagged: names of its fields.
        because: the end of the sentence about a flag that does nothing.

    Raises:
        UsageError: one of the fields has another value than its default.
    """
    for field in dataclasses.fields(options):
        if field.name in flagged and getattr(options, field.name) != field.default:
            flag = flag_of(field)
            raise UsageError(f"{flag} does nothing {because}", where=flag)
