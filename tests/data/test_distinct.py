"""Rows with the same tokens are found, and only those."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from compressor.data import distinct as room
from compressor.data.distinct import distinct
from compressor.data.encode import Encoded


def encoded(rows, types=None):
    flat = np.array([token for row in rows for token in row], dtype=np.int32)
    kinds = None if types is None else np.array([t for row in types for t in row], dtype=np.uint8)
    offsets = np.cumsum([0, *map(len, rows)])
    return Encoded(flat, offsets, kinds, None, max_length=16)


def test_the_longest_come_first_and_every_row_knows_its_place():
    found = distinct([encoded([[5, 6], [7, 8, 9], [5, 6], [6, 5], [7, 8, 9]])])
    assert found.rows.tolist() == [1, 0, 3]
    assert found.places.tolist() == [1, 0, 1, 2, 0]


def test_a_padding_token_at_the_end_is_another_row():
    assert len(distinct([encoded([[5], [5, 0], [5, 0, 0]])])) == 3


def test_token_types_tell_rows_apart():
    rows = [[1, 2, 3], [1, 2, 3], [1, 2, 3]]
    assert len(distinct([encoded(rows)])) == 1
    found = distinct([encoded(rows, types=[[0, 0, 1], [0, 1, 1], [0, 0, 1]])])
    assert found.places.tolist() == [0, 1, 0]


def test_rows_that_one_of_two_tokenizers_tells_apart_are_two():
    lower, cased = encoded([[1], [1], [1]]), encoded([[1, 2], [3, 2], [1, 2]])
    assert len(distinct([lower])) == 1
    assert distinct([lower, cased]).places.tolist() == [0, 1, 0]


def test_the_fingerprint_sees_every_token_and_the_order():
    prints = [
        distinct([encoded(rows)]).fingerprint
        for rows in ([[1, 2], [3]], [[1, 2], [3]], [[3], [1, 2]], [[1, 2], [4]])
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=1, max_size=40))
def test_it_agrees_with_comparing_row_by_row(rows):
    before, room.CHUNK_ROWS = room.CHUNK_ROWS, 7  # several chunks
    try:
        found = distinct([encoded(rows)])
    finally:
        room.CHUNK_ROWS = before
    assert len(found) == len(set(map(tuple, rows)))
    assert [rows[first] for first in found.rows[found.places]] == rows
