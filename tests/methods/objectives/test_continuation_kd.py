"""The published schedule, the sheet's hand values, and what a run writes down."""

import json

import pytest
import torch

import pairs
import tiny
from compressor.cli import run
from compressor.methods.contract import Context
from compressor.methods.objectives import continuation_kd as ckd
from compressor.methods.objectives import task
from compressor.model.views import Views

STUDENT, TEACHER = torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0, -2.0]])


def objective(task="text-classification", steps=300, **options):
    facts = Context(None, task, total_steps=steps, steps_per_epoch=10)
    return ckd.Objective(ckd.Options(**options), facts)


def rows(labels):
    return {"attention_mask": torch.ones(len(labels), 4), "labels": torch.tensor(labels)}


@pytest.mark.parametrize(
    ("phase", "level", "phi", "psi"),
    [
        (1, 10, 0.1, 0.025),
        (3, 9, 0.2, 0.075),
        (10, 7, 0.4, 0.25),
        (20, 4, 0.7, 0.5),
        (21, 3, 0.8, 1.0),
        (27, 1, 1.0, 1.0),
        (30, 1, 1.0, 1.0),
    ],
)
def test_published_schedule(phase, level, phi, psi):
    assert ckd.temperature(phase, 30, 10) == level
    assert ckd.smoothing(level, 10) == pytest.approx(phi)
    assert ckd.label_weight(phase, 40, 20) == pytest.approx(psi)
    made = objective()  # of the defaults: thirty epochs of ten steps
    for step in ((phase - 1) * 10, phase * 10 - 1):
        made.before_step(step)
        assert (made.phi, made.psi) == (pytest.approx(phi), pytest.approx(psi))


@pytest.mark.parametrize(("phases", "t_max"), [(30, 10), (200, 20), (7, 10), (35, 10), (3, 1)])
def test_schedules_never_fall_and_stay_within_bounds(phases, t_max):
    phis = [
        ckd.smoothing(ckd.temperature(phase, phases, t_max), t_max)
        for phase in range(1, phases + 1)
    ]
    psis = [ckd.label_weight(phase, 5, 12) for phase in range(1, phases + 1)]
    for values in (phis, psis):
        assert values == sorted(values)
        assert values[0] > 0
        assert values[-1] <= 1


@pytest.mark.parametrize("steps", [1, 7, 30, 47, 3000])
def test_a_run_of_any_length_passes_the_phases_in_order(steps):
    phases = [ckd.phase_of(step, steps, 30) for step in range(steps)]
    assert phases == sorted(phases)
    assert phases[0] == 1
    if steps >= 30:
        assert set(phases) == set(range(1, 31))


def test_a_rate_of_zero_is_a_step():
    assert [ckd.label_weight(phase, 0, 2) for phase in (1, 2, 3)] == [0, 0, 1]


@pytest.mark.parametrize(
    ("phi", "margin", "expected"),
    [(1.0, 0.0, 2.0), (0.5, 0.0, 0.0), (0.1, 0.0, 1.28), (0.1, 1.0, 1.18), (1.0, 1.0, 1.0)],
)
def test_hand_values(phi, margin, expected):
    distances = ckd.squared_distance(STUDENT, TEACHER, phi, "sum")
    loss, active = ckd.hinge(distances, margin * phi)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert active.item() == float(expected > 0)


def test_mean_form_divides_by_the_classes():
    assert ckd.squared_distance(STUDENT, TEACHER, 1.0, "mean").tolist() == [1.0]


def test_inside_the_margin_the_gradient_is_exactly_zero():
    student = STUDENT.clone().requires_grad_()
    loss, active = ckd.hinge(ckd.squared_distance(student, TEACHER, 1.0, "sum"), 2.5)
    loss.backward()
    assert student.grad.abs().max() == 0
    assert active.item() == 0


def test_the_hinge_is_of_each_row_not_of_their_mean():
    loss, active = ckd.hinge(torch.tensor([0.0, 3.0]), 2.0)
    assert loss.item() == pytest.approx(0.5)  # of the mean, 1.5, nothing would exceed 2
    assert active.item() == 0.5


