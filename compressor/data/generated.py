"""Generated rows as a data folder: jsonl files that read as the data set that they came from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from compressor.data.dataset import Dataset
from compressor.data.labels import label_key
from compressor.data.rows import Example, Row


def write_rows(path: Path, dataset: Dataset, rows: Iterable[Row | Example]) -> int:
    """Append rows to a jsonl file with the columns of a data set.

    The text columns and the label column keep their names; other columns, which a new row cannot
    have, are left out of the old rows too.

    Args:
        path: the file; made when it is missing.
        dataset: what the texts and labels of the rows belong to.
        rows: in order.

    Returns:
        How many they were.
    """
    count = 0
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            values: dict[str, Any] = dict(zip(dataset.text_columns, row.texts, strict=True))
            if dataset.label_column is not None:
                values[dataset.label_column] = _label(dataset, row.label)
            file.write(json.dumps(values, ensure_ascii=False) + "\n")
            count += 1
    return count


def _label(dataset: Dataset, label: int | float | None) -> str | int | float | None:
    """A label as files have it: the name of a class, or its number where the name is one."""
    if dataset.labels is None:
        return label
    name = dataset.labels[int(label or 0)]
    return int(name) if label_key(name)[0] == "integer" else name
