"""What a stopped run leaves on disk, so that going on ends in the same bytes.

`{output}.state/` holds `run.json` (what the run is bound to), the teacher's cached answers, and
`step-N/` folders, each whole because it is renamed into place. Batches and dropout masks depend
only on seed and step, so no generator state is kept.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.checkpoint.reading import read_object
from compressor.checkpoint.store import clear_leftovers, write_json, writing
from compressor.errors import InputError

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]

LOSSES_KEPT = 200  # entries of a run's history, evaluations aside


@dataclass
class Position:
    """How far a run has come.

    Attributes:
        step: optimizer steps done.
        evaluated: False when the evaluation due after `step` was interrupted.
        best: metrics of the best evaluation so far, with its `step`; empty before the first.
        history: entries with `step` and the mean losses since the last such entry (None where none
            was finite), or the metrics of an evaluation.
        sums: of each loss since the last entry of `history`: the sum, and how many were added.
    """

    step: int = 0
    evaluated: bool = True
    best: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)

    def log(self, parts: dict[str, float], total: int) -> None:
        """Add the losses of the step just done; of a long run many steps share an entry.

        Args:
            parts: the loss, its parts, and the norm of the gradient, which fp16 lets be infinite.
            total: optimizer steps of the whole run.
        """
        for name, value in parts.items():
            before, count = self.sums.get(name, (0.0, 0))
            finite = math.isfinite(value)
            self.sums[name] = (before + value, count + 1) if finite else (before, count)
        if self.step % math.ceil(total / LOSSES_KEPT) and self.step < total:
            return
        means = {n: added / count if count else None for n, (added, count) in self.sums.items()}
        self.history.append({"step": self.step, **means})
        self.sums = {}


class StateFolder:
    """The states of one run."""

    def __init__(self, output: Path, bound_to: dict[str, Any]) -> None:
        self.path = output.with_name(f"{output.name}.state")
        self.bound_to = json.loads(json.dumps(bound_to))

    @property
    def teacher_folder(self) -> Path:
        """Where the teacher's answers are kept for this run alone."""
        return self.path / "teacher"

    def prepare(self, *, resume: bool, force: bool) -> None:
        """Take up an earlier run, or start a new one.

        Raises:
            InputError: there is an unfinished run and neither `resume` nor `force`, or it is
                bound to other data, options, seed, teacher or versions.
        """
        clear_leftovers(self.path)
        record = self.path / "run.json"
        if record.exists() and not resume and not force:
            raise InputError(
                f"an unfinished run is kept in {self.path}",
                hint="--resume to go on with it, --force to start over",
            )
        if record.exists() and resume:
            changed = list(changes(read_object(record), self.bound_to))
            if changed:
                raise InputError(
                    "cannot resume, the unfinished run differs in " + "; ".join(changed),
                    hint="repeat its options, or --force to start over",
                    where=str(self.path),
                )
            for step in self.path.glob(".step-*"):  # what a killed run was writing
                shutil.rmtree(step)
            return
        self.remove()
        with writing(self.path) as folder:
            write_json(folder / "run.json", self.bound_to)

    def steps(self) -> list[int]:
        """The steps that have a whole state, ascending."""
        folders = self.path.glob("step-*")
        return sorted(int(folder.name.removeprefix("step-")) for folder in folders)

    def save(self, position: Position, tensors: dict[str, Tensors]) -> None:
        """Write the state after `position.step` and keep the newest two.

        Args:
            position: how far the run has come.
            tensors: groups of tensors (model, optimizer, best ...), a file each.
        """
        from safetensors.torch import save_file

        target = self.path / f"step-{position.step}"
        if target.exists():  # the same weights; at most an evaluation will be made again
            return
        with writing(target) as folder:
            write_json(folder / "position.json", asdict(position))
            for name, group in tensors.items():
                save_file(
                    {key: value.detach().cpu().contiguous() for key, value in group.items()},
                    folder / f"{name}.safetensors",
                )
        for old in self.steps()[:-2]:
            _remove(self.path / f"step-{old}")

    def load(self) -> tuple[Position, dict[str, Tensors]] | None:
        """The newest state, or None before the first."""
        from safetensors.torch import load_file

        steps = self.steps()
        if not steps:
            return None
        folder = self.path / f"step-{steps[-1]}"
        position = Position(**json.loads((folder / "position.json").read_text()))
        groups = {file.stem: load_file(file) for file in folder.glob("*.safetensors")}
        console.note(f"going on after step {position.step} from {self.path}")
        return position, groups

    def remove(self) -> None:
        """Forget the run, once its result stands."""
        if self.path.exists():
            _remove(self.path)


def _remove(folder: Path) -> None:
    """Remove a folder under another name, so that none with this name is ever half there."""
    doomed = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def changes(earlier: Any, now: Any, key: str = "") -> Iterator[str]:
    """What differs between two records, one entry for each key at the bottom: `key: old -> new`."""
    if isinstance(earlier, dict) and isinstance(now, dict):
        for name in sorted({*earlier, *now}):
            inner = f"{key}.{name}" if key else name
            yield from changes(earlier.get(name), now.get(name), inner)
    elif earlier != now:
        yield f"{key}: {earlier} -> {now}"


def weights_of(module: torch.nn.Module) -> Tensors:
    """Parameters and buffers by name, shared ones once."""
    every = (*module.named_parameters(), *module.named_buffers())
    return {name: value.detach() for name, value in every}


def load_weights(module: torch.nn.Module, saved: Tensors) -> None:
    """Copy `saved`, as `weights_of` named it, into the module."""
    import torch

    with torch.no_grad():
        for name, value in weights_of(module).items():
            value.copy_(saved[name])


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """The optimizer's moments and counters as `index.key`."""
    return {
        f"{index}.{key}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, saved: Tensors) -> None:
    """Take back what `optimizer_tensors` gave."""
    moments: dict[int, Tensors] = {}
    for name, value in saved.items():
        index, _, key = name.partition(".")
        moments.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
