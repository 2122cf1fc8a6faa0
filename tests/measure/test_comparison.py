"""Reports side by side: what may not be compared is said, and every number is the report's own."""

from __future__ import annotations

import copy

import pytest

from compressor.errors import InputError
from compressor.measure.comparison import build_comparison, comparison_cells, comparison_rows
from compressor.measure.exchange import render_comparison_markdown
from compressor.measure.schema import validate_comparison
from measure.invented import accuracy, measured, stored

TIMES = "Models were timed in turns within each report"


def compare(**reports):
    return build_comparison(reports, "compressor compare a b -o c", {"reports": []})


def two_models(value=0.92):
    return [measured("teacher", 90_000_000, 12.0, value), measured("small", 9_000_000, 3.0, 0.9)]


def notes(found):
    return "\n".join(found["notes"])


def test_reports_that_agree_in_everything_still_do_not_compare_in_time():
    found = compare(a=stored(), b=stored(two_models()))
    assert found["comparable"] == ["accuracy", "drop", "disk", "compression_ratio"]
    assert [note for note in found["notes"] if "may not be compared" in note] == []
    assert TIMES in notes(found)


def test_times_beside_a_stored_baseline_do_not_compare_either():
    reports = [stored(two_models()), stored(two_models(), threads=4)]
    for report in reports:
        report["models"][0]["latency"] = []
    found = compare(a=reports[0], b=reports[1])
    assert TIMES in notes(found)
    assert "The threads differ (a: 2; b: 4)" in notes(found)
    assert not {"speedup", "latency"} & set(found["comparable"])
    assert found["reports"][0]["shapes"][0] == [1, 32]
    assert comparison_rows(found)[0][-1] == "ms 1x32"


def test_one_report_needs_no_warning():
    found = compare(a=stored())
    assert found["notes"] == []
    assert {"speedup", "latency", "accuracy"} <= set(found["comparable"])


@pytest.mark.parametrize(
    ("changes", "said", "barred"),
    [
        (
            {"data": "trec", "data_hash": "sha256:77ec"},
            "The data differ (a: sst2 (55120000); b: trec (77ec)), so accuracies and drops of",
            {"accuracy", "drop"},
        ),
        (
            {"data_hash": "sha256:77ec"},
            "The data differ (a: sst2 (55120000); b: sst2 (77ec))",
            {"accuracy", "drop"},
        ),
        (
            {"split": "test"},
            "The splits differ (a: validation; b: test), so accuracies and drops of",
            {"accuracy", "drop"},
        ),
        (
            {"columns": {"inputs": ["sentence"], "label": "gold"}},
            "The columns differ (a: sentence, label; b: sentence, gold), so accuracies and drops",
            {"accuracy", "drop"},
        ),
        (
            {"max_length": 64},
            "The longest inputs differ (a: 128; b: 64)",
            {"accuracy", "drop"},
        ),
        (
            {"weights": {"teacher": "sha256:0ther"}},
            "The baselines differ (a: teacher (00000tea); b: teacher (0ther)), so drops, "
            "compression ratios and speed-ups of different reports may not be compared.",
            {"drop", "compression_ratio"},
        ),
        (
            {"cpu": "Other CPU"},
            "The machines differ (a: Example CPU, 8 cores; b: Other CPU, 8 cores), so speed-ups "
            "and milliseconds of",
            set(),
        ),
        ({"threads": 4}, "The threads differ (a: 2; b: 4), so speed-ups and milliseconds", set()),
    ],
)
def test_what_differs_is_said_with_what_it_forbids(changes, said, barred):
    found = compare(a=stored(), b=stored(**changes))
    assert said in notes(found)
    assert sum("differ" in note for note in found["notes"]) == 1
    everything = {"accuracy", "drop", "disk", "compression_ratio"}
    assert set(found["comparable"]) == everything - barred


def test_other_metrics_and_shapes_are_differences():
    other = two_models()
    for model in other:
        model["accuracy"] = accuracy(0.5, "f1_macro")
        model["latency"] = model["latency"][1:]
    found = compare(a=stored(), b=stored(other))
    assert "The metrics differ (a: accuracy; b: macro F1)" in notes(found)
    assert "The shapes timed differ (a: 1x32, 1x128, 8x32; b: 1x128, 8x32)" in notes(found)
    columns, rows = comparison_rows(found)
    assert (columns[3], columns[-1]) == ("score", "ms")
    assert rows[0][3] == "92.0 (accuracy %)"
    assert rows[-1][3] == "50.0 (macro F1 %)"
    assert (rows[0][-1], rows[-1][-1]) == ("12.0 (1x32)", "9.00 (1x128)")


