"""Which teacher layers a student starts from."""

import pytest

from compressor.errors import UsageError
from compressor.methods.depth import chosen_layers, spread


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [
        (12, 6, [0, 2, 4, 7, 9, 11]),
        (12, 4, [0, 4, 7, 11]),
        (6, 3, [0, 2, 5]),
        (6, 2, [0, 5]),
        (6, 6, [0, 1, 2, 3, 4, 5]),
        (6, 1, [0]),
    ],
)
def test_spread(teacher, student, expected):
    assert spread(teacher, student) == expected


def test_half_by_default_a_number_or_a_map_by_hand():
    assert chosen_layers(6, 0, "") == [0, 2, 5]
    assert chosen_layers(1, 0, "") == [0]
    assert chosen_layers(6, 2, "") == [0, 5]
    assert chosen_layers(6, 0, "1,4") == [1, 4]


@pytest.mark.parametrize(
    ("layers", "layer_map", "said"),
    [
        (5, "", "4 layers"),
        (0, "0,7", "0 to 3"),
        (0, "first", "0,2,5"),
        (0, "1,1", "twice"),
    ],
)
def test_layers_that_the_teacher_does_not_have(layers, layer_map, said):
    with pytest.raises(UsageError, match=said):
        chosen_layers(4, layers, layer_map)
