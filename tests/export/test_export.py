import hashlib
import time

import numpy as np
import pytest

import tiny
from compressor.errors import GateError
from compressor.export import export
from compressor.model.integers import QuantizedLinear

from . import families
from .graphs import export_folder, initializers, stored_integers
from .test_integers import encoder_integers


def digest(folder) -> str:
    return hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()


def made_of(tokenizer, model, folder, **options):
    example = dict(tokenizer(["good film", "a very bad plot"], padding=True, return_tensors="pt"))
    return export_folder(model, tokenizer, example, folder, **options)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A tiny BERT with its own integers in the encoder, exported once: model, weights, facts."""
    folder = tmp_path_factory.mktemp("int8")
    model = tiny.model("bert")
    model.set_attn_implementation("eager")
    weights = encoder_integers(model)
    started = time.monotonic()
    facts = made_of(tiny.tokenizer(), model, folder, weights=weights)
    return model, weights, facts, folder, time.monotonic() - started


def test_the_checkpoints_integers_and_scales_are_in_the_file(exported):
    _, weights, facts, folder, _ = exported
    found = initializers(folder / "model.onnx")
    for name, linear in weights.items():
        assert isinstance(linear, QuantizedLinear)
        np.testing.assert_array_equal(stored_integers(found, name), linear.values)
        np.testing.assert_array_equal(found[f"{name}.weight_scale"], linear.scale[:, 0])
    assert (facts["quantized"], facts["float"]) == (12, 2)
    assert found["classifier.weight"].dtype == np.float32


def test_facts_and_files(exported):
    _, _, facts, folder, _ = exported
    names = {file.name for file in folder.iterdir()}
    assert {"model.onnx", "config.json", "tokenizer.json"} <= names
    assert not any(name.startswith(".") for name in names)  # the float graph is gone
    assert facts["bytes"] == (folder / "model.onnx").stat().st_size < facts["float_bytes"]
    assert facts["nodes"]["MatMulInteger"] == 12
    assert facts["cpu_preset"] in ("vnni", "arm64", "x86")
    assert sum(facts["weight_types"].values()) == 12
    assert facts["parity"]["error"] <= facts["parity"]["tolerance"]
    assert facts["float_parity"]["error"] <= 1e-4


def test_the_same_model_gives_the_same_bytes_and_prints_nothing(exported, tmp_path, capfd):
    model, weights, facts, folder, _ = exported
    again = made_of(tiny.tokenizer(), model, tmp_path, weights=weights)
    assert digest(tmp_path) == digest(folder)
    assert again == facts
    assert tuple(capfd.readouterr()) == ("", "")


def test_a_tiny_model_takes_seconds(exported):
    assert exported[-1] < 60  # 5 s on two free cores


def fake_export(bert, monkeypatch):
    """Skip the tracing: copy the graph that is there."""

    def copy(model, example, path, **options):
        path.write_bytes(bert.path.read_bytes())
        return {}

    monkeypatch.setattr(export, "export_graph", copy)


def test_float_graph(bert, tmp_path, monkeypatch):
    fake_export(bert, monkeypatch)
    facts = export_folder(bert.model, None, bert.example, tmp_path, number_format="fp32")
    assert (tmp_path / "model.onnx").read_bytes() == bert.path.read_bytes()
    assert facts["parity"]["tolerance"] == 1e-4
    assert "MatMulInteger" not in facts["nodes"]


@pytest.mark.parametrize("number_format", ["int8", "fp16", "fp32"])
def test_failing_parity_is_a_gate(bert, tmp_path, monkeypatch, number_format):
    fake_export(bert, monkeypatch)
    options = {"number_format": number_format, "tolerance": 1e-12}
    with pytest.raises(GateError, match="parity"):
        export_folder(bert.model, None, bert.example, tmp_path, **options)


def test_half_the_bytes_for_gpus(bert, tmp_path, monkeypatch):
    import onnx

    fake_export(bert, monkeypatch)
    facts = export_folder(bert.model, None, bert.example, tmp_path, number_format="fp16")
    assert 1e-6 < facts["parity"]["error"] <= 1e-2
    assert facts["bytes"] < 0.6 * facts["float_bytes"]
    graph = onnx.load(tmp_path / "model.onnx").graph
    kinds = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 2}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert onnx.TensorProto.FLOAT not in kinds
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_a_graph_whose_weights_lie_beside_it_is_halved(bert, tmp_path, monkeypatch):
    from compressor.export import editing

    monkeypatch.setattr(editing, "EXTERNAL_DATA_BYTES", 100)
    facts = export_folder(bert.model, None, bert.example, tmp_path, number_format="fp16", opset=23)
    assert (tmp_path / "model.onnx.data").exists()
    assert facts["parity"]["error"] <= 1e-2


@pytest.mark.parametrize(("preset", "kind"), [("x86", "uint8"), ("vnni", "int8")])
def test_a_graph_for_another_processor(bert, tmp_path, monkeypatch, preset, kind):
    fake_export(bert, monkeypatch)
    monkeypatch.setattr(
        "compressor.export.integers.weight_type",
        lambda values, given: {"x86": "uint8", "vnni": "int8"}[given],
    )
    facts = export_folder(bert.model, None, bert.example, tmp_path, preset=preset)
    assert facts["cpu_preset"] == preset
    assert set(facts["weight_types"]) == {kind}


def test_another_models_graph_is_refused(bert, tmp_path, monkeypatch):
    fake_export(bert, monkeypatch)
    other = families.build("bert", vocab_size=600)
    other.classifier.weight.data.mul_(-1)
    with pytest.raises(GateError, match="float graph differs"):
        export_folder(other, None, bert.example, tmp_path)
