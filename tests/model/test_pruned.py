"""Removing a unit is masking it: for every family, in memory and after a reload."""

import copy
import json
import subprocess
import sys

import pytest
import torch
import transformers

import tiny
from compressor.checkpoint.families import base_family
from compressor.checkpoint.pruned import PARTS, parts_of
from compressor.errors import InputError
from compressor.model.first_token import only_first_token
from compressor.model.layers import only_stack
from compressor.model.pruned import attention_width, register, remove_units, widths_of
from compressor.model.surgery import keep_layers
from compressor.model.views import ATTENTION, HIDDEN, look

HEADS = [[1, 3], [0, 2, 3]]
GROUPS = [[1], [0, 1]]
NEURONS = [[0, 5, 9, 40], list(range(3, 64, 2))]
SENTENCES = [row["text"] for row in tiny.rows(100)]


def heads_of(family: str) -> list[list[int]]:
    return GROUPS if family == "llama" else HEADS


def inputs(texts=SENTENCES) -> dict[str, torch.Tensor]:
    batch = tiny.tokenizer()(texts, padding=True, return_tensors="pt")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def mask(model, heads, neurons) -> None:
    """Zero what removed units hand on, and change nothing else."""
    parts = parts_of(model.config.model_type)
    widths = widths_of(model)
    unit = widths.group * widths.head_width
    for index, layer in enumerate(only_stack(model)[1]):
        kept = [head * unit + i for head in heads[index] for i in range(unit)]
        for name, columns in ((parts.out, kept), (parts.down, neurons[index])):
            weight = layer.get_submodule(name).weight
            gone = [column for column in range(weight.shape[1]) if column not in columns]
            with torch.no_grad():
                weight[:, gone] = 0.0


def answers(model, batch=None) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(**(batch or inputs()))[0]


@pytest.mark.parametrize("family", PARTS)
def test_removing_equals_masking_after_a_reload(family, tmp_path):
    full = tiny.model(family)
    masked, cut = copy.deepcopy(full), copy.deepcopy(full)
    mask(masked, heads_of(family), NEURONS)
    remove_units(cut, heads_of(family), NEURONS)
    assert cut.config.model_type == f"compressor_pruned_{family}"
    cut.save_pretrained(tmp_path)
    again, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not torch.allclose(answers(full), answers(masked), atol=1e-3)
    assert (answers(masked) - answers(cut)).abs().max() < 1e-5
    assert torch.equal(answers(cut), answers(again))


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "mpnet"])
def test_parameters_are_those_of_the_formula(family):
    model = tiny.model(family)
    d, width = 32, 8
    stack = only_stack(model)[1]
    outside = sum(p.numel() for p in model.parameters()) - sum(
        p.numel() for p in stack.parameters()
    )
    remove_units(model, HEADS, NEURONS)
    expected = outside + 2 * 2 * 2 * d  # and two norms a layer
    for heads, neurons in zip(HEADS, NEURONS, strict=True):
        h, f = len(heads), len(neurons)
        expected += 4 * d * h * width + 3 * h * width + d
        expected += 2 * d * f + f + d
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("bert", "AutoModelForMaskedLM"),
        ("mpnet", "AutoModel"),
        ("llama", "AutoModelForCausalLM"),
    ],
)
def test_other_heads_reload_too(family, head, tmp_path):
    model = tiny.model(family, head=head, labels=None)
    remove_units(model, heads_of(family), NEURONS)
    model.save_pretrained(tmp_path)
    again = getattr(transformers, head).from_pretrained(tmp_path)
    assert torch.equal(answers(model), answers(again))
    seen = look(model, inputs(), frozenset({HIDDEN, ATTENTION}), bare=model)
    assert len(seen.hidden) == 3
    assert seen.queries[0].shape[-1] == 16


def test_pruning_twice_is_pruning_once(tmp_path):
    # Of heads 1, 3 of layer 0 the second stays: head 3; MPNet must find its bias by that number.
    for family in ("bert", "mpnet"):
        once, twice = tiny.model(family), tiny.model(family)
        remove_units(once, [[3], [0, 3]], [[5, 9], NEURONS[1]])
        remove_units(twice, HEADS, NEURONS)
        remove_units(twice, [[1], [0, 2]], [[1, 2], list(range(31))])
        assert twice.config.heads_per_layer == [1, 2]
        assert twice.config.to_dict() == once.config.to_dict()
        assert torch.equal(answers(once), answers(twice))


def test_one_width_and_all_heads_stay_a_plain_config(tmp_path):
    model = tiny.model("bert")
    remove_units(model, [[0, 1, 2, 3]] * 2, [[1, 2, 3], [5, 6, 7]])
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["model_type"], config["intermediate_size"]) == ("bert", 3)
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert "heads_per_layer" not in config
    again = transformers.BertForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(answers(model), answers(again))


