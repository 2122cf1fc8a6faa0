"""Named blocks of Markdown files that a command writes; whatever stands around them is not ours.

<!-- compressor compare results -->
what the command writes
<!-- /compressor compare results -->
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compressor.checkpoint.reading import open_regular, system_error
from compressor.checkpoint.store import locked, replace_file
from compressor.errors import InputError


@dataclass(frozen=True)
class Block:
    """A block of a file.

    Attributes:
        path: the file; a link to it stays a link.
        name: what its first line holds between `<!--` and `-->`: "compressor compare results".
    """

    path: Path
    name: str

    def check(self) -> None:
        """Refuse, before any work, what could not be written.

        Raises:
            InputError: there is no such file, or it does not have the block exactly once.
            MachineError: it may not be read or written.
        """
        self._around()
        if not (os.access(self.path, os.W_OK) and os.access(self.path.resolve().parent, os.W_OK)):
            raise system_error(PermissionError(), self.path)

    def write(self, text: str) -> None:
        """Replace what stands between the block's two lines, and no other byte, all at once.

        Args:
            text: whole lines; they get the line ends of the block's first line.

        Raises:
            InputError: as `check`, or another run is writing the file.
            MachineError: it could not be written; it is as it was.
        """
        file = self.path.resolve()
        with locked(file):
            before, after = self._around()
            data = text.encode()
            if before.endswith(b"\r\n"):
                data = data.replace(b"\n", b"\r\n")
            replace_file(file, before + data + after)

    def _around(self) -> tuple[bytes, bytes]:
        """The file up to and with the block's first line, and from its last line on."""
        with open_regular(self.path) as handle:
            lines = handle.read().splitlines(keepends=True)
        first = self._line(lines, f"<!-- {self.name} -->")
        last = self._line(lines, f"<!-- /{self.name} -->")
        if last < first:
            raise InputError(
                f"{self.path.name} ends the block {self.name} before it begins",
                hint="put the line with / below the other",
                where=f"{self.path}:{last + 1}",
            )
        return b"".join(lines[: first + 1]), b"".join(lines[last:])

    def _line(self, lines: Sequence[bytes], mark: str) -> int:
        found = [index for index, line in enumerate(lines) if line.strip() == mark.encode()]
        if len(found) != 1:
            places = "in lines " + ", ".join(str(index + 1) for index in found)
            raise InputError(
                f"{self.path.name} must have the line {mark} once, and has it "
                f"{places if found else 'nowhere'}",
                hint=f"<!-- {self.name} --> and <!-- /{self.name} --> stand around the place, each "
                "on a line of its own",
                where=str(self.path),
            )
        return found[0]
