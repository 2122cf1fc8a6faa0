"""Names of layers across families."""

from __future__ import annotations

import pytest

from compressor.checkpoint.families import (
    FAMILIES,
    is_buffer,
    is_known,
    reads_text,
    split_layer,
)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (
            "bert.encoder.layer.11.output.dense.bias",
            ("bert.encoder.layer", 11, "output.dense.bias"),
        ),
        ("encoder.layer.0.output.dense.bias", ("encoder.layer", 0, "output.dense.bias")),
        ("h.3.attn.c_attn.weight", ("h", 3, "attn.c_attn.weight")),
        ("decoder.block.0.layer.1.q.weight", ("decoder.block", 0, "layer.1.q.weight")),
        ("model.layers.7.mlp.up_proj.weight", ("model.layers", 7, "mlp.up_proj.weight")),
        ("/bert/encoder/layer.2/ffn/MatMul", ("/bert/encoder/layer", 2, "ffn/MatMul")),
        ("bert.embeddings.LayerNorm.weight", None),
        ("lm_head.layer_norm.weight", None),
        ("fourth.3.weight", None),
        ("classifier.weight", None),
    ],
)
def test_split_layer(name, place):
    assert split_layer(name) == place


def test_known_types():
    assert len(FAMILIES) == 22
    assert all(map(is_known, FAMILIES))
    assert is_known("compressor_bert")
    assert not is_known("bert-base")


def test_which_types_read_text():
    assert [name for name in FAMILIES if not reads_text(name)] == ["vit"]
    assert reads_text("compressor_pruned_bert")
    assert reads_text("unknown")


def test_buffers():
    assert is_buffer("bert.embeddings.position_ids", (1, 512))
    assert is_buffer("h.0.attn.bias", (1, 1, 1024, 1024))
    assert not is_buffer("h.0.attn.c_attn.bias", (96,))
    assert not is_buffer("h.0.attn.bias", (96,))
