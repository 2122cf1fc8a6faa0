import numpy as np
import onnx
import onnxruntime
import pytest

from compressor.export.integers import quantize_graph
from compressor.export.rounding import quantize_product, quantize_rows

from . import families
from .graphs import export_folder, initializers, kinds
from .test_integers import encoder_integers

TABLE = "bert.embeddings.word_embeddings.weight"


def test_word_table_is_int8_per_row(bert, tmp_path):
    facts = quantize_graph(bert.path, tmp_path / "model.onnx")
    assert facts["embeddings"] == 1  # position and type tables are below 64 kB
    found = initializers(tmp_path / "model.onnx")
    table = bert.model.get_input_embeddings().weight.detach().numpy()
    values, scale = quantize_rows(table)
    np.testing.assert_array_equal(found[f"{TABLE}_quantized"], values)
    np.testing.assert_array_equal(found[f"{TABLE}_scale"], scale)
    assert TABLE not in found
    assert (tmp_path / "model.onnx").stat().st_size < 0.5 * bert.path.stat().st_size


def test_scales_are_looked_up_with_the_rows(bert, tmp_path):
    quantize_graph(bert.path, tmp_path / "model.onnx")
    gathers = [n for n in onnx.load(tmp_path / "model.onnx").graph.node if n.op_type == "Gather"]
    read = {node.input[0]: node.input[1] for node in gathers}
    assert read[f"{TABLE}_quantized"] == read[f"{TABLE}_scale"] == "input_ids"


def test_tables_can_stay_float(bert, tmp_path):
    facts = quantize_graph(bert.path, tmp_path / "model.onnx", quantize_embeddings=False)
    assert facts["embeddings"] == 0
    table = bert.model.get_input_embeddings().weight.detach().numpy()
    np.testing.assert_array_equal(initializers(tmp_path / "model.onnx")[TABLE], table)


def head_of_its_words(folder, family="bert", head=families.MASKED, **options):
    """A language model of 1,200 words whose head multiplies by their table: facts, integers."""
    model = families.build(family, head, vocab_size=1200, tie_word_embeddings=True)
    facts = export_folder(model, None, families.example(family, head), folder, **options)
    return model, facts, initializers(folder / "model.onnx")


@pytest.mark.parametrize(
    ("family", "head", "alone"),
    [("bert", families.MASKED, False), ("llama", "AutoModelForCausalLM", True)],
)
def test_a_head_and_the_table_that_it_reads_are_stored_once(family, head, alone, tmp_path):
    model, facts, found = head_of_its_words(tmp_path, family, head, round_inputs=not alone)
    assert facts["embeddings"] == 1
    assert facts["parity"]["error"] <= 1.01 * facts["parity"]["rounding_error"] + 1e-5
    large = {name: array for name, array in found.items() if array.size >= 1200 * 32}
    ((name, values),) = large.items()
    weight = model.get_input_embeddings().weight.detach().numpy()
    wanted, scale = (quantize_rows if alone else quantize_product)(weight)
    stored = values.reshape(1200, 32).astype(int) - 128 if alone else values.T
    np.testing.assert_array_equal(stored, wanted)
    scales = found[name.replace("_quantized", "_scale")]
    np.testing.assert_array_equal(scales.reshape(1200, -1)[:, 0], scale[:, 0])


def test_onnx_runtime_turns_a_shared_table_at_load(tmp_path):
    head_of_its_words(tmp_path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), options)
    shapes = {tuple(t.dims) for t in onnx.load(tmp_path / "optimized.onnx").graph.initializer}
    assert {(1200, 32), (1200, 1)} <= shapes
    assert "Transpose" not in kinds(tmp_path / "optimized.onnx")


def test_a_table_that_a_float_head_reads_stays_float(tmp_path):
    model = families.build("bert", families.MASKED, vocab_size=1200, tie_word_embeddings=True)
    example = families.example("bert")
    facts = export_folder(model, None, example, tmp_path, weights=encoder_integers(model))
    assert (facts["embeddings"], facts["float"]) == (0, 2)
    found = initializers(tmp_path / "model.onnx")
    assert [array.dtype for array in found.values() if array.size >= 1200 * 32] == [np.float32]
    assert facts["parity"]["error"] <= 1.01 * facts["parity"]["rounding_error"]
