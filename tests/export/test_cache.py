"""Decoders that go on from what they have read: the graph, generation, and the script beside it."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
import transformers

import tiny
from compressor.cli import run
from compressor.errors import GateError
from compressor.export.cache import position_ids
from compressor.export.greedy import continued
from compressor.export.parity import check_generation, random_inputs
from compressor.export.session import open_session

from . import families
from .graphs import export_folder

HEAD = "AutoModelForCausalLM"


def axes(value) -> list:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_positions_count_real_tokens():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    assert position_ids(mask, 5).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert position_ids(mask, 2).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("family", "number_format"),
    [
        ("llama", "int8"),
        ("gpt2", "fp32"),
        pytest.param("llama", "fp32", marks=pytest.mark.slow),
        pytest.param("gpt2", "int8", marks=pytest.mark.slow),
    ],
)
def test_a_decoder_with_a_cache(family, number_format, tmp_path):
    model, example = families.build(family, HEAD), families.example(family, HEAD)
    facts = export_folder(model, None, example, tmp_path, number_format=number_format, cache=True)
    assert facts["float_parity"]["error"] <= 1e-5
    assert facts["generation_parity"] == {"tokens": 12}
    graph = onnx.load(tmp_path / "model.onnx").graph
    inputs = {value.name: axes(value) for value in graph.input}
    outputs = {value.name: axes(value) for value in graph.output}
    assert list(inputs)[:3] == ["input_ids", "attention_mask", "position_ids"]
    assert inputs["input_ids"] == ["batch", "length"]
    assert inputs["attention_mask"] == ["batch", "past + length"]
    assert inputs["past_key_values.1.value"][::2] == ["batch", "past"]
    assert list(outputs)[:2] == ["logits", "present.0.key"]
    assert outputs["logits"][:2] == ["batch", "length"]

    session = open_session(tmp_path, threads=1)
    assert session.input_names == ("input_ids", "attention_mask")
    ids = np.array([[5, 9, 20, 7, 11, 3]])
    ones = np.ones_like(ids)
    whole, _ = session.step({"input_ids": ids, "attention_mask": ones})
    first, past = session.step({"input_ids": ids[:, :4], "attention_mask": ones[:, :4]})
    rest, past = session.step({"input_ids": ids[:, 4:], "attention_mask": ones, **past})
    assert past["past_key_values.0.key"].shape[2] == 6
    # Rounding depends on what else is in the call where inputs are int8.
    tolerance = 1e-5 if number_format == "fp32" else 0.1 * np.abs(whole).max()
    np.testing.assert_allclose(np.concatenate([first, rest], 1), whole, atol=tolerance)
    np.testing.assert_array_equal(session.run({"input_ids": ids, "attention_mask": ones}), whole)


def test_it_writes_what_generate_writes(tmp_path):
    model, example = families.build("llama", HEAD), families.example("llama", HEAD)
    export_folder(model, None, example, tmp_path, number_format="fp32", cache=True)
    ids = torch.tensor([[0, 0, 8, 17, 4], [5, 9, 20, 7, 11]])
    mask = (ids != 0).long()
    wanted = model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=10, do_sample=False, eos_token_id=149
    )
    session = open_session(tmp_path, threads=1)
    arrays = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    found = continued(session, arrays, 10)
    assert not (wanted[:, 5:] == 149).any()
    np.testing.assert_array_equal(found, wanted[:, 5:].numpy())


def test_another_models_text_is_a_gate(tmp_path):
    model, example = families.build("llama", HEAD), families.example("llama", HEAD)
    export_folder(model, None, example, tmp_path, number_format="fp32", cache=True)
    other = families.build("llama", HEAD)
    with torch.no_grad():
        other.lm_head.weight.mul_(-1)
    with pytest.raises(GateError, match="goes on with the tokens"):
        check_generation(other, tmp_path, random_inputs(other, example))


def test_by_the_command_line_with_its_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.checkpoint("model", "llama", head=HEAD, labels=None)
    assert run("export model --weights fp32 -o graph".split()) == 0
    assert run("export model --weights fp32 --no-cache -o plain".split()) == 0
    outputs = [len(onnx.load(f"{name}/model.onnx").graph.output) for name in ("graph", "plain")]
    assert outputs == [5, 1]
    tokenizer = transformers.AutoTokenizer.from_pretrained("model")
    model = transformers.AutoModelForCausalLM.from_pretrained("model")
    given = tokenizer("the plot was", return_tensors="pt")
    wanted = model.generate(
        input_ids=given["input_ids"],
        attention_mask=given["attention_mask"],
        max_new_tokens=20,
        do_sample=False,
    )[0, given["input_ids"].shape[1] :]
    done = subprocess.run(
        [sys.executable, "graph/infer.py", "the plot was"],
        capture_output=True,
        text=True,
        check=True,
    )
    answer = done.stdout.split("\t")[0]
    assert answer == tokenizer.decode(wanted, skip_special_tokens=True)
    assert (
        run("benchmark graph --baseline model --shapes 1x8 --rounds 3 --starts 1 -o report".split())
        == 0
    )


def test_layers_that_kept_other_heads(tmp_path):
    from compressor.model.pruned import remove_units

    model, example = families.build("llama", HEAD), families.example("llama", HEAD)
    remove_units(model, [[0], [0, 1]], [[1, 2, 3], list(range(40))])
    model.set_attn_implementation("eager")
    facts = export_folder(model, None, example, tmp_path, number_format="fp32", cache=True)
    assert facts["generation_parity"] == {"tokens": 12}
    graph = onnx.load(tmp_path / "model.onnx").graph
    heads = {value.name: axes(value)[1] for value in graph.input if value.name.endswith(".key")}
    assert heads == {"past_key_values.0.key": 1, "past_key_values.1.key": 2}
