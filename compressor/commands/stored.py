"""A stored report as the baseline: its accuracy and sizes serve again, its latency never."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compressor.checkpoint.lineage import file_hash
from compressor.checkpoint.reading import read_object
from compressor.data.dataset import Dataset
from compressor.errors import InputError
from compressor.measure.report import model_named
from compressor.measure.schema import validate_report

REPORT = "report.json"
# What no clock and no option of the other run has a part in.
SERVES_AGAIN = (
    "name",
    "path",
    "runtime",
    "device",
    "precision",
    "accuracy",
    "size",
    "layers",
    "steps",
)
MAKE_ONE = "make one: compressor benchmark MODEL... -o FOLDER"


@dataclass(frozen=True)
class StoredBaseline:
    """The baseline of a stored report.

    Attributes:
        model: what serves again of its entry, and `stored_in`, the file.
        hash: `sha256:<hex>` of the file.
        task: what it was scored on; None where it was not.
        where: the file.
    """

    model: dict[str, Any]
    hash: str
    task: dict[str, Any] | None
    where: str

    @property
    def name(self) -> str:
        """How reports call it."""
        return self.model["name"]

    def apart_from(self, names: Collection[str]) -> StoredBaseline:
        """The same under a name that none of the models measured beside it has."""
        name = self.name
        while name in names:
            name = f"{name} (stored)"
        return replace(self, model={**self.model, "name": name})


def read_report(file: Path) -> dict[str, Any]:
    """A stored report.

    Raises:
        InputError: it is no report, or one of another schema.
    """
    report = read_object(file)
    if not {"schema", "models"} <= report.keys():
        raise InputError(
            f"{file} is no report of `compressor benchmark`", hint=MAKE_ONE, where=str(file)
        )
    validate_report(report, where=str(file))
    return report


def stored_baseline(named: str) -> StoredBaseline | None:
    """The baseline of the report that `--baseline` names; None where it names no report.

    Args:
        named: a `report.json`, or the folder that holds one.

    Raises:
        InputError: a file that is no report of this version.
    """
    path = Path(named)
    file = path / REPORT if path.is_dir() and (path / REPORT).is_file() else path
    if not named or file.suffix != ".json" or not file.is_file():
        return None
    report = read_report(file)
    model = model_named(report["models"], report["baseline"])
    return StoredBaseline(
        model={**{k: model[k] for k in SERVES_AGAIN if k in model}, "stored_in": str(file)},
        hash=file_hash(file),
        task=report["task"],
        where=str(file),
    )


def columns_of(dataset: Dataset) -> dict[str, Any]:
    """The columns that rows are read from: the hash of the data covers all that there are."""
    return {"inputs": list(dataset.text_columns), "label": dataset.label_column}


def refuse_other_rows(
    stored: StoredBaseline, dataset: Dataset | None, split: str, max_length: int
) -> None:
    """Refuse to compare accuracies on different rows.

    Args:
        stored: the baseline.
        dataset: the rows to score on now; without any, accuracy is not compared.
        split: which of them.
        max_length: longest input in tokens.

    Raises:
        InputError: the report scored other rows, or none.
    """
    if dataset is None:
        return
    if stored.task is None or stored.model["accuracy"] is None:
        raise InputError(
            "the report holds no accuracy to compare with",
            hint="make it with --data, or leave --data out here",
            where=stored.where,
        )
    now = {
        "task": dataset.task.name,
        "data": dataset.hash,
        "split": split,
        "columns": columns_of(dataset),
        "classes": list(dataset.labels or ()),
        "longest input": max_length,
    }
    then = {
        "task": stored.task["name"],
        "data": stored.task.get("data_hash"),
        "split": stored.task.get("split"),
        "columns": stored.task.get("columns"),
        "classes": stored.task.get("labels"),
        "longest input": stored.task.get("max_length"),
    }
    for what, value in now.items():
        if value != then[what]:
            raise InputError(
                f"the report was scored otherwise ({what} {then[what]}, here {value}), so its "
                "accuracy cannot be compared",
                hint="name the baseline's own folder, or make the report again",
                where=stored.where,
            )