def test_mixes_by_psi_and_names_its_parts():
    made = objective(hinge_margin=0.1)
    made.before_step(95)  # phase 10: phi 0.4, psi 0.25
    loss = made.loss(rows([0]), Views(STUDENT), Views(TEACHER))
    hard = task.task_loss("text-classification", STUDENT, torch.tensor([0])).item()
    soft = 2 * (1 - 0.8) ** 2 - 0.1 * 0.4  # what exceeds m phi
    assert loss.total.item() == pytest.approx(0.25 * hard + 0.75 * soft)
    parts = {name: value.item() for name, value in loss.parts.items()}
    wanted = {"continuation": soft, "hard": hard, "phi": 0.4, "psi": 0.25, "active": 1}
    assert parts == pytest.approx(wanted)


def test_a_student_equal_to_its_teacher_has_no_loss_at_full_scale():
    distances = ckd.squared_distance(STUDENT, STUDENT.clone(), 1.0, "sum")
    assert ckd.hinge(distances, 0.0)[0].item() == 0


def test_regression_takes_the_squared_error_of_the_gold_scores():
    made = objective("regression", hinge_margin=0.0)
    made.before_step(195)  # phase 20: phi 0.7, psi 0.5
    loss = made.loss(rows([2.0]), Views(torch.tensor([[1.0]])), Views(torch.tensor([[3.0]])))
    assert loss.total.item() == pytest.approx(0.5 * 1 + 0.5 * (1 - 2.1) ** 2)


def test_padded_tokens_do_not_count_and_gradients_are_finite():
    student, teacher = (
        tiny.model(head="AutoModelForMaskedLM", labels=None, seed=seed) for seed in (0, 1)
    )
    batch = pairs.batch()
    batch["labels"] = torch.where(batch["attention_mask"] == 1, batch["input_ids"], -100)
    seen, shown = pairs.views(student, batch), pairs.detached(pairs.views(teacher, batch))
    made = objective("masked-lm")
    pairs.assert_ignores_padding(lambda: made, seen, shown, batch)
    pairs.assert_finite_gradients(made.loss(batch, seen, shown), student)


def test_a_short_run_goes_through_the_whole_schedule(workshop, tmp_path):
    words = f"distill {workshop}/teacher --data {workshop}/data --method continuation_kd"
    words += f" --epochs 3 --batch-size 16 --lr 2e-3 --eval-steps 2 -o {tmp_path}/out"
    assert run(words.split()) == 0
    curve = json.loads((tmp_path / "out/run.json").read_text())["curve"]
    trained = [point for point in curve if "loss" in point]
    assert trained[0]["phi"] == pytest.approx(0.1)
    assert trained[-1]["phi"] == 1
    assert 0 < trained[0]["psi"] < 0.1
    assert trained[-1]["psi"] == 1
    for point in trained:
        mixed = point["psi"] * point["hard"] + (1 - point["psi"]) * point["continuation"]
        assert point["loss"] == pytest.approx(mixed, rel=1e-3, abs=1e-4)
        assert 0 <= point["active"] <= 1


def fit_to_rippled_teacher(seed, margin, *, scaled, steps=600, ripple=0.3):
    """Held-out squared error to a clean sine of a small network taught by a rippled one."""
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(1, 128), torch.nn.Linear(128, 128), torch.nn.Linear(128, 1)]
    relu = torch.nn.ReLU()
    net = torch.nn.Sequential(layers[0], relu, layers[1], relu, layers[2])
    inputs = (torch.rand(3000, 1) * 2 - 1) * torch.pi
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for step in range(steps):
        x = inputs[torch.randint(0, 3000, (256,))]
        taught = x.sin() + ripple * (8 * x).sin()
        level = ckd.temperature(ckd.phase_of(step, steps, 30), 30, 10) if scaled else 1
        phi = ckd.smoothing(level, 10)
        distances = ckd.squared_distance(net(x), taught, phi, "sum")
        loss, _ = ckd.hinge(distances, margin * phi)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = torch.linspace(-torch.pi, torch.pi, 1001)[:, None]
    with torch.no_grad():
        return (net(x) - x.sin()).square().mean().item()


@pytest.mark.slow
def test_a_margin_of_the_teachers_ripple_keeps_the_student_from_learning_it():
    plain = [fit_to_rippled_teacher(seed, 0.0, scaled=False) for seed in range(5)]
    forgiving = [fit_to_rippled_teacher(seed, 0.3**2, scaled=True) for seed in range(5)]
    assert sum(forgiving) < sum(plain) / 2
