import pytest

from compressor.data.tasks import TASKS, find_task, has_classes
from compressor.errors import UsageError


def test_every_task_is_judged_by_one_of_its_metrics():
    for name, task in TASKS.items():
        assert task.name == name
        assert task.metric in task.metrics
        assert task.higher_is_better == (task.metric != "perplexity")


def test_which_tasks_ask_for_classes_and_of_what():
    assert [name for name in TASKS if has_classes(name)] == [
        "text-classification",
        "image-classification",
    ]
    assert not has_classes(None)
    assert [name for name, task in TASKS.items() if task.reads == "image"] == [
        "image-classification"
    ]


def test_find_task():
    assert find_task("masked-lm").auto_class == "AutoModelForMaskedLM"
    with pytest.raises(UsageError, match="did you mean regression") as refused:
        find_task("regresion")
    assert "text-classification" in refused.value.hint
