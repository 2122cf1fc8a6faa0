"""Weights of a few bits: hand values, errors that are made up for, packing, and reloads."""

import json
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file

import tiny
from compressor.cli import run
from compressor.errors import InputError, UsageError
from compressor.methods.transforms import gptq
from compressor.methods.transforms.gptq import Options, apply, quantize_matrix, rounded, scales_of
from compressor.model.layers import encoder_linears
from compressor.model.quantized import on_grid


def batches(model, count: int = 24) -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 90, (count, 12), generator=draw)
    return [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]


def test_four_bits_by_hand():
    weight = torch.tensor([[-1.0, -0.3, 0.0, 0.4, 0.8, 0.2, 0.1, 0.05]], dtype=torch.float64)
    scale = scales_of(weight, 4, 8)
    assert scale.item() == pytest.approx(1 / 7.5)
    # -7.5 and 6 are exact; -7.5 rounds to the even -8, which the grid has.
    assert rounded(weight, scale, 4).tolist() == [[-8, -2, 0, 3, 6, 2, 1, 0]]
    both = scales_of(weight, 4, 4)
    assert both.tolist() == [[pytest.approx(1 / 7.5), pytest.approx(0.8 / 7.5)]]
    assert scales_of(torch.zeros(1, 4), 4, 4).item() > 0


def test_an_error_moves_to_the_next_column():
    weight = torch.tensor([[0.28, 0.25, 1.2]], dtype=torch.float64)
    products = torch.tensor([[2.0, 1.9, 0], [1.9, 2.0, 0], [0, 0, 2.0]], dtype=torch.float64)
    values, scale = quantize_matrix(weight, products, Options(group_size=0, bits=2, damp=1e-6))
    assert scale.item() == pytest.approx(0.8)
    # 0.28 becomes 0; 0.25 + 0.28 x 1.9 / 2 = 0.516 is nearer to 0.8; 1.2 is cut at 0.8.
    assert values.tolist() == [[0, 1, 1]]
    assert rounded(weight, scale, 2).tolist() == [[0, 0, 1]]


def test_uncorrelated_inputs_round_to_nearest():
    weight = torch.randn(6, 16, generator=torch.Generator().manual_seed(0)).double()
    values, scale = quantize_matrix(weight, torch.eye(16).double(), Options(group_size=0))
    assert torch.equal(values, rounded(weight, scale, 4))


