from __future__ import annotations

import json
import math

import numpy as np
import pytest

from compressor.errors import InputError
from compressor.measure.report import (
    build_report,
    model_named,
    pareto_front,
    validate_report,
)
from compressor.measure.tables import report_rows


def built(machine, models, task=None):
    return build_report(machine, task, models[0]["name"], models, "compressor benchmark", 0)


def test_ratios_against_the_baseline_by_hand(report):
    student = model_named(report["models"], "student-int8")
    assert student["compression_ratio"]["disk"] == 10
    assert student["compression_ratio"]["weights"] == pytest.approx(89_999_000 / 8_999_000)
    assert student["compression_ratio"]["encoder_nonzero"] == 10
    assert student["speedup"] == pytest.approx(4.0)
    assert student["retention"] == pytest.approx(0.88 / 0.92)
    assert student["drop"] == pytest.approx(4.0)
    assert student["compression_to_accuracy"] == pytest.approx(10 * 0.88 / 0.92)
    assert report["drop_unit"] == "points"


def test_what_zeros_save_is_counted_from_the_dense_matrices(machine, make):
    dense, sparse = (make.measured(name, 90, 9.0, 0.9) for name in ("dense", "sparse"))
    numel, living = 1_000_000, 100_000
    dense["size"] |= {
        "matrices": 4 * numel,
        "matrices_nonzero": 4 * numel,
        "matrices_bitmask": 4 * numel + numel // 8,
        "matrices_index": 6 * numel,
    }
    sparse["size"] |= {
        "matrices": numel,
        "matrices_nonzero": living,
        "matrices_bitmask": living + numel // 8,
        "matrices_index": 3 * living,
    }
    report = build_report(machine, None, "dense", [dense, sparse], "", 0)
    ratios = model_named(report["models"], "sparse")["compression_ratio"]
    assert ratios["matrices"] == 4
    assert ratios["matrices_nonzero"] == 40
    assert ratios["matrices_bitmask"] == pytest.approx(17.8, abs=0.03)
    assert ratios["matrices_index"] == pytest.approx(13.3, abs=0.04)


def test_the_baseline_is_one_of_everything(report):
    teacher = model_named(report["models"], "teacher")
    ratios = dict(teacher["compression_ratio"])
    # Positions would cost a dense model something.
    assert ratios.pop("matrices_bitmask") == 0.5
    assert ratios.pop("matrices_index") == pytest.approx(1 / 3)
    assert set(ratios.values()) == {1.0}
    assert (teacher["speedup"], teacher["retention"], teacher["drop"]) == (1.0, 1.0, 0.0)
    assert teacher["compression_to_accuracy"] == 1.0


def test_speedup_is_the_geometric_mean_over_shared_shapes(machine, make):
    models = [make.measured("a", 10, 12.0), make.measured("b", 10, 12.0)]
    models[1]["latency"][0]["starts_ms"] = [[3.0]]  # 4 times faster
    models[1]["latency"][1]["starts_ms"] = [[36.0]]  # as fast
    del models[1]["latency"][2]
    found = built(machine, models)["models"][1]
    assert found["speedup"] == pytest.approx(2.0)
    assert found["speedup_by_shape"] == [
        {"batch": 1, "length": 32, "speedup": 4.0, "low": None, "high": None},
        {"batch": 1, "length": 128, "speedup": 1.0, "low": None, "high": None},
    ]


def test_perplexity_counts_a_relative_loss_and_turns_retention_over(machine, make):
    models = [make.measured("a", 40, 2.0), make.measured("b", 10, 1.0)]
    for model, value in zip(models, (10.0, 12.5), strict=True):
        model["accuracy"] = make.accuracy(value, "perplexity")
    found = built(machine, models, {"name": "causal-lm"})
    assert found["drop_unit"] == "per cent more perplexity"
    assert found["models"][1]["drop"] == pytest.approx(25.0)
    assert found["models"][1]["retention"] == pytest.approx(0.8)
    assert found["models"][1]["compression_to_accuracy"] == pytest.approx(3.2)


