"""What the label column means: class names, class numbers, or numbers to predict.

A label is compared by its *key*: a name as it stands, an integer as its digits, a boolean as
`true` or `false`. So 1 in a jsonl, "1" in a csv and 1.0 from a spreadsheet are one class.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from typing import Any

from compressor.data.tasks import TASKS, Task
from compressor.errors import InputError

# More classes than this are texts or identifiers, not labels.
MAX_CLASSES = 10_000
SHOWN = 20
# Larger ones are identifiers, and the largest do not even fit a float.
LARGEST_INTEGER = 10**18
INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
DECIMAL = re.compile(r"-?\d+\.\d*([eE][+-]?\d+)?|-?\d+[eE][+-]?\d+")
UNNAMED = re.compile(r"LABEL_\d+|\s*")

KINDS = {
    "integer": "integers",
    "whole": "numbers with a decimal point",
    "fraction": "numbers with a decimal point",
    "name": "names",
    "missing": "missing labels",
    "other": "values that cannot be labels",
}


def label_key(value: Any) -> tuple[str, str]:
    """The kind (a key of KINDS) and the key of a label as it came out of a file."""
    if isinstance(value, str):
        value = _parsed(value.strip())
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "missing", ""
    if isinstance(value, str):
        return "name", value
    if isinstance(value, bool):
        return "name", str(value).lower()
    if isinstance(value, int) and abs(value) < LARGEST_INTEGER:
        return "integer", str(value)
    if isinstance(value, float) and math.isfinite(value):
        return ("whole", str(int(value))) if value.is_integer() else ("fraction", repr(value))
    return "other", repr(value)[:40]


def _parsed(text: str) -> str | int | float | None:
    """The number that a text spells, None for no text, else the text."""
    if INTEGER.fullmatch(text):
        return int(text)
    return float(text) if DECIMAL.fullmatch(text) else text or None


class LabelCounts:
    """The labels of a split: how many rows have each, and where each stands first."""

    def __init__(self, column: str) -> None:
        self.column = column
        self.rows: dict[str, int] = {}
        # kind -> key -> [rows, first place]
        self._values: dict[str, dict[str, list[Any]]] = {}

    def add(self, value: Any, file_name: str, line: int) -> None:
        """Count one row's label; `file_name:line` is its place."""
        kind, key = label_key(value)
        self.rows[kind] = self.rows.get(kind, 0) + 1
        values = self._values.setdefault(kind, {})
        if key in values:
            values[key][0] += 1
        elif len(values) <= MAX_CLASSES:
            values[key] = [1, f"{file_name}:{line}"]

    def choose_task(self, where: str) -> Task:
        """Classification for names and integers, regression for numbers with a decimal point.

        Raises:
            InputError: the labels are of several kinds, or some are missing.
        """
        kinds = set(self.rows)
        if kinds and kinds <= {"integer", "whole", "fraction"} and kinds != {"integer"}:
            return TASKS["regression"]
        if kinds in ({"integer"}, {"name"}):
            return TASKS["text-classification"]
        raise self._mixed(where)

    def require(self, task: Task, where: str) -> None:
        """Refuse labels that `task` cannot use.

        Raises:
            InputError: wrong kind, several kinds, missing labels, or too many classes.
        """
        kinds = set(self.rows)
        numbers = {"integer", "whole", "fraction"}
        if task.name == "regression":
            if not kinds <= numbers:
                raise self._mixed(where, expected="numbers, for regression")
        elif "fraction" in kinds and kinds <= numbers:
            raise self._mixed(where, expected="classes", hint="--task regression")
        elif kinds != {"name"} and not kinds <= {"integer", "whole"}:
            raise self._mixed(where)
        elif sum(map(len, self._values.values())) > MAX_CLASSES:
            raise InputError(
                f"the label column {self.column!r} holds more than {MAX_CLASSES:,} different "
                f"values, such as {self._examples()}: these are no classes",
                hint="--label-column COLUMN, or --task regression",
                where=where,
            )

    def class_counts(self) -> dict[str, int]:
        """Rows by class: integers in order of number, names in alphabetical order."""
        counts: dict[str, int] = {}
        for values in self._values.values():
            for key, (rows, _) in values.items():
                counts[key] = counts.get(key, 0) + rows
        by_number = "name" not in self.rows
        return dict(sorted(counts.items(), key=lambda pair: int(pair[0]) if by_number else pair))

    def _mixed(self, where: str, *, expected: str = "", hint: str = "") -> InputError:
        kinds = list(dict.fromkeys(KINDS[kind] for kind in self.rows))
        found = " and ".join(kinds)
        if expected:
            start = f"the label column {self.column!r} holds {found}; expected {expected}"
        else:
            start = f"the label column {self.column!r} mixes {found}"
            if len(kinds) == 1:
                start = f"the label column {self.column!r} holds only {found}"
        lines = [start]
        for kind, values in self._values.items():
            shown = [
                f"{_shown(kind, key)} ({_rows(rows)}, first at {place})"
                for key, (rows, place) in list(values.items())[:5]
            ]
            more = f" and {len(values) - 5} more values" if len(values) > 5 else ""
            lines.append(f"  {KINDS[kind]}, {_rows(self.rows[kind])}: {', '.join(shown)}{more}")
        hint = hint or "write every label the same way, or name the column: --label-column COLUMN"
        return InputError("\n".join(lines), hint=hint, where=where)

    def _examples(self) -> str:
        values = next(iter(self._values.values()))
        return ", ".join(repr(key) for key in list(values)[:3])


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _shown(kind: str, key: str) -> str:
    return repr(key) if kind == "name" else key or "nothing"


def class_ids(labels: Sequence[str], found: Collection[str]) -> dict[str, int]:
    """Key -> class id. Names match exactly, or without regard to case where that is unambiguous.

    Args:
        labels: the names of the classes in order of id, from the data or from a model.
        found: the keys that the data holds. Integers count as ids where they are 0 to n - 1, one
            for each name, or where the names say nothing (`LABEL_0`, or empty).
    """
    ids = {name: index for index, name in enumerate(labels)}
    folded = [name.casefold() for name in labels]
    if len(set(folded)) == len(folded):
        for index, name in enumerate(folded):
            ids.setdefault(name, index)
    numbers = [str(index) for index in range(len(labels))]
    keys = set(found)
    unnamed = all(UNNAMED.fullmatch(name) for name in labels)
    named_by_number = any(INTEGER.fullmatch(name) for name in labels)
    if not named_by_number and (
        keys == set(numbers) or (unnamed and all(INTEGER.fullmatch(key) for key in keys))
    ):
        ids.update((number, index) for index, number in enumerate(numbers))
    return ids


def listed(labels: Sequence[str]) -> str:
    """Class names for a message, the first twenty."""
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return ", ".join(labels[:SHOWN]) + more
