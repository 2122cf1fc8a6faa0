import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from compressor.export.integers import quantize_graph
from compressor.export.rounding import quantize_product, quantize_rows
from compressor.export.session import open_session
from compressor.export.simulate import (
    round_blocks,
    round_dynamic,
    round_static,
    simulated_int8,
)
from compressor.methods.input_ranges import activation_grid
from compressor.model.integers import QuantizedLinear


def dynamic_quantize_linear(x: np.ndarray) -> list[np.ndarray]:
    """ONNX Runtime's own rounding: values, scale, zero point."""
    graph = helper.make_graph(
        [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [
            helper.make_tensor_value_info("q", TensorProto.UINT8, [None]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, []),
            helper.make_tensor_value_info("zero", TensorProto.UINT8, []),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})


def test_dynamic_rounding_of_the_hand_example():
    x = np.array([-1, -0.3, 0, 0.4, 0.8], np.float32)
    values, scale, zero = dynamic_quantize_linear(x)
    np.testing.assert_allclose(scale, 0.0070588, atol=1e-7)
    assert (values.tolist(), int(zero)) == ([0, 99, 142, 199, 255], 142)
    kept = round_dynamic(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(kept, (values.astype(np.float32) - 142) * scale, rtol=1e-6)


def test_a_fixed_grid_of_the_same_range_holds_the_same_values():
    x = np.array([-1, -0.3, 0, 0.4, 0.8], np.float32)
    scale, zero = activation_grid(-1.0, 0.8, symmetric=False)
    assert (scale, zero) == (pytest.approx(0.0070588, abs=1e-7), 142 - 128)
    kept = round_static(torch.from_numpy(x), (scale, zero)).numpy()
    np.testing.assert_allclose(kept / scale + 142, [0, 99, 142, 199, 255], atol=1e-3)


def test_dynamic_rounding_is_that_of_onnx_runtime():
    draw = np.random.default_rng(0)
    for wide in (draw.normal(size=500), draw.uniform(1, 2, 500), -draw.uniform(1, 2, 500)):
        x = wide.astype(np.float32)
        values, scale, zero = dynamic_quantize_linear(x)
        expected = (values.astype(np.float32) - zero) * scale
        # A value halfway between two steps may fall on either side.
        far = np.abs(round_dynamic(torch.from_numpy(x)).numpy() - expected) > scale / 100
        assert far.mean() <= 0.01


def test_zeros_stay_zeros():
    assert not round_dynamic(torch.zeros(3)).any()


def test_static_rounding_keeps_to_its_grid():
    x = torch.tensor([-10.0, -0.2, 0.0, 0.3, 10.0])
    kept = round_static(x, (0.1, -28))
    np.testing.assert_allclose(kept.numpy(), [-10.0, -0.2, 0.0, 0.3, 10.0], atol=1e-6)
    np.testing.assert_allclose(round_static(torch.tensor([99.0]), (0.1, -28)).numpy(), [15.5])


def test_every_block_of_inputs_has_its_own_step():
    x = torch.tensor([[1.27, 0.003, 0.006, 127.0, 40.4, 0.0, 0.0]])
    kept = round_blocks(x, 3)
    np.testing.assert_allclose(kept, [[1.27, 0.0, 0.01, 127.0, 40.0, 0.0, 0.0]], atol=1e-6)


def test_rounded_blocks_are_those_of_onnx_runtime(product):
    draw = np.random.default_rng(0)
    matrix = draw.normal(size=(96, 40)).astype(np.float32)  # blocks of 32
    path = product(matrix)
    facts = quantize_graph(path, path, round_inputs=False)
    assert facts["weight_types"] == {"int8": 1}
    assert facts["cpu_preset"] is None  # the same on every machine
    x = draw.normal(size=(9, 96)).astype(np.float32)
    x[:, 5] *= 300  # one input that would leave the others nothing
    found = open_session(path.parent, threads=1).run({"x": x})
    values, scale = quantize_rows(matrix.T)
    kept = round_blocks(torch.from_numpy(x), 32).numpy()
    np.testing.assert_allclose(found, kept @ (values * scale).T, rtol=1e-4, atol=1e-3)
    exact = x @ (values * scale).T
    assert np.abs(found - exact).max() > 1e-2  # they are rounded


def test_simulation_rounds_weights_and_ends_with_the_block():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 3))
    x = torch.randn(5, 6)
    with torch.no_grad():
        exact = model(x)
        with simulated_int8(model, None, embeddings=False):
            rounded = model(x)
        values, scale = quantize_product(model[0].weight.numpy())
        hidden = round_dynamic(x) @ torch.from_numpy(values * scale).T + model[0].bias
        assert not torch.equal(exact, rounded)
        np.testing.assert_array_equal(model(x).numpy(), exact.numpy())
        only = {"0": QuantizedLinear(values, scale, "dynamic")}
        model[0].weight.copy_(torch.from_numpy(values * scale))
        with simulated_int8(model, only, embeddings=False):
            np.testing.assert_allclose(model(x), model[1](hidden), rtol=1e-5, atol=1e-6)


def test_large_tables_are_rounded_row_by_row():
    table = torch.nn.Embedding(2000, 16)
    indices = torch.tensor([[3, 5], [7, 3]])
    values, scale = quantize_rows(table.weight.detach().numpy())
    with simulated_int8(torch.nn.Sequential(table), None, embeddings=True):
        found = table(indices)
    np.testing.assert_allclose(found.detach(), (values * scale)[indices.numpy()], atol=1e-7)
