"""Training through rounding: gradients, ranges, what is stored, and zeros that reach the graph."""

import json
import os
import signal

import pytest
import torch
import transformers

import tiny
from compressor.checkpoint.folder import open_checkpoint
from compressor.cli import run
from compressor.errors import InputError, UsageError
from compressor.methods.contract import Context
from compressor.methods.modifiers import qat
from compressor.model.integers import read_integers
from compressor.model.quantized import is_quantized
from compressor.model.save import probe_inputs
from compressor.train import loop

QUERY = "bert.encoder.layer.0.attention.self.query"


def modifier(model, total=10, **options):
    context = Context(model, "text-classification", total_steps=total)
    return qat.Modifier(qat.Options(**options), context)


def test_the_gradient_passes_inside_the_range_and_goes_to_the_bounds_outside():
    inputs = torch.tensor([-3.0, -1.0, 0.3, 2.0, 5.0, 7.0], requires_grad=True)
    bounds = torch.tensor([-1.5, 3.6], requires_grad=True)
    rounded = qat.round_between(inputs, bounds)
    scale = 5.1 / 255
    torch.testing.assert_close(rounded / scale, (rounded / scale).round(), atol=1e-4, rtol=0)
    assert rounded.detach().tolist() == pytest.approx([-1.5, -1, 0.3, 2, 3.6, 3.6], abs=scale / 2)
    rounded.backward(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]))
    assert inputs.grad.tolist() == [0, 2, 4, 8, 0, 0]
    assert bounds.grad.tolist() == [1, 48]


def test_a_symmetric_grid_follows_the_larger_bound():
    inputs = torch.tensor([-5.0, -1.9, 1.0, 5.0])
    bounds = torch.tensor([-1.0, 2.0], requires_grad=True)
    rounded = qat.round_between(inputs, bounds, symmetric=True)
    assert rounded.detach().tolist() == pytest.approx([-2, -1.9, 1, 2], abs=2 / 127)
    rounded.sum().backward()
    assert bounds.grad.tolist() == [0, 0]  # one value at either end: -1 and 1


def test_every_token_has_a_grid_of_its_own():
    inputs = torch.tensor([[[0.1, -0.2], [30.0, 60.0]]], requires_grad=True)
    rounded = qat.round_tokens(inputs)
    error = (rounded - inputs).abs().detach()
    assert error[0, 0].max() <= 0.2 / 127.5 / 2 + 1e-7
    rounded.sum().backward()
    assert inputs.grad.tolist() == [[[1, 1], [1, 1]]]


def test_moving_ranges_follow_real_tokens():
    model = tiny.model().train()
    made = modifier(model)
    linear = model.get_submodule(QUERY)
    ids = torch.tensor([[7, 9, 11, 0, 0], [8, 10, 12, 13, 14]])
    mask = (ids != 0).long()
    with torch.no_grad():  # padding is far out, and must not be seen
        model.bert.embeddings.word_embeddings.weight[0] = 1e4
        model.bert.embeddings.LayerNorm = torch.nn.Identity()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    seen = []
    linear.register_forward_pre_hook(lambda _, given: seen.append(given[0][mask.bool()]))
    made.before_step(0)
    model(input_ids=ids, attention_mask=mask)
    assert not linear.input_bounds.any()  # a step that is stopped leaves nothing
    made.after_step(0)
    first = [seen[0].min().item(), seen[0].max().item()]
    assert linear.input_bounds.tolist() == pytest.approx(first)
    made.before_step(1)
    made._observe(linear, torch.tensor([[[-9.0, 1.0]], [[0.0, 5.0]]]))
    made._observe(linear, torch.tensor([[[-3.0, 7.0]]]))
    made.after_step(1)
    moved = [old + 0.01 * (new - old) for old, new in zip(first, (-9.0, 7.0), strict=True)]
    assert linear.input_bounds.tolist() == pytest.approx(moved)
    model.eval()
    model(input_ids=ids, attention_mask=mask)
    assert not made.seen


