from types import SimpleNamespace

import pytest
import torch

import tiny
from compressor.errors import InputError
from compressor.methods.transforms.dynamic import (
    SMALLEST_SCALE,
    Options,
    apply,
    quantize_linears,
    quantize_rows,
)
from quantized_weights import quantized_weights

QUERY = "bert.encoder.layer.0.attention.self.query"


def integers_of(inputs, module):
    """The layer's output by int32 accumulation, as an integer runtime would compute it."""
    scale = inputs.abs().amax(dim=-1, keepdim=True) / 127.5
    q_inputs = (inputs / scale).round().clamp(-128, 127).to(torch.int32)
    q_weight = (module.weight / module.weight_scale).round().to(torch.int32)
    return (q_inputs @ q_weight.T) * scale * module.weight_scale.T + module.bias


def seen_by(model, name, **inputs):
    seen = []
    hook = model.get_submodule(name).register_forward_hook(
        lambda _, arguments, output: seen.extend((arguments[0], output))
    )
    with torch.no_grad():
        model(**inputs)
    hook.remove()
    return seen


def test_rows_by_hand():
    values, scale = quantize_rows(torch.tensor([[-1.0, -0.3, 0.0, 0.4, 0.8]]))
    # The largest magnitude lies at 127.5, between two integers: the last bit of 1 / 127.5 decides.
    assert values[0, 0] in (-128, -127)
    assert values[0, 1:].tolist() == [-38, 0, 51, 102]
    assert values.dtype == torch.int8
    assert scale.tolist() == [[pytest.approx(1 / 127.5)]]


def test_round_trip_is_within_half_a_step_and_uses_at_most_256_values():
    weight = torch.randn(16, 2000, generator=torch.Generator().manual_seed(0)) * 3
    values, scale = quantize_rows(weight)
    rounded = values * scale
    assert ((weight - rounded).abs() <= scale / 2 * (1 + 1e-4)).all()
    assert not torch.equal(weight, rounded)
    assert all(100 < len(row.unique()) <= 256 for row in rounded)


def test_each_row_has_its_own_scale():
    weight = torch.tensor([[1.0, -0.5], [100.0, -50.0]])
    values, scale = quantize_rows(weight)
    assert torch.equal(values[0], values[1])
    assert float(scale[1] / scale[0]) == pytest.approx(100)


def test_rows_of_zeros_and_of_nearly_nothing():
    values, scale = quantize_rows(torch.tensor([[0.0, 0.0, 0.0], [1e-30, 0.0, -1e-30]]))
    assert values.eq(0).all()
    assert scale.tolist() == [[SMALLEST_SCALE], [SMALLEST_SCALE]]


def test_weight_error_is_relative():
    layer = torch.nn.Linear(3, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[127.5, 1.25, 0.0]]))  # scale 1 -> 127, 1, 0
    rows, error = quantize_linears({"layer": layer}, portable=False)
    assert rows["layer"][0].tolist() == [[127, 1, 0]]
    assert error == pytest.approx((0.5**2 + 0.25**2) / (127.5**2 + 1.25**2))


def test_error_of_zero_weights_is_zero():
    layer = torch.nn.Linear(3, 2)
    torch.nn.init.zeros_(layer.weight)
    assert quantize_linears({"layer": layer}, portable=False)[1] == 0.0


def test_facts_and_float_head():
    model = tiny.model("bert")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    facts = apply(SimpleNamespace(model=model), None, Options())
    assert facts["linears_quantized"] == 12
    assert facts["linears_float"] == ["bert.pooler.dense", "classifier"]
    assert 1e-6 < facts["weight_error"] < 1e-3
    for name, value in before.items():
        if not (name.startswith("bert.encoder") and value.ndim == 2):
            assert torch.equal(model.state_dict()[name], value), name
    assert not torch.equal(model.get_submodule(QUERY).weight, before[f"{QUERY}.weight"])


def test_zeros_stay_zeros():
    model = tiny.model("bert")
    query = model.get_submodule(QUERY)
    zero = torch.rand(query.weight.shape, generator=torch.Generator().manual_seed(1)) < 0.8
    with torch.no_grad():
        query.weight.masked_fill_(zero, 0.0)
    apply(SimpleNamespace(model=model), None, Options())
    assert (query.weight[zero] == 0).all()
    assert (quantized_weights(model)[QUERY].values[zero.numpy()] == 0).all()


