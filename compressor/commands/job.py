"""What every verb that writes a folder does around its own work.

Resolve the inputs, name the target, check it, skip finished work, lock, and at the end write the
folder once with its lineage and print its path.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compressor import console
from compressor.checkpoint.folder import Checkpoint, open_checkpoint
from compressor.checkpoint.lineage import RECORD, make_step, read_lineage, write_lineage
from compressor.checkpoint.packed import pack
from compressor.checkpoint.sentences import keep_beside
from compressor.checkpoint.source import resolve_model
from compressor.checkpoint.store import check_target, locked, write_json, writing
from compressor.commands.options import Making
from compressor.data.dataset import Dataset
from compressor.errors import GateError, InputError, UsageError
from compressor.model.devices import refuse_absent_gpu
from compressor.model.reader import refuse_unreadable

_LONGEST_PATHS = 1_000_000  # bytes; whatever is longer is no path, and may never end


def path_from_stdin() -> str:
    """The one path that the stage before printed, plain or as `--json`.

    Raises:
        UsageError: stdin is a terminal.
        InputError: nothing came, or more than one line.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("- reads the checkpoint's path from stdin, which is a terminal")
    text = os.fsdecode(sys.stdin.buffer.read(_LONGEST_PATHS)).strip()
    if not text:
        raise InputError("the stage before this one produced no checkpoint", where="stdin")
    if text.startswith("{"):
        try:
            return str(json.loads(text)["output"])
        except (ValueError, KeyError):
            raise InputError("stdin holds JSON without an output", where="stdin") from None
    lines = text.splitlines()
    if len(lines) > 1:
        raise InputError(
            f"the stage before this one printed {len(lines)} lines; expected one path",
            where="stdin",
        )
    return lines[0]


def open_model(reference: str, shared: Making) -> Checkpoint:
    """Open what the user calls MODEL: a folder, `-`, `hub:` or `pkg:`.

    Raises:
        CompressorError: it is missing, broken, unsafe or unknown.
    """
    path = resolve_model(path_from_stdin() if reference == "-" else reference)
    return open_checkpoint(path, accept_changed=shared.accept_changed)


