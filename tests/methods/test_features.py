"""Layer maps, masked means and projections on numbers that a person can check."""

import pytest
import torch
from torch import nn

from compressor.errors import UsageError
from compressor.methods.features import (
    answers,
    hidden_distance,
    layer_pairs,
    projection,
    real_tokens,
)


@pytest.mark.parametrize(
    ("layer_map", "student", "teacher", "expected"),
    [
        ("uniform", 4, 12, [(1, 3), (2, 6), (3, 9), (4, 12)]),
        ("uniform", 2, 6, [(1, 3), (2, 6)]),
        ("top", 2, 6, [(1, 5), (2, 6)]),
        ("bottom", 2, 6, [(1, 1), (2, 2)]),
        ("last", 2, 6, [(2, 6)]),
        ("0:0,1:2,2:6", 2, 6, [(0, 0), (1, 2), (2, 6)]),
    ],
)
def test_maps(layer_map, student, teacher, expected):
    assert layer_pairs(layer_map, student, teacher) == expected


@pytest.mark.parametrize("layer_map", ["middle", "1", "1:2:3", "1:", "3:1", "1:7", "1:-1"])
def test_maps_that_make_no_sense(layer_map):
    with pytest.raises(UsageError, match=layer_map):
        layer_pairs(layer_map, 2, 6)


def test_a_uniform_map_needs_a_depth_that_divides():
    with pytest.raises(UsageError, match="divides the teacher's 6 layers"):
        layer_pairs("uniform", 4, 6)
    with pytest.raises(UsageError, match="only 2"):
        layer_pairs("top", 3, 2)


def test_images_have_no_padding():
    states = torch.zeros(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert real_tokens({"attention_mask": mask}, states) is mask
    assert real_tokens({"pixel_values": torch.zeros(2, 3, 8, 8)}, states).tolist() == [[1] * 3] * 2
    assert answers(torch.ones(2, 5), {}).shape == (2, 5)
    assert answers(torch.ones(2, 3, 5), {"attention_mask": mask}).shape == (3, 5)


def test_distance_is_a_mean_over_real_tokens_and_width():
    student = torch.tensor([[[1.0, 0.0], [2.0, 2.0], [50.0, 50.0]]])
    teacher = torch.zeros(1, 3, 2)
    assert hidden_distance(student, teacher, torch.tensor([[1, 1, 0]])).item() == 9 / 4


def test_a_projection_is_there_only_between_widths():
    assert isinstance(projection(8, 8), nn.Identity)
    assert tuple(projection(8, 12).weight.shape) == (12, 8)
