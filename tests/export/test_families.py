"""One small random model of every family: quantized, exported, and compared with PyTorch."""

import json

import numpy as np
import onnx
import pytest

from compressor.checkpoint.folder import open_checkpoint
from compressor.cli import run
from compressor.export import parity
from compressor.model.integers import read_integers

from . import families
from .graphs import initializers, stored_integers

# (batch, length). ModernBERT's local attention sees nothing where more than 8 tokens are padding.
SHAPES = ((1, 1), (2, 17), (7, 30))
LAYERS = {"num_hidden_layers": 1, "num_decoder_layers": 1, "initializer_range": 0.15}
TWO_KINDS_OF_LAYERS = ("modernbert",)
# Text models whose words no head multiplies by, in a module of their own.
WITH_TABLE = (*families.ENCODERS, "llama")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes a checkpoint of a family, exports it, and gives what the export found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parity, "SHAPES", SHAPES)

    def make(family, *, quantize):
        head = "AutoModelForImageClassification" if family == "vit" else families.CLASSIFIER
        sizes = dict(LAYERS)
        if family in TWO_KINDS_OF_LAYERS:
            del sizes["num_hidden_layers"]
        families.checkpoint(tmp_path / "model", family, head, **sizes)
        if quantize:
            assert run("quantize model -o int8".split()) == 0
        assert run(f"export {'int8' if quantize else 'model'} -o graph".split()) == 0
        return json.loads((tmp_path / "graph/compression.json").read_text())["steps"][-1]["metrics"]

    return make


def agrees(facts) -> None:
    """Float graph and int8 graph compute what PyTorch does, the latter but for rounding."""
    assert facts["parity"]["shapes"] == [list(shape) for shape in SHAPES]
    assert facts["float_parity"]["error"] <= 1e-5
    assert facts["parity"]["rounding_error"] > 1e-3  # so that the next line says something
    assert facts["parity"]["error"] <= 2 * facts["parity"]["rounding_error"]


@pytest.mark.parametrize(
    "family", [*families.ENCODERS, "llama", "vit", pytest.param("t5", marks=pytest.mark.slow)]
)
def test_integers_of_every_family_reach_its_graph(made, family, tmp_path):
    facts = made(family, quantize=True)
    agrees(facts)
    layers = read_integers(open_checkpoint(tmp_path / "int8"))
    tables = {name for name, linear in layers.items() if linear.activation == "float"}
    assert len(tables) == facts["embeddings"] - (family == "t5") == (family in WITH_TABLE)
    # DeBERTa multiplies words and distances by the same two matrices.
    assert facts["quantized"] - 2 * (family == "deberta-v2") == len(layers) - len(tables) >= 6
    found = initializers(tmp_path / "graph/model.onnx")
    for name, linear in layers.items():
        if name in tables:
            np.testing.assert_array_equal(found[f"{name}.weight_quantized"], linear.values)
            np.testing.assert_array_equal(found[f"{name}.weight_scale"], linear.scale)
        else:
            np.testing.assert_array_equal(stored_integers(found, name), linear.values)
            np.testing.assert_array_equal(found[f"{name}.weight_scale"], linear.scale[:, 0])
    graph = onnx.load(tmp_path / "graph/model.onnx").graph
    assert set(families.example(family)) <= {value.name for value in graph.input}


def test_a_family_that_the_format_cannot_hold_is_exported_from_floats(made, tmp_path):
    """GPT-2's Conv1D."""
    facts = made("gpt2", quantize=False)
    agrees(facts)
    assert (facts["quantized"], facts["embeddings"]) == (5, 1)
    assert run("quantize model -o int8".split()) == 3
