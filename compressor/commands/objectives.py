"""What the chosen objectives ask of the rows: a task, a head that answers, masked tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from compressor import console
from compressor.commands.slots import Picked
from compressor.data.dataset import Dataset
from compressor.data.tasks import TASKS
from compressor.errors import UsageError
from compressor.methods.option import refuse_idle

if TYPE_CHECKING:
    from compressor.data.batches import Masking
    from compressor.model.load import Loaded
    from compressor.train.options import TrainingOptions


LOOKS_SPARSE = 0.1  # share of zeros from which somebody must have put them there


def needs_answers(objectives: Sequence[Picked]) -> bool:
    """Whether an objective looks at answers, so that teacher and student need a head."""
    return any(picked.method.module.NEEDS_LOGITS for picked in objectives)


def learns_unlabelled(objectives: Sequence[Picked]) -> bool:
    """Whether every objective learns from training rows without a label, by its teacher alone."""
    return all(
        getattr(picked.method.module, "UNLABELLED", False)
        and getattr(picked.options, "hard_weight", 0.0) < 1
        for picked in objectives
    )


def refuse_misplaced(
    objectives: Sequence[Picked], modifiers: Sequence[Picked], dataset: Dataset
) -> None:
    """Refuse a method that does not serve the task of the rows, or what another makes of them.

    Raises:
        UsageError: names the method and the tasks that it serves, or both methods, or the rows that
            it needs and that are not there.
    """
    for picked in modifiers:
        if getattr(picked.method.module, "NEEDS_HELD_OUT", False) and not dataset.has("validation"):
            raise UsageError(
                f"{picked.name} chooses by validation rows, and {dataset.source.name} has none",
                hint="a file validation.jsonl beside the training rows",
                where="--with",
            )
    mixing = [one.name for one in modifiers if getattr(one.method.module, "MIXES_LABELS", False)]
    single = [one.name for one in objectives if getattr(one.method.module, "ONE_CLASS", False)]
    if mixing and single:
        raise UsageError(
            f"{mixing[0]} makes rows of two classes, and {single[0]} needs one for each row",
            hint="--method soft_labels",
            where="--with",
        )
    for picked in (*objectives, *modifiers):
        served = getattr(picked.method.module, "TASKS", ())
        if served and dataset.task.name not in served:
            same_rows = TASKS[served[0]].reads == dataset.task.reads
            hint = f"--task {served[0]} reads the text and leaves labels alone" * same_rows
            raise UsageError(
                f"{picked.name} serves {' and '.join(served)}; {dataset.source.name} was opened "
                f"for {dataset.task.name}",
                hint=hint,
                where="--task",
            )


def compatible(
    modifiers: list[Picked], training: TrainingOptions
) -> tuple[list[Picked], TrainingOptions]:
    """The same modifiers, which get along with each other and with the training.

    None cuts what another one rounds, for rows share their scales, or what another one counts; one
    at most averages weights, and one at most sets the learning rate, in place of the schedule,
    which is linear otherwise.

    Raises:
        UsageError: names both, and what to type.
    """
    setting = [picked for picked in modifiers if getattr(picked.options, "sets_rate", False)]
    if setting:
        one, *others = (picked.name for picked in setting)
        if others:
            raise UsageError(
                f"{one} and {others[0]} each set the learning rate", hint="choose one of them"
            )
        names = ("schedule", "cycle_epochs", "final_lr")
        refuse_idle(training, names, f"here, for {one} sets the learning rate")
    elif not training.schedule:
        training = replace(training, schedule="linear")
    averaging = [picked.name for picked in modifiers if _says(picked, "replaces_weights")]
    if len(averaging) > 1:
        raise UsageError(
            f"{' and '.join(averaging)} would each put its own average in the model's place",
            hint="choose one of them",
            where="--with",
        )
    rounds = _marked(modifiers, "QUANTIZES")
    weighing = [one.name for one in modifiers if getattr(one.options, "weighs_rows", False)]
    if rounds and weighing:
        raise UsageError(
            f"{weighing[0]} measures how losses curve, and through the rounding of {rounds} they "
            "are steps",
            hint=f"--with sam --with {rounds}",
            where="--with",
        )
    cuts = _marked(modifiers, "CHANGES_SHAPE")
    for other, does, verb in (
        (rounds, "rounds", "finetune --with"),
        (_marked(modifiers, "COUNTS_ZEROS"), "counts the zeros of", "prune --method"),
    ):
        if cuts and other:
            raise UsageError(
                f"{other} {does} what {cuts} cuts to another shape at the end",
                hint=f"prune with {cuts} first, then compressor {verb} {other}",
                where="--with",
            )
    return modifiers, training


def warn_of_lost_zeros(student: Loaded, modifiers: Sequence[Picked]) -> None:
    """Say before a training of a sparse model that it will not be sparse afterwards."""
    from compressor.model.layers import encoder_linears
    from compressor.model.masks import sparsity_of

    trained = {
        name: module
        for name, module in encoder_linears(student.model).items()
        if module.weight.requires_grad
    }
    sparsity = sparsity_of(trained)
    if sparsity >= LOOKS_SPARSE and not _marked(modifiers, "KEEPS_ZEROS"):
        console.warn(
            f"{sparsity:.0%} of the layers' weights are zeros, and training fills them; "
            "--with lock_sparsity keeps them"
        )


def _marked(modifiers: Sequence[Picked], mark: str) -> str:
    """The first modifier whose module says so; empty where none does."""
    names = [picked.name for picked in modifiers if getattr(picked.method.module, mark, False)]
    return names[0] if names else ""


def _says(picked: Picked, name: str) -> bool:
    """Whether the modifier's class has this mark."""
    return getattr(picked.method.module.Modifier, name, False)


def masking_of(objectives: Sequence[Picked]) -> Masking:
    """How the training rows of a masked language model are masked.

    An objective's options may say so, in a property `masking`; where nobody looks at answers there
    is nothing to ask, and the text stays whole.
    """
    from compressor.data.batches import PLAIN, Masking

    if not needs_answers(objectives):
        return Masking(probability=0.0)
    said = (getattr(picked.options, "masking", None) for picked in objectives)
    return next(filter(None, said), PLAIN)


def held_out_masking_of(objectives: Sequence[Picked]) -> Masking:
    """How the validation rows are masked: always alike, so that perplexities compare."""
    from compressor.data.batches import PLAIN, Masking

    return PLAIN if needs_answers(objectives) else Masking(probability=0.0)