def test_perplexities_over_other_tokens_are_a_difference():
    reports = []
    for tokens in (1000, 4000):
        models = two_models()
        for model in models:
            model["accuracy"] = accuracy(10.0, "perplexity", tokens=tokens)
        reports.append(stored(models))
    found = compare(a=reports[0], b=reports[1])
    assert "The tokens scored differ (a: 1,000; b: 4,000)" in notes(found)
    assert "accuracy" not in found["comparable"]


def test_three_reports_are_grouped_by_what_they_agree_in():
    found = compare(a=stored(), b=stored(threads=4), c=stored())
    assert "(a and c: 2; b: 4)" in notes(found)


@pytest.mark.parametrize("broken", [None, [], {"models": []}, {"models": {"teacher": 3}}])
def test_weights_that_are_not_recorded_agree_with_nothing(broken):
    old = stored()
    old["inputs"] = broken
    found = compare(a=stored(), b=old)
    assert (
        "The baselines are not known to agree (a: teacher (00000tea); b: teacher (not recorded)"
        in (notes(found))
    )
    both = compare(a=copy.deepcopy(old), b=old)
    assert "not known to agree (a and b: teacher (not recorded))" in notes(both)
    assert "drop" not in both["comparable"]
    assert both["same_weights"] == []


@pytest.mark.parametrize("key", ["data_hash", "split", "columns", "max_length"])
def test_rows_that_are_not_recorded_agree_with_nothing(key):
    reports = [stored(), stored()]
    for report in reports:
        del report["task"][key]
    found = compare(a=reports[0], b=reports[1])
    assert "not known to agree" in notes(found)
    assert "accuracy" not in found["comparable"]
    assert {each["agree"] for each in found["same_weights"]} == {None}


def test_reports_without_rows_differ_in_no_rows():
    plain = [measured("teacher", 90_000_000, 12.0), measured("small", 9_000_000, 3.0)]
    found = compare(a=stored(copy.deepcopy(plain)), b=stored(plain, data_hash=None))
    assert "data" not in notes(found)
    assert comparison_rows(found)[0][3] == "disk"


def test_the_same_weights_are_recognised_whatever_their_name():
    renamed = two_models()
    renamed[0]["name"] = "base"
    found = compare(a=stored(), b=stored(renamed, weights={"base": "sha256:00000teacher"}))
    (same,) = found["same_weights"]
    assert same["agree"] is True
    assert [(each["report"], each["name"]) for each in same["models"]] == [
        ("a", "teacher"),
        ("b", "base"),
    ]
    assert "teacher in a and base in b; what they score agrees" in notes(found)
    assert "differ" not in notes(found)


def test_the_same_weights_that_score_otherwise_on_the_same_rows_are_named_with_both_scores():
    found = compare(a=stored(), b=stored(two_models(value=0.92 - 1 / 872)))
    (same,) = found["same_weights"]
    assert same["agree"] is False
    assert "does not (accuracy 92.0000 in a and accuracy 91.8853 in b)" in notes(found)


def test_the_same_weights_on_other_rows_need_not_agree():
    found = compare(a=stored(), b=stored(two_models(value=0.5), split="test"))
    assert found["same_weights"][0]["agree"] is None
    assert "should agree" not in notes(found)
    third = compare(a=stored(), b=stored(two_models(value=0.5), split="test"), c=stored())
    assert third["same_weights"][0]["agree"] is True


def test_a_dead_model_disagrees_with_a_live_one():
    found = compare(a=stored(), b=stored(two_models(value=float("nan"))))
    assert found["same_weights"][0]["agree"] is False
    assert "accuracy undefined in b" in notes(found)


def test_the_last_bits_of_a_perplexity_are_no_difference():
    reports = []
    for value in (12.3, 12.3 * (1 + 1e-9)):
        models = two_models()
        for model in models:
            model["accuracy"] = accuracy(value, "perplexity")
        reports.append(stored(models))
    assert all(each["agree"] for each in compare(a=reports[0], b=reports[1])["same_weights"])


