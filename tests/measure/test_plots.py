from __future__ import annotations

import re
import warnings
from xml.etree import ElementTree

import pytest

from compressor.measure.plots import latency_plot, pareto_plot
from compressor.measure.report import build_report


def texts(svg):
    return ["".join(each.itertext()).strip() for each in ElementTree.fromstring(svg).iter("text")]


def test_pareto_plots_name_every_model_as_text(report):
    for across in ("latency", "disk"):
        svg, caption = pareto_plot(report, across)
        assert {"teacher", "student", "student-int8", "worse"} <= set(texts(svg))
        assert "accuracy % (upward is better)" in texts(svg)
        assert "Not drawn" not in caption


def test_dominated_models_are_grey_and_the_others_are_not(report):
    svg, _ = pareto_plot(report, "disk")
    filled = re.findall(r"<use [^>]*style=\"fill: var\(--(\w+)", svg)
    assert filled.count("accent") == 3
    assert filled.count("soft") == 1


def test_pictures_take_their_colours_and_font_from_the_page(report):
    for svg, _ in (pareto_plot(report, "latency"), latency_plot(report)):
        assert svg.startswith("<svg viewBox=")
        assert "var(--ink" in svg
        assert "font-family" not in svg
        assert "<metadata" not in svg
        assert "<style" not in svg
        assert "http" not in svg
        assert "#0102" not in svg
        painted = re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg)
        assert not painted, painted


def test_the_same_report_gives_the_same_picture(report):
    assert pareto_plot(report, "latency") == pareto_plot(report, "latency")
    assert latency_plot(report) == latency_plot(report)


def test_ids_of_two_pictures_differ(report):
    first, second = (
        set(re.findall(r'id="([^"]+)"', pareto_plot(report, across)[0]))
        for across in ("latency", "disk")
    )
    assert first
    assert not first & second
    svg, _ = latency_plot(report)
    known = set(re.findall(r'\bid="([^"]+)"', svg))
    assert set(re.findall(r'href="#([^"]+)"', svg) + re.findall(r"url\(#([^)]+)\)", svg)) <= known


def test_without_accuracy_latency_is_drawn_against_size(machine, make):
    models = [make.measured("a", 90_000_000, 9.0), make.measured("b", 20_000_000, 3.0)]
    found = build_report(machine, None, "a", models, "", 0)
    assert pareto_plot(found, "latency") is None
    svg, caption = pareto_plot(found, "disk")
    assert {"a", "b"} <= set(texts(svg))
    assert caption == "Latency against disk size."


def test_a_model_without_a_number_is_named_below(machine, make):
    models = [make.measured(name, 90, 9.0, 0.9) for name in "abc"]
    models[2]["accuracy"] = make.accuracy(float("nan"))
    found = build_report(machine, {"name": "text-classification"}, "a", models, "", 0)
    assert pareto_plot(found, "disk")[1].endswith("Not drawn: c.")


def test_a_far_worse_model_is_drawn_at_the_edge_with_its_number(machine, make):
    values = zip("abcd", (0.92, 0.91, 0.90, 0.51), strict=True)
    models = [make.measured(name, 90, 9.0, value) for name, value in values]
    found = build_report(machine, {"name": "text-classification"}, "a", models, "", 0)
    svg, _ = pareto_plot(found, "disk")
    assert "d (51.0)" in texts(svg)
    ticks = [float(text) for text in texts(svg) if re.fullmatch(r"\d+(\.\d+)?", text)]
    assert not any(50 < tick < 80 for tick in ticks)


def test_one_model_is_no_trade_off_and_nothing_timed_no_chart(machine, make):
    found = build_report(machine, None, "a", [make.measured("a", 90, 9.0)], "", 0)
    assert pareto_plot(found, "disk") is None
    found["models"][0]["latency"] = []
    assert latency_plot(found) is None


def test_latency_chart_has_a_panel_a_shape(report):
    found = texts(latency_plot(report)[0])
    assert {"batch 1, length 32", "batch 1, length 128", "batch 8, length 32"} <= set(found)
    assert found.count("student-int8") == 1
    assert {"12.0", "36.0", "72.0"} <= set(found)


@pytest.mark.parametrize("name", ["<b>&amp;", "a$x^2$b", "模型", "n" * 79 + "1"])
def test_any_name_is_only_text(machine, make, name):
    models = [make.measured("a", 90, 9.0, 0.9), make.measured(name, 20, 3.0, 0.9)]
    found = build_report(machine, {"name": "text-classification"}, "a", models, "", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = texts(pareto_plot(found, "disk")[0]) + texts(latency_plot(found)[0])
    assert drawn.count(name if len(name) < 27 else "n" * 12 + "\u2026" + "n" * 12 + "1") == 2


def test_a_perplexity_over_other_tokens_is_not_drawn(machine, make):
    models = [make.measured(name, 90_000_000, 9.0) for name in "abc"]
    for model, tokens in zip(models, (1000, 1000, 4000), strict=True):
        model["accuracy"] = make.accuracy(10.0, "perplexity", tokens=tokens)
    report = build_report(machine, {"name": "causal-lm"}, "a", models, "", 0)
    assert "Not drawn: c." in pareto_plot(report, "disk")[1]
