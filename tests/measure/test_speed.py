import numpy as np
import pytest

from compressor.measure.speed import speedups


def row(turns, batch=1, length=8):
    return {
        "batch": batch,
        "length": length,
        "p50_ms": float(np.median(turns)),
        "turns_ms": np.asarray(turns).tolist(),
    }


def constant(value, **shape):
    return row(np.full((10, 3), value), **shape)


def test_calls_that_never_vary_leave_no_doubt():
    whole, by_shape = speedups([constant(2.0)], [constant(6.0)], seed=0)
    assert whole == pytest.approx({"speedup": 3.0, "low": 3.0, "high": 3.0})
    assert by_shape == [
        pytest.approx({"batch": 1, "length": 8, "speedup": 3.0, "low": 3.0, "high": 3.0})
    ]


def test_the_whole_is_the_geometric_mean_over_common_shapes():
    own = [constant(1.0), constant(1.0, length=16), constant(1.0, length=99)]
    base = [constant(2.0), constant(8.0, length=16), constant(5.0, length=32)]
    whole, by_shape = speedups(own, base, seed=0)
    assert whole == pytest.approx({"speedup": 4.0, "low": 4.0, "high": 4.0})
    assert [entry["length"] for entry in by_shape] == [8, 16]


def test_no_common_shape_no_speed():
    nothing = {"speedup": None, "low": None, "high": None}
    assert speedups([constant(1.0)], [constant(1.0, length=9)], seed=0) == (nothing, [])


def test_rows_without_turns_have_no_interval():
    bare = {"batch": 1, "length": 8, "p50_ms": 2.0}
    whole, _ = speedups([bare], [constant(4.0)], seed=0)
    assert whole == {"speedup": 2.0, "low": None, "high": None}


def noisy(draw, turns=30):
    """A machine that both share, slow for a few turns at a time, and each one's own noise."""
    shared = np.zeros(turns)
    for turn in range(1, turns):
        shared[turn] = 0.8 * shared[turn - 1] + draw.normal(0, 0.05)
    own = [np.exp(shared[:, None] + draw.normal(0, 0.03, (turns, 3))) for _ in range(2)]
    return [row(each) for each in own]


def test_the_interval_holds_the_truth_19_times_of_20():
    draw = np.random.default_rng(0)
    runs, inside, widths = 200, 0, []
    for run in range(runs):
        base, own = noisy(draw)
        whole, _ = speedups([own], [base], seed=run)
        inside += whole["low"] <= 1.0 <= whole["high"]
        widths.append(whole["high"] - whole["low"])
    assert inside >= 0.92 * runs  # three standard errors below 0.95 are 0.90
    assert np.median(widths) < 0.06


def test_the_same_turns_and_seed_give_the_same_interval():
    base, own = noisy(np.random.default_rng(1))
    assert speedups([own], [base], seed=3) == speedups([own], [base], seed=3)
