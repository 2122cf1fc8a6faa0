from __future__ import annotations

import gc
import time
from itertools import pairwise

import pytest

from compressor.errors import UsageError
from compressor.measure import latency
from compressor.measure.latency import measure_in_turns, timed


@pytest.fixture(autouse=True)
def _short_pause(monkeypatch):
    monkeypatch.setattr(latency, "PAUSE_SECONDS", 0.0)


def sleeper(seconds):
    return lambda batch, length: timed(lambda: time.sleep(seconds * batch))


def test_rows_hold_the_shape_the_median_and_the_rate():
    found = measure_in_turns(
        {"slow": sleeper(0.004), "fast": sleeper(0.001)}, [(1, 8), (2, 8)], warmup=1, rounds=4
    )
    assert [(row["batch"], row["length"]) for row in found["slow"]] == [(1, 8), (2, 8)]
    for rows in found.values():
        for row in rows:
            assert row["p50_ms"] <= row["p95_ms"]
            assert row["per_second"] == pytest.approx(row["batch"] * 1000 / row["p50_ms"])
    assert found["slow"][0]["p50_ms"] > 2 * found["fast"][0]["p50_ms"]
    assert found["slow"][0]["p50_ms"] >= 4


def test_candidates_take_turns_and_the_first_place_moves_on():
    order = []

    def candidate(name):
        return lambda batch, length: timed(lambda: order.append(name))

    found = measure_in_turns({n: candidate(n) for n in "abc"}, [(1, 1)], warmup=0, rounds=6)
    # One untimed and three timed calls in each turn.
    turns = [order[start : start + 4] for start in range(0, len(order), 4)]
    assert all(len(set(turn)) == 1 for turn in turns)
    names = "".join(turn[0] for turn in turns)
    assert names == "abcbcacab" * 2
    assert {len(row["starts_ms"][0]) for rows in found.values() for row in rows} == {18}


def test_inputs_are_prepared_once_a_shape_and_outside_the_timing():
    prepared = []

    def candidate(batch, length):
        prepared.append((batch, length))
        time.sleep(0.05)
        return timed(lambda: None)

    found = measure_in_turns({"a": candidate}, [(1, 8), (4, 8)], warmup=1, rounds=3)
    assert prepared == [(1, 8), (4, 8)]
    assert found["a"][0]["p95_ms"] < 10


def test_no_garbage_is_collected_while_timing_and_the_setting_returns():
    seen = []
    candidate = {"a": lambda batch, length: timed(lambda: seen.append(gc.isenabled()))}
    assert gc.isenabled()
    measure_in_turns(candidate, [(1, 1)], warmup=2, rounds=3)
    assert not any(seen)
    assert gc.isenabled()

    def fails(batch, length):
        def call():
            raise RuntimeError("boom")

        return timed(call)

    with pytest.raises(RuntimeError, match="boom"):
        measure_in_turns({"a": fails}, [(1, 1)])
    assert gc.isenabled()


def test_the_budget_cuts_slow_models_short():
    started = time.perf_counter()
    found = measure_in_turns({"a": sleeper(0.02)}, [(1, 1)], warmup=50, rounds=1000, seconds=0.3)
    assert time.perf_counter() - started < 2.0
    assert latency.FEWEST_ROUNDS * 3 <= len(found["a"][0]["starts_ms"][0]) < 100


def test_a_median_is_never_made_of_fewer_than_eight_turns():
    found = measure_in_turns({"a": sleeper(0.01)}, [(1, 1)], warmup=2, rounds=30, seconds=0.001)
    assert len(found["a"][0]["starts_ms"][0]) == 24


def warm_up_calls(fewest, spent, seconds=1e9):
    """How many calls the warm-up makes if they take the times of `spent`."""
    times = iter(spent)
    made = []

    def timer(count):
        made.extend(next(times) for _ in range(count))
        return made[-count:]

    latency._warm_up(timer, fewest, seconds)
    return len(made)


def test_warm_up_goes_on_while_calls_get_faster():
    falling = [0.8**turn for turn in range(12)] + [0.8**12] * 100
    # Steady once five calls are no faster than the five before: three of each are at the floor.
    assert warm_up_calls(4, falling) == 20
    assert warm_up_calls(4, [0.8**turn for turn in range(100)]) == 20
    assert warm_up_calls(10, falling) == 20


def test_steady_calls_stop_at_the_least_warm_up():
    assert warm_up_calls(12, [1.0] * 100) == 12
    assert warm_up_calls(2, [1.0] * 100) == 10


def test_the_budget_ends_the_warm_up():
    assert warm_up_calls(10, [1.0] * 100, seconds=3.5) == 4
    assert warm_up_calls(10, [9.0] * 100, seconds=1.0) == 2


def test_a_clock_without_ticks_gives_finite_rates(monkeypatch):
    monkeypatch.setattr(latency.time, "perf_counter_ns", lambda: 5)
    found = measure_in_turns({"a": lambda b, n: timed(lambda: None)}, [(1, 1)], warmup=1, rounds=3)
    assert 0 < found["a"][0]["per_second"] < float("inf")


def test_the_pause_lets_the_thread_pool_before_fall_asleep(monkeypatch):
    monkeypatch.setattr(latency, "PAUSE_SECONDS", 0.01)
    starts = []

    def candidate(name):
        return lambda batch, length: timed(lambda: starts.append((name, time.perf_counter())))

    measure_in_turns({n: candidate(n) for n in "ab"}, [(1, 1)], warmup=0, rounds=3)
    gaps = [b[1] - a[1] for a, b in pairwise(starts) if a[0] != b[0]]
    assert gaps
    assert min(gaps) >= 0.01


@pytest.mark.parametrize(
    ("shapes", "options"),
    [
        ([(0, 8)], {}),
        ([(1, 0)], {}),
        ([(1, 8)], {"rounds": 0}),
        ([(1, 8)], {"warmup": -1}),
        ([(1, 8)], {"seconds": 0}),
    ],
)
def test_impossible_settings_are_refused(shapes, options):
    with pytest.raises(UsageError):
        measure_in_turns({"a": sleeper(0)}, shapes, **options)


def test_no_candidates_give_no_rows():
    assert measure_in_turns({}, [(1, 8)]) == {}
