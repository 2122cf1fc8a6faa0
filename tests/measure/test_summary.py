from __future__ import annotations

import math

from compressor.measure.report import build_report
from compressor.measure.summary import best_candidate

PAIRED = {"difference": 0.01, "low": 0.001, "high": 0.019, "agreement": 0.97, "mcnemar": 0.04}


def test_a_model_that_says_one_thing_is_never_the_best(machine, make):
    sound, constant = make.measured("b", 50, 5.0, 0.89), make.measured("c", 10, 1.0, 0.895)
    constant["accuracy"]["predicted"] = [0, 872]
    models = [make.measured("a", 90, 9.0, 0.9), sound, constant]
    report = build_report(machine, {"name": "text-classification"}, "a", models, "", 0)
    assert best_candidate(report)["name"] == "b"
    assert report["summary"].startswith("b is 1.80x smaller")
    assert "c is" not in report["summary"]


def test_the_summary_names_the_best_and_the_most_compressed(report):
    assert best_candidate(report)["name"] == "student"
    assert report["summary"] == (
        "student is 2.00x smaller on disk and 2.00x faster than teacher, and loses 1.0 points of "
        "accuracy (92.0 to 91.0), which may be chance. The most compressed, student-int8, is 10.0x "
        "smaller on disk and 4.00x faster, and loses 4.0 points of accuracy (92.0 to 88.0)."
    )


def test_of_two_that_are_as_small_the_summary_names_the_faster(machine, make):
    slow = make.measured("int8", 23, 18.0, 0.9)
    fast = make.measured("graph", 24, 3.0, 0.9)
    models = [make.measured("a", 90, 9.0, 0.9), slow, fast]
    summary = build_report(machine, None, "a", models, "", 0)["summary"]
    assert summary.startswith("graph is 3.75x smaller on disk and 3.00x faster than a")
    assert "int8" not in summary


def test_the_summary_speaks_of_what_was_measured(machine, make):
    def summary(*models, task=None):
        return build_report(machine, task, "a", list(models), "", 0)["summary"]

    base = make.measured("a", 90, 9.0)
    assert summary(base).startswith("a was measured alone")
    assert summary(base, make.measured("b", 45, 18.0)) == (
        "b is 2.00x smaller on disk and 2.00x slower than a; accuracy was not measured."
    )
    scored = make.measured("a", 90, 9.0, 0.9)
    dead = make.measured("dead", 9, 1.0, math.nan)
    assert summary(scored, dead) == "No candidate has an accuracy that can be compared with a."
    dead_too = make.measured("a", 90, 9.0, math.nan)
    sound = make.measured("s", 50, 5.0, 0.9)
    assert summary(dead_too, sound, dead) == (
        "s is 1.80x smaller on disk and 1.80x faster than a; a has no accuracy to compare with."
    )
    assert summary(dead_too, dead) == "No candidate has an accuracy that can be compared with a."
    same = make.measured("b", 30, 3.0, 0.9)
    assert summary(scored, same).endswith("and keeps its accuracy (90.0 to 90.0).")
    better = make.measured("b", 30, 3.0, 0.91)
    assert summary(scored, better).endswith(
        "gains 1.0 points of accuracy (90.0 to 91.0), which may be chance."
    )
    sure = {**better, "paired": PAIRED}
    assert summary(scored, sure).endswith("and gains 1.0 points of accuracy (90.0 to 91.0).")


def started(model, *factors):
    """The model timed by several starts, each by so many times its median."""
    rows = [
        row | {"starts_ms": [[row["p50_ms"] * factor] for factor in factors]}
        for row in model["latency"]
    ]
    return model | {"latency": rows}


def test_models_of_one_shape_are_called_as_large_and_as_fast(machine, make):
    def summary(*models):
        return build_report(machine, None, "a", list(models), "", 0)["summary"]

    base = started(make.measured("a", 90, 9.0, 0.9), 0.98, 1.0, 1.03)
    twin = started(make.measured("b", 90, 9.05, 0.91), 0.97, 1.01, 1.02)
    assert summary(base, twin).startswith("b is as large on disk and as fast as a, and gains 1.0")
    smaller = started(make.measured("c", 60, 9.05, 0.9), 0.97, 1.01, 1.02)
    assert summary(base, smaller).startswith("c is 1.50x smaller on disk than a and as fast, and")
    faster = started(make.measured("d", 90, 4.5, 0.9), 0.98, 1.0, 1.03)
    assert summary(base, faster).startswith("d is 2.00x faster than a and as large on disk, and")
    # An interval that holds 1 is no proof of equal speed where the mean lies far from it.
    unsteady = started(make.measured("e", 90, 6.0, 0.9), 0.3, 1.0, 2.0)
    assert "x faster than a and as large on disk" in summary(base, unsteady)


def test_of_several_as_fast_the_summary_names_the_most_accurate(machine, make):
    base = started(make.measured("a", 90, 9.0, 0.9), 0.98, 1.0, 1.03)
    twins = [
        started(make.measured("b", 90, 9.0, 0.895), 0.96, 1.0, 1.0),
        started(make.measured("c", 90, 9.0, 0.905), 0.98, 1.0, 1.03),
    ]
    report = build_report(machine, None, "a", [base, *twins], "", 0)
    assert best_candidate(report)["name"] == "c"
