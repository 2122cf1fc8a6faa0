"""Training curves are found through the lineage, once each, and a broken note costs nothing."""

from __future__ import annotations

import pytest

from checkpoint import folders
from checkpoint.folders import change_json, put_json
from compressor.checkpoint.folder import open_checkpoint
from compressor.checkpoint.lineage import make_step, write_lineage
from compressor.checkpoint.training import MOST_POINTS, trainings

CURVE = [
    {"step": 1, "loss": 0.9, "hard": 0.5, "gradient_norm": 2.0},
    {"step": 2, "loss": 0.4, "hard": 0.2, "gradient_norm": 1.0},
    {"step": 2, "f1": 0.6, "accuracy": 0.75},
]


def made(folder, verbs, parent=None, **run):
    """A folder with this lineage and this run.json."""
    folders.make(folder)
    write_lineage(folder, [make_step(v, f"by-{v}", {}, 0, {}, f"compressor {v}") for v in verbs])
    inputs = {"model": str(parent)} if parent else {}
    put_json(folder / "run.json", {"inputs": inputs, **run})
    return folder


@pytest.fixture
def family(tmp_path):
    """A teacher in another place, its student, and what was made of that without training."""
    teacher = made(
        tmp_path / "far" / "teacher", ["finetune"], curve=CURVE, metric="accuracy", best_step=2
    )
    student = made(
        tmp_path / "near" / "student", ["finetune", "distill"], teacher,
        curve=[{"step": 5, "loss": 3.0, "gradient_norm": 0.0}, {"step": 5, "loss": 2.5}],
        metric="loss", best_step=5,
    )  # fmt: skip
    return made(tmp_path / "near" / "int8", ["finetune", "distill", "quantize"], student)


def test_every_training_of_a_lineage_stands_once_with_those_that_descend_from_it(family):
    near, far = family.parent, family.parents[1] / "far"
    opened = {"t": far / "teacher", "q": family, "s": near / "student"}
    found = trainings({name: open_checkpoint(folder) for name, folder in opened.items()})
    assert found == [
        {
            "verb": "finetune",
            "method": "by-finetune",
            "models": ["t", "q", "s"],
            "loss": [{"step": 1, "value": 0.9}, {"step": 2, "value": 0.4}],
            "metric": "accuracy",
            "scores": [{"step": 2, "value": 0.75}],
            "kept_step": 2,
        },
        {
            "verb": "distill",
            "method": "by-distill",
            "models": ["q", "s"],
            "loss": [{"step": 5, "value": 3.0}],
            "metric": "loss",
            "scores": [{"step": 5, "value": 2.5}],
            "kept_step": 5,
        },
    ]


def test_another_lineage_is_not_mixed_in(family):
    change_json(family.parent / "student" / "compression.json", steps=[{"verb": "distill"}])
    found = trainings({"q": open_checkpoint(family)})
    assert [each["verb"] for each in found] == ["finetune"]


def test_an_older_note_does_not_say_its_metric(tmp_path):
    folder = made(tmp_path / "a", ["finetune"], curve=CURVE)
    (found,) = trainings({"a": open_checkpoint(folder)})
    assert (found["metric"], found["scores"]) == ("f1", [{"step": 2, "value": 0.6}])
    assert found["kept_step"] is None


def test_without_validation_rows_there_is_no_metric(tmp_path):
    folder = made(tmp_path / "a", ["finetune"], curve=CURVE[:2], metric="accuracy", best_step=2)
    (found,) = trainings({"a": open_checkpoint(folder)})
    assert (found["metric"], found["scores"]) == (None, [])


def test_a_long_curve_is_thinned_and_keeps_its_end(tmp_path):
    curve = [{"step": step, "loss": 1.0, "gradient_norm": 1.0} for step in range(1, 1002)]
    folder = made(tmp_path / "a", ["finetune"], curve=curve)
    (found,) = trainings({"a": open_checkpoint(folder)})
    assert 100 < len(found["loss"]) <= MOST_POINTS
    assert found["loss"][-1]["step"] == 1001


@pytest.mark.parametrize(
    "curve",
    [
        None, 3, "curve", {}, [], [3, None], [{"loss": 1.0}], [{"step": "1", "accuracy": 1.0}],
        [{"step": 1, "accuracy": "high"}], [{"step": 1, "accuracy": True}],
        [{"step": 10**400, "accuracy": 0.5}], [{"step": 1, "accuracy": 10**400}],
    ],
)  # fmt: skip
def test_what_is_no_curve_is_left_out(tmp_path, curve):
    folder = made(tmp_path / "a", ["finetune"], curve=curve, metric="accuracy")
    assert trainings({"a": open_checkpoint(folder)}) == []


def test_without_a_note_or_a_lineage_there_is_nothing(tmp_path):
    folder = made(tmp_path / "a", ["finetune"], curve=CURVE)
    (folder / "run.json").write_text("[")
    assert trainings({"a": open_checkpoint(folder)}) == []
    (folder / "run.json").unlink()
    assert trainings({"a": open_checkpoint(folder)}) == []
    assert trainings({"b": open_checkpoint(folders.make(tmp_path / "b"))}) == []
