"""What a forward pass shows, in every family, and the lists that must not be short."""

import pytest
import torch

import tiny
from compressor.errors import InputError
from compressor.model.layers import is_linear, only_stack
from compressor.model.views import ATTENTION, HIDDEN, LOGITS, look

EVERYTHING = frozenset({LOGITS, HIDDEN, ATTENTION})


def inputs():
    batch = tiny.tokenizer()(["great film", "a very dull plot"], padding=True, return_tensors="pt")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("bert", "attention.self.query attention.self.key attention.self.value"),
        ("roberta", "attention.self.query attention.self.key attention.self.value"),
        ("electra", "attention.self.query attention.self.key attention.self.value"),
        ("distilbert", "attention.q_lin attention.k_lin attention.v_lin"),
        ("mpnet", "attention.attn.q attention.attn.k attention.attn.v"),
        ("llama", "self_attn.q_proj self_attn.k_proj self_attn.v_proj"),
        ("gpt2", "attn.c_attn"),
        ("modernbert", "attn.Wqkv"),
        (
            "deberta-v2",
            "attention.self.query_proj attention.self.key_proj attention.self.value_proj",
        ),
    ],
)
def test_every_family_shows_its_own_maps(family, names):
    model = tiny.model(family, pooler_hidden_size=32)
    outputs = []
    layer = only_stack(model)[1][-1]
    for name in names.split():
        layer.get_submodule(name).register_forward_hook(lambda m, i, output: outputs.append(output))
    with torch.no_grad():
        seen = look(model, inputs(), EVERYTHING, bare=model)
        plain = model(**inputs()).logits
    expected = outputs[:3] if len(names.split()) == 3 else outputs[0].chunk(3, -1)
    assert len(seen.hidden) == 3
    assert [len(part) for part in (seen.queries, seen.keys, seen.values)] == [2, 2, 2]
    for found, wanted in zip((seen.queries, seen.keys, seen.values), expected, strict=True):
        assert torch.equal(found[-1], wanted)
    torch.testing.assert_close(seen.logits, plain)


def test_nothing_is_kept_that_was_not_asked_for():
    model = tiny.model()
    seen = look(model, inputs(), frozenset({LOGITS}), bare=model)
    assert (seen.hidden, seen.queries) == ((), ())
    look(model, inputs(), EVERYTHING, bare=model)
    # transformers leaves hooks of its own on the layers; ours are on the linear maps.
    assert not [m for m in model.modules() if is_linear(m) and m._forward_hooks]


def test_a_model_without_a_head_shows_no_answer():
    model = tiny.model(head="AutoModel")
    assert look(model, inputs(), frozenset({HIDDEN}), bare=model).logits is None


def test_a_layer_whose_maps_cannot_be_told_apart_is_refused():
    model = tiny.model()
    for layer in model.bert.encoder.layer:
        layer.attention.self.interest = layer.attention.self.query
        del layer.attention.self.query
    with pytest.raises(InputError, match="tell the query"):
        look(model, inputs(), EVERYTHING, bare=model)


def test_a_short_list_of_hidden_states_is_refused():
    model = tiny.model()
    model.config.num_hidden_layers = 5
    with pytest.raises(InputError, match="3 hidden states, expected 6"):
        look(model, inputs(), frozenset({HIDDEN}), bare=model)
