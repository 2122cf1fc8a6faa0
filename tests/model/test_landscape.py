"""Directions, surfaces and sharpness, against values worked out by hand."""

import pytest
import torch
from torch import nn

import tiny
from compressor.model.landscape import (
    difference,
    displaced,
    largest_eigenvalue,
    line,
    normalised,
    random_direction,
    sharpness,
    surface,
    trace,
)


class Quadratic(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 1.0]], dtype=torch.float64))

    def loss(self):
        """In two shares, as of two batches."""
        for place, steepness in enumerate((4.0, 1.0)):
            yield 0.5 * steepness * self.weight[0, place] ** 2


def test_directions_are_as_long_as_the_weights_row_by_row():
    weight = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    found = normalised(weight, torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
    torch.testing.assert_close(found, torch.tensor([[5.0, 0.0], [1.2, 1.6]]))
    assert normalised(torch.ones(3), torch.ones(3)).tolist() == [0.0, 0.0, 0.0]


def test_every_matrix_of_a_model_gets_rows_of_its_own_size():
    model = tiny.model()
    direction = random_direction(model, 1)
    for name, weight in model.named_parameters():
        if weight.dim() < 2:
            assert not direction[name].any()
        else:
            torch.testing.assert_close(direction[name].norm(dim=1), weight.detach().norm(dim=1))
    again = random_direction(model, 1)
    assert all(torch.equal(direction[name], again[name]) for name in direction)
    assert not torch.equal(
        direction["classifier.weight"], random_direction(model, 2)["classifier.weight"]
    )


def test_rows_of_maps_that_are_stored_turned_and_of_positions_that_stand_one_axis_deeper():
    model = tiny.model("gpt2")
    name = "transformer.h.0.mlp.c_fc.weight"  # [in, out]
    weight, found = model.get_parameter(name).detach(), random_direction(model, 1)[name]
    torch.testing.assert_close(found.norm(dim=0), weight.norm(dim=0))
    positions = torch.randn(1, 5, 8)
    found = normalised(positions, torch.randn(1, 5, 8))
    torch.testing.assert_close(found.norm(dim=2), positions.norm(dim=2))
    assert not normalised(torch.ones(1, 1, 8), torch.ones(1, 1, 8)).any()  # a class token


def test_zeros_of_a_sparse_model_stay():
    model = tiny.model()
    tiny.prune_smallest(model)
    direction = random_direction(model, 0)
    weight = model.bert.encoder.layer[0].output.dense.weight
    assert not direction["bert.encoder.layer.0.output.dense.weight"][weight == 0].any()


def test_sharpness_of_a_quadratic_by_hand():
    model = Quadratic()
    here, rises = sharpness(model, model.loss, rho=0.05, gamma=0.1, seeds=[0])
    assert here == 2.5
    assert rises["worst"] == pytest.approx(0.2109347, abs=1e-7)
    assert largest_eigenvalue(model, model.loss, steps=40, seed=0) == pytest.approx(4.0)
    assert trace(model, model.loss, range(3)) == pytest.approx(5.0)
    direction = {"weight": torch.tensor([[1.0, 0.0]], dtype=torch.float64)}
    assert line(model, model.loss, direction, [0.0, 1.0]) == [2.5, 8.5]


def test_the_curvature_of_a_sparse_model_is_that_of_its_living_weights():
    model = Quadratic()
    model.weight.data[0, 0] = 0.0  # the steep one
    assert largest_eigenvalue(model, model.loss, steps=40, seed=0) == pytest.approx(1.0)
    assert trace(model, model.loss, range(3)) == pytest.approx(1.0)


def test_a_surface_has_the_loss_in_its_middle_and_the_weights_come_back():
    model = Quadratic()
    ways = tuple(
        {"weight": torch.tensor([d], dtype=torch.float64)} for d in ([1.0, 0.0], [0.0, 1.0])
    )
    before = model.weight.detach().clone()
    rows = list(surface(model, model.loss, ways, [-1.0, 0.0, 1.0]))
    assert rows[1][1] == 2.5
    assert rows[1] == [0.5, 2.5, 8.5]  # along the first direction
    assert [row[1] for row in rows] == [2.0, 2.5, 4.0]
    assert torch.equal(model.weight.detach(), before)


def test_weights_come_back_after_an_error():
    model = Quadratic()

    def fail():
        with displaced(model) as move:
            move([(1.0, {"weight": torch.ones_like(model.weight)})])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert model.weight.tolist() == [[1.0, 1.0]]


def test_scale_moved_between_layers_changes_only_what_is_not_adaptive():
    torch.manual_seed(0)
    inputs, labels = torch.randn(40, 6), torch.randint(0, 3, (40,))
    first, second = torch.randn(8, 6) / 2, torch.randn(3, 8) / 2

    def measured(scale):
        model = nn.Sequential(
            nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)
        ).double()
        model[0].weight.data = (first * scale).double()
        model[2].weight.data = (second / scale).double()

        def loss():
            yield nn.functional.cross_entropy(model(inputs.double()), labels)

        return sharpness(model, loss, rho=0.05, gamma=0.3, seeds=[1, 2, 3])

    (value, rises), (same, other) = measured(1.0), measured(10.0)
    assert same == pytest.approx(value)
    assert other["adaptive_worst"] == pytest.approx(rises["adaptive_worst"], rel=1e-4)
    assert other["average"] == pytest.approx(rises["average"], rel=1e-4)
    assert abs(other["worst"] - rises["worst"]) > 0.5 * rises["worst"]


def test_the_way_to_another_model():
    model, other = tiny.model(), tiny.model(seed=5)
    way = difference(model, dict(other.named_parameters()))
    with displaced(model) as move:
        move([(1.0, way)])
        for name, weight in model.named_parameters():
            torch.testing.assert_close(weight.detach(), dict(other.named_parameters())[name])
    assert difference(model, dict(tiny.model(num_hidden_layers=1).named_parameters())) is None