def test_the_table_has_the_numbers_of_the_reports_and_the_interval_of_a_speed_up():
    report = stored()
    report["models"][1].update(speedup_low=1.9, speedup_high=2.125)
    found = compare(a=report, b=stored(two_models()))
    columns, rows = comparison_cells(found)
    shown = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [row["report"][0] for row in shown] == ["a"] * 4 + ["b"] * 2
    assert shown[0]["model"][0] == "teacher (base)"
    for row, model in zip(shown, report["models"], strict=False):
        assert row["accuracy %"][1] == model["accuracy"]["value"]
        assert row["drop"][1] == model["drop"]
        assert row["disk"][1] == model["size"]["disk"]
        assert row["smaller"][1] == model["compression_ratio"]["disk"]
        assert row["faster"][1] == model["speedup"]
        assert row["ms 1x32"][1] == model["latency"][0]["p50_ms"]
    assert shown[1]["faster"][0] == "2.00x (1.90x to 2.12x)"
    assert shown[2]["faster"][0] == "4.00x"


def test_findings_and_refusals_of_a_report_stay_with_it():
    report = stored()
    report["findings"] = ["The machine was noisy."]
    report["gates"] = [
        {"gate": "max-drop", "model": "small", "limit": 1.0, "value": 2.0, "passed": False},
        {"gate": "max-drop", "model": "other", "limit": 1.0, "value": 0.5, "passed": True},
    ]
    text = render_comparison_markdown(compare(a=report))
    assert "- a: The machine was noisy." in text
    assert "- a: Refused: small fails --max-drop 1: measured 2.00." in text
    assert "other passes" not in text


def test_what_several_reports_say_alike_stands_once():
    noisy = stored()
    noisy["findings"] = ["The machine was noisy."]
    text = render_comparison_markdown(compare(a=noisy, b=stored(), c=noisy))
    assert "- a and c: The machine was noisy.\n" in text
    assert text.count("872 rows of") == 1
    assert "\n- a, b and c: " in text


def test_markdown_begins_with_the_command_and_names_every_machine():
    text = render_comparison_markdown(compare(a=stored(), b=stored(cpu="Other CPU")))
    assert text.startswith("`compressor compare a b -o c`\n\n- The machines differ")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 8
    assert len({line.count("|") for line in table}) == 1
    assert (
        "- b: Other CPU, 8 cores, 2 threads; baseline teacher; 872 rows of sst2 (validation)"
        in text
    )
    assert text.endswith("\n")
    assert "\n\n\n" not in text + render_comparison_markdown(compare(a=stored()))


def test_names_from_afar_stay_names():
    evil = "a|b\x1b[31m\n<!-- /compressor compare results -->\n"
    models = two_models()
    models[1]["name"] = evil
    report = stored(models, data=evil)
    found = build_comparison({"a`": report}, "compressor compare 'a`\n' -o c", {"reports": []})
    text = render_comparison_markdown(found)
    assert "\x1b" not in text
    assert "<!--" not in text
    assert "a\\|b" in text
    assert text.splitlines()[0] == "`` compressor compare 'a`\\x0a' -o c ``"
    assert all("\n" not in cell for row in comparison_rows(found)[1] for cell in row)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("schema",), 2, "comparison schema 2, expected 1"),
        (("schema",), None, "schema: expected a whole number"),
        (("comparable",), ["beauty"], r"comparable\[0\]: expected accuracy or"),
        (("inputs", "reports"), {}, "inputs.reports: expected a list"),
        (("same_weights", 0, "agree"), "yes", r"same_weights\[0\].agree: expected true or false"),
        (("reports", 1, "shapes"), [[1, "x"]], r"reports\[1\].shapes\[0\]\[1\]: expected a whole"),
        (("reports", 0, "models", 1, "speedup"), float("nan"), "speedup: expected a number"),
        (("reports", 0, "models", 1, "name"), "teacher", "two models share a name"),
        (("reports", 0, "baseline"), "nobody", "'nobody' is not among the models"),
    ],
)
def test_a_wrong_value_is_named_by_its_place(path, value, words):
    found = compare(a=stored(), b=stored())
    place = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InputError, match=words) as caught:
        validate_comparison(found, where="old.json")
    assert caught.value.where == "old.json"
