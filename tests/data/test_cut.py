import numpy as np
import pytest

from compressor.data.cut import cut_end, cut_up
from compressor.errors import UsageError


def test_cut_end_of_one_text():
    assert cut_end(np.array([-1, 0, 0, 0, 0, -1]), 4).tolist() == [0, 1, 2, 5]


@pytest.mark.parametrize(
    ("first", "second", "room", "kept"),
    [
        (10, 2, 8, (6, 2)),  # only the longer one is cut
        (2, 10, 8, (2, 6)),
        (10, 10, 8, (4, 4)),  # both are
        (10, 10, 9, (4, 5)),
        (11, 10, 9, (5, 4)),
        (4, 5, 8, (4, 4)),
    ],
)
def test_cut_end_of_a_pair(first, second, room, kept):
    texts = np.array([-1] + [0] * first + [-1] + [1] * second + [-1])
    keep = texts[cut_end(texts, room + 3)]
    assert ((keep == 0).sum(), (keep == 1).sum(), (keep == -1).sum()) == (*kept, 3)


def test_cut_up_repeats_the_special_tokens():
    texts = np.array([-1, 0, 0, 0, 0, 0, -1])
    pieces = [piece.tolist() for piece in cut_up(texts, 4)]
    assert pieces == [[0, 1, 2, 6], [0, 3, 4, 6], [0, 5, 6]]


def test_no_room():
    with pytest.raises(UsageError, match="2 tokens leave no room beside 2 special tokens"):
        cut_end(np.array([-1, 0, -1]), 2)
