"""What `finetune`, `distill` and gradual `prune` share: rows in, a trained model out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from compressor import console
from compressor.commands.feeds import feeds_of, own_feed, rows_folder
from compressor.commands.job import Job
from compressor.commands.objectives import warn_of_lost_zeros
from compressor.commands.options import DataOptions
from compressor.commands.slots import Picked
from compressor.commands.teachers import reads_own_tokens, refuse_misfit
from compressor.data.dataset import Dataset, open_dataset
from compressor.data.domains import domains_of
from compressor.data.splits import overlap_text, refuse_overlap
from compressor.errors import GateError, InputError, MachineError, UsageError
from compressor.methods.option import refuse_idle
from compressor.train.options import TrainingOptions

if TYPE_CHECKING:
    from compressor.checkpoint.folder import Checkpoint
    from compressor.model.load import Loaded
    from compressor.train.cache import Keeping
    from compressor.train.run import Trained
    from compressor.train.state import StateFolder


def training_record(training: TrainingOptions) -> dict[str, Any]:
    """The training options that decide the result; how often to save does not."""
    return {
        key: value for key, value in asdict(training).items() if key not in ("save_steps", "resume")
    }


def bytes_for_training(checkpoint: Checkpoint, modifiers: Sequence[Picked]) -> int:
    """Disk that a training needs: two states of all that it holds, and the result.

    A state has the weights, two moments, the best weights and the copies that modifiers keep.
    """
    weights = sum(info.numel for info in checkpoint.tensors.values()) * 4
    copies = sum(getattr(picked.options, "copies", 0) for picked in modifiers)
    return 2 * (4 + copies) * weights + checkpoint.disk_bytes


def data_for_training(
    data: DataOptions,
    model_labels: tuple[str, ...] | None = None,
    *,
    unlabelled: bool = False,
) -> Dataset:
    """Open `--data` for a verb that trains.

    Args:
        data: the flags.
        model_labels: class names of a head that is kept; None when the data names the classes.
        unlabelled: whether training rows may lack a label.

    Raises:
        UsageError: no data named.
        InputError: there is no training split, or the rows do not fit.
    """
    dataset = data_of(data, model_labels, unlabelled=unlabelled)
    if not dataset.has("train"):
        raise InputError(
            f"{dataset.source.name} has no training rows; it has "
            f"{', '.join(sorted(dataset.source.splits))} rows",
            hint="name a file of the folder train.jsonl, or give the file itself",
        )
    text = "" if data.no_overlap else overlap_text(dataset)  # or it was refused already
    if text:
        console.warn(text)
    return dataset


def refuse_unjudged(dataset: Dataset, *, must_learn: bool) -> None:
    """Refuse `--must-learn` where no rows could show it, before any work.

    Raises:
        UsageError: there are no validation rows.
    """
    if must_learn and not dataset.has("validation"):
        raise UsageError(
            f"there is nothing to judge by: {dataset.source.name} has no validation rows",
            where="--must-learn",
        )


def data_of(
    data: DataOptions, model_labels: tuple[str, ...] | None, *, unlabelled: bool = False
) -> Dataset:
    """Open `--data`.

    Raises:
        UsageError: no data named.
        InputError: the rows are broken, do not fit the model's labels, or stand in two splits.
    """
    if not data.data:
        raise UsageError("this command needs rows", hint="add --data DATA", where="--data")
    dataset = open_dataset(
        data.data,
        task=data.task or None,
        text_columns=data.text_columns or None,
        image_column=data.image_column or None,
        label_column=data.label_column or None,
        model_labels=model_labels,
        unlabelled=unlabelled,
        domains=domains_of(data.domain_column, data.domain, data.without_domain),
    )
    if data.no_overlap:
        refuse_overlap(dataset)
    return dataset


def data_if_named(
    data: DataOptions, model_labels: tuple[str, ...] | None, *, needed: bool = False
) -> Dataset | None:
    """Open `--data` for a verb that can do without; None where it has to.

    Args:
        data: the flags.
        model_labels: class names of the model's head.
        needed: whether it cannot, after all.

    Raises:
        UsageError: no data named that is needed, or flags about rows that are not there.
        InputError: see `data_of`.
    """
    if data.data or needed:
        return data_of(data, model_labels)
    refuse_idle(data, [field.name for field in fields(data)], "without --data")
    return None


def train_model(
    job: Job,
    student: Loaded,
    dataset: Dataset,
    training: TrainingOptions,
    *,
    objectives: list[Picked],
    modifiers: list[Picked],
    teachers: Sequence[tuple[Loaded, float]] = (),
    keeping: Keeping,
) -> Trained:
    """Train `student` in place with the chosen methods.

    Raises:
        InputError: rows that do not fit the model, a teacher that does not fit the student, or a
            state that belongs to another run.
        DivergedError, Interrupted: see `compressor.train.loop.train`.
    """
    from compressor.train.accelerator import make_accelerator
    from compressor.train.loop import train
    from compressor.train.run import Run, Taught
    from compressor.train.state import StateFolder

    if not any(picked.method.module.NEEDS_TEACHER for picked in objectives):
        teachers = ()
    for teacher, _ in teachers:
        refuse_misfit(teacher, student)
    own = [reads_own_tokens(one, student, objectives, dataset.task) for one, _ in teachers]
    warn_of_lost_zeros(student, modifiers)
    accelerator = make_accelerator(training, job.shared.device)
    state = StateFolder(job.target, bound_to(job, keeping))
    if accelerator.is_main_process:
        state.prepare(resume=training.resume, force=job.shared.force)
    accelerator.wait_for_everyone()
    with forgetting_refusals(state, state.steps):
        folder = rows_folder(state.path)
        feed, held_out = feeds_of(dataset, student, training, objectives, job.shared.seed, folder)
        taught = []
        for number, ((teacher, weight), other_tokens) in enumerate(zip(teachers, own, strict=True)):
            place = folder / f"rows-teacher{number}"
            rows = own_feed(teacher, feed, dataset, training, place) if other_tokens else None
            taught.append(Taught(teacher, weight, rows))
        return train(
            Run(
                student=student,
                objectives=[_maker(picked, "Objective") for picked in objectives],
                modifiers=[_maker(picked, "Modifier") for picked in modifiers],
                feed=feed,
                held_out=held_out,
                options=training,
                seed=job.shared.seed,
                state=state,
                teachers=taught,
                keeping=keeping,
                accelerator=accelerator,
            )
        )


@contextmanager
def forgetting_refusals(state: StateFolder, begun: Callable[[], object]) -> Iterator[None]:
    """Remove the state of a run that was refused before it did anything to go on with.

    Args:
        state: the run's state.
        begun: what there is to go on with; nothing, zero or empty where there is none.
    """
    try:
        yield
    except (InputError, UsageError, MachineError):
        if console.is_main_process() and not begun():
            state.remove()
        raise


def _maker(picked: Picked, name: str) -> Callable[[Any], Any]:
    return lambda context: getattr(picked.method.module, name)(picked.options, context)


def bound_to(job: Job, keeping: Keeping | None = None) -> dict[str, Any]:
    """What a resumed run must share with the one that it continues.

    Where answers are kept is free to change. Whether they are is not: it moves their last bits.
    """
    step = job.step()
    bound = {key: value for key, value in step.items() if key not in ("metrics", "command")}
    if keeping is None:
        return bound
    return {**bound, "cache_limit": keeping.limit, "cache_hidden": keeping.hidden}


def publish_trained(
    job: Job, loaded: Loaded, trained: Trained, dataset: Dataset, *, must_learn: bool = False
) -> None:
    """Judge what the training came to, then write and print it.

    Raises:
        GateError: `must_learn` and the model is no better than a guess; the state stays to go on
            from.
    """
    from compressor.model.quantized import is_quantized, save_quantized
    from compressor.model.save import save_model
    from compressor.train.state import StateFolder

    save = save_quantized if is_quantized(loaded.model) else save_model
    metrics = {name: round(value, 6) for name, value in trained.metrics.items()}
    if metrics:
        console.note("validation: " + "  ".join(f"{k} {v:.4f}" for k, v in metrics.items()))
    facts = {
        "steps": trained.steps,
        "best_step": trained.best_step,
        "metric": trained.metric,
        "examples_per_second": round(trained.examples_per_second, 1),
        "training_seconds": round(trained.seconds, 3),
        "curve": trained.history,
    }
    judged = trained.metric == dataset.task.metric
    complaint = no_better_than_guessing(trained.metrics, dataset, loaded) if judged else ""
    if complaint and must_learn:
        raise GateError(
            complaint,
            hint="--resume without --must-learn writes the model all the same",
            where="--must-learn",
            facts={"metrics": metrics, **facts},
        )
    if complaint:
        console.warn(complaint)
    metrics |= trained.facts
    job.publish(lambda folder: save(loaded, folder), metrics=metrics, facts=facts)
    if console.is_main_process():
        StateFolder(job.target, {}).remove()


def no_better_than_guessing(metrics: dict[str, float], dataset: Dataset, loaded: Loaded) -> str:
    """A sentence about a model that did not learn; empty if it did, or without validation rows.

    A classifier is compared with the most frequent class, a regression with a constant, a
    language model with a vocabulary whose tokens are all as likely. A metric that is missing was
    not defined: an output was not finite, or all predictions were the same.
    """
    if not dataset.has("validation"):
        return ""
    if dataset.task.classes:
        counts = Counter(row.label for row in dataset.rows("validation"))
        guess, found = max(counts.values()) / counts.total(), metrics.get("accuracy", 0.0)
        learnt = found > guess
        rival = f"above {guess:.3f}, which always saying the most frequent class gives"
    elif dataset.task.name == "regression":
        found = metrics.get("pearson", 0.0)
        learnt = found > 0
        rival = "above 0, which predictions that say nothing give"
    else:
        vocabulary = loaded.model.config.get_text_config().vocab_size
        found = metrics.get("perplexity", math.inf)
        learnt = found < vocabulary
        rival = f"below {vocabulary}, which choosing among all tokens blindly gives"
    return "" if learnt else f"validation {dataset.task.metric} {found:.3f} is not {rival}"