@dataclass
class Job:
    """One verb at work on one target.

    Attributes:
        verb: the verb.
        words: the command line, verb first.
        shared: the shared flags.
        models: opened input checkpoints by role ("model", "teacher", "student").
        record: method and options as they go into the lineage.
        dataset: the data, if the verb reads any.
        plan: what a dry run prints, by heading.
        record_name: the file of the lineage in the folder that is written.
        pack: store the zeros of sparse matrices away.
    """

    verb: str
    words: Sequence[str]
    shared: Making
    models: dict[str, Checkpoint]
    record: dict[str, Any]
    dataset: Dataset | None = None
    plan: dict[str, Any] = field(default_factory=dict)
    record_name: str = RECORD
    pack: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def origin(self) -> Checkpoint:
        """The checkpoint whose lineage the result continues."""
        return next(iter(self.models.values()))

    @property
    def target(self) -> Path:
        """The folder to write."""
        if self.shared.output:
            return Path(self.shared.output)
        return Path(f"{self.origin.name}-{self.verb}")

    def step(self, metrics: dict[str, Any] | None = None) -> dict[str, Any]:
        """The lineage step of this job."""
        inputs: dict[str, dict[str, str]] = {
            role: {"name": checkpoint.name, "weights": checkpoint.weights_hash}
            for role, checkpoint in self.models.items()
        }
        if self.dataset is not None:
            inputs["data"] = {"name": self.dataset.source.name, "rows": self.dataset.hash}
        return make_step(
            verb=self.verb,
            method=self.record.get("method", ""),
            options={
                **{key: value for key, value in self.record.items() if key != "method"},
                **({"pack": True} if self.pack else {}),
            },
            seed=self.shared.seed,
            inputs=inputs,
            command=self.command(),
            metrics=metrics,
        )

    def command(self) -> str:
        """The command line as the lineage records it."""
        return command_line(self.words, stdin=self.origin.name)

    def begin(self, *, needed_bytes: int) -> bool:
        """Check the target before any long work.

        Returns:
            False when there is nothing to do: the output is already made, or this is a dry run.

        Raises:
            InputError, MachineError: the target cannot be written, or a model cannot read the rows.
        """
        for checkpoint in self.models.values() if self.dataset else ():
            refuse_unreadable(checkpoint, self.dataset.task, self.dataset.source.name)
        if self.shared.reuse and self._is_done():
            console.note(f"{self.verb}: {self.target} is already made by this command")
            print_folder(self.target, {"verb": self.verb, "reused": True})
            return False
        inputs = [checkpoint.path for checkpoint in self.models.values()]
        if self.dataset is not None:  # its files: the output may well stand beside them
            inputs += [file for files in self.dataset.source.splits.values() for file in files]
        if console.is_main_process():
            needed_bytes *= 2 if self.pack else 1  # packed beside unpacked for a while
            check_target(
                self.target, force=self.shared.force, inputs=inputs, needed_bytes=needed_bytes
            )
        if self.shared.dry_run:
            self._print_plan()
        return not self.shared.dry_run

    def _is_done(self) -> bool:
        if not self.target.is_dir():
            return False
        steps = read_lineage(self.target, self.record_name)
        planned = self.step()
        ignored = ("metrics", "command")
        return bool(steps) and all(
            steps[-1].get(key) == value for key, value in planned.items() if key not in ignored
        )

    def _print_plan(self) -> None:
        plan = {
            "verb": self.verb,
            "output": str(self.target),
            **{role: str(checkpoint.path) for role, checkpoint in self.models.items()},
            **self.record,
            **self.plan,
        }
        if console.settings.json:
            console.result_json(plan)
            return
        for key, value in plan.items():
            console.note(f"{key}: {value}")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Hold the target's lock while working; a gate's refusal leaves its numbers behind.

        Raises:
            InputError: another run is writing the target.
            MachineError: the device that was asked for is not there.
            GateError: as raised inside; its hint then names the folder with its numbers.
        """
        with locked(self.target) if console.is_main_process() else nullcontext():
            refuse_absent_gpu(self.shared.device)
            try:
                yield
            except GateError as refusal:
                self._leave_refusal(refusal)
                raise

    def publish(
        self,
        write: Callable[[Path], dict[str, Any] | None],
        *,
        metrics: dict[str, Any] | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        """Write the folder once, whole, and print its path.

        Args:
            write: puts the model's files into the folder that it is given; returns more metrics.
            metrics: what the lineage says about the result; times of this run, whose names end in
                `_ms`, go to `run.json` instead.
            facts: what `run.json` says besides times and paths.
        """
        if not console.is_main_process():
            return
        with writing(self.target, force=self.shared.force) as folder:
            metrics = {**(metrics or {}), **(write(folder) or {})}
            keep_beside(self.models.get("student", self.origin).path, folder)
            times = {name: metrics.pop(name) for name in list(metrics) if name.endswith("_ms")}
            if self.pack:
                pack(folder)
            steps = [*self.origin.steps, self.step(metrics)]
            write_lineage(folder, steps, self.record_name)
            write_json(folder / "run.json", self._run_facts({**(facts or {}), **times}))
        print_folder(self.target, {"verb": self.verb, "metrics": metrics})

    def _leave_refusal(self, refusal: GateError) -> None:
        """Write `{target}.refused/report.json`, which has a gate's numbers, and say so."""
        place = self.target.with_name(f"{self.target.name}.refused")
        if console.is_main_process():
            report = {"command": self.command(), **refusal.as_dict(), **refusal.facts}
            with writing(place, force=True) as folder:
                write_json(folder / "report.json", report)
        refusal.hint = "; ".join(filter(None, [f"the numbers are in {place}", refusal.hint]))

    def _run_facts(self, facts: dict[str, Any]) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "inputs": {role: str(c.path.resolve()) for role, c in self.models.items()},
            "command": ["compressor", *self.words],
            "seconds": round(time.monotonic() - self.started, 3),
            "peak_memory_bytes": peak * (1 if sys.platform == "darwin" else 1024),
            **facts,
        }


# How a run went on, what it replaced and how it spoke: none of it changes a byte of the result.
_NOT_RECORDED = (
    "--resume", "--reuse", "--force", "--json", "--quiet", "--debug", "--cache-hidden"
)  # fmt: skip
_NOT_RECORDED_WITH_VALUE = ("--teacher-cache", "--cache-limit")


def command_line(words: Sequence[str], *, stdin: str = "-", relative: bool = False) -> str:
    """A command with bare folder names, so that it reads the same on every machine.

    Flags that do not decide the result are left out: a resumed run records what a whole one does.

    Args:
        words: the command line, verb first.
        stdin: what `-` stood for.
        relative: keep relative paths whole, where bare names would not tell inputs apart.
    """
    shown = ["compressor"]
    rest = iter(words)
    for word in rest:
        if word in _NOT_RECORDED_WITH_VALUE:
            next(rest, None)
            continue
        if word in _NOT_RECORDED or word.partition("=")[0] in _NOT_RECORDED_WITH_VALUE:
            continue
        is_path = word.startswith(("./", "../")) or ("/" in word and Path(word).exists())
        if word == "-":
            shown.append(stdin)
        elif word.startswith(("/", "~")) or (is_path and not relative):
            shown.append(Path(word).name or word)
        else:
            shown.append(shlex.quote(word))
    return " ".join(shown)


def print_folder(folder: Path, facts: dict[str, Any]) -> None:
    """The command's one line: the folder, or JSON about it."""
    if console.settings.json:
        line = json.dumps({"output": str(folder), **facts}, ensure_ascii=False)
        console.result(line)
    else:
        console.result(str(folder))
