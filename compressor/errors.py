"""Every way a command can end badly, and the exit code that says so.

CompressorError
├── UsageError      2    unknown flag, value out of range, option of another method
├── InputError      3    checkpoint, data or recipe is missing, broken, unsafe or does not fit
├── GateError       4    the result exists and is not good enough: accuracy, speed, size, parity
├── DivergedError   5    training produced NaN or infinity
├── MachineError    6    package, device, memory, disk or permission
└── Interrupted   130/143  SIGINT or SIGTERM; training state is saved

Anything else that escapes is a bug of ours and exits 1.
"""

from __future__ import annotations

from collections.abc import Mapping


class CompressorError(Exception):
    """A failure that can be explained to the person who typed the command.

    Args:
        message: what was found, where, and what was expected.
        hint: what to type or change next.
        where: the file, `file:line`, or flag that the message is about.
    """

    exit_code = 1
    kind = "internal"

    def __init__(self, message: str, *, hint: str = "", where: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where

    def as_dict(self) -> dict[str, object]:
        """The error as the JSON object that `--json` prints on stderr."""
        return {
            "code": self.exit_code,
            "kind": self.kind,
            "message": self.message,
            "hint": self.hint,
            "where": self.where,
        }


class UsageError(CompressorError):
    """The command line itself is wrong."""

    exit_code = 2
    kind = "usage"


class InputError(CompressorError):
    """A checkpoint, data set or recipe is refused."""

    exit_code = 3
    kind = "input"


class GateError(CompressorError):
    """A result was made, measured and found not good enough.

    Attributes:
        facts: what was measured, for the report that is left of it.
    """

    exit_code = 4
    kind = "gate"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        where: str = "",
        facts: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, where=where)
        self.facts = dict(facts or {})


class DivergedError(CompressorError):
    """Training produced a value that is not finite."""

    exit_code = 5
    kind = "diverged"


class MachineError(CompressorError):
    """The machine lacks a package, a device, memory, disk space or a permission."""

    exit_code = 6
    kind = "machine"


class Interrupted(CompressorError):  # noqa: N818 - the user asked for it, nothing went wrong
    """A signal asked the run to stop; what was reached is saved."""

    kind = "interrupted"

    def __init__(self, message: str, *, signal_number: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + signal_number
