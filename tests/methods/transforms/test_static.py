from types import SimpleNamespace

import pytest
import torch

import tiny
from compressor.errors import InputError, UsageError
from compressor.methods.input_ranges import (
    CALIBRATIONS,
    activation_grid,
    entropy_range,
    input_ranges,
    mse_range,
    percentile_range,
)
from compressor.methods.transforms.static import Options, apply
from compressor.model.layers import encoder_linears
from quantized_weights import quantized_weights

QUERY = "bert.encoder.layer.0.attention.self.query"
AFTER_GELU = "bert.encoder.layer.1.output.dense"


class OneLinear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, inputs, attention_mask=None):
        return self.layer(inputs)


def ranges_of(*batches, mask=None, calibration="minmax", **options):
    model, masks = OneLinear(), {} if mask is None else {"attention_mask": mask}
    rows = [{"inputs": inputs} | masks for inputs in batches]
    return input_ranges(model, {"layer": model.layer}, rows, calibration, **options)["layer"]


def lively(family="bert"):
    """A model whose linears matter: the default initialisation is close to no function at all."""
    model = tiny.model(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embeddings" not in name:
                parameter.mul_(8)
    return model


def batch_of(rows, pad_to=0):
    length = max(pad_to, *(len(row) for row in rows))
    ids = torch.tensor([row + [3] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


ROWS = [[7, 20, 33, 8], [9, 41, 5], [60, 12, 70, 71, 72, 6]]


def test_asymmetric_grid_by_hand():
    # In unsigned numbers: scale .0070588 and zero point 142 for [-1, .8]; 1/170 and 170.
    assert activation_grid(-1.0, 0.8, symmetric=False) == (pytest.approx(0.0070588, abs=1e-7), 14)
    assert activation_grid(-1.0, 0.5, symmetric=False) == (pytest.approx(1 / 170), 42)


def test_symmetric_grid_by_hand():
    assert activation_grid(-1.0, 0.8, symmetric=True) == (pytest.approx(1 / 127.5), 0)
    assert activation_grid(-0.2, 5.1, symmetric=True) == (pytest.approx(0.04), 0)


def test_grid_is_widened_to_hold_zero():
    assert activation_grid(2.0, 5.1, symmetric=False) == (pytest.approx(0.02), -128)
    assert activation_grid(-5.1, -2.0, symmetric=False) == (pytest.approx(0.02), 127)


@pytest.mark.parametrize("symmetric", [True, False])
def test_grid_of_inputs_that_are_all_zero(symmetric):
    scale, zero_point = activation_grid(0.0, 0.0, symmetric=symmetric)
    assert scale > 0
    assert -128 <= zero_point <= 127


def test_percentile_by_hand():
    counts = torch.full((10,), 10.0)
    assert percentile_range(counts, 0.0, 10.0, 80.0, symmetric=False) == (1.0, 9.0)
    assert percentile_range(counts, 0.0, 10.0, 80.0, symmetric=True) == (-8.0, 8.0)
    assert percentile_range(counts, -5.0, 5.0, 100.0, symmetric=False) == (-5.0, 5.0)


def test_percentile_drops_empty_space_before_an_outlier():
    counts = torch.zeros(100)
    counts[0], counts[99] = 999_999, 1
    assert percentile_range(counts, 0.0, 100.0, 99.99, symmetric=False) == (0.0, 1.0)
    assert percentile_range(counts, 0.0, 100.0, 100.0, symmetric=False) == (0.0, 100.0)


def test_one_outlier_sets_minmax_and_not_percentile():
    inputs = torch.rand(50, 500, 4, generator=torch.Generator().manual_seed(0))
    inputs[3, 4, 1] = 1000.0
    assert ranges_of(inputs) == (0.0, 1000.0)
    low, high = ranges_of(inputs, calibration="percentile", percentile=99.99)
    assert low == 0.0
    assert high <= 3 * 1000 / 2048
    low, high = ranges_of(-inputs, calibration="percentile", percentile=99.99, symmetric=True)
    assert -low == high <= 3 * 1000 / 2048


def test_percentile_without_outlier_stays_close_to_minmax():
    inputs = torch.randn(50, 500, 4, generator=torch.Generator().manual_seed(0))
    smallest, largest = ranges_of(inputs)
    low, high = ranges_of(inputs, calibration="percentile", percentile=99.99)
    assert smallest < low < -3
    assert 3 < high < largest


def test_percentile_of_constant_inputs():
    assert ranges_of(torch.zeros(2, 3, 4), calibration="percentile", percentile=99.999) == (
        0.0,
        0.0,
    )
    low, high = ranges_of(torch.full((2, 3, 4), 2.0), calibration="percentile", percentile=99.999)
    assert low <= 2.0 <= high == 2.0


def test_values_at_padding_never_enter_a_range():
    inputs = torch.ones(2, 3, 4)
    inputs[0, 2] = 1e6
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert ranges_of(inputs, mask=mask) == (0.0, 1.0)
    assert ranges_of(inputs) == (0.0, 1e6)
    assert ranges_of(inputs, mask=mask, calibration="percentile", percentile=99.999)[1] == 1.0


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "mse", "entropy"])
def test_padded_batches_give_the_ranges_of_single_rows(calibration):
    model = lively()
    modules, options = encoder_linears(model), {"calibration": calibration, "percentile": 99.999}
    alone = input_ranges(model, modules, [batch_of([row]) for row in ROWS], **options)
    padded = input_ranges(model, modules, [batch_of(ROWS, pad_to=12)], **options)
    for name, expected in alone.items():
        assert padded[name] == pytest.approx(expected, rel=1e-3, abs=1e-4), name
    blind = batch_of(ROWS, pad_to=12)
    blind["attention_mask"] = torch.ones_like(blind["input_ids"])
    wrong = input_ranges(model, modules, [blind], **options)
    assert any(wrong[name] != pytest.approx(alone[name], rel=1e-2) for name in alone)


def test_more_samples_than_rows_takes_all_rows():
    facts = apply(SimpleNamespace(model=tiny.model()), [batch_of(ROWS)], Options(samples=1000))
    assert facts["calibration_rows"] == 3


def test_facts_and_stored_grids():
    model = lively()
    facts = apply(SimpleNamespace(model=model), [batch_of(ROWS)], Options(samples=2))
    assert facts["linears_quantized"] == 12
    assert facts["linears_float"] == ["bert.pooler.dense", "classifier"]
    assert facts["calibration_rows"] == 2
    weights = quantized_weights(model)
    grids = {name: linear.activation for name, linear in weights.items()}
    assert grids[QUERY] == grids[QUERY.replace("query", "key")]  # one input feeds both
    scale, zero_point = grids[AFTER_GELU]
    low = scale * (-128 - zero_point)
    assert -0.18 < low < -0.1  # GELU's minimum is -0.17


def test_symmetric_grids_have_no_zero_point():
    model = lively()
    apply(SimpleNamespace(model=model), [batch_of(ROWS)], Options(symmetric=True))
    assert {linear.activation[1] for linear in quantized_weights(model).values()} == {0}
    assert not any("zero_point" in name for name in model.state_dict())


def test_the_model_in_memory_computes_what_integers_would():
    model = lively()
    apply(SimpleNamespace(model=model), [batch_of(ROWS)], Options())
    seen = []
    layer = model.get_submodule(AFTER_GELU)
    layer.register_forward_hook(lambda _, inputs, output: seen.extend((inputs[0], output)))
    with torch.no_grad():
        model(**batch_of(ROWS))
    values, scale, (input_scale, zero_point), _ = quantized_weights(model)[AFTER_GELU]
    q_inputs = (seen[0] / input_scale + zero_point).round().clamp(-128, 127).to(torch.int32)
    q_weight = torch.from_numpy(values).to(torch.int32)
    sums = q_inputs @ q_weight.T - zero_point * q_weight.sum(dim=1)
    expected = sums * input_scale * torch.from_numpy(scale).T + layer.bias
    assert torch.allclose(seen[1], expected, atol=1e-5)


def test_calibration_leaves_no_hook_behind():
    model = tiny.model()
    apply(SimpleNamespace(model=model), [batch_of(ROWS)], Options())
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("batches", [None, []])
def test_no_rows_is_refused(batches):
    with pytest.raises(InputError, match="sample rows"):
        apply(SimpleNamespace(model=tiny.model()), batches, Options())


def test_inputs_that_are_not_finite_are_refused():
    inputs = torch.ones(1, 2, 4)
    inputs[0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="layer are not finite"):
        ranges_of(inputs)


def test_a_layer_that_no_row_reaches_is_refused():
    model = OneLinear()
    model.idle = torch.nn.Linear(4, 2)
    modules = {"layer": model.layer, "idle": model.idle}
    with pytest.raises(InputError, match="never reach idle"):
        input_ranges(model, modules, [{"inputs": torch.ones(1, 2, 4)}], Options())


def test_encoder_decoders_are_refused():
    from transformers import T5Config

    model = SimpleNamespace(config=T5Config())
    with pytest.raises(InputError, match="t5"):
        apply(SimpleNamespace(model=model), [batch_of(ROWS)], Options())


def test_moving_ranges_by_hand():
    batches = [torch.tensor([[[low, high, 0.0, 0.0]]]) for low, high in ((-1, 2), (-3, 2), (0, 6))]
    low, high = ranges_of(*batches, calibration="moving")
    assert low == pytest.approx((-1.0 - 0.02) * 0.99)
    assert high == pytest.approx(2.0 + 0.04)


def test_mse_cuts_an_outlier_that_costs_more_than_it_is_worth():
    counts = torch.zeros(2048)
    counts[:64] = 10_000.0  # all but one value lie below 1 of 32
    counts[2047] = 1.0
    low, high = mse_range(counts, 0.0, 32.0, symmetric=False)
    assert low == 0.0
    # 1 leaves 640,000 x (1 / 255)^2 / 12 + 31^2; 32 leaves 640,000 x (32 / 255)^2 / 12.
    assert 8 <= high <= 20
    counts[2047] = 100_000.0
    assert mse_range(counts, 0.0, 32.0, symmetric=False)[1] > 30
    assert mse_range(counts, 0.0, 32.0, symmetric=True)[0] < -30


def test_mse_keeps_a_range_that_is_used_evenly():
    assert mse_range(torch.ones(2048), -1.0, 3.0, symmetric=False) == (-1.0, 3.0)


def test_entropy_cuts_a_long_empty_tail_and_keeps_an_even_one():
    even = torch.ones(2048)
    assert entropy_range(even, 4.0) == (-4.0, 4.0)
    tail = torch.distributions.Normal(0, 0.05).cdf(torch.linspace(0, 1, 2049))
    counts = (tail[1:] - tail[:-1]) * 2e6
    counts[2047] = 3.0
    low, high = entropy_range(counts, 1.0)
    assert low == -high
    assert 0.12 < high < 0.6


@pytest.mark.parametrize("calibration", CALIBRATIONS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_every_calibration_stays_within_what_was_seen(calibration, symmetric):
    model = lively()
    sample = [batch_of(ROWS)]
    modules = encoder_linears(model)
    seen = input_ranges(model, modules, sample, "minmax")
    found = input_ranges(model, modules, sample, calibration, percentile=99.0, symmetric=symmetric)
    for name, (low, high) in found.items():
        largest = max(-seen[name][0], seen[name][1])
        assert -1.001 * largest <= low <= 0 <= high <= 1.001 * largest
    apply(
        SimpleNamespace(model=model),
        sample,
        Options(calibration=calibration, symmetric=symmetric),
    )
    with torch.no_grad():
        assert model(**sample[0]).logits.isfinite().all()


def test_a_percentile_without_its_calibration():
    with pytest.raises(UsageError, match="--calibration percentile"):
        Options(percentile=99.0)
