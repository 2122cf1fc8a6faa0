"""What a call multiplies, by hand for tiny models."""

import pytest

import tiny
from compressor.checkpoint.folder import open_checkpoint
from compressor.checkpoint.products import products_of
from compressor.cli import run

SQUARE, UP, DOWN = (32, 32), (64, 32), (32, 64)


def opened(folder, family="bert", **sizes):
    return open_checkpoint(tiny.checkpoint(folder, family, **sizes))


def test_every_layer_multiplies_its_matrices_and_its_heads(tmp_path):
    found = products_of(opened(tmp_path / "bert"))
    assert sorted(found.matrices) == sorted([*[SQUARE] * 4, UP, DOWN] * 2)
    assert found.attentions == ((4, 8), (4, 8))


def test_the_width_of_a_head_may_stand_in_the_config(tmp_path):
    assert products_of(opened(tmp_path / "llama", "llama")).attentions == ((4, 8), (4, 8))
    assert products_of(opened(tmp_path / "gpt2", "gpt2")).attentions == ((4, 8), (4, 8))


@pytest.mark.parametrize("weights", ["", "fp32", "int8"])
def test_layers_that_share_their_matrices_multiply_them_each(tmp_path, weights):
    checkpoint = opened(tmp_path / "albert", "albert", num_hidden_layers=4)
    if weights:
        words = ["export", f"{checkpoint.path}", "--weights", weights, "-o", f"{tmp_path}/graph"]
        assert run(words) == 0
        checkpoint = open_checkpoint(tmp_path / "graph")
    found = products_of(checkpoint)
    turned = UP if weights == "" else DOWN
    assert len(found.matrices) == 24
    assert found.matrices.count(SQUARE) == 16
    assert found.matrices.count(turned) == 4
    assert found.attentions == ((4, 8),) * 4
