"""What long work has found so far, on disk after each piece, for a run that goes on with it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class KeptFile:
    """A list of JSON values that only grows: one line each, forced to the disk as it is added.

    A line that a killed run or a full disk cut off is dropped when the file is opened again. Use
    as a context manager.

    Args:
        path: the file; made when it is missing.
    """

    def __init__(self, path: Path) -> None:
        # Unbuffered: what a full disk refused must not be tried again when the file is closed.
        self._file = path.open("a+b", buffering=0)
        self._ends = [0]
        self._file.seek(0)
        with path.open("rb") as whole:
            for line in whole:
                if line.endswith(b"\n"):
                    self._ends.append(self._ends[-1] + len(line))
        self._file.truncate(self._ends[-1])

    def __enter__(self) -> KeptFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> Any:
        """The value with this number, counted from 0, read from the disk.

        Raises:
            IndexError: there are not so many.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"value {number} of {len(self)}")
        start, end = self._ends[number : number + 2]
        return json.loads(os.pread(self._file.fileno(), end - start, start))

    def append(self, value: Any) -> None:
        """Write one more value; it is on the disk when this returns.

        Raises:
            OSError: it could not be written, and the list is as it was.
        """
        line = json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            left = memoryview(line)
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except BaseException:
            self._file.truncate(self._ends[-1])
            raise
        self._ends.append(self._ends[-1] + len(line))
