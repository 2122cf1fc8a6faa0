"""`finetune --domains`: every domain in turn is kept from training, and then tested on.

Leave-one-domain-out: a model for each domain, trained and chosen on the rows of the others, so that
nothing of the domain that it is tested on decides anything. Domains without rows to train on share
one model. The folder that is written has a checkpoint for each, `without-NAME`, and `report`.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.checkpoint.folder import Checkpoint, open_checkpoint
from compressor.checkpoint.reading import read_object
from compressor.checkpoint.store import check_target, write_json, writing
from compressor.commands.job import command_line, print_folder
from compressor.commands.options import DataOptions, Shared
from compressor.commands.training import data_of
from compressor.data.domains import count_domains
from compressor.data.labels import listed
from compressor.data.source import SPLITS, open_source
from compressor.errors import InputError, UsageError
from compressor.measure.domains import domain_rows, render_domains_markdown
from compressor.model.tasks import labels_of

if TYPE_CHECKING:
    from compressor.data.dataset import Dataset
    from compressor.train.options import TrainingOptions

Counts = dict[str, Counter[str]]
# What every training decides anew, or the sweep decides for all.
_DROPPED = ("--domains", "--force", "--reuse", "--resume", "--json")
_DROPPED_WITH_VALUE = ("--output", "-o")
RHO, GAMMA, SHARPNESS_ROWS = 0.05, 0.25, 512


def leave_each_out(
    words: Sequence[str],
    checkpoint: Checkpoint,
    data: DataOptions,
    training: TrainingOptions,
    shared: Shared,
) -> None:
    """Train once without each domain, score every model on what it has not seen, and report.

    Args:
        words: the command line, verb first.
        checkpoint: the model to train.
        data: the flags.
        training: the flags.
        shared: the flags.

    Raises:
        UsageError: no data, or domains are chosen besides.
        InputError: fewer than two domains, or none to train on without one of them.
    """
    if not data.data:
        raise UsageError("this command needs rows", hint="add --data DATA", where="--data")
    if data.domain or data.without_domain:
        raise UsageError(
            "--domains leaves out every domain in turn; --domain and --without-domain choose one",
            where="--domains",
        )
    counts = count_domains(open_source(data.data, parts=True), data.domain_column)
    rounds = rounds_of(counts)
    _refuse_strange_classes(rounds, checkpoint, data)
    target = Path(shared.output or f"{checkpoint.name}-domains")
    if (target / "config.json").exists():
        raise InputError(f"{target} is a checkpoint", hint="-o NEW_FOLDER", where=str(target))
    made = not target.is_dir()
    if made:
        check_target(target, force=False, inputs=[checkpoint.path])
        # For a moment in a dry run too, where each training checks its own folder.
        target.mkdir(exist_ok=True)
    try:
        _leave_out_in_turn(words, checkpoint, rounds, target, counts, data, training, shared)
    finally:
        if made and not any(target.iterdir()):
            target.rmdir()


def _leave_out_in_turn(
    words: Sequence[str],
    checkpoint: Checkpoint,
    rounds: Sequence[tuple[str, ...]],
    target: Path,
    counts: Counts,
    data: DataOptions,
    training: TrainingOptions,
    shared: Shared,
) -> None:
    from compressor.commands.dispatch import dispatch

    found = []
    for number, domains in enumerate(rounds, start=1):
        console.note(f"[{number}/{len(rounds)}] without {', '.join(domains)}")
        folder = target / folder_name(domains)
        with redirect_stdout(sys.stderr):
            dispatch(words_for(words, str(checkpoint.path), domains, folder, shared))
        if console.is_main_process() and not shared.dry_run:
            found += _tested(folder, domains, counts, data, training, shared)
    if found:
        _publish(found, target, words)


def rounds_of(counts: Counts) -> list[tuple[str, ...]]:
    """The domains that each training leaves out.

    Args:
        counts: rows by split and domain.

    Raises:
        InputError: fewer than two domains, or nothing to train on is left without one.
    """
    every = sorted({name for split in counts.values() for name in split})
    for name in every:
        if "," in name:
            raise InputError(
                f"the domain {name!r} has a comma, which stands between names of domains",
                hint="name it without one",
            )
    if len(every) < 2:
        raise InputError(f"one domain alone, {listed(every)}; leaving it out leaves nothing")
    trained = sorted(counts.get("train", ()))
    if len(trained) < 2 and set(trained) == set(every):
        raise InputError("only one domain has training rows")
    if not trained:
        raise InputError("no domain has training rows; name a file train.jsonl")
    chosen_by = counts.get("validation", Counter())
    alone = tuple(name for name in every if name not in trained and name not in chosen_by)
    rounds = [(name,) for name in every if name not in alone]
    for (name,) in rounds:
        if not set(trained) - {name}:
            raise InputError(f"without {name} there are no training rows")
    names = [folder_name(each) for each in (*rounds, alone) if each]
    if len(set(names)) < len(names):
        raise InputError(f"the names of the domains are too alike for folders: {listed(every)}")
    return [*rounds, alone] if alone else rounds


def _refuse_strange_classes(
    rounds: Sequence[tuple[str, ...]], checkpoint: Checkpoint, data: DataOptions
) -> None:
    """Refuse, before any training, a domain whose rows have classes that the others lack."""
    for domains in rounds:
        try:
            labels = _rows_of(data, labels_of(checkpoint) or None, without=domains).labels
        except InputError:  # a head with other classes, which is replaced
            labels = _rows_of(data, None, without=domains).labels
        for name in domains:
            _rows_of(data, labels or None, only=name)


def folder_name(domains: Sequence[str]) -> str:
    """The folder of the model that has not seen these domains."""
    return "without-" + "+".join(re.sub(r"[^\w.-]", "_", name) for name in domains)


def words_for(
    words: Sequence[str], model: str, domains: Sequence[str], folder: Path, shared: Shared
) -> list[str]:
    """The command line of one training of the sweep."""
    made, rest = [], iter(words)
    for word in rest:
        if word in _DROPPED_WITH_VALUE:
            next(rest, None)
        elif word not in _DROPPED and word.partition("=")[0] not in _DROPPED_WITH_VALUE:
            made.append(model if word == "-" else word)
    going_on = ["--force"] if shared.force else ["--resume"]
    going_on += ["--reuse"] if shared.reuse or not shared.force else []
    return [*made, "--without-domain", ",".join(domains), "-o", str(folder), *going_on]


def _tested(
    folder: Path,
    domains: Sequence[str],
    counts: Counts,
    data: DataOptions,
    training: TrainingOptions,
    shared: Shared,
) -> list[dict[str, Any]]:
    """What a model scores on each domain that it has not seen, beside those that it has."""
    from compressor.commands.landscape import sharpness
    from compressor.commands.scoring import split_feed
    from compressor.measure.metrics import score
    from compressor.model.devices import choose_device
    from compressor.model.load import load
    from compressor.train.evaluate import evaluate, torch_forward

    checkpoint = open_checkpoint(folder)
    labels = labels_of(checkpoint) or None
    seen = _rows_of(data, labels, without=domains)
    task = seen.task
    loaded = load(checkpoint, task.name)
    loaded.model.to(choose_device(shared.device))
    sharp = {}
    if task.labelled and seen.has("validation"):
        sharp = sharpness(
            loaded, seen, "validation", rows=SHARPNESS_ROWS, max_length=training.max_length,
            rho=RHO, gamma=GAMMA, seed=shared.seed,
        )  # fmt: skip
    of_model = {
        "model": folder.name,
        "train_rows": sum(n for d, n in counts["train"].items() if d not in domains),
        "metric": task.metric,
        "inside": checkpoint.steps[-1].get("metrics", {}).get(task.metric),
        **sharp,
        "seconds": read_object(folder / "run.json")["training_seconds"],
    }
    found = []
    for name in domains:
        split = next(split for split in reversed(SPLITS) if counts.get(split, {}).get(name))
        unseen = _rows_of(data, labels, only=name)
        with TemporaryDirectory(prefix="compressor-") as scratch:
            feed = split_feed(
                unseen, split, loaded, training.max_length, shared.seed, Path(scratch)
            )
            answers = evaluate(torch_forward(loaded.model), feed)
        outside = score(task.name, task.metric, answers.outputs, answers.labels, seed=shared.seed)
        found.append({"domain": name, "split": split, "outside": outside, **of_model})
    return found


def _rows_of(
    data: DataOptions,
    labels: tuple[str, ...] | None,
    *,
    only: str = "",
    without: Sequence[str] = (),
) -> Dataset:
    """The rows of some domains, with these classes, or those that they name."""
    chosen = {**asdict(data), "domain": only, "without_domain": ",".join(without)}
    chosen["no_overlap"] = False  # every training of the sweep has looked already
    return data_of(DataOptions(**chosen), labels)


def _publish(found: list[dict[str, Any]], target: Path, words: Sequence[str]) -> None:
    report = {"schema": 1, "command": command_line(words), "domains": found}
    with writing(target / "report", force=True) as folder:
        write_json(folder / "domains.json", report)
        (folder / "domains.md").write_text(render_domains_markdown(report), encoding="utf-8")
    columns, rows = domain_rows(report)
    console.table("", columns, rows, to_stdout=False)
    print_folder(
        target, {"verb": "finetune", "domains": {e["domain"]: e["outside"]["value"] for e in found}}
    )
