import numpy as np
import pytest

from compressor.measure.speed import speedups


def row(starts, batch=1, length=8):
    return {"batch": batch, "length": length, "starts_ms": np.asarray(starts).tolist()}


def constant(value, **shape):
    return row(np.full((5, 3), value), **shape)


def test_calls_that_never_vary_leave_no_doubt():
    whole, by_shape = speedups([constant(2.0)], [constant(6.0)])
    assert whole == pytest.approx({"speedup": 3.0, "low": 3.0, "high": 3.0})
    assert by_shape == [
        pytest.approx({"batch": 1, "length": 8, "speedup": 3.0, "low": 3.0, "high": 3.0})
    ]


def test_the_interval_by_hand():
    # Ratios e^0, e^1 and e^2: mean 1, deviation 1, and t of two degrees of freedom is 4.3027.
    base = row([[1.0, 1.0, 9.0], [1.0, np.e, 9.0], [np.e**2] * 3])
    whole, _ = speedups([row(np.ones((3, 3)))], [base])
    half = 4.302653 / np.sqrt(3)
    expected = {"speedup": np.e, "low": np.exp(1 - half), "high": np.exp(1 + half)}
    assert whole == pytest.approx(expected, rel=1e-6)


def test_the_whole_is_the_geometric_mean_over_common_shapes():
    own = [constant(1.0), constant(1.0, length=16), constant(1.0, length=99)]
    base = [constant(2.0), constant(8.0, length=16), constant(5.0, length=32)]
    whole, by_shape = speedups(own, base)
    assert whole == pytest.approx({"speedup": 4.0, "low": 4.0, "high": 4.0})
    assert [entry["length"] for entry in by_shape] == [8, 16]


def test_shapes_of_one_start_share_its_luck():
    # One shape gains what the other loses: the whole is sure although neither shape is.
    own = [row(np.ones((4, 3))), row(np.ones((4, 3)), length=16)]
    luck = np.array([[1.0], [2.0], [1.0], [2.0]])
    base = [row(luck * np.ones(3)), row(2 / luck * np.ones(3), length=16)]
    whole, by_shape = speedups(own, base)
    assert whole["low"] == pytest.approx(whole["high"])
    assert by_shape[0]["low"] < 1 < by_shape[0]["high"]


def test_no_common_shape_no_speed():
    nothing = {"speedup": None, "low": None, "high": None}
    assert speedups([constant(1.0)], [constant(1.0, length=9)]) == (nothing, [])


def test_a_single_start_has_no_interval():
    whole, _ = speedups([row([[2.0, 2.0]])], [row([[4.0, 4.0]])])
    assert whole == pytest.approx({"speedup": 2.0, "low": None, "high": None})


def test_the_interval_holds_the_truth_19_times_of_20():
    # Each process has luck of 3 %, and every turn noise that both share and noise of its own.
    draw = np.random.default_rng(0)
    runs, inside = 400, 0
    for _ in range(runs):
        shared = draw.normal(0, 0.2, (5, 18))
        pair = [
            row(np.exp(shared + draw.normal(0, 0.03, (5, 1)) + draw.normal(0, 0.05, (5, 18))))
            for _ in range(2)
        ]
        whole, _ = speedups(*([each] for each in pair))
        inside += whole["low"] <= 1.0 <= whole["high"]
    assert 0.92 * runs <= inside <= 0.98 * runs  # three standard errors around 0.95
