"""Command lines in processes of their own, cheap enough to start by the dozen.

They are forked from a server that has loaded the libraries and run nothing, so each is a whole
`python -m compressor` from the first word on: its own signals, limits, folder and exit code.
"""

from __future__ import annotations

import hashlib
import importlib
import multiprocessing
import os
import re
import resource
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "torch",
        "accelerate",
        "transformers.models.auto.modeling_auto",
        "transformers.models.bert.modeling_bert",
        "compressor.cli",
        "compressor.commands.distill",
        "compressor.commands.generate",
        "compressor.commands.prune",
        "compressor.commands.quantize",
        "compressor.commands.training",
        "compressor.model.fill",
        "compressor.model.load",
        "compressor.model.save",
        "compressor.model.quantized",
        "compressor.train.loop",
    ]
)
PATIENCE_SECONDS = 120.0
# Every line that a run may write to stderr when nothing is wrong.
OURS = re.compile(
    r"\S+: text-classification on text, 2 classes in label \(negative, positive\)"
    r"|warning: .* (validation|training) rows .*"
    r"|(teacher|training): \d+ steps"
    r"|(teacher|training): done in .*"
    r"|validation: accuracy .*"
    r"|layers \d+ to \d+ are the former [\d, ]+"
    r"|generating: (\d+ rows|done in .*)"
    r"|[\d,]+ new rows beside the .* rows/s"
    r"|"
)


@dataclass(frozen=True)
class At:
    """A signal that a process sends itself when it calls a function for the nth time.

    Attributes:
        place: dotted path of the function as its caller finds it.
        number: the signal.
        call: 1 for the first call.
        times: how often to send it.
    """

    place: str
    number: int
    call: int = 1
    times: int = 1


@dataclass(frozen=True)
class Done:
    """What a process said and how it ended: exit code, or minus the signal that killed it."""

    code: int
    out: str
    err: str
    seconds: float


@dataclass
class Running:
    """A started command line."""

    process: multiprocessing.Process
    folder: Path
    started: float = field(default_factory=time.monotonic)

    def kill(self, number: int) -> None:
        """Send a signal; none if the process has ended."""
        if self.process.is_alive():
            os.kill(self.process.pid, number)

    def wait(self) -> Done:
        """Wait for the end."""
        self.process.join(PATIENCE_SECONDS)
        seconds = time.monotonic() - self.started
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"still running after {seconds:.0f} s")
        files = [_path(self.folder, name) for name in ("out", "err")]
        # Killed early enough it has not even opened them.
        out, err = (file.read_text() if file.exists() else "" for file in files)
        return Done(self.process.exitcode, out, err, seconds)


def _path(folder: Path, name: str) -> Path:
    return folder.with_name(f"{folder.name}.std{name}")


def start(
    words: str,
    folder: Path,
    *,
    at: At | None = None,
    file_limit: int | None = None,
    terminal: str = "",
    environment: dict[str, str] | None = None,
) -> Running:
    """Start `compressor words` in `folder`.

    Args:
        words: the command line, split at blanks.
        folder: where to run; stdout and stderr are kept beside it.
        at: when to send itself a signal.
        file_limit: the largest file that it may write, in bytes, as on a full disk.
        terminal: path of a terminal to be stdout and stderr.
        environment: variables to set.
    """
    streams = [terminal or str(_path(folder, name)) for name in ("out", "err")]
    given = (words.split(), str(folder), streams, at, file_limit, environment or {})
    process = CONTEXT.Process(target=_child, args=given)
    process.start()
    return Running(process, folder)


def run(words: str, folder: Path, **options) -> Done:
    """Run `compressor words` in `folder` to its end; see `start`."""
    return start(words, folder, **options).wait()


def _child(words, folder, streams, at, file_limit, environment) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    for number, path in enumerate(streams, start=1):
        flags = os.O_WRONLY | (0 if path.startswith("/dev/") else os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(path, flags | os.O_NOCTTY, 0o666), number)
    # A test run started in the background ignores SIGINT; a command that a person types does not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    if at is not None:
        _arm(at)
    from compressor.cli import main

    main(words)


def _arm(at: At) -> None:
    path, _, name = at.place.rpartition(".")
    try:
        owner = importlib.import_module(path)
    except ModuleNotFoundError:  # a method of a class
        path, _, inner = path.rpartition(".")
        owner = getattr(importlib.import_module(path), inner)
    plain = getattr(owner, name)
    calls = 0

    def armed(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == at.call:
            for _ in range(at.times):
                os.kill(os.getpid(), at.number)
        return plain(*arguments, **options)

    setattr(owner, name, armed)


def linked(folder: Path, source: Path, *names: str) -> Path:
    """A fresh folder to run in, with links to inputs."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(source / name)
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file below `folder`, of the target of every link, but not of run.json."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.name != "run.json":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif not path.is_file():
            found[name] = "folder" if path.is_dir() else "other"
    return found


def rare(*values):
    """A parameter that is run before a release, because another of its kind is always run."""
    return pytest.param(*values, marks=pytest.mark.slow)


def command(*words: object) -> list[str]:
    """`compressor words` for a new interpreter."""
    return [sys.executable, "-m", "compressor", *map(str, words)]
