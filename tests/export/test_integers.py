import numpy as np
import onnx
import onnxruntime
import pytest

from compressor.errors import InputError
from compressor.export.integers import quantize_graph
from compressor.export.rounding import quantize_product, quantize_rows
from compressor.export.session import open_session
from compressor.model.integers import QuantizedLinear

from .graphs import initializers, kinds, stored_integers


def encoder_integers(model, activation="dynamic") -> dict[str, QuantizedLinear]:
    """Integers for the layers of a model, whose float weights are set to values * scale."""
    import torch

    made = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "encoder" in name:
            values, scale = quantize_rows(module.weight.detach().numpy())
            made[name] = QuantizedLinear(values, scale, activation)
            with torch.no_grad():
                module.weight.copy_(torch.from_numpy(values * scale))
    return made


def run(path, x: np.ndarray) -> np.ndarray:
    return open_session(path.parent, threads=1).run({"x": x})


def inner_values(path, x: np.ndarray, *nodes: str) -> list[np.ndarray]:
    """The first outputs of the nodes of these kinds, of the graph as it lies there, unfused."""
    graph = onnx.load(path)
    found = {node.op_type: node.output[0] for node in graph.graph.node}
    graph.graph.output.extend(onnx.ValueInfoProto(name=found[kind]) for kind in nodes)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    return session.run([found[kind] for kind in nodes], {"x": x})


def given(values: np.ndarray, scale: float, activation="dynamic") -> dict[str, QuantizedLinear]:
    """A checkpoint of one layer, int8 values [out, in]."""
    scales = np.full((len(values), 1), scale, np.float32)
    return {"layer": QuantizedLinear(values.astype(np.int8), scales, activation)}


@pytest.mark.parametrize("preset", ["x86", "arm64"])
def test_integer_product_of_the_hand_example(product, preset):
    matrix = np.array([[0.1, 0.2], [-0.4, 0.8], [0.3, -0.6]], np.float32)
    values, scale = quantize_rows(matrix.T)
    assert values.T.tolist() == [[32, 32], [-127, 127], [95, -95]]
    path = product((values * scale).T)
    quantize_graph(path, path, {"layer": QuantizedLinear(values, scale, "dynamic")}, preset=preset)
    np.testing.assert_array_equal(stored_integers(initializers(path), "layer"), values)
    x = np.array([[0.5, -1, 0.25]], np.float32)
    np.testing.assert_allclose(run(path, x), [[0.52432, -0.84706]], atol=2e-5)
    rounded, total = inner_values(path, x, "DynamicQuantizeLinear", "MatMulInteger")
    assert rounded.tolist() == [[255, 0, 212]]
    assert total.tolist() == [[28300, -22860]]


def test_matrices_rounded_here_are_int8_on_every_machine(product):
    draw = np.random.default_rng(0)
    matrix, contents = draw.normal(size=(16, 16)), []
    for preset in ("x86", "vnni", "arm64"):
        path = product(matrix)
        assert quantize_graph(path, path, preset=preset)["weight_types"] == {"int8": 1}
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize(("preset", "zero"), [("x86", 128), ("vnni", 0), ("arm64", 0)])
def test_representation_follows_the_machine(product, preset, zero):
    values = np.array([[127, 127], [-128, 3]])
    path = product(values.T * np.float32(0.01))
    quantize_graph(path, path, given(values, 0.01), preset=preset)
    found = initializers(path)
    assert found["layer.weight_zero_point"] == zero
    assert found["layer.weight_quantized"].dtype == (np.uint8 if zero else np.int8)
    np.testing.assert_array_equal(stored_integers(found, "layer"), values)


def test_worst_case_is_exact_without_vnni(product):
    """All inputs 255 and all weights 127: int16 sums of two products would be cut at 32,767."""
    values = np.full((384, 384), 127)
    path = product(values.T * np.float32(0.01))
    facts = quantize_graph(path, path, given(values, 0.01), preset="x86")
    assert facts["weight_types"] == {"uint8": 1}
    for rows in (1, 7, 64):
        result = run(path, np.ones((rows, 384), np.float32))
        np.testing.assert_allclose(result, 384 * 1.27, rtol=1e-6)


def test_safe_pairs_are_exact_as_int8(product):
    """127 beside 1 is the largest pair that int16 holds: 255 * 128 = 32,640."""
    values = np.ones((384, 384))
    values[:, 0::2] = 127
    path = product(values.T * np.float32(0.01))
    facts = quantize_graph(path, path, given(values, 0.01), preset="x86")
    assert facts["weight_types"] == {"int8": 1}
    for rows in (1, 7, 64):
        result = run(path, np.ones((rows, 384), np.float32))
        np.testing.assert_allclose(result, 192 * 1.28, rtol=1e-6)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("shape", [(384, 384), (384, 1536), (1536, 384)])