def test_perplexities_over_other_tokens_have_no_drop_and_no_place_on_the_front(machine, make):
    models = [make.measured(name, 40, 2.0) for name in "abc"]
    for model, tokens in zip(models, (1000, 4000, None), strict=True):
        model["accuracy"] = make.accuracy(10.0, "perplexity", tokens=tokens)
    for model in built(machine, models, {"name": "causal-lm"})["models"][1:]:
        assert (model["drop"], model["retention"]) == (None, None)
        assert model["compression_to_accuracy"] is None
        assert not model["pareto"]


def test_pareto_set_over_accuracy_latency_and_disk(report):
    assert report["pareto_axes"] == ["accuracy", "latency", "disk"]
    marks = {model["name"]: model["pareto"] for model in report["models"]}
    assert marks == {"teacher": True, "student": True, "student-int8": True, "worse": False}


def test_pareto_set_without_accuracy_is_latency_and_disk(machine, make):
    models = [
        make.measured("a", 90, 9.0),
        make.measured("b", 50, 10.0),
        make.measured("c", 60, 11.0),
    ]
    found = built(machine, models)
    assert found["pareto_axes"] == ["latency", "disk"]
    assert [model["pareto"] for model in found["models"]] == [True, True, False]
    assert found["models"][1]["retention"] is None
    assert found["drop_unit"] is None


def test_a_dead_model_is_never_in_the_pareto_set(machine, make):
    models = [make.measured("a", 90, 9.0, 0.9), make.measured("dead", 1, 0.1, math.nan)]
    found = built(machine, models, {"name": "text-classification"})
    assert [model["pareto"] for model in found["models"]] == [True, False]
    dead = found["models"][1]
    assert dead["accuracy"]["value"] is None
    assert (dead["drop"], dead["retention"], dead["compression_to_accuracy"]) == (None, None, None)


def test_equal_points_share_the_front_and_missing_ones_are_off_it():
    assert pareto_front([(1, 2), (1, 2), (1, 3), None, (0, 9)]) == [True, True, False, False, True]


def test_latency_and_size_may_be_missing(machine, make):
    models = [make.measured("a", 90, 9.0, 0.9), make.measured("b", 50, 5.0, 0.9)]
    for model in models:
        model["latency"], model["size"] = [], None
    found = built(machine, models, {"name": "text-classification"})
    assert found["models"][1]["speedup"] is None
    assert found["models"][1]["compression_ratio"]["disk"] is None
    assert found["pareto_axes"] == ["accuracy"]
    columns, rows = report_rows(found)
    assert "faster" not in columns
    assert all(len(row) == len(columns) for row in rows)


def test_the_report_is_json_whatever_the_numbers_were(machine, models):
    models[1]["accuracy"]["value"] = np.float32(0.5)
    models[1]["accuracy"]["high"] = math.inf
    models[1]["size"]["disk"] = np.int64(45_000_000)
    found = built(machine, models, {"name": "text-classification"})
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert again["models"][1]["accuracy"]["high"] is None
    validate_report(again)


def test_what_was_measured_is_not_changed(machine, models):
    before = json.dumps(models)
    built(machine, models)
    assert json.dumps(models) == before


def test_further_facts_of_a_model_are_kept(report):
    assert model_named(report["models"], "student")["steps"][1]["method"] == "soft_labels"
    assert model_named(report["models"], "teacher")["tokenise_ms"] == 0.2


def test_names_must_be_there_and_differ(machine, models):
    with pytest.raises(InputError, match="'nobody' is not among those measured: teacher, student"):
        build_report(machine, None, "nobody", models, "", 0)
    models[1]["name"] = "teacher"
    with pytest.raises(InputError, match="two models share the name 'teacher'"):
        build_report(machine, None, "teacher", models, "", 0)


def test_different_metrics_are_not_compared(machine, models, make):
    models[1]["accuracy"] = make.accuracy(0.8, "matthews")
    with pytest.raises(InputError, match="different metrics: matthews, accuracy"):
        built(machine, models)
