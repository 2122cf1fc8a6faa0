"""Distances and angles of a right triangle, the plain formula, and rows that coincide."""

import pytest
import torch
from torch.nn import functional as F

import pairs
import tiny
from compressor.methods.objectives import rkd

TRIANGLE = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])


def objective(**options):
    model = tiny.model()
    return rkd.Objective(rkd.Options(**options), pairs.context(model, model))


def plain_angles(rows):
    """Cosines at every vertex from differences, [vertex, B, B]: what the fast form must equal."""
    units = F.normalize(rows[None, :, :] - rows[:, None, :], dim=-1)  # [vertex, B, width]
    return units @ units.transpose(1, 2)


def test_distances_of_a_triangle_in_units_of_their_mean():
    distances, _ = rkd.relations(TRIANGLE)
    expected = torch.tensor([[0.0, 3.0, 4.0], [3.0, 0.0, 5.0], [4.0, 5.0, 0.0]]) / 4
    torch.testing.assert_close(distances, expected)


def test_cosines_of_a_triangle():
    _, cosines = rkd.relations(TRIANGLE)
    assert cosines[0, 1, 2].item() == pytest.approx(0, abs=1e-6)  # the right angle
    assert cosines[1, 0, 2].item() == pytest.approx(3 / 5)
    assert cosines[2, 0, 1].item() == pytest.approx(4 / 5)
    torch.testing.assert_close(cosines, plain_angles(TRIANGLE), rtol=1e-5, atol=1e-6)


def test_far_from_the_origin_angles_are_those_of_the_plain_formula():
    rows = torch.randn(9, 24, generator=torch.Generator().manual_seed(0))
    _, cosines = rkd.relations(rows + 100)
    torch.testing.assert_close(cosines, plain_angles(rows), rtol=1e-3, atol=1e-4)


def test_huber_of_the_differences_over_all_pairs():
    line = torch.tensor([[0.0], [1.0], [2.0]])  # distances 1, 1, 2 with a mean of 4 / 3
    distance, _ = rkd.relation_losses(line, TRIANGLE)
    gaps = torch.tensor([0.75 - 0.75, 1.0 - 1.5, 1.25 - 0.75])
    expected = 2 * (gaps.square() / 2).sum() / 9
    assert distance.item() == pytest.approx(expected.item(), abs=1e-6)


def test_turned_scaled_shifted_and_widened_rows_have_no_loss():
    rows = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    turn = torch.linalg.qr(torch.randn(12, 8, generator=torch.Generator().manual_seed(2)))[0]
    distance, angle = rkd.relation_losses(rows, 3 * rows @ turn.T + 5)
    assert distance.item() == pytest.approx(0, abs=1e-9)
    assert angle.item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "rows", [[[1.0, 2.0]], [[1.0, 2.0]] * 3, [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]]
)
def test_rows_that_coincide_have_finite_losses_and_gradients(rows):
    student = torch.tensor(rows, requires_grad=True)
    losses = rkd.relation_losses(student, TRIANGLE[: len(rows)])
    sum(losses).backward()
    assert all(loss.isfinite() for loss in losses)
    assert student.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences():
    teacher = torch.randn(4, 5, generator=torch.Generator().manual_seed(3))
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(4)).requires_grad_()
    sum(rkd.relation_losses(rows, teacher)).backward()
    step = 1e-2
    moved = []
    for sign in (1, -1):
        other = rows.detach().clone()
        other[1, 2] += sign * step
        moved.append(sum(rkd.relation_losses(other, teacher)).item())
    assert rows.grad[1, 2].item() == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=2e-2)


def test_no_tensor_is_as_large_as_pairs_times_width():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                self.numbers = max(self.numbers, result.numel())
            return result

    rows = torch.randn(6, 500, requires_grad=True)
    with Largest() as largest:
        sum(rkd.relation_losses(rows, torch.randn(6, 500))).backward()
    assert largest.numbers <= 6 * 500


def test_row_means_weights_padding_and_gradients():
    student, teacher = tiny.model(), tiny.model(hidden_size=48, seed=1)
    rows = pairs.batch()
    for name, value in rows.items():  # four rows, so that there are angles
        rows[name] = torch.cat([value, value.flip(0)])
    rows["input_ids"][2:, 1] += 3
    mask = rows["attention_mask"]
    seen = pairs.headless(pairs.views(student, rows))
    shown = pairs.detached(pairs.views(teacher, rows))
    real = seen.hidden[-1][0][mask[0] == 1].mean(0)
    torch.testing.assert_close(rkd.row_means(seen.hidden[-1], mask)[0], real)
    made = objective(rkd_distance_weight=2.0, rkd_angle_weight=3.0)
    pairs.assert_ignores_padding(lambda: made, seen, shown, rows)
    loss = made.loss(rows, seen, shown)
    expected = 2 * loss.parts["rkd_distance"] + 3 * loss.parts["rkd_angle"]
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)
    pairs.assert_finite_gradients(loss, student)


def test_a_student_equal_to_its_teacher_has_no_loss():
    model, rows = tiny.model(), pairs.batch()
    seen = pairs.headless(pairs.views(model, rows))
    assert objective().loss(rows, seen, pairs.detached(seen)).total.item() == 0