def test_the_model_in_memory_computes_what_integers_would():
    model = tiny.model("bert")
    apply(SimpleNamespace(model=model), None, Options())
    inputs, output = seen_by(model, QUERY, input_ids=torch.arange(5, 15).view(2, 5))
    expected = integers_of(inputs, model.get_submodule(QUERY))
    assert torch.allclose(output, expected, atol=1e-5)
    plain = torch.nn.functional.linear(inputs, model.get_submodule(QUERY).weight)
    assert not torch.allclose(output, plain, atol=1e-5)  # inputs really are rounded


def test_padding_changes_no_token_that_is_real():
    model = tiny.model("bert")
    apply(SimpleNamespace(model=model), None, Options())
    ids = torch.arange(5, 12).view(1, 7)
    padded = torch.nn.functional.pad(ids, (0, 4))
    with torch.no_grad():
        short = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        long = model(input_ids=padded, attention_mask=(padded > 0).long()).logits
    assert torch.allclose(short, long, atol=1e-5)


def test_exclude_keeps_modules_in_float():
    model = tiny.model("bert")
    facts = apply(SimpleNamespace(model=model), None, Options(exclude="layer.0., output.dense"))
    assert facts["linears_quantized"] == 4  # query, key, value, intermediate of layer 1
    assert QUERY in facts["linears_float"]
    assert QUERY not in quantized_weights(model)


def test_excluding_nothing_that_exists_is_refused():
    with pytest.raises(InputError, match="quary"):
        apply(SimpleNamespace(model=tiny.model("bert")), None, Options(exclude="quary"))


def test_excluding_everything_is_refused():
    with pytest.raises(InputError, match="leaves no linear layer"):
        apply(SimpleNamespace(model=tiny.model("bert")), None, Options(exclude="encoder"))


def test_a_quantized_model_is_refused():
    loaded = SimpleNamespace(model=tiny.model("bert"))
    apply(loaded, None, Options())
    with pytest.raises(InputError, match="int8 already"):
        apply(loaded, None, Options())


def test_conv1d_families_are_refused():
    model = tiny.model("gpt2", head="AutoModelForCausalLM", labels=None)
    with pytest.raises(InputError, match="Conv1D") as refusal:
        apply(SimpleNamespace(model=model), None, Options())
    assert "export" in refusal.value.hint


def test_portable_rows_cannot_overflow_sixteen_bits():
    weight = torch.randn(64, 33, generator=torch.Generator().manual_seed(0))
    weight[0, :2] = 3.0  # two equal neighbours at the top of the range: the worst case
    plain, plain_scale = quantize_rows(weight)
    values, scale = quantize_rows(weight, portable=True)

    def worst(rows):
        pairs = torch.nn.functional.pad(rows.int(), (0, 1)).unflatten(1, (-1, 2))
        return max((255 * signed.clamp(min=0).sum(-1)).max().item() for signed in (pairs, -pairs))

    assert worst(plain) > 32_767
    assert worst(values) <= 32_767
    assert (scale >= plain_scale).all()
    assert ((weight - values * scale).abs() <= scale / 2 + 1e-6).all()


def test_portable_changes_nothing_where_no_pair_is_large():
    weight = torch.zeros(3, 8)
    weight[:, 0] = torch.tensor([1.0, -2.0, 0.5])
    weight[:, 1] = -weight[:, 0]  # of opposite signs: their products never add up
    weight[:, 2] = 0.1
    plain, portable = quantize_rows(weight), quantize_rows(weight, portable=True)
    assert torch.equal(plain[0], portable[0])
    assert torch.equal(plain[1], portable[1])


def test_one_scale_for_the_whole_matrix():
    weight = torch.tensor([[0.5, -1.0], [0.25, 0.1]])
    values, scale = quantize_rows(weight, granularity="tensor")
    assert scale.flatten().tolist() == [pytest.approx(1 / 127.5)] * 2
    assert values.tolist() == [[64, -127], [32, 13]]
    model, other = tiny.model(), tiny.model()
    facts = [
        apply(SimpleNamespace(model=m), None, Options(granularity=g))
        for m, g in ((model, "channel"), (other, "tensor"))
    ]
    assert facts[0]["weight_error"] < facts[1]["weight_error"]
    assert all(
        len(set(linear.scale.flatten().tolist())) == 1
        for linear in quantized_weights(other).values()
    )