def test_layers_that_become_alike_go_back_to_a_plain_config(tmp_path):
    model = tiny.model("bert")
    remove_units(model, [[0, 1, 2, 3]] * 2, [[1, 2], [5, 6, 7]])
    assert model.config.model_type == "compressor_pruned_bert"
    remove_units(model, [[0, 1, 2, 3]] * 2, [[0, 1], [0, 2]])
    assert type(model) is transformers.BertForSequenceClassification
    assert type(model.config) is transformers.BertConfig
    assert not hasattr(model.config, "ffn_per_layer")
    model.save_pretrained(tmp_path)
    again = transformers.BertForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(answers(model), answers(again))


def test_llama_with_fewer_heads_in_every_layer_stays_plain(tmp_path):
    model = tiny.model("llama")
    remove_units(model, [[1], [0]], [[1, 2, 3], [5, 6, 7]])
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "llama"
    sizes = [config[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim")]
    assert sizes == [2, 1, 8]
    again = transformers.LlamaForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(answers(model), answers(again))


def test_heads_that_do_not_divide_the_width_need_a_type_of_their_own():
    model = tiny.model("llama", num_attention_heads=8, hidden_size=64)
    model = transformers.LlamaForSequenceClassification(
        transformers.LlamaConfig(**{**model.config.to_dict(), "num_key_value_heads": 8})
    )
    remove_units(model, [[0, 1, 2]] * 2, [[1, 2], [5, 6]])
    assert model.config.model_type == "compressor_pruned_llama"


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra"])
def test_the_last_layer_still_computes_its_first_token_only(family):
    model = tiny.model(family)
    remove_units(model, HEADS, NEURONS)
    plain, lengths = answers(model), []
    last = only_stack(model)[1][-1].get_submodule(parts_of(family).down)
    last.register_forward_hook(lambda module, given, output: lengths.append(given[0].shape[1]))
    with only_first_token(model):
        torch.testing.assert_close(answers(model), plain)
    assert lengths == [1]


def test_layers_can_be_dropped_from_a_pruned_model(tmp_path):
    model = tiny.model("mpnet")
    remove_units(model, HEADS, NEURONS)
    keep_layers(model, [1])
    assert model.config.heads_per_layer == [3]
    assert model.config.kept_heads_per_layer == [[0, 2, 3]]
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(answers(model), answers(again))


def test_width_of_the_queries():
    model = tiny.model("bert")
    assert attention_width(model.config, -1) == 32
    remove_units(model, HEADS, NEURONS)
    assert [attention_width(model.config, layer) for layer in (0, -1)] == [16, 24]


def test_frozen_weights_stay_frozen():
    model = tiny.model("bert").requires_grad_(False)
    remove_units(model, HEADS, NEURONS)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("heads", "neurons", "said"),
    [
        ([[], [0]], NEURONS, "heads .* of layer 0, .* at least one must stay"),
        ([[0], [4]], NEURONS, "of layer 1, which has heads 0 to 3"),
        ([[1, 0], [0]], NEURONS, "of layer 0"),
        (HEADS, [[0], [64]], "which has neurons 0 to 63"),
    ],
)
def test_units_that_cannot_be_kept(heads, neurons, said):
    with pytest.raises(InputError, match=said):
        remove_units(tiny.model("bert"), heads, neurons)


@pytest.mark.parametrize("family", ["gpt2", "albert", "modernbert"])
def test_other_families_are_refused_by_name(family):
    with pytest.raises(InputError, match=f"of a {family} model .* bert, roberta"):
        remove_units(tiny.model(family), HEADS, NEURONS)
    with pytest.raises(InputError, match=family):
        register(family)


def test_a_config_without_its_lists_is_refused_when_a_model_is_built(tmp_path):
    model = tiny.model("bert")
    remove_units(model, HEADS, NEURONS)
    del model.config.heads_per_layer
    with pytest.raises(InputError, match="heads_per_layer is missing"):
        type(model)(model.config)
    assert base_family(model.config.model_type) == "bert"


def test_another_program_opens_it_after_registering(tmp_path):
    model = tiny.model("distilbert")
    remove_units(model, HEADS, NEURONS)
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    opened = "AutoModelForSequenceClassification.from_pretrained(FOLDER)"
    code = f"""
import sys
import compressor
assert not {{"torch", "transformers"}} & set(sys.modules)
from transformers import AutoModelForSequenceClassification, AutoTokenizer
FOLDER = {str(tmp_path)!r}
AutoTokenizer.from_pretrained(FOLDER)
try:
    {opened}
except ValueError as refusal:
    assert "compressor_pruned_distilbert" in str(refusal)
else:
    raise AssertionError("it opened as something else")
from compressor.model.pruned import register
register("distilbert")
print(type({opened}).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "PrunedDistilBertForSequenceClassification"
