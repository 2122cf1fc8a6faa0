"""Scales moved from inputs to weights: hand values, and models that compute the same as before."""

import json

import pytest
import torch

import tiny
from compressor.cli import run
from compressor.errors import InputError, UsageError
from compressor.methods.smooth import Group, channel_scales, groups_of, move, smooth
from compressor.methods.transforms import dynamic
from compressor.model.save import probe_inputs


def test_scales_by_hand():
    inputs = torch.tensor([2.0, 16.0])  # of [[1, 16], [-2, 8]]
    weight = torch.tensor([[2.0, 1.0], [0.5, -1.0]])
    assert channel_scales(inputs, [weight], 0.5).tolist() == [1, 4]
    source, reader = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    with torch.no_grad():
        reader.weight.copy_(weight)
        before = reader(source(torch.eye(2)))
        move(Group(source, [reader]), inputs, 0.5)
        torch.testing.assert_close(reader(source(torch.eye(2))), before)
    assert reader.weight.tolist() == [[2, 4], [0.5, -4]]


def test_channels_without_values_stay():
    weight = torch.tensor([[0.0, 1.0, 2.0]])
    assert channel_scales(torch.tensor([3.0, 0.0, 2.0]), [weight], 0.5).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("family", "places"), [("bert", 1), ("distilbert", 1), ("mpnet", 1), ("llama", 4)]
)
def test_the_model_computes_the_same(family, places):
    model = tiny.model(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layernorm" not in name.lower() and parameter.dim() == 1:
                parameter.uniform_(-1, 1)  # biases that would be forgotten
            elif parameter.dim() == 2:
                parameter.mul_(4)
    inputs = probe_inputs(model)
    with torch.no_grad():
        before = model(**inputs).logits
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        assert smooth(model, [inputs], 0.5) == places * len(weights_of_layers(model))
        after = model(**inputs).logits
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    changed = [n for n, value in model.state_dict().items() if not torch.equal(value, weights[n])]
    assert len(changed) >= 2 * places


def weights_of_layers(model):
    from compressor.model.layers import only_stack

    return only_stack(model)[1]


def test_shared_values_get_one_scale_for_all_heads_that_read_them():
    model = tiny.model("llama")
    assert any(group.shared > 1 for group in groups_of(model))


def test_outliers_become_smaller():
    model = tiny.model("llama")
    with torch.no_grad():
        weights_of_layers(model)[0].input_layernorm.weight[3] = 50.0
    inputs, seen = probe_inputs(model), []
    hook = weights_of_layers(model)[0].self_attn.q_proj.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].abs().amax(dim=(0, 1)))
    )
    with torch.no_grad():
        model(**inputs)
        smooth(model, [inputs], 0.5)
        seen.clear()
        model(**inputs)
    hook.remove()
    assert seen[0].max() < 10


def test_families_that_are_not_known():
    with pytest.raises(InputError, match="--smooth does not know"):
        groups_of(tiny.model("albert"))


def test_samples_alone_would_do_nothing():
    with pytest.raises(UsageError, match="needs --smooth"):
        dynamic.Options(samples=3)


@pytest.mark.parametrize("method", ["dynamic", "static"])
def test_by_the_command_line(method, workshop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = f"quantize {workshop}/teacher --method {method} --smooth 0.5 --data {workshop}/data"
    assert run([*words.split(), "-o", "int8"]) == 0
    metrics = json.loads((tmp_path / "int8/compression.json").read_text())["steps"][-1]["metrics"]
    assert metrics["smoothed"] == 4
    assert metrics["accuracy"] > 0.7
