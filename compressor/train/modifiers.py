"""How the modifiers of one run get along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from compressor.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from compressor.methods.contract import Batch
    from compressor.train.criterion import Criterion
    from compressor.train.teacher import Teacher


def in_order(modifiers: Sequence[Any]) -> list[Any]:
    """Those that look at the weights of a step last behind those that may still change them."""
    return sorted(modifiers, key=lambda modifier: getattr(modifier, "looks_last", False))


def batch_changes(
    modifiers: Sequence[Any], teacher: Teacher | None
) -> list[Callable[[Batch, np.random.Generator], Batch]]:
    """What modifiers make of the training batches, in the order to apply it.

    Raises:
        UsageError: a teacher reads the rows in its own way, and changed ones are nowhere.
    """
    found = [modifier for modifier in modifiers if hasattr(modifier, "batch")]
    if found and teacher is not None and teacher.own_tokens:
        name = type(found[0]).__module__.rpartition(".")[2]
        raise UsageError(
            f"--with {name} changes what the student reads, and the teacher reads in another way",
            hint="a student with the teacher's preprocessor_config.json, or without this modifier",
            where="--with",
        )
    return [modifier.batch for modifier in found]


def the_ascending(modifiers: Sequence[Any], criterion: Criterion) -> Any | None:
    """The modifier that makes a step's gradients of several passes, if there is one.

    Raises:
        UsageError: there are two, or it weighs rows and an objective has no loss for each.
    """
    found = [modifier for modifier in modifiers if hasattr(modifier, "gradients")]
    if len(found) > 1:
        names = " and ".join(type(modifier).__module__.rpartition(".")[2] for modifier in found)
        raise UsageError(
            f"--with {names}: each makes the gradients of a step in its own way",
            hint="choose one of them",
            where="--with",
        )
    if found and getattr(found[0], "weighs_rows", False) and not criterion.has_rows:
        raise UsageError(
            "--with delta_sam weighs the rows of a batch, and here a row has no loss of its own",
            hint="--with sam, or an objective that scores each row by its answers (soft_labels)",
            where="--with",
        )
    return found[0] if found else None


def call_hook(modifier: Any, hook: str, *arguments: Any) -> None:
    """Call a modifier's hook where it has one.

    Args:
        modifier: the modifier.
        hook: its name.
        arguments: passed on.
    """
    if hasattr(modifier, hook):
        getattr(modifier, hook)(*arguments)
