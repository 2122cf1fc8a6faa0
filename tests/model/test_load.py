"""A checkpoint with the head that it has, whatever it is for."""

import json

import pytest
import torch
import transformers

import tiny
from compressor.checkpoint.folder import open_checkpoint
from compressor.cli import run
from compressor.errors import InputError
from compressor.model.load import load, load_whole
from compressor.model.save import probe_inputs


def named(folder, architecture):
    """A checkpoint of a bare BERT that calls itself something else."""
    tiny.checkpoint(folder, head="AutoModel", labels=None)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": [architecture]}))
    return open_checkpoint(folder)


def test_a_head_for_another_task_is_kept(tmp_path):
    tiny.checkpoint(tmp_path / "model", head="AutoModelForTokenClassification")
    checkpoint = open_checkpoint(tmp_path / "model")
    loaded = load_whole(checkpoint)
    assert loaded.task is None
    assert type(loaded.model).__name__ == "BertForTokenClassification"
    assert type(load(checkpoint, None).model).__name__ == "BertModel"


@pytest.mark.parametrize(
    "name", ["pipeline", "AutoModel", "PreTrainedModel", "GPT2Model", "BertConfig", "no.such"]
)
def test_only_models_of_the_family_are_taken_from_a_config(tmp_path, name):
    loaded = load_whole(named(tmp_path / "model", name))
    assert type(loaded.model).__name__ == "BertModel"


def test_a_head_that_is_not_there_is_not_invented(tmp_path):
    checkpoint = named(tmp_path / "model", "BertForTokenClassification")
    with pytest.raises(InputError, match=r"lacks classifier\.bias, classifier\.weight"):
        load_whole(checkpoint)


def picture_model(folder):
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        num_labels=3,
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"size": 32}')


def text_to_text_model(folder):
    tiny.model("t5", head="AutoModelForSeq2SeqLM", labels=None).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)


@pytest.mark.parametrize("make", [picture_model, text_to_text_model])
@pytest.mark.parametrize(
    "words", ["quantize model -o made", "prune model --method magnitude -o made"]
)
def test_what_changes_weights_keeps_the_head(make, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "model")
    assert run(words.split()) == 0
    names = [json.loads((tmp_path / n / "config.json").read_text()) for n in ("model", "made")]
    assert names[0]["architectures"] == names[1]["architectures"]
    assert set(open_checkpoint(tmp_path / "model").tensors) <= {
        name for name in open_checkpoint(tmp_path / "made").tensors if "_scale" not in name
    }
    before = {file.name for file in (tmp_path / "model").iterdir()}
    assert before - {"generation_config.json"} <= {f.name for f in (tmp_path / "made").iterdir()}


def test_inputs_that_show_whether_two_models_are_the_same():
    for family, head, names in (
        ("bert", "AutoModel", {"input_ids", "attention_mask"}),
        ("t5", "AutoModel", {"input_ids", "attention_mask", "decoder_input_ids"}),
        ("t5", "AutoModelForSequenceClassification", {"input_ids", "attention_mask"}),
        ("vit", "AutoModel", {"pixel_values"}),
    ):
        sizes = {"image_size": 32, "patch_size": 8} if family == "vit" else {}
        model = tiny.model(family, head=head, **sizes)
        model.config.eos_token_id, model.config.decoder_start_token_id = 3, 0
        inputs = probe_inputs(model)
        assert set(inputs) == names
        with torch.no_grad():
            assert model(**inputs)[0].shape[0] == 2
