"""The table of tasks: which head a task needs, and which metrics it is judged by.

The metric names are those of `compressor.measure.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass

from compressor.errors import UsageError


@dataclass(frozen=True)
class Task:
    """What a model is asked to do with a row.

    Args:
        name: what `--task` takes.
        auto_class: the class of transformers that gives a checkpoint the right head.
        metric: the primary metric, which gates and the best step are judged by.
        metrics: every metric that is reported, the primary one included.
        labelled: whether a row needs a label; the other tasks predict the text itself.
        classes: whether that label is one of several classes.
        reads: what a row holds: "text" or "image".
        higher_is_better: the direction of `metric`.
    """

    name: str
    auto_class: str
    metric: str
    metrics: tuple[str, ...]
    labelled: bool
    classes: bool = False
    reads: str = "text"
    higher_is_better: bool = True


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="text-classification",
            auto_class="AutoModelForSequenceClassification",
            metric="accuracy",
            metrics=("accuracy", "f1_macro", "f1", "matthews"),
            labelled=True,
            classes=True,
        ),
        Task(
            name="image-classification",
            auto_class="AutoModelForImageClassification",
            metric="accuracy",
            metrics=("accuracy", "f1_macro", "f1", "matthews"),
            labelled=True,
            classes=True,
            reads="image",
        ),
        Task(
            name="regression",
            auto_class="AutoModelForSequenceClassification",
            metric="pearson",
            metrics=("pearson", "spearman", "mse"),
            labelled=True,
        ),
        Task(
            name="masked-lm",
            auto_class="AutoModelForMaskedLM",
            metric="perplexity",
            metrics=("perplexity",),
            labelled=False,
            higher_is_better=False,
        ),
        Task(
            name="causal-lm",
            auto_class="AutoModelForCausalLM",
            metric="perplexity",
            metrics=("perplexity",),
            labelled=False,
            higher_is_better=False,
        ),
    )
}


def has_classes(task: str | None) -> bool:
    """Whether a task of this name asks for one of several classes."""
    return task in TASKS and TASKS[task].classes


def find_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        UsageError: no task has this name; the nearest one is suggested.
    """
    if name in TASKS:
        return TASKS[name]
    import difflib

    near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.4)
    suggestion = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(
        f"unknown task {name!r}{suggestion}",
        hint=f"one of {', '.join(TASKS)}",
        where="--task",
    )