def test_random_products_equal_exact_integer_arithmetic(product, shape, own):
    """Both ways for this machine's kernels: rounded here, and a checkpoint's full range."""
    draw = np.random.default_rng(0)
    matrix = draw.normal(size=shape).astype(np.float32)
    values, scale = (quantize_product if own else quantize_rows)(matrix.T)
    weights = None if own else {"layer": QuantizedLinear(values, scale, "dynamic")}
    path = product(matrix if own else (values * scale).T)
    quantize_graph(path, path, weights)
    x = draw.normal(size=(33, shape[0])).astype(np.float32)
    low, high = min(x.min(), 0), max(x.max(), 0)
    step = np.float32((high - low) / 255)
    zero = np.rint(-low / step)
    inputs = np.clip(np.rint(x / step) + zero, 0, 255) - zero
    exact = (inputs.astype(np.int64) @ values.T.astype(np.int64)) * (step * scale.T)
    # One input halfway between two steps may be rounded the other way.
    np.testing.assert_allclose(run(path, x), exact, atol=float(step) * np.abs(matrix).max() * 2)


def test_queries_keys_and_values_share_the_rounding(bert, tmp_path):
    facts = quantize_graph(bert.path, tmp_path / "model.onnx")
    found = kinds(tmp_path / "model.onnx")
    assert facts["quantized"] == found.count("MatMulInteger") == 14
    # 4 roundings a layer, one more for the last layer's single query, pooler and head
    assert found.count("DynamicQuantizeLinear") == 2 * 4 + 1 + 2
    assert "MatMul" not in found


def test_onnx_runtime_fuses_every_integer_product(bert, tmp_path):
    quantize_graph(bert.path, tmp_path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), options)
    found = kinds(tmp_path / "optimized.onnx")
    assert "MatMulInteger" not in found
    fused = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat")
    assert sum(found.count(kind) for kind in fused) == 14
    assert not {"SkipLayerNormalization", "Softmax", "Erf"} & set(found)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["dynamic", (0.03, 5)])
def test_the_checkpoints_integers_are_in_the_graph(tmp_path, activation):
    from compressor.export.graph import export_graph

    from . import families

    model = families.build("bert")
    weights = encoder_integers(model, activation)
    export_graph(model, families.example("bert"), tmp_path / "model.onnx")
    facts = quantize_graph(tmp_path / "model.onnx", tmp_path / "model.onnx", weights)
    assert (facts["quantized"], facts["float"]) == (12, 2)  # pooler and head stay float
    found = initializers(tmp_path / "model.onnx")
    for name, linear in weights.items():
        np.testing.assert_array_equal(stored_integers(found, name), linear.values)
        np.testing.assert_array_equal(found[f"{name}.weight_scale"], linear.scale[:, 0])
    assert "classifier.weight" in found


def test_static_activations_use_the_checkpoints_grid(product):
    draw = np.random.default_rng(0)
    values = draw.integers(-128, 128, (6, 8))  # [out, in]
    path = product(values.T * np.float32(0.01))
    quantize_graph(path, path, given(values, 0.01, (0.05, -7)))
    x = draw.normal(size=(4, 8)).astype(np.float32) * 4  # beyond the grid in places
    inputs = np.clip(np.rint(x / np.float32(0.05)) - 7, -128, 127) + 7
    np.testing.assert_allclose(run(path, x), inputs @ values.T * 0.0005, atol=1e-4)
    stored = initializers(path)
    np.testing.assert_array_equal(stored_integers(stored, "layer"), values)


def test_layers_that_are_not_given_stay_float(product):
    path = product(np.ones((4, 4)))
    with pytest.raises(InputError, match="no int8 layer found among 1"):
        quantize_graph(path, path, given(np.full((4, 4), 3), 0.5))


def test_weights_that_left_their_grid_are_refused(bert, tmp_path):
    name = "bert.encoder.layer.0.output.dense"
    weight = bert.model.get_submodule(name).weight.detach().numpy()
    other = "bert.encoder.layer.1.output.dense"
    good = bert.model.get_submodule(other).weight.detach().numpy()
    # Scale 1 per entry is no checkpoint, but holds the float weight of `other` exactly.
    weights = {
        name: QuantizedLinear(*quantize_rows(weight), "dynamic"),
        other: QuantizedLinear(good, np.ones((len(good), 1), np.float32), "dynamic"),
    }
    with pytest.raises(InputError, match=f"values \\* scale.*{name}"):
        quantize_graph(bert.path, tmp_path / "model.onnx", weights, preset="arm64")


def test_no_product_to_quantize_is_an_error(product):
    import onnx

    path = product(np.ones((4, 4)))
    model = onnx.load(path)
    model.graph.node[0].op_type = "Identity"
    model.graph.node[0].input.pop()
    onnx.save(model, path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="no int8 layer found"):
        quantize_graph(path, path)
    assert path.read_bytes() == before
