"""Embedding tables as integers: what is rounded, what is stored, who opens it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

import tiny
from compressor.checkpoint.facts import tensor_facts, weight_bits
from compressor.checkpoint.folder import open_checkpoint
from compressor.cli import run
from compressor.errors import InputError
from compressor.methods.transforms import dynamic
from compressor.model.dequantized import load_dequantized
from compressor.model.integers import read_integers
from compressor.model.tables import is_table, large_tables
from export import families

WORDS = "bert.embeddings.word_embeddings"


def loaded(family="bert", head=families.CLASSIFIER, **sizes):
    return SimpleNamespace(model=families.build(family, head, **{"vocab_size": 1200, **sizes}))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    families.checkpoint(tmp_path / "model", "bert")
    return tmp_path


def test_rows_by_hand():
    model = loaded().model
    table = model.get_submodule(WORDS)
    with torch.no_grad():
        table.weight[7] = 0.0
        table.weight[7, :3] = torch.tensor([2.55, -1.0, 0.51])
        table.weight[9] = 0.0
    assert dynamic.round_tables(model, {WORDS: table}) == {"tables_quantized": [WORDS]}
    assert table.weight_scale[7].item() == pytest.approx(0.02)
    # 2.55 / 0.02 is 127.5, which 127 is the most of.
    found = table.weight[7, :4].detach().numpy()
    np.testing.assert_allclose(found, [2.54, -1.0, 0.52, 0.0], atol=1e-6)
    assert not table.weight[9].any()


def test_which_tables_are_large():
    assert list(large_tables(loaded().model)) == [WORDS]
    more = loaded(max_position_embeddings=600).model
    assert list(large_tables(more)) == [WORDS, "bert.embeddings.position_embeddings"]
    assert not large_tables(loaded(vocab_size=300).model)
    assert not large_tables(loaded(head=families.MASKED, tie_word_embeddings=True).model)
    assert large_tables(loaded(head=families.MASKED, tie_word_embeddings=False).model)
    assert not large_tables(loaded("t5").model)  # three modules share the words
    assert list(large_tables(loaded("llama").model)) == ["model.embed_tokens"]
    assert is_table("model.embed_tokens", "llama")
    assert not is_table("model.not_embed_tokens", "llama")
    assert not is_table("bert.embeddings.token_type_embeddings", "bert")


def test_the_table_is_stored_as_integers(here):
    assert run("quantize model -o int8".split()) == 0
    assert run("quantize model --embeddings fp32 -o floats".split()) == 0
    stored, floats = (load_file(f"{name}/model.safetensors") for name in ("int8", "floats"))
    assert stored[f"{WORDS}.weight"].dtype == torch.int8
    assert stored[f"{WORDS}.weight_scale"].shape == (1200, 1)
    table = floats[f"{WORDS}.weight"]
    step = stored[f"{WORDS}.weight_scale"]
    assert ((stored[f"{WORDS}.weight"] * step - table).abs() <= step / 2 + 1e-7).all()
    same = [name for name in floats if not name.startswith(WORDS)]
    assert all(torch.equal(stored[name], floats[name]) for name in same)
    sizes = [(here / name / "model.safetensors").stat().st_size for name in ("int8", "floats")]
    assert sizes[1] - sizes[0] > 0.8 * 3 * table.numel()

    bits = {fact.name: fact.bits for fact in tensor_facts(open_checkpoint(here / "int8"))}
    assert bits[f"{WORDS}.weight"] == 8
    assert bits["bert.embeddings.position_embeddings.weight"] == 32
    integers = read_integers(open_checkpoint(here / "int8"))[WORDS]
    np.testing.assert_array_equal(integers.values, stored[f"{WORDS}.weight"].numpy())
    assert integers.activation == "float"
    whole = load_dequantized(open_checkpoint(here / "int8")).model.get_submodule(WORDS)
    assert torch.equal(whole.weight, stored[f"{WORDS}.weight"] * step)
    assert type(whole).forward is whole.forward.__func__


@pytest.mark.parametrize("family", ["roberta", "electra", "mpnet", "modernbert", "llama"])
def test_plain_transformers_opens_it(family, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    families.checkpoint(tmp_path / "model", family)
    assert run("quantize model -o int8".split()) == 0
    metrics = json.loads((tmp_path / "int8/compression.json").read_text())["steps"][-1]["metrics"]
    (name,) = metrics["tables_quantized"]
    head = getattr(transformers, families.CLASSIFIER)
    model, report = head.from_pretrained("int8", output_loading_info=True)
    assert not any(report.values())
    whole = head.from_pretrained("model")
    inputs = families.example(family)
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        found, wanted = model(**inputs).logits, whole(**inputs).logits
    assert 0 < (found - wanted).abs().max() < 0.2 * wanted.abs().max()
    table = model.get_submodule(name)
    step = table.weight_scale.float()
    assert table.weight.is_floating_point()
    near = (table.weight - whole.get_submodule(name).weight).abs() <= 0.5001 * step
    assert near.all()
    bare, _ = transformers.AutoModel.from_pretrained("int8", output_loading_info=True)
    with torch.no_grad():
        assert torch.isfinite(bare(**inputs)[0]).all()


def test_a_tied_head_keeps_its_table_in_float(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    families.checkpoint(tmp_path / "model", "bert", families.MASKED)
    assert run("quantize model -o int8".split()) == 0
    assert load_file("int8/model.safetensors")[f"{WORDS}.weight"].dtype == torch.float32


def test_exclude_names_tables_too(here, capsys):
    assert run("quantize model --exclude word_embeddings -o int8".split()) == 0
    assert load_file("int8/model.safetensors")[f"{WORDS}.weight"].dtype == torch.float32
    assert run("quantize model --exclude encoder -o table".split()) == 0
    stored = load_file("table/model.safetensors")
    assert [n for n, value in stored.items() if value.dtype == torch.int8] == [f"{WORDS}.weight"]
    with pytest.raises(InputError, match="leaves no linear layer"):
        dynamic.parts_to_quantize(loaded().model, "encoder,embeddings", "int8")


@pytest.mark.parametrize(
    ("method", "bits"),
    [("static", [8, 8]), ("gptq --group-size 0 --samples 8", [4, 8])],
)
def test_every_method_rounds_tables(here, method, bits):
    tiny.data(here / "data", train=16, validation=8)
    assert run(f"quantize model --method {method} --data data -o int8".split()) == 0
    opened = open_checkpoint(here / "int8")
    assert weight_bits(opened) == bits
    found = {fact.name: fact.bits for fact in tensor_facts(opened)}
    assert found[f"{WORDS}.weight"] == 8
    assert found["bert.encoder.layer.0.output.dense.weight"] == bits[0]
    head = getattr(transformers, families.CLASSIFIER)
    model, report = head.from_pretrained("int8", output_loading_info=True)
    assert not any(report.values())
    with torch.no_grad():
        assert torch.isfinite(model(**families.example("bert")).logits).all()


def test_sensitivity_ranks_tables_with_the_maps(here):
    tiny.data(here / "data", train=16, validation=8)
    assert run("quantize model --sensitivity --data data -o int8".split()) == 0
    metrics = json.loads((here / "int8/compression.json").read_text())["steps"][-1]["metrics"]
    assert WORDS in metrics["sensitivity"]
    assert len(metrics["sensitivity"]) == metrics["linears_quantized"] + 1
