import numpy as np
import onnx

from compressor.export.integers import quantize_graph
from compressor.export.rounding import quantize_rows

from .graphs import initializers

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
