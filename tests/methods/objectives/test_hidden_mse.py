"""Hand values, widths that differ, and runs on plain text where nobody has a head."""

import json

import pytest
import torch

import pairs
import tiny
from compressor.cli import run
from compressor.errors import UsageError
from compressor.methods.objectives import hidden_mse
from compressor.model.views import Views


def objective(student, teacher, **options):
    return hidden_mse.Objective(hidden_mse.Options(**options), pairs.context(student, teacher))


def test_hand_value_leaves_padding_out():
    model = tiny.model(num_hidden_layers=1)
    states = torch.tensor([[[1.0, 2.0], [0.0, 0.0], [9.0, 9.0]]])  # the third token is padding
    taught = torch.tensor([[[0.0, 0.0], [0.0, 2.0], [0.0, 0.0]]])
    rows = {"attention_mask": torch.tensor([[1, 1, 0]])}
    seen, shown = (Views(hidden=(states, states)), Views(hidden=(taught, taught)))
    # (1 + 4 + 0 + 4) / (2 tokens x 2 wide)
    assert objective(model, model).loss(rows, seen, shown).total.item() == pytest.approx(2.25)
    half = objective(model, model, hidden_mse_weight=0.5).loss(rows, seen, shown)
    assert half.total.item() == pytest.approx(1.125)
    assert half.parts["hidden_mse"].item() == pytest.approx(2.25)


def test_uniform_pairs_add_up():
    student, teacher = tiny.model(), tiny.model(num_hidden_layers=4, seed=1)
    rows = pairs.batch()
    seen, shown = pairs.views(student, rows), pairs.views(teacher, rows)
    both = objective(student, teacher)
    assert both.pairs == [(1, 2), (2, 4)]
    parts = [objective(student, teacher, layer_pairs=p) for p in ("1:2", "2:4")]
    expected = sum(one.loss(rows, seen, shown).total for one in parts)
    torch.testing.assert_close(both.loss(rows, seen, shown).total, expected)


def test_a_student_equal_to_its_teacher_has_no_loss():
    model, rows = tiny.model(), pairs.batch()
    seen = pairs.headless(pairs.views(model, rows))
    assert objective(model, model).loss(rows, seen, pairs.detached(seen)).total.item() == 0


def test_other_width_padding_and_gradients():
    student, teacher = tiny.model(), tiny.model(hidden_size=48, seed=1)
    rows = pairs.batch()
    seen = pairs.headless(pairs.views(student, rows))
    shown = pairs.detached(pairs.views(teacher, rows))
    made = objective(student, teacher)
    pairs.assert_ignores_padding(lambda: made, seen, shown, rows)
    pairs.assert_finite_gradients(made.loss(rows, seen, shown), student, made.module)
    assert all(weight.grad.abs().max() > 0 for weight in made.module.parameters())
    assert sum(weight.dim() == 2 for weight in made.module.parameters()) == 2  # one for each pair


def test_depths_that_do_not_divide_are_refused_with_what_to_type():
    with pytest.raises(UsageError, match="divides the teacher's 3") as refusal:
        objective(tiny.model(), tiny.model(num_hidden_layers=3))
    assert "--layer-pairs" in refusal.value.hint


def test_four_of_them_on_plain_text_without_a_head(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.checkpoint(tmp_path / "base", head="AutoModel", labels=None)
    (tmp_path / "text.txt").write_text("\n".join(row["text"] for row in tiny.rows(48)) + "\n")
    words = "distill base --data text.txt --task masked-lm --epochs 16 --batch-size 8 --lr 2e-3"
    words += " --student-layers 1 --student-hidden 24 --student-heads 2 --student smaller -o out"
    methods = [f"--method={name}" for name in ("hidden_mse", "cosine", "pkd", "rkd")]
    assert run([*words.split(), *methods]) == 0
    curve = json.loads((tmp_path / "out/run.json").read_text())["curve"]
    for part in ("hidden_mse", "cosine", "patience", "rkd_distance", "rkd_angle"):
        values = [point[part] for point in curve if part in point]
        assert len(values) == 96
        # The last two epochs against the first two.
        assert sum(values[-12:]) < 0.97 * sum(values[:12]), part


def test_added_to_soft_labels_it_keeps_both_parts(workshop, tmp_path):
    words = f"distill {workshop}/teacher --data {workshop}/data --epochs 2 --max-steps 15"
    words += f" --method soft_labels --method hidden_mse --eval-steps 10 -o {tmp_path}/out"
    assert run(words.split()) == 0
    record = json.loads((tmp_path / "out/run.json").read_text())
    trained = [point for point in record["curve"] if "loss" in point]
    assert trained
    for point in trained:
        together = 0.9 * point["soft"] + 0.1 * point["hard"] + point["hidden_mse"]
        assert point["loss"] == pytest.approx(together, rel=1e-4)
