"""A data set that is understood: which columns, which task, which classes; and its rows, checked.

`open_dataset` is the first second of every verb that takes `--data`: it reads the first 1,000 rows
of each split and the label column of the training split, so that what does not fit is refused
before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from compressor import console
from compressor.data.columns import find_inputs, find_label_column
from compressor.data.domains import EVERY, Domains, rows_of, select
from compressor.data.faults import Bad, refuse_bad
from compressor.data.images import openable, refuse_nowhere
from compressor.data.labels import LabelCounts, class_ids, label_key, listed
from compressor.data.rows import NO_CLASS, NO_SCORE, Row, bad_label, bad_path, bad_text
from compressor.data.source import SPLITS, Source, open_source, source_hash
from compressor.data.tasks import TASKS, Task, find_task
from compressor.errors import InputError

CHECKED_ROWS = 1000
ABSENT = object()


@dataclass(frozen=True)
class Dataset:
    """Where the rows are and what they mean.

    Attributes:
        text_columns: the one or two columns of text, or the one that holds paths of images.
        labels: the class names in order of id; None where there are no classes.
        unlabelled: whether training rows may lack a label.
    """

    source: Source
    task: Task
    text_columns: tuple[str, ...]
    label_column: str | None
    labels: tuple[str, ...] | None
    class_ids: dict[str, int] = field(default_factory=dict, repr=False)
    unlabelled: bool = False

    def has(self, split: str) -> bool:
        """Whether the data has a `split` ("train", "validation" or "test")."""
        return split in self.source.splits

    @cached_property
    def hash(self) -> str:
        """`sha256:<hex>` of the contents; reads the files once."""
        return source_hash(self.source)

    def rows(self, split: str) -> Iterator[Row]:
        """Stream the rows of a split, each one checked.

        Raises:
            InputError: there is no such split, a row lacks a column, or a label does not fit. Up
                to twenty bad rows are listed.
        """
        self.require(split)
        for file in self.source.splits[split]:
            may_lack = self.unlabelled and split == "train"
            for _, row in refuse_bad(self._checked(file, may_lack), file):
                yield row

    def require(self, split: str) -> None:
        """Refuse a split that is not there.

        Raises:
            InputError: it names the splits that are.
        """
        if not self.has(split):
            raise InputError(
                f"no {split} rows; there are {' and '.join(self.source.splits)} rows",
                hint=f"add a {split} file to the folder",
                where=self.source.name,
            )

    def _checked(self, file: Path, may_lack: bool) -> Iterator[tuple[int, Row | Bad]]:
        for line, row in rows_of(self.source, file):
            values = map(row.get, self.text_columns)
            texts = tuple(text for text in values if isinstance(text, str))
            if len(texts) < len(self.text_columns):
                expected = "a path" if self.task.reads == "image" else "a text"
                yield line, bad_text(row, self.text_columns, expected)
                continue
            bad = bad_path(row, self.text_columns[0]) if self.task.reads == "image" else None
            if bad:
                yield line, bad
                continue
            if not self.task.labelled:
                yield line, Row(line, file, texts, None)
                continue
            label = self._label(row.get(self.label_column, ABSENT))
            if label is None and may_lack and _lacks_label(row, self.label_column):
                label = NO_SCORE if self.labels is None else NO_CLASS
            if label is None:
                yield line, bad_label(row, self.label_column, self.labels)
                continue
            yield line, Row(line, file, texts, label)

    def _label(self, value: Any) -> int | float | None:
        """The class id or number of a raw label, None when it does not fit."""
        if value is ABSENT:
            return None
        kind, key = label_key(value)
        if self.labels is None:
            return float(key) if kind in ("integer", "whole", "fraction") else None
        return self.class_ids.get(key, self.class_ids.get(key.casefold()))


def open_dataset(
    data: str,
    *,
    task: str | None = None,
    text_columns: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    model_labels: tuple[str, ...] | None = None,
    split_for_training: str = "train",
    unlabelled: bool = False,
    domains: Domains = EVERY,
) -> Dataset:
    """Find out what `data` holds, and refuse early what cannot be used.

    Args:
        data: what `--data` takes; see `compressor.data.source`.
        task: a name in TASKS; None chooses by the labels: classification for names and integers,
            regression for numbers with a decimal point; and by the columns, see `find_inputs`.
        text_columns: one column, or two separated by a comma; None finds them by name.
        image_column: the column with paths of images; None finds it by name.
        label_column: None finds it by name.
        model_labels: the class names of a model that is already trained; labels are mapped to
            them by name.
        split_for_training: the split whose labels name the classes (another one is taken where it
            is missing), and the one that a single file stands for.
        unlabelled: whether training rows may lack a label where `model_labels` name the classes.
        domains: which domains' rows are used.

    Raises:
        InputError: cases 22 to 29: nothing to read, broken rows, missing columns, labels of mixed
            kinds or unknown to the model; an image among the first 1,000 that is none.
        UsageError: an unknown task, or column names that make no sense.
    """
    wanted = find_task(task) if task else None
    source = open_source(data, single=split_for_training, parts=domains.chosen)
    if domains.chosen:
        source = select(source, domains)
    order = (split_for_training, *SPLITS)
    first = next(split for split in order if split in source.splits)
    place = str(source.splits[first][0])
    head = islice(_raw(source, first), CHECKED_ROWS)
    columns = list(dict.fromkeys(name for *_, row in head for name in row))
    asked = wanted.reads if wanted else None
    reads, texts = find_inputs(
        columns, reads=asked, texts=text_columns, image=image_column, where=place
    )
    if reads == "image":
        wanted = TASKS["image-classification"]
        refuse_nowhere(source)
    if wanted is not None and not wanted.labelled:
        dataset = Dataset(source, wanted, texts, None, None)
    else:
        unlabelled = unlabelled and model_labels is not None
        label = find_label_column(columns, label_column, texts, place)
        if label is None:
            label = _label_elsewhere(source, columns, texts, place, unlabelled=unlabelled)
        source = _without_unlabelled(source, first, label)
        task_of_labels = wanted or TASKS["text-classification"]
        bare = Dataset(source, task_of_labels, texts, label, None, {}, unlabelled)
        dataset = _labelled(bare, first, wanted, model_labels)
    for split in source.splits:
        head = islice(dataset.rows(split), CHECKED_ROWS)
        for _ in openable(head) if reads == "image" else head:
            pass
    _say_what_was_found(dataset)
    return dataset


def _raw(source: Source, split: str) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    for file in source.splits[split]:
        for line, row in rows_of(source, file):
            yield file, line, row


def _label_elsewhere(
    source: Source, columns: Sequence[str], texts: Sequence[str], where: str, *, unlabelled: bool
) -> str | None:
    """The label column of other splits, for training rows that may lack one and do."""
    if unlabelled:
        firsts = (row for split in source.splits for *_, row in islice(_raw(source, split), 1))
        return find_label_column([name for row in firsts for name in row], None, texts, where)
    raise InputError(
        f"no label column among {', '.join(map(repr, columns))}",
        hint="name it: --label-column COLUMN; for text without labels: --task masked-lm, "
        "or --task causal-lm",
        where=where,
    )


def _lacks_label(row: dict[str, Any], column: str | None) -> bool:
    return label_key(row.get(column))[0] == "missing"


def _without_unlabelled(source: Source, first: str, label: str | None) -> Source:
    """Leave out other splits whose labels are held back, as the hub does with some test sets."""
    kept = {}
    for split, files in source.splits.items():
        head = islice(_raw(source, split), CHECKED_ROWS)
        lacking = (label is None or row.get(label, ABSENT) is None for *_, row in head)
        if split != first and all(lacking):
            console.warn(f"{source.name}: {split} has no labels and is left out")
        else:
            kept[split] = files
    return replace(source, splits=kept)


def _labelled(
    bare: Dataset, first: str, task: Task | None, model_labels: tuple[str, ...] | None
) -> Dataset:
    """`bare` with its task and its classes, which the labels of the split `first` name."""
    source = bare.source
    where, counts = _count_labels(bare, first)
    if task is None and model_labels is not None and len(model_labels) == 1:
        # A head with one output is a regression head, whatever its labels look like.
        task = TASKS["regression"]
    if counts.rows:
        task = task or counts.choose_task(where)
        counts.require(task, where)
    task = task or TASKS["text-classification"]
    if task.name == "regression":
        return replace(bare, task=task)
    found = counts.class_counts()
    if first == "train" and len(found) == 1:
        (name, rows) = next(iter(found.items()))
        console.warn(f"{where}: every one of the {rows:,} rows has the label {name!r}")
    names = model_labels or tuple(found)
    ids = class_ids(names, found)
    by_number = [key for key in found if key in ids and names[ids[key]] != key and key.isdecimal()]
    if by_number:
        shown = listed([f"{key} is {names[ids[key]]}" for key in by_number])
        console.note(f"{source.name}: labels are read as the model's class numbers, {shown}")
    return replace(bare, task=task, labels=names, class_ids=ids)


def _count_labels(bare: Dataset, first: str) -> tuple[str, LabelCounts]:
    """The labels of `first`, or of the next split if its rows may lack them and all do."""
    others = [split for split in bare.source.splits if split != first]
    for split in (first, *others):
        where, counts = str(bare.source.splits[split][0]), LabelCounts(bare.label_column or "")
        lacking = total = 0
        for file, line, row in _raw(bare.source, split):
            total += 1
            if bare.unlabelled and split == "train" and _lacks_label(row, bare.label_column):
                lacking += 1
            else:
                counts.add(row.get(bare.label_column), file.name, line)
        if lacking:
            console.note(
                f"{where}: {lacking:,} of {total:,} rows have no label; there the teacher alone "
                "is learnt from"
            )
        if counts.rows or not bare.unlabelled:
            break
    return where, counts


def _say_what_was_found(dataset: Dataset) -> None:
    text = f"{dataset.source.name}: {dataset.task.name} on {' + '.join(dataset.text_columns)}"
    if dataset.labels is not None:
        text += f", {len(dataset.labels)} classes in {dataset.label_column or 'the model'}"
        text += f" ({listed(dataset.labels)})"
    elif dataset.label_column is not None:
        text += f", numbers in {dataset.label_column}"
    console.note(text)
