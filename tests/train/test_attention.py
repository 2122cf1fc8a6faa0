"""Attention while a model trains: by plain products in bf16 on a processor, as loaded otherwise."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import tiny
from compressor.train.attention import plain_attention
from compressor.train.loop import train
from loops import OPTIONS, make_feeds, make_run


def kinds_of(options, feeds, folder):
    """The kind of attention in every step, and afterwards."""
    seen = []
    run = make_run(
        feeds, folder, options, watch=lambda _: seen.append(model.config._attn_implementation)
    )
    model = run.student.model
    train(run)
    return set(seen), model.config._attn_implementation


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"precision": "bf16"}, "eager"),
        ({"precision": "fp32"}, "sdpa"),
        ({"precision": "bf16", "max_length": 512}, "sdpa"),
    ],
)
def test_which_one_trains(options, kind, tmp_path):
    feeds = make_feeds(tmp_path / "rows", train=32)
    short = replace(OPTIONS, epochs=1, **options)
    assert kinds_of(short, feeds, tmp_path / "run") == ({kind}, "sdpa")


def test_another_kind_is_left_alone():
    on_cpu = SimpleNamespace(device=torch.device("cpu"), mixed_precision="bf16")
    model = tiny.model()
    model.set_attn_implementation("eager")
    with plain_attention(model, on_cpu, 128):
        assert model.config._attn_implementation == "eager"
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("size", "kind"), [(64, "eager"), (224, "sdpa"), ([64, 48], "eager"), ([64, 320], "sdpa")]
)
def test_an_image_is_as_long_as_it_has_patches(size, kind):
    from transformers import ViTConfig, ViTForImageClassification

    on_cpu = SimpleNamespace(device=torch.device("cpu"), mixed_precision="bf16")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(image_size=size, patch_size=8, intermediate_size=8, **sizes)
    model = ViTForImageClassification(config)
    with plain_attention(model, on_cpu, 512):
        assert model.config._attn_implementation == kind
    assert model.config._attn_implementation == "sdpa"
