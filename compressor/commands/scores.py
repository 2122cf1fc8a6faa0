"""What measured models answered: scores, compared row by row, and the rows that differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.data.dataset import Dataset
from compressor.errors import InputError, UsageError

if TYPE_CHECKING:
    from compressor.train.evaluate import Evaluation


def add_scores(
    facts: Sequence[dict[str, Any]],
    answers: Sequence[Evaluation],
    dataset: Dataset,
    seed: int,
    *,
    paired: bool,
) -> None:
    """Put `accuracy` into the facts of every model, and `paired` into those after the first.

    Args:
        facts: of the models, the baseline first.
        answers: theirs.
        dataset: what they were asked.
        seed: of the bootstrap.
        paired: whether the first is the baseline; a stored report has no answers to compare with.
    """
    from compressor.measure.metrics import score
    from compressor.measure.paired import compare, same_tokens

    task, base = dataset.task, answers[0]
    for number, (entry, own) in enumerate(zip(facts, answers, strict=True)):
        entry["accuracy"] = score(task.name, task.metric, own.outputs, own.labels, seed=seed)
        if paired and number and same_tokens(entry["accuracy"], facts[0]["accuracy"]):
            entry["paired"] = compare(
                task.name, task.metric, base.outputs, own.outputs, own.labels, seed=seed
            )


def refuse_disagreements(file: Path, dataset: Dataset | None, stored: bool) -> None:
    """Refuse `--disagreements` that could not be written, before any work.

    Args:
        file: to write.
        dataset: the rows.
        stored: whether the baseline is a stored report, which has no answers.

    Raises:
        UsageError: there are no rows, no classes, or no answers of the baseline.
        InputError: the file exists, or has no folder.
    """
    flag = "--disagreements"
    if dataset is None or not dataset.task.classes:
        raise UsageError(f"{flag} compares predicted classes", hint="add --data", where=flag)
    if stored:
        hint = "--baseline with the baseline's folder"
        raise UsageError(f"{flag}: a stored report keeps no answers", hint=hint, where=flag)
    if file.exists():
        raise InputError(f"{file} already exists", hint="name another file", where=flag)
    if not file.parent.is_dir():
        raise InputError(f"there is no folder {file.parent}", where=flag)


def write_disagreements(
    file: Path,
    dataset: Dataset,
    split: str,
    names: Sequence[str],
    answers: Sequence[Evaluation],
) -> None:
    """Write every row for which some model predicts another class than the first.

    A line has the row's number in the split, its texts, its label and each model's prediction.
    """
    from compressor.measure.paired import disagreements

    base = answers[0].outputs
    found = {row for other in answers[1:] for row in disagreements(base, other.outputs)}
    labels = dataset.labels
    chosen = [answer.outputs.argmax(1) for answer in answers]
    with file.open("w", encoding="utf-8") as stream:
        for number, row in enumerate(dataset.rows(split)):
            if number in found:
                said = {name: labels[own[number]] for name, own in zip(names, chosen, strict=True)}
                line = {
                    "row": number,
                    "texts": list(row.texts),
                    "label": labels[row.label],
                    "predictions": said,
                }
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    console.note(f"{len(found)} rows are classified differently: {file}")
