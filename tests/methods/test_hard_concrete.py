"""The hard-concrete distribution: hand values, and samples that agree with its probabilities."""

import math

import pytest
import torch

from compressor.methods.hard_concrete import open_probability, sample, typical


@pytest.mark.parametrize(
    ("log_alpha", "opened", "gate"),
    [
        (0.0, 0.831822, 0.5),  # 11^(2/3) = 4.946087; 4.946087 / 5.946087; -0.1 + 1.2 / 2
        (-2 / 3 * math.log(11), 0.5, 0.101813),  # -0.1 + 1.2 / 5.946087
        (math.log(100), 0.997982, 1.0),
        (math.log(0.01), 0.047130, 0.0),
    ],
)
def test_hand_values(log_alpha, opened, gate):
    value = torch.tensor(log_alpha, dtype=torch.float64)
    assert open_probability(value).item() == pytest.approx(opened, abs=1e-6)
    assert typical(value).item() == pytest.approx(gate, abs=1e-6)


@pytest.mark.parametrize("log_alpha", [-2.0, -0.5, 1.0])
def test_samples_are_open_as_often_as_they_should(log_alpha):
    torch.manual_seed(0)
    drawn = sample(torch.full((200_000,), log_alpha))
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    expected = open_probability(torch.tensor(log_alpha)).item()
    assert (drawn > 0).float().mean().item() == pytest.approx(expected, abs=0.005)


def test_samples_have_gradients_where_they_are_neither_0_nor_1():
    torch.manual_seed(0)
    log_alpha = torch.zeros(1000, requires_grad=True)
    drawn = sample(log_alpha)
    drawn.sum().backward()
    inside = (drawn > 0) & (drawn < 1)
    assert (log_alpha.grad[inside] > 0).all()
    assert (log_alpha.grad[~inside] == 0).all()
