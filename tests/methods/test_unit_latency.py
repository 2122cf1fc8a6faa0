"""What units cost in time: bent lines, copies that share weights, and a budget of milliseconds."""

import pytest
import torch

import tiny
from compressor.errors import InputError, UsageError
from compressor.methods import unit_budget
from compressor.methods.unit_budget import Shape, found_counts, timed_costs
from compressor.methods.unit_latency import UnitLatency, fit, share_weights, times_of, with_fewer
from compressor.model.pruned import widths_of
from compressor.model.save import probe_inputs


@pytest.mark.parametrize(
    ("times", "bend", "slope"),
    [
        ([5, 5, 5, 7, 9, 11], 3, 2),  # flat up to 3, then 2 for each
        ([5, 5, 8, 11, 14, 17], 2, 3),
        ([1, 2, 3, 4, 5, 6], 1, 1),
        ([4, 4, 4, 4, 4, 4], 1, 0),
        ([6, 5, 4, 3, 2, 1], 1, 0),  # more units never make it faster
    ],
)
def test_bent_lines(times, bend, slope):
    found = fit([1, 2, 3, 4, 5, 6], times)
    assert found[1] == pytest.approx(slope, abs=1e-9)
    if slope:
        assert found[0] == bend


def test_noise_moves_a_bent_line_little():
    draw = torch.Generator().manual_seed(0)
    noise = (0.1 * torch.randn(40, generator=draw)).tolist()
    times = [10 + 0.5 * max(0, x - 12) + noise[x] for x in range(40)]
    bend, slope = fit(range(40), times)
    assert abs(bend - 12) <= 2
    assert slope == pytest.approx(0.5, abs=0.02)


def test_nothing_comes_free_where_nothing_is_flat():
    assert fit([192, 384, 768], [1.92, 3.84, 7.68]) == (1, pytest.approx(0.01))
    assert fit([1, 2], [3.0, 5.0]) == (1, pytest.approx(2.0))


@pytest.mark.parametrize("family", ["bert", "mpnet", "llama"])
def test_copies_with_fewer_units_leave_the_model_alone(family):
    model = tiny.model(family)
    before, inputs = widths_of(model), probe_inputs(model)
    with torch.no_grad():
        wanted = model(**inputs).logits
    groups = [count // before.group for count in before.heads]
    small = with_fewer(model, [1] * len(groups), [3] * len(groups))
    assert set(widths_of(small).ffn) == {3}
    assert widths_of(model) == before
    embeddings = [m.get_input_embeddings().weight for m in (model, small)]
    assert embeddings[0] is embeddings[1]
    with torch.no_grad():
        assert not torch.equal(small(**inputs).logits, wanted)
        assert torch.equal(model(**inputs).logits, wanted)
    assert share_weights(model).config is not model.config


def test_calls_are_timed_in_turns():
    model = tiny.model()
    deep = tiny.model(num_hidden_layers=12)
    times = times_of({"small": model, "deep": deep}, 2, 8)
    assert 0 < times["small"] < times["deep"]


def test_a_budget_of_milliseconds(monkeypatch):
    model = tiny.model(num_hidden_layers=3)
    widths = widths_of(model)
    heads, ffn = widths.heads[0], widths.ffn[0]
    found = UnitLatency(full=100.0, head=6.0, neuron=0.5, free=(2, 4))
    monkeypatch.setattr(unit_budget, "measured", lambda *_: found)
    costs = timed_costs(model, 1, 8)
    assert costs.total(widths) == pytest.approx(100)
    scores = [torch.rand(heads) for _ in range(3)], [torch.rand(ffn) for _ in range(3)]
    counts = found_counts(model, *scores, costs, Shape(0.8))
    left = costs.fixed + counts[0] * 6 + counts[1] * 0.5
    assert 79 < left <= 80
    assert counts[0] >= 6
    assert counts[1] >= 12
    smallest = costs.fixed + 6 * 6 + 12 * 0.5
    with pytest.raises(
        UsageError, match="the smallest result that this model allows has"
    ) as caught:
        found_counts(model, *scores, costs, Shape(smallest / 100 - 0.01))
    assert caught.value.where == "--latency-ratio"
    assert "ms" in caught.value.message
    hint = float(caught.value.hint.split()[1])
    assert found_counts(model, *scores, costs, Shape(hint)) == (6, 12)


def test_a_model_that_gets_no_faster_is_refused(monkeypatch):
    monkeypatch.setattr(unit_budget, "measured", lambda *_: UnitLatency(9.0, 0.0, 0.0, (1, 1)))
    with pytest.raises(InputError, match="gets no faster"):
        timed_costs(tiny.model(), 1, 8)
