"""Do tensors and config fit: the cases that need another folder than a BERT classifier."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.checkpoint.header import TensorInfo
from compressor.checkpoint.structure import check_structure
from compressor.errors import InputError

HERE = Path("/nowhere")


def infos(**shapes):
    return {
        name: TensorInfo(name, "F32", shape, HERE / "model.safetensors", 0, 0)
        for name, shape in ((key.replace("__", "."), value) for key, value in shapes.items())
    }


def t5(blocks=2, **more):
    shapes = {"shared__weight": (10, 4)}
    for stack in ("encoder", "decoder"):
        for index in range(blocks):
            at = f"{stack}__block__{index}__layer__0__SelfAttention"
            shapes[f"{at}__q__weight"] = (6, 4)
            if index == 0:
                shapes[f"{at}__relative_attention_bias__weight"] = (32, 2)
    return infos(**{**shapes, **more})


T5 = {"model_type": "t5", "num_layers": 2, "d_model": 4, "num_heads": 3, "d_kv": 2}


def test_two_stacks_and_a_table_in_the_first_layer_only():
    check_structure({**T5, "num_decoder_layers": 2, "vocab_size": 10}, t5(), HERE)
    with pytest.raises(
        InputError, match=r"missing: decoder.block.2.layer.0.SelfAttention.q.weight"
    ):
        check_structure({**T5, "num_decoder_layers": 3}, t5(), HERE)
    with pytest.raises(InputError, match=r"encoder.block holds 2 layers, .*num_layers 1"):
        check_structure({**T5, "num_layers": 1, "num_decoder_layers": 2}, t5(), HERE)


def llama(heads=4, groups=2, **changes):
    config = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 8, "head_dim": 3}
    config |= {"num_attention_heads": heads, "num_key_value_heads": groups, **changes}
    tensors = infos(model__embed_tokens__weight=(10, 8), model__layers__0__q__weight=(12, 8))
    check_structure(config, tensors, HERE)


def test_heads_with_a_width_of_their_own_need_not_divide():
    llama(heads=6, groups=3)
    with pytest.raises(InputError, match="num_attention_heads 6 does not divide hidden_size 8"):
        llama(heads=6, groups=3, head_dim=None)
    with pytest.raises(InputError, match="num_key_value_heads 3 does not divide"):
        llama(heads=4, groups=3)


def albert(**changes):
    layer = "albert__encoder__albert_layer_groups__0__albert_layers__0__ffn__weight"
    shapes = {"albert__embeddings__word_embeddings__weight": (10, 4), layer: (16, 8)}
    config = {"model_type": "albert", "num_hidden_layers": 12, "num_hidden_groups": 1}
    config |= {"hidden_size": 8, "embedding_size": 4, **changes}
    check_structure(config, infos(**shapes), HERE)


def test_shared_layers_are_stored_once_and_words_may_be_narrow():
    albert()
    with pytest.raises(InputError, match="embedding_size 8"):
        albert(embedding_size=8)


def modernbert(**more):
    shapes = {"model__embeddings__tok_embeddings__weight": (10, 8)}
    for index in range(3):
        shapes[f"model__layers__{index}__mlp_norm__weight"] = (8,)
        if index:
            shapes[f"model__layers__{index}__attn_norm__weight"] = (8,)
    config = {"model_type": "modernbert", "num_hidden_layers": 3, "hidden_size": 8}
    check_structure(config, infos(**{**shapes, **more}), HERE)


def test_a_tensor_that_few_layers_have_is_unexpected():
    modernbert()
    with pytest.raises(InputError, match=r"unexpected.*model.layers.1.extra.weight .1 in all"):
        modernbert(model__layers__1__extra__weight=(8,))


@pytest.mark.parametrize("prefix", ["", "bert__"])
def test_layers_are_found_with_and_without_a_prefix(prefix):
    shapes = {f"{prefix}embeddings__word_embeddings__weight": (10, 8)}
    shapes |= {f"{prefix}encoder__layer__{i}__output__dense__weight": (8, 8) for i in range(2)}
    config = {"model_type": "bert", "num_hidden_layers": 2, "hidden_size": 8}
    check_structure(config, infos(**shapes), HERE)
    with pytest.raises(InputError, match=r"encoder.layer holds 2 layers"):
        check_structure({**config, "num_hidden_layers": 1}, infos(**shapes), HERE)


def test_no_layer_at_all():
    with pytest.raises(InputError, match="no layers: none of the 1 tensors"):
        check_structure({"model_type": "bert"}, infos(weight=(2, 2)), HERE)


def test_a_table_of_one_dimension_is_refused():
    shapes = {"embeddings__word_embeddings__weight": (10,), "encoder__layer__0__a__bias": (2,)}
    with pytest.raises(InputError, match=r"word_embeddings.weight has shape \[10\]"):
        check_structure({"model_type": "bert"}, infos(**shapes), HERE)


@pytest.mark.parametrize(
    "name",
    [
        "classifier.weight",
        "classifier.out_proj.weight",
        "score.weight",
        "classification_head.out_proj.weight",
    ],
)
def test_every_kind_of_head_is_compared_with_the_labels(name):
    shapes = {"embed_tokens__weight": (10, 8), "layers__0__q__weight": (8, 8)}
    config = {"model_type": "llama", "architectures": ["XForSequenceClassification"]}
    config["id2label"] = {"0": "a", "1": "b", "2": "c"}
    check_structure(config, infos(**shapes, **{name: (3, 8)}), HERE)
    with pytest.raises(InputError, match="head has 2 rows, config lists 3 labels: a, b, c"):
        check_structure(config, infos(**shapes, **{name: (2, 8)}), HERE)