def test_weights_are_rounded_and_learn_all_the_same():
    model = tiny.model().train()
    plain = tiny.model().train()
    made = modifier(model, ranges="dynamic", qat_start=0.5)
    inputs = torch.randn(2, 3, model.config.hidden_size)
    linear, other = model.get_submodule(QUERY), plain.get_submodule(QUERY)
    made.before_step(4)
    assert not made.settled(4)
    assert torch.equal(linear(inputs), other(inputs))
    made.before_step(5)
    assert made.settled(5)
    output = linear(inputs)
    difference = (output - other(inputs)).abs().max()
    assert 1e-6 < difference < 0.02 * output.abs().max()
    output.sum().backward()
    other(inputs).sum().backward()
    torch.testing.assert_close(linear.weight.grad, other.weight.grad, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("ranges", ["moving", "learnt", "dynamic"])
def test_what_is_left_computes_what_was_trained(ranges):
    model = tiny.model().train()
    made = modifier(model, ranges=ranges)
    inputs = probe_inputs(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(3):
        made.before_step(step)
        model(**inputs).logits.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        made.after_step(step)
    model.eval()
    made.on_finish()
    with torch.no_grad():
        trained = model(**inputs).logits
    facts = made.on_kept()
    assert facts["linears_quantized"] == 12
    assert is_quantized(model)
    assert not [name for name in model.state_dict() if "bound" in name]
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, trained, atol=2e-3, rtol=1e-2)


def test_learnt_factors_move_the_bounds():
    model = tiny.model().train()
    made = modifier(model, ranges="learnt")
    inputs = probe_inputs(model)
    linear = model.get_submodule(QUERY)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for step in range(20):
        made.before_step(step)
        model(**inputs)
        made.after_step(step)
        # A loss that wants the largest inputs smaller has the upper bound come down.
        made._bounds(linear)[1].backward()
        optimizer.step()
        optimizer.zero_grad()
    low, high = made._bounds(linear).tolist()
    assert low == pytest.approx(linear.input_bounds[0].item())
    assert high == pytest.approx(0.82 * linear.input_bounds[1].item(), rel=0.02)


def test_a_map_that_was_never_fed_is_refused():
    made = modifier(tiny.model())
    with pytest.raises(InputError, match="never reach"):
        made.on_kept()


def test_rounding_is_part_of_the_state():
    made, other = modifier(tiny.model(), qat_start=0.5), modifier(tiny.model(), qat_start=0.5)
    made.before_step(7)
    other.load_state_dict(made.state_dict())
    assert other.rounding


def test_symmetric_makes_no_sense_without_ranges():
    with pytest.raises(UsageError, match="symmetric already"):
        qat.Options(symmetric=True, ranges="dynamic")


@pytest.fixture
def here(workshop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "data"):
        (tmp_path / name).symlink_to(workshop / name)
    return tmp_path


@pytest.mark.parametrize("ranges", ["moving", pytest.param("dynamic", marks=pytest.mark.slow)])
def test_zeros_and_scales_reach_the_graph(ranges, here):
    import onnx
    from onnx import numpy_helper

    assert run("prune teacher --method magnitude --sparsity 0.85 -o sparse".split()) == 0
    words = f"distill teacher --student sparse --with lock_sparsity --with qat --ranges {ranges}"
    words += " --data data --epochs 2 --batch-size 16 --lr 1e-3 -o int8"
    assert run(words.split()) == 0
    config = json.loads((here / "int8/config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"
    transformers.AutoModelForSequenceClassification.from_pretrained(here / "int8")
    sparse = tiny_weights(here / "sparse")
    layers = read_integers(open_checkpoint(here / "int8"))
    assert len(layers) == 24
    for name, layer in layers.items():
        gone = sparse[f"{name}.weight"] == 0
        assert (layer.values[gone] == 0).all()
        # Small survivors may round to zero too, but most live.
        assert (layer.values[~gone] == 0).mean() < 0.1
    step = open_checkpoint(here / "int8").steps[-1]
    assert {"lock_sparsity", "qat"} <= {one["method"] for one in step["options"]["with"]}
    assert step["metrics"]["accuracy"] > 0.7

    assert run("export int8 -o graph".split()) == 0
    graph = onnx.load(here / "graph/model.onnx").graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name, layer in layers.items():
        values = stored[f"{name}.weight_quantized"]
        if values.dtype == "uint8":
            values = values.astype("int16") - 128
        assert (layer.values == values.T).all()
        assert (stored[f"{name}.weight_scale"] == layer.scale[:, 0]).all()
    grids = input_grids(graph, stored)
    assert grids.keys() == (layers.keys() if ranges == "moving" else set())
    for name, (scale, zero) in grids.items():
        wanted = tiny_weights(here / "int8")
        assert scale == wanted[f"{name}.input_scale"]
        assert zero - 128 == wanted[f"{name}.input_zero_point"] == layers[name].activation[1]
    assert len({scale for scale, _ in grids.values()}) in (0, *range(8, 25))


def input_grids(graph, stored) -> dict[str, tuple[float, int]]:
    """Scale and uint8 zero point of the input of every product of fixed ranges, by its module."""
    makers = {output: node for node in graph.node for output in node.output}
    found = {}
    for node in graph.node:
        if node.op_type != "MatMul":
            continue
        inputs, matrix = (makers.get(name) for name in node.input)
        if matrix is None or matrix.op_type != "DequantizeLinear":
            continue
        assert inputs.op_type == "DequantizeLinear"
        rounding = makers[inputs.input[0]]
        assert rounding.op_type == "QuantizeLinear"
        assert list(rounding.input[1:]) == list(inputs.input[1:])
        name = matrix.input[0].removesuffix(".weight_quantized")
        found[name] = tuple(stored[bound].item() for bound in inputs.input[1:])
    return found


def tiny_weights(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("ranges", ["moving", "learnt"])
def test_a_resumed_run_ends_in_the_same_bytes(ranges, here, monkeypatch):
    words = f"finetune teacher --with qat --ranges {ranges} --qat-start 0.3 --data data --epochs 1"
    words += " --batch-size 16 --save-steps 1 --lr 1e-3 --accumulate 2"
    assert run([*words.split(), "-o", "whole"]) == 0
    step = loop._Loop._step

    def stopping(self, number):
        if number == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Loop, "_step", stopping)
        assert run([*words.split(), "-o", "cut"]) == 143
    assert run([*words.split(), "--resume", "-o", "cut"]) == 0
    weights = [here / name / "model.safetensors" for name in ("whole", "cut")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_what_was_quantized_is_not_trained_again(here, capsys):
    assert run("finetune teacher --with qat --data data --max-steps 2 -o int8".split()) == 0
    assert run("finetune int8 --data data --max-steps 2 -o more".split()) == 3
    assert "start from" in capsys.readouterr().err
