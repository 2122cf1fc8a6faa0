"""Dropout with cheap random bits: how often, how large, and for how long."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.train.dropout import cheap_dropout, dropped


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_drops_the_share_that_was_asked_for_and_scales_the_rest(p: float) -> None:
    torch.manual_seed(0)
    values = dropped(torch.ones(1_000_003), p)
    share = (values == 0).double().mean().item()
    assert share == pytest.approx(p, abs=4 * (p * (1 - p) / 1e6) ** 0.5)
    assert values.max().item() == pytest.approx(1 / (1 - p))


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    gone = dropped(torch.ones(1_000_000), 0.5) == 0
    for distance in (1, 2, 3, 4, 8):  # four elements share one draw
        both = (gone[distance:] & gone[:-distance]).double().mean().item()
        assert both == pytest.approx(0.25, abs=0.003)


def test_the_gradient_meets_the_mask_of_the_values() -> None:
    values = torch.ones(7, 13, requires_grad=True)
    found = dropped(values, 0.3)
    found.sum().backward()
    assert torch.equal(values.grad, found)
    assert 0 in found


def test_the_mask_follows_the_seed() -> None:
    torch.manual_seed(1)
    first = dropped(torch.ones(999), 0.5)
    second = dropped(torch.ones(999), 0.5)
    torch.manual_seed(1)
    assert torch.equal(first, dropped(torch.ones(999), 0.5))
    assert not torch.equal(first, second)


def test_layers_are_cheap_for_the_while_and_silent_in_evaluation() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Dropout(0.0))
    rows = torch.randn(3, 4)
    with cheap_dropout(model):
        assert type(model[1]) is not nn.Dropout
        torch.manual_seed(0)
        trained = model(rows)
        torch.manual_seed(0)
        assert torch.equal(trained, dropped(model[0](rows), 0.5))
        model.eval()
        assert torch.equal(model(rows), model[0](rows))
    assert type(model[1]) is type(model[2]) is nn.Dropout


def test_dropping_all_or_nothing_is_left_to_torch() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.0), nn.Dropout(1.0))
    with cheap_dropout(model):
        assert model(torch.ones(5, 1)).tolist() == [[0.0]] * 5
