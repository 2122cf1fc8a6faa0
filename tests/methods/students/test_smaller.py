"""Students of other sizes, of every family that can have them."""

import pytest

import tiny
from compressor.errors import InputError, UsageError
from compressor.methods.students import smaller
from compressor.model.load import Loaded


def student(family="bert", head="AutoModelForSequenceClassification", teacher=None, **sizes):
    model = tiny.model(family, head=head, **(teacher or {}))
    options = smaller.Options(**{f"student_{name}": value for name, value in sizes.items()})
    return smaller.build(Loaded(model, None, None, "text-classification"), options).model


@pytest.mark.parametrize(
    "family", ["bert", "roberta", "distilbert", "electra", "mpnet", "modernbert", "gpt2", "llama"]
)
def test_every_size_is_what_was_asked_for(family):
    model = student(family, "AutoModel", layers=1, hidden=16, heads=2, ffn=40)
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (1, 16, 2)
    assert any(40 in tuple(value.shape) for value in model.parameters())
    assert type(model)(config).state_dict().keys() == model.state_dict().keys()


def test_what_is_not_asked_for_stays():
    config = student(layers=1).config
    assert config.num_hidden_layers == 1
    assert (config.hidden_size, config.intermediate_size) == (32, 64)
    assert config.id2label == {0: "negative", 1: "positive"}


def test_the_feed_forward_width_keeps_its_ratio():
    assert student(hidden=16, heads=2).config.intermediate_size == 32


def test_refusals():
    with pytest.raises(UsageError, match="do not divide") as caught:
        student(hidden=30)
    assert "--student-heads 3 or 5" in caught.value.hint
    with pytest.raises(InputError, match="no smaller t5") as refused:
        student("t5", "AutoModelForSeq2SeqLM", teacher={"labels": None}, layers=1)
    assert "bert" in str(refused.value)
