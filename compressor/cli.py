"""The command line, and the one place where an error becomes an exit code.

Exit codes: 0 done; 1 a bug of ours; 2 usage; 3 input refused; 4 a gate refused; 5 training
diverged; 6 the machine; 130/143 stopped by a signal, state saved; 141 nobody reads our stdout any
more. Nothing here imports torch.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from compressor import console
from compressor.commands.dispatch import VERBS, dispatch
from compressor.errors import CompressorError, Interrupted, MachineError

__all__ = ["VERBS", "dispatch", "main", "run"]


# Packages whose modules have another name.
_PIP_NAMES = {
    "PIL": "pillow",
    "compressed_tensors": "compressed-tensors",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which like Ctrl-C unwinds the work so that nothing half-made stays."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    # Threads of a matrix product that wait for each other spin, and on a core that another program
    # wants they spin against the very thread they wait for. A short spin halves the time of a
    # training step beside one busy core (tests/benchmarks/busy_core.py).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us: `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open until the end
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(words: list[str]) -> int:
    """Run one command line; returns the exit code."""
    before = (console.settings.quiet, console.settings.debug, console.settings.json)
    console.settings.quiet = "--quiet" in words or not console.is_main_process()
    console.settings.debug = "--debug" in words
    console.settings.json = "--json" in words
    try:
        with _unwinding_on_sigterm():
            dispatch(words)
    except BaseException as problem:
        try:
            return _exit_code(problem)
        except OSError as silence:
            return _unheard(silence)
    finally:
        console.settings.quiet, console.settings.debug, console.settings.json = before
    return 0


@contextmanager
def _unwinding_on_sigterm() -> Iterator[None]:
    """SIGTERM raises in the main thread, where signals are delivered."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _exit_code(problem: BaseException) -> int:
    """Say what went wrong, and the code that tells a script."""
    if isinstance(problem, SystemExit):
        raise problem
    if isinstance(problem, BrokenPipeError):
        return _unheard(problem)
    known = _in_words(problem)
    if known is None:
        return _bug(problem)
    if console.settings.debug:
        traceback.print_exception(problem)
    console.error(known)
    return known.exit_code


def _unheard(silence: OSError) -> int:
    """The code when a stream takes nothing more: its reader has left, or its disk is full."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # what is still to be written would fail again when the process ends
            os.dup2(nowhere, stream.fileno())
    return 141 if isinstance(silence, BrokenPipeError) else MachineError.exit_code


def _in_words(problem: BaseException) -> CompressorError | None:
    """The failure as one of ours; None for what nobody foresaw."""
    if isinstance(problem, CompressorError):
        return problem
    if isinstance(problem, KeyboardInterrupt):
        number = signal.SIGTERM if isinstance(problem, _Terminated) else signal.SIGINT
        return Interrupted(
            f"stopped by {number.name}",
            signal_number=number,
            hint="the same command again; with --resume it goes on where it was",
        )
    if _is_out_of_memory(problem):
        hint = "a smaller --batch-size or a shorter --max-length"
        return MachineError(f"out of memory: {problem}".rstrip(": "), hint=hint)
    if isinstance(problem, ModuleNotFoundError):
        package = (problem.name or "").partition(".")[0]
        wanted = _PIP_NAMES.get(package, package)
        return MachineError(f"package {package} is missing", hint=f"pip install {wanted}")
    if isinstance(problem, OSError):
        return MachineError(str(problem))
    return None


def _is_out_of_memory(problem: BaseException) -> bool:
    """Whether an allocation failed; torch says so by class on a GPU and only in words on a CPU."""
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    return isinstance(problem, RuntimeError) and "can't allocate memory" in str(problem)


def _bug(problem: BaseException) -> int:
    """One sentence about a failure that nobody foresaw, and where its traceback is."""
    text = "".join(traceback.format_exception(problem))
    if console.settings.debug:
        sys.stderr.write(text)
    with tempfile.NamedTemporaryFile("w", prefix="compressor-", suffix=".log", delete=False) as log:
        log.write(text)
    first_line = str(problem).partition("\n")[0]
    console.error(
        CompressorError(
            f"unexpected {type(problem).__name__}: {first_line}", hint=f"report it with {log.name}"
        )
    )
    return 1


if __name__ == "__main__":
    main()
