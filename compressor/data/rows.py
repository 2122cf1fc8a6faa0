"""One example, and the words for a row that is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from compressor.data.columns import missing_column
from compressor.data.faults import Bad, excerpt
from compressor.data.labels import label_key, listed

# The label of a training row that has none: the task's loss passes over it.
NO_CLASS, NO_SCORE = -100, math.nan


class Row(NamedTuple):
    """One example: `texts` has one text or two, `label` is a class id, a number, or None.

    Where rows hold images, the one text is the path of the image as it stands in the row.
    """

    line: int
    file: Path
    texts: tuple[str, ...]
    label: int | float | None

    @property
    def image(self) -> Path:
        """The image's file, which lies in the folder of the row's own file or below."""
        return self.file.parent / self.texts[0]

    @property
    def one_text(self) -> str:
        """What a row is to a language model: its texts, one below the other."""
        return "\n".join(self.texts)


class Example(NamedTuple):
    """A row without a place in a file: `texts` and `label` as in `Row`."""

    texts: tuple[str, ...]
    label: int | float | None


def bad_text(row: dict[str, Any], columns: Sequence[str], expected: str = "a text") -> Bad:
    """Why `row` has no text, or no path, in one of `columns`."""
    column = next(name for name in columns if not isinstance(row.get(name), str))
    if column not in row:
        return Bad(missing_column(column, list(row)))
    value = row[column]
    found = "nothing" if value is None else f"a {type(value).__name__}, not {expected}"
    return Bad(f"column {column!r} holds {found}", excerpt(str(row)))


def bad_path(row: dict[str, Any], column: str) -> Bad | None:
    """Why the text in `column` names no file in the folder of the row's own; None where it does.

    The words alone are looked at, so that a row costs nothing. A link inside the folder may lead
    anywhere: whoever made it meant it.
    """
    path = PurePosixPath(row[column])
    if row[column].strip() and not path.is_absolute() and ".." not in path.parts:
        return None
    what = "leaves the folder of the data" if row[column].strip() else "is empty"
    return Bad(
        f"the path in column {column!r} {what}",
        excerpt(str(row)),
        "a path counts from the folder of the file that it stands in: images/1.jpg",
    )


def bad_label(row: dict[str, Any], column: str, labels: Sequence[str] | None) -> Bad:
    """Why the label of `row` is not one of `labels`, or not a number where `labels` is None."""
    if column not in row:
        return Bad(missing_column(column, list(row)))
    value = row[column]
    if label_key(value)[0] == "missing":
        return Bad(f"no label in column {column!r}", excerpt(str(row)))
    if labels is None:
        return Bad(f"label {value!r} is not a finite number", excerpt(str(row)))
    return Bad(
        f"label {value!r} is not one of the labels {listed(labels)}",
        excerpt(str(row)),
        "the labels of the data must be those of the model, by name: rename them in the data",
    )