@pytest.mark.parametrize("group", [0, 8])
@pytest.mark.parametrize("act_order", [False, True])
def test_outputs_are_closer_than_by_rounding_to_nearest(group, act_order):
    draw = torch.Generator().manual_seed(1)
    mixing = torch.randn(32, 32, generator=draw).double()
    inputs = torch.randn(400, 32, generator=draw).double() @ mixing
    inputs[:, 5] *= 10
    weight = torch.randn(20, 32, generator=draw).double()
    options = Options(group_size=group, act_order=act_order)
    values, scale = quantize_matrix(weight, inputs.T @ inputs, options)
    assert values.shape == weight.shape
    assert scale.shape == (20, 4 if group else 1)
    assert values.min() >= -8
    assert values.max() <= 7
    plain = scales_of(weight, 4, group or 32)
    nearest = on_grid(rounded(weight, plain.repeat_interleave(32 // plain.shape[1], 1), 4), plain)

    def error(other):
        return float(((other - weight) @ inputs.T).square().sum())

    assert error(on_grid(values, scale)) < 0.7 * error(nearest)


def test_blocks_and_one_pass_agree(monkeypatch):
    draw = torch.Generator().manual_seed(2)
    inputs = torch.randn(300, 40, generator=draw).double() @ torch.randn(40, 40).double()
    weight = torch.randn(7, 40, generator=draw).double()
    found = []
    for block in (8, 40):
        monkeypatch.setattr(gptq, "BLOCK", block)
        found.append(quantize_matrix(weight, inputs.T @ inputs, Options(group_size=0))[0])
    assert (found[0] != found[1]).double().mean() < 0.01  # rounding at a tie


@pytest.mark.parametrize("bits", [4, 8])
def test_the_model_holds_the_grid_and_the_rest_is_untouched(bits):
    model = tiny.model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loaded = SimpleNamespace(model=model)
    facts = apply(loaded, batches(model), Options(bits=bits, group_size=16))
    assert facts["linears_quantized"] == 12
    assert 0 < facts["weight_error"] < (0.02 if bits == 4 else 1e-4)
    assert facts["calibration_rows"] == 24
    matrices = encoder_linears(model)
    for name, module in matrices.items():
        for part in module.weight.detach().unflatten(1, (-1, 16)).flatten(0, 1)[:8]:
            assert len(part.unique()) <= 2**bits
        assert not torch.equal(module.weight, before[f"{name}.weight"])
    for name, value in before.items():
        if name.removesuffix(".weight") not in matrices:
            assert torch.equal(model.state_dict()[name], value)


@pytest.fixture
def here(workshop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "data"):
        (tmp_path / name).symlink_to(workshop / name)
    return tmp_path


@pytest.mark.parametrize("flags", ["--bits 4 --group-size 16", "--bits 8 --group-size 0"])
def test_it_is_stored_packed_and_opens_plainly(flags, here, capsys):
    assert run(f"quantize teacher --method gptq {flags} --data data -o packed".split()) == 0
    config = json.loads((here / "packed/config.json").read_text())["quantization_config"]
    assert config["format"] == "pack-quantized"
    assert config["config_groups"]["group_0"]["input_activations"] is None
    tensors = load_file(here / "packed/model.safetensors")
    packed = [name for name in tensors if name.endswith(".weight_packed")]
    assert len(packed) == 24
    bits = int(flags.split()[1])
    rows, words = tensors[packed[0]].shape
    assert words == rows * bits // 32
    model = transformers.AutoModelForSequenceClassification.from_pretrained(here / "packed")
    record = json.loads((here / "packed/compression.json").read_text())["steps"][-1]
    assert record["metrics"]["accuracy"] > 0.7
    assert model.config.num_labels == 2
    capsys.readouterr()
    assert run("inspect packed --json".split()) == 0
    shown = json.loads(capsys.readouterr().out)
    matrices = encoder_linears(tiny_teacher(here)).values()
    entries = sum(module.weight.numel() for module in matrices)
    assert shown["size"]["matrices"] * 8 == bits * entries


def tiny_teacher(here):
    return transformers.AutoModelForSequenceClassification.from_pretrained(here / "teacher")


def test_rounding_to_nearest_needs_no_rows(here):
    words = "quantize teacher --method gptq --no-compensate --group-size 16 -o packed"
    assert run(words.split()) == 0
    metrics = json.loads((here / "packed/compression.json").read_text())["steps"][-1]["metrics"]
    assert "output_error" not in metrics


def test_a_group_that_does_not_fit_is_refused_before_any_work():
    model = tiny.model()
    with pytest.raises(InputError, match="32 inputs, which are no whole groups of 24"):
        apply(SimpleNamespace(model=model), batches(model), Options(group_size=24))


@pytest.mark.parametrize("idle", [{"act_order": True}, {"samples": 3}, {"damp": 0.1}])
def test_options_without_anything_to_make_up_for(idle):
    with pytest.raises(UsageError, match="making up for errors"):
        Options(compensate=False, **idle)


@pytest.mark.parametrize("flags", ["--bits 4 --group-size 16", "--bits 8 --group-size 0"])
def test_the_graph_holds_the_same_integers(flags, here):
    import numpy as np
    import onnx
    from onnx import numpy_helper

    from compressor.checkpoint.folder import open_checkpoint
    from compressor.model.integers import read_integers

    words = f"quantize teacher --method gptq {flags} --no-compensate -o packed"
    assert run(words.split()) == 0
    assert run("export packed --embeddings fp32 -o graph".split()) == 0
    record = json.loads((here / "graph/compression.json").read_text())["steps"][-1]["metrics"]
    assert record["nodes"]["MatMulNBits"] == 24
    # With 8 bits the kernel rounds its inputs as well.
    parity = record["parity"]
    assert parity["error"] <= (1e-4 if "--bits 4" in flags else parity["tolerance"])
    assert record["cpu_preset"] is None
    graph = onnx.load(here / "graph/model.onnx").graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name, layer in read_integers(open_checkpoint(here / "packed")).items():
        values, scale = (stored[f"{name}.weight_{part}"] for part in ("quantized", "scale"))
        if layer.bits == 4:
            values = np.stack([values & 15, values >> 4], axis=-1)
        rows, inputs = layer.values.shape
        found = values.reshape(rows, -1)[:, :inputs].astype(int) - 2 ** (layer.bits - 1)
        assert (found == layer.values).all()
        assert (scale == layer.scale.repeat(scale.shape[1] // layer.scale.shape[1], 1)).all()


def test_three_bits_are_stored_in_four():
    from compressor.export.blocks import pack_blocks
    from compressor.model.integers import QuantizedLinear

    values = torch.tensor([[-4, 3] * 24], dtype=torch.int8).numpy()
    blocks = pack_blocks(QuantizedLinear(values, torch.ones(1, 1).numpy(), "float", 3))
    assert (blocks.bits, blocks.size) == (4, 128)
    assert blocks.values.shape == (1, 1, 64)
    assert blocks.values[0, 0, :24].tolist() == [(3 + 8) * 16 + 4] * 24
    assert blocks.values[0, 0, 24:].tolist() == [8 * 16 + 8] * 40  # what stands for 0
    assert blocks.scale.shape == (1, 1)
    odd = QuantizedLinear(values[:, :40], torch.ones(1, 5).numpy(), "float", 4)  # groups of 8
    with pytest.raises(InputError, match="no whole blocks of 16"):
        pack_blocks(odd)


def test_zeros_stay_zeros():
    draw = torch.Generator().manual_seed(3)
    inputs = torch.randn(400, 32, generator=draw).double() @ torch.randn(32, 32).double()
    weight = torch.randn(20, 32, generator=draw).double()
    weight[torch.rand(20, 32, generator=draw) < 0.8] = 0.0
    for options in (Options(group_size=8), Options(group_size=0, act_order=True)):
        values, _ = quantize_matrix(weight, inputs.T @ inputs, options)
        assert (values[weight == 0] == 0).all()


def test_a_row_that_is_no_whole_number_of_blocks_is_filled_up():
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from compressor.export.blocks import pack_blocks
    from compressor.model.integers import QuantizedLinear

    draw = np.random.default_rng(0)
    for bits in (4, 8):
        values = draw.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (5, 300)).astype(np.int8)
        scale = draw.uniform(0.01, 0.1, (5, 1)).astype(np.float32)
        blocks = pack_blocks(QuantizedLinear(values, scale, "float", bits))
        node = helper.make_node(
            "MatMulNBits", ["x", "b", "s"], ["y"], domain="com.microsoft",
            K=300, N=5, bits=blocks.bits, block_size=blocks.size,
        )  # fmt: skip
        graph = helper.make_graph(
            [node],
            "one",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 300])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 5])],
            [
                numpy_helper.from_array(blocks.values, "b"),
                numpy_helper.from_array(blocks.scale, "s"),
            ],
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        x = draw.normal(size=(2, 300)).astype(np.float32)
        (found,) = session.run(None, {"x": x})
        np.testing.assert_allclose(found, x @ (values * scale).T, rtol=1e-3, atol=1e-3)
