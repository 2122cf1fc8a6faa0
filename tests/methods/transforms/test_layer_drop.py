"""The index sets of the paper, exact truncation, and a plain reload."""

from types import SimpleNamespace

import pytest
import torch
import transformers

import tiny
from compressor.errors import InputError, UsageError
from compressor.methods.transforms import layer_drop
from compressor.model.save import probe_inputs


@pytest.mark.parametrize(
    ("layers", "drop", "strategy", "expected"),
    [
        (6, 2, "top", [4, 5]),
        (6, 2, "bottom", [0, 1]),
        (6, 2, "symmetric", [2, 3]),
        (6, 3, "alternate-even", [1, 3, 5]),
        (6, 3, "alternate-odd", [0, 2, 4]),
        # The paper's table for 12 layers, written from zero.
        (12, 2, "top", [10, 11]),
        (12, 4, "top", [8, 9, 10, 11]),
        (12, 4, "bottom", [0, 1, 2, 3]),
        (12, 2, "alternate-even", [9, 11]),
        (12, 4, "alternate-even", [5, 7, 9, 11]),
        (12, 2, "alternate-odd", [8, 10]),
        (12, 4, "alternate-odd", [4, 6, 8, 10]),
        (12, 2, "symmetric", [5, 6]),
        (12, 4, "symmetric", [4, 5, 6, 7]),
        (12, 6, "symmetric", [3, 4, 5, 6, 7, 8]),
    ],
)
def test_index_sets(layers, drop, strategy, expected):
    assert layer_drop.dropped_layers(layers, drop, strategy) == expected


@pytest.mark.parametrize(("drop", "strategy"), [(0, "top"), (6, "top"), (4, "alternate-even")])
def test_what_cannot_be_dropped(drop, strategy):
    with pytest.raises(UsageError):
        layer_drop.dropped_layers(6, drop, strategy)


def test_dropping_the_top_reproduces_the_hidden_state_below_bit_for_bit():
    model = tiny.model(head="AutoModel", num_hidden_layers=4)
    inputs = probe_inputs(model)
    with torch.inference_mode():
        wanted = model(**inputs, output_hidden_states=True).hidden_states[2]
        layer_drop.apply(SimpleNamespace(model=model), None, layer_drop.Options(drop=2))
        found = model(**inputs, output_hidden_states=True).hidden_states[2]
    assert torch.equal(wanted, found)


@pytest.mark.parametrize(
    "family", ["bert", "distilbert", "roberta", "electra", "mpnet", "gpt2", "llama", "modernbert"]
)
def test_plain_reload_gives_the_same_logits(family, tmp_path):
    model = tiny.model(family, num_hidden_layers=4)
    before = sum(p.numel() for p in model.parameters())
    options = layer_drop.Options(drop_layers="2,1")
    facts = layer_drop.apply(SimpleNamespace(model=model), None, options)
    assert facts == {"kept_layers": [0, 3], "dropped_layers": [1, 2]}
    assert sum(p.numel() for p in model.parameters()) < before
    model.save_pretrained(tmp_path)
    again, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    inputs = probe_inputs(model)
    with torch.inference_mode():
        assert torch.equal(model(**inputs).logits, again.eval()(**inputs).logits)


def test_families_without_layers_of_their_own_are_refused_by_name():
    with pytest.raises(InputError, match="albert"):
        layer_drop.apply(
            SimpleNamespace(model=tiny.model("albert")), None, layer_drop.Options(drop=1)
        )
    with pytest.raises(InputError, match="t5"):
        layer_drop.apply(SimpleNamespace(model=tiny.model("t5")), None, layer_drop.Options(drop=1))


def test_a_first_layer_that_is_built_differently_must_stay_first():
    loaded = SimpleNamespace(model=tiny.model("modernbert", num_hidden_layers=4))
    with pytest.raises(InputError, match="by position"):
        layer_drop.apply(loaded, None, layer_drop.Options(strategy="bottom", drop=2))
