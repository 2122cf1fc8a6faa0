"""Rows out of parquet and arrow files, a thousand at a time, through pyarrow.

Columns that the `datasets` library marks as class labels come out as their names, so that a data
set from the hub and one written by hand look alike; its -1, "no label", comes out as None.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.data.faults import Bad, excerpt
from compressor.data.readers import open_binary, unusable
from compressor.errors import InputError

if TYPE_CHECKING:
    import pyarrow

ROWS_AT_ONCE = 1000


def read_table(path: Path) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """Stream (1-based row number, row) of a parquet or arrow stream file.

    Raises:
        InputError: the file is not what its name says, or is damaged.
    """
    import pyarrow

    number = 0
    try:
        for batch in _batches(path):
            names = class_names(batch.schema)
            for row in batch.to_pylist():
                number += 1
                reason = next(filter(None, map(unusable, row.values())), "")
                if reason:
                    yield number, Bad(reason, excerpt(str(row)))
                    continue
                for column, classes in names.items():
                    index = row[column]
                    known = index is not None and 0 <= index < len(classes)
                    row[column] = classes[index] if known else None
                yield number, row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as problem:
        kind = path.suffix.lower().removeprefix(".")
        raise InputError(
            f"not a readable {kind} file, after {number:,} rows: {excerpt(str(problem))}",
            hint="write it again; a copy that was cut short looks like this",
            where=str(path),
        ) from problem


def _batches(path: Path) -> Iterator[pyarrow.RecordBatch]:
    import pyarrow

    with open_binary(path) as handle:
        if path.suffix.lower() == ".parquet":
            import pyarrow.parquet

            yield from pyarrow.parquet.ParquetFile(handle).iter_batches(batch_size=ROWS_AT_ONCE)
            return
        for batch in pyarrow.ipc.open_stream(handle):
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                yield batch.slice(start, ROWS_AT_ONCE)


def class_names(schema: pyarrow.Schema) -> dict[str, list[str]]:
    """The class names by column that `datasets` wrote into a file's schema; {} if it did not."""
    noted = (schema.metadata or {}).get(b"huggingface")
    if not noted:
        return {}
    try:
        features = json.loads(noted)["info"]["features"]
    except (ValueError, KeyError, TypeError):
        # Another tool's note under the same key: the integers then stand for themselves.
        return {}
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }
