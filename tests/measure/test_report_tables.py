"""A report as text."""

from __future__ import annotations

from compressor.measure.report import build_report
from compressor.measure.tables import legend, paired_cells, paired_note, report_rows

PAIRED = {
    "difference": -0.012,
    "low": -0.02,
    "high": -0.004,
    "agreement": 0.971,
    "mcnemar": 0.0002,
}


def built(machine, models):
    return build_report(machine, None, models[0]["name"], models, "compressor benchmark", 0)


def test_the_table_shows_what_the_report_holds(report):
    columns, rows = report_rows(report)
    row = dict(zip(columns, rows[2], strict=True))
    assert row["model"] == "student-int8"
    assert row["accuracy %"] == "88.0"
    assert row["drop"] == "4.0"
    assert row["disk"] == "9.0 MB"
    assert row["smaller"] == "10.0x"
    assert row["ms 1x32"] == "3.00"
    assert row["faster"] == "4.00x"
    assert row["score/byte"] == "9.57x"
    assert [row[-1] for row in rows] == ["*", "*", "*", ""]
    assert rows[0][0] == "teacher (base)"


def test_the_table_without_accuracy_has_no_columns_for_it(machine, make):
    columns, rows = report_rows(built(machine, [make.measured("a", 9, 1.0)]))
    assert columns == ["model", "runtime", "disk", "smaller", "ms 1x32", "faster", "95 %", "Pareto"]
    assert all(len(row) == len(columns) for row in rows)


def test_the_legend_says_what_the_columns_are(report, machine, make):
    assert legend(report) == (
        "smaller: bytes of the baseline / of the model; faster: ms of the baseline / of the "
        "model, geometric mean over 3 shapes; score/byte: smaller x the share of the metric that "
        "is kept; *: no other model is as good on every axis and better on one."
    )
    models = [make.measured(name, 9, 1.0) for name in "ab"]
    for model in models:
        model["latency"] = model["latency"][:1]
    assert "of the model, at that shape; *" in legend(built(machine, models))
    models[0]["latency"] = []  # of a stored baseline
    assert "faster" not in legend(built(machine, models))


def test_what_the_same_rows_say_is_a_table_of_its_own(machine, make):
    models = [make.measured(name, 90, 9.0, 0.9) for name in "abc"]
    models[1]["paired"] = PAIRED
    columns, (row,) = paired_cells(built(machine, models))
    assert columns == ["model", "difference", "95 %", "same answers", "McNemar's p"]
    assert [text for text, _ in row] == ["b", "-1.2", "-2.0 to -0.4", "97.1 %", "< 0.001"]
    assert [number for _, number in row] == [None, -0.012, None, 0.971, 0.0002]


def test_answers_that_are_no_classes_have_a_difference_alone(machine, make):
    models = [make.measured(name, 90, 9.0) for name in "ab"]
    for model in models:
        model["accuracy"] = make.accuracy(10.0, "perplexity")
    models[1]["paired"] = {**PAIRED, "difference": 1.5, "agreement": None, "mcnemar": None}
    report = built(machine, models)
    columns, (row,) = paired_cells(report)
    assert columns == ["model", "difference", "95 %"]
    assert row[1] == ("1.50", 1.5)
    assert "McNemar" not in paired_note(report)
    del models[1]["paired"]
    assert paired_cells(built(machine, models))[1] == []
