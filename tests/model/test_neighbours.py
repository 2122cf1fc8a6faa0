"""Nearest words by cosine, and the file format that vectors come in."""

from types import SimpleNamespace

import pytest
import torch

from compressor.data.word_vectors import read_word_vectors
from compressor.errors import InputError
from compressor.model.neighbours import nearest, neighbours_in_file, neighbours_in_model

VECTORS = "king 2 0\nqueen 4 1\nking 0 9\napple 0 3\npear 1 3\nof the 1 1\n"


def test_the_nearest_by_angle_whatever_the_length():
    table = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]])
    assert nearest(table, torch.tensor([5.0, 0.5]), 2, []) == [0, 1]
    assert nearest(table, torch.tensor([5.0, 0.5]), 2, [0]) == [1, 2]
    assert nearest(table, torch.tensor([5.0, 0.5]), 9, [0, 2]) == [1, 3]


def test_a_file_of_vectors(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(VECTORS)
    near = neighbours_in_file(path, 2)
    assert near("king", ()) == ["queen", "of the"]  # the first of two lines counts, never itself
    assert near("Apple", ()) == ["king", "pear"]
    assert near("plum", ()) == []
    words, vectors = read_word_vectors(path, 2)
    assert words == ["king", "queen"]
    assert vectors.tolist() == [[2, 0], [4, 1]]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", "", "no word vectors"),
        ("king\n", ":1", "expected a word and numbers: king"),
        ("king 1 2\nqueen 1\n", ":2", "expected a word and 2 numbers"),
        ("king 1 2\nqueen 1 two\n", ":2", "queen 1 two"),
        ("king 1 nan\n", ":1", "king 1 nan"),
    ],
)
def test_a_file_that_is_no_vectors(text, line, said, tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_word_vectors(path, 100)
    assert said in caught.value.message
    assert caught.value.where == f"{path}{line}"


def test_a_word_of_pieces_is_their_mean_and_never_one_of_them():
    table = torch.nn.Embedding.from_pretrained(
        torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.9], [0.2, 1.0], [1.0, 1.0]])
    )
    spelt = ["", "black", "", "blue", "green", "!"]  # 0 special, 2 continues, 5 is no word
    loaded = SimpleNamespace(model=SimpleNamespace(get_input_embeddings=lambda: table))
    near = neighbours_in_model(loaded, spelt, 5)
    assert near("blackbird", (1, 2)) == ["blue", "green"]  # mean (0.5, 0.5)
