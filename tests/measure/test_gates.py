from __future__ import annotations

import math

import pytest

from compressor.errors import InputError, UsageError
from compressor.measure.gates import Gates, check, describe, lost_between
from compressor.measure.report import build_report


def built(machine, models):
    return build_report(machine, {"name": "text-classification"}, models[0]["name"], models, "", 0)


def test_no_gates_judge_nothing(report):
    assert check(report, Gates()) == []


def test_every_candidate_but_the_baseline_is_judged(report):
    judged = check(report, Gates(max_drop=1.5))
    assert [(each["model"], each["passed"]) for each in judged] == [
        ("student", True),
        ("student-int8", False),
        ("worse", False),
    ]
    assert judged[1] == {
        "gate": "max-drop",
        "model": "student-int8",
        "limit": 1.5,
        "value": pytest.approx(4.0),
        "passed": False,
    }


@pytest.mark.parametrize(
    ("name", "value", "passing", "failing"),
    [
        ("max_drop", 4.0, 4.01, 3.99),
        ("min_retention", 0.88 / 0.92, 0.956, 0.957),
        ("min_speedup", 4.0, 3.99, 4.01),
        ("min_compression", 10.0, 9.99, 10.01),
        ("max_latency_ms", 3.0, 3.01, 2.99),
    ],
)
def test_each_gate_passes_and_refuses(report, name, value, passing, failing):
    (kept,) = check(report, Gates(**{name: passing}), ["student-int8"])
    assert kept["passed"]
    assert kept["value"] == pytest.approx(value)
    (refused,) = check(report, Gates(**{name: failing}), ["student-int8"])
    assert not refused["passed"]


def test_several_gates_are_judged_for_one_model(report):
    judged = check(report, Gates(max_drop=5, min_compression=20), ["student-int8"])
    assert [(each["gate"], each["passed"]) for each in judged] == [
        ("max-drop", True),
        ("min-compression", False),
    ]


def test_compression_is_of_the_disk(machine, make):
    models = [make.measured("a", 100, 9.0, 0.9), make.measured("b", 50, 5.0, 0.9)]
    models[1]["size"]["nonzero"] = 1
    (judged,) = check(built(machine, models), Gates(min_compression=3))
    assert judged["value"] == 2.0
    assert not judged["passed"]


def test_a_dead_model_fails_the_gates_on_accuracy(machine, make):
    models = [make.measured("a", 90, 9.0, 0.9), make.measured("dead", 50, 5.0, math.nan)]
    judged = check(built(machine, models), Gates(max_drop=50, min_retention=0.1))
    assert [(each["value"], each["passed"]) for each in judged] == [(None, False)] * 2
    assert "no finite result" in describe(judged[0])


def test_what_cannot_be_judged_says_what_to_add(machine, make):
    report = built(machine, [make.measured("a", 90, 9.0), make.measured("b", 50, 5.0)])
    with pytest.raises(InputError, match="--max-drop cannot be judged: no accuracy") as caught:
        check(report, Gates(max_drop=1))
    assert "--data" in caught.value.hint
    for model in report["models"]:
        model["latency"], model["speedup"], model["compression_ratio"]["disk"] = [], None, None
    with pytest.raises(InputError, match="--min-speedup cannot be judged: b and the baseline"):
        check(report, Gates(min_speedup=1))
    with pytest.raises(InputError, match="--max-latency-ms cannot be judged: b was not timed"):
        check(report, Gates(max_latency_ms=1))
    with pytest.raises(InputError, match="--min-compression cannot be judged: the size"):
        check(report, Gates(min_compression=1))


def test_a_baseline_without_a_metric_cannot_be_judged_against(machine, make):
    models = [make.measured("a", 90, 9.0, math.nan), make.measured("b", 50, 5.0, 0.9)]
    with pytest.raises(InputError, match="accuracy of the baseline a is undefined"):
        check(built(machine, models), Gates(max_drop=1))
    models[0]["accuracy"] = make.accuracy(0.0)
    with pytest.raises(InputError, match="--min-retention cannot be judged: the baseline's"):
        check(built(machine, models), Gates(min_retention=1))


def test_perplexities_over_other_tokens_cannot_be_judged(machine, make):
    models = [make.measured("a", 90, 9.0), make.measured("b", 50, 5.0)]
    for model, tokens in zip(models, (1000, 4000), strict=True):
        model["accuracy"] = make.accuracy(10.0, "perplexity", tokens=tokens)
    for limits in ({"max_drop": 50}, {"min_retention": 0.1}):
        with pytest.raises(InputError, match="perplexity of b is over other tokens than that of a"):
            check(built(machine, models), Gates(**limits))


def test_a_baseline_alone_is_nothing_to_judge(machine, make):
    report = built(machine, [make.measured("a", 90, 9.0)])
    with pytest.raises(InputError, match="--min-speedup has nothing to judge"):
        check(report, Gates(min_speedup=2))
    with pytest.raises(InputError, match="'zzz' is not among those measured"):
        check(report, Gates(min_speedup=2), ["zzz"])


def test_judgements_read_as_sentences(report):
    (judged,) = check(report, Gates(max_drop=3), ["student-int8"])
    assert describe(judged) == "student-int8 fails --max-drop 3: measured 4.00"


@pytest.mark.parametrize(("base", "own", "limit"), [(0.92, 0.9, 2), (0.58, 0.57, 1)])
def test_exactly_the_limit_is_kept(machine, make, base, own, limit):
    models = [make.measured("a", 90, 9.0, base), make.measured("b", 50, 5.0, own)]
    report = built(machine, models)
    assert report["models"][1]["drop"] > limit  # by the last bits
    (judged,) = check(report, Gates(max_drop=limit))
    assert judged["passed"]
    (refused,) = check(report, Gates(max_drop=limit - 0.001))
    assert not refused["passed"]
    assert describe(refused) == f"b fails --max-drop {limit - 0.001:g}: measured {limit}.00"


@pytest.mark.parametrize(
    ("gate", "value", "limit", "shown"),
    [
        ("max-drop", 2.0004, 2, "2.0004"),
        ("max-drop", 2.004, 2.003, "2.004"),
        ("min-speedup", 1.996, 2, "1.996"),
        ("min-compression", 2.5, 3, "2.50"),
        ("max-latency-ms", 412.3, 412, "412.3"),
    ],
)
def test_a_refusal_shows_the_digits_that_it_is_about(gate, value, limit, shown):
    judged = {"model": "b", "gate": gate, "value": value, "limit": limit, "passed": False}
    assert describe(judged).endswith(f": measured {shown}")


@pytest.mark.parametrize(
    "limits", [{"max_drop": math.nan}, {"min_speedup": 0.0}, {"max_latency_ms": -1.0}]
)
def test_impossible_limits_are_refused(limits):
    with pytest.raises(UsageError, match="expected a number"):
        Gates(**limits)


def test_a_negative_drop_asks_for_a_gain():
    assert Gates(max_drop=-1.0).active() == {"max_drop": -1.0}


def test_what_is_lost_has_the_unit_of_the_metric_and_no_limit_allows_nothing():
    assert lost_between("accuracy", 0.85, 0.9) == pytest.approx(5.0)
    assert lost_between("perplexity", 10.1, 10.0) == pytest.approx(1.0)
    assert lost_between("accuracy", math.nan, 0.9) == math.inf
    assert lost_between("perplexity", 10.0, 0.0) == math.inf
