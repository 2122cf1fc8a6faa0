"""The flags that several verbs share, and options dataclasses turned into flags and back.

An options dataclass is declared once with `compressor.methods.contract.option`; from it come the
command line's flag, the recipe's key, the range check and the record in the lineage.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from compressor.checkpoint.lineage import file_hash
from compressor.data.tasks import TASKS
from compressor.errors import UsageError
from compressor.methods.option import flag_of, option

Options = TypeVar("Options")

PACK_HELP = (
    "store zeros away, so that a sparse checkpoint is small on disk; only compressor opens it"
)
MODEL_HELP = "a folder, - for a path on stdin, hub:owner/name or pkg:module/folder"


@dataclass(frozen=True)
class Output:
    """What every verb that writes a folder can be told."""

    output: str = option(
        "", "folder to write; a name derived from the input if absent", flag="output/-o"
    )
    force: bool = option(False, "replace an existing output (never an input)")
    dry_run: bool = option(False, "check everything, print the plan, do nothing")
    reuse: bool = option(
        False, "do nothing if the output was made by this very command from these very inputs"
    )
    json: bool = option(False, "print the result, and errors, as JSON")
    quiet: bool = option(False, "print errors only")
    debug: bool = option(False, "print tracebacks")


@dataclass(frozen=True)
class Making(Output):
    """What every verb that makes a folder from checkpoints can be told."""

    device = "cpu"  # no flag, and no choice, of a verb that takes this alone

    seed: int = option(42, "seed of everything random", low=0, high=2**31 - 1)
    accept_changed: bool = option(
        False, "open a checkpoint whose files changed after its lineage was written"
    )


@dataclass(frozen=True)
class Shared(Making):
    """What those that compute on a GPU, too, can be told besides."""

    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda"))


@dataclass(frozen=True)
class DataOptions:
    """Which rows, and how to read them."""

    data: str = option("", "folder with train|validation|test files, one file, or hub:name")
    task: str = option(
        "",
        "what the model is for; found from the data if absent",
        choices=("", *TASKS),
    )
    text_columns: str = option("", "the text column, or two separated by a comma")
    image_column: str = option("", "the column with paths of images, from the file's own folder")
    label_column: str = option("", "the column of labels or scores")
    domain: str = option("", "use rows of these domains alone; several separated by commas")
    without_domain: str = option("", "leave out the rows of these domains")
    domain_column: str = option(
        "",
        "the column that names a row's domain; `domain` if absent, or the names of the folders in "
        "a folder of data folders",
    )
    no_overlap: bool = option(False, "refuse rows to score on that stand in the training rows too")


def parameters_of(options: type[Any]) -> list[inspect.Parameter]:
    """The keyword parameters of a command, one per field of an options dataclass."""
    import typer

    hints = typing.get_type_hints(options)
    made = []
    for field in dataclasses.fields(options):
        names = [flag_of(field)]
        _, _, short = field.metadata["flag"].partition("/")
        if short:
            names.append(short)
        text = field.metadata["help"]
        choices = [choice for choice in field.metadata["choices"] if choice]
        if choices:
            text += f" [{'|'.join(choices)}]"
        if field.metadata["source"]:
            text += f" (default from {field.metadata['source']})"
        if hints[field.name] is bool:
            names = [names[0] if not field.default else f"{names[0]}/--no-{names[0][2:]}"]
        shown = field.default not in ("", 0, False)
        annotation = Annotated[
            hints[field.name], typer.Option(*names, help=text, show_default=shown)
        ]
        made.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=annotation,
            )
        )
    return made


def rebuild(options: type[Options], values: Mapping[str, Any]) -> Options:
    """The options dataclass from the command's keyword arguments, checked.

    Raises:
        UsageError: a value outside its range or its choices, naming flag and range.
    """
    made = options(**{f.name: values[f.name] for f in dataclasses.fields(options)})
    for field in dataclasses.fields(options):
        value, limits = getattr(made, field.name), field.metadata
        low, high, choices = limits["low"], limits["high"], limits["choices"]
        flag = flag_of(field)
        if choices and value not in choices:
            raise UsageError(
                f"{flag} {value}: expected one of {', '.join(filter(None, choices))}", where=flag
            )
        outside = (low is not None and not value >= low) or (high is not None and not value <= high)
        endless = isinstance(value, float) and not math.isfinite(value)
        if outside or endless:
            expected = f"at least {low}" if high is None else f"{low} to {high}"
            if low is None and high is None:
                expected = "a finite number"
            raise UsageError(f"{flag} {value}: expected {expected}", where=flag)
    return made


def as_record(options: Any) -> dict[str, Any]:
    """An options dataclass as it stands in the lineage: of a file its name and hash, no path.

    Raises:
        InputError: a file that an option names is not there.
    """
    record = dataclasses.asdict(options)
    for field in dataclasses.fields(options):
        path = record[field.name]
        if field.metadata.get("file") and path:
            record[field.name] = {"name": Path(path).name, "content": file_hash(Path(path))}
    return record


def parse_shapes(text: str, flag: str) -> list[tuple[int, int]]:
    """`1x32,8x64` as [(1, 32), (8, 64)].

    Raises:
        UsageError: anything else.
    """
    shapes = []
    for part in text.split(","):
        batch, _, length = part.strip().partition("x")
        if not (batch.isdigit() and length.isdigit() and int(batch) and int(length)):
            raise UsageError(
                f"{flag} {text}: expected batch x length such as 1x32,8x64", where=flag
            )
        shapes.append((int(batch), int(length)))
    return shapes


def parse_batches(text: str, flag: str) -> list[tuple[int, int]]:
    """`1,8` as [(1, 1), (8, 1)]: shapes of images, whose size is the model's.

    Raises:
        UsageError: anything else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) for part in parts):
        raise UsageError(
            f"{flag} {text}: the model takes images of one size; expected batches such as 1,8",
            where=flag,
        )
    return [(int(part), 1) for part in parts]
