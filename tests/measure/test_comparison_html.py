"""The page of several reports, and its pictures."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from compressor.errors import InputError
from compressor.measure.comparison import build_comparison
from compressor.measure.comparison_html import render_comparison_html
from compressor.measure.comparison_plots import STYLES, trade_off_plot
from measure.invented import accuracy, measured, stored


def pair(**changes):
    """Two reports, the second one changed."""
    models = [measured("teacher", 90_000_000, 12.0, 0.92), measured("tiny", 5_000_000, 2.0, 0.9)]
    reports = {"first": stored(), "second": stored(models, **changes)}
    return build_comparison(reports, "compressor compare first second", {"reports": []})


def texts(svg):
    return ["".join(each.itertext()).strip() for each in ElementTree.fromstring(svg).iter("text")]


def fronts(svg):
    """The points of each dashed line."""
    paths = re.findall(r'<path d="([^"]*)"[^>]*style="[^"]*stroke-dasharray: 4', svg)
    return [len(re.findall(r"[ML]", path)) for path in paths]


def test_the_page_holds_the_notes_the_numbers_and_itself():
    found = pair(split="test")
    text = render_comparison_html(found)
    assert text == render_comparison_html(found)
    for sentence in found["notes"]:
        assert sentence in text
    inside = re.search(r'<script type="application/json" id="comparison">(.*?)</script>', text)
    assert json.loads(inside.group(1)) == found
    exact = {float(value) for value in re.findall(r'data-value="([^"]+)"', text)}
    for entry in found["reports"]:
        assert entry["command"] in text
        for model in entry["models"]:
            assert {model["accuracy"]["value"], model["drop"], model["speedup"]} <= exact
    assert not re.search(r"https?://|@import|@font-face|url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text
    assert text.count("<svg") == 2


def test_names_cannot_become_markup():
    evil = "</script><script>alert(1)</script>"
    models = [measured("teacher", 90_000_000, 12.0, 0.92), measured(evil, 5_000_000, 2.0, 0.9)]
    report = stored(models, data=evil, cpu=evil)
    report["findings"] = [evil]
    text = render_comparison_html(build_comparison({evil: report}, evil, {"reports": []}))
    assert text.count("<script") == 2
    assert evil not in text


def test_only_a_valid_comparison_is_drawn():
    found = pair()
    del found["notes"]
    with pytest.raises(InputError, match="notes is missing"):
        render_comparison_html(found)


def test_where_accuracies_compare_one_front_joins_the_reports():
    svg, caption = trade_off_plot(pair(), "disk")
    assert "accuracy % (upward is better)" in texts(svg)
    # tiny beats student-int8 of the other report
    assert fronts(svg) == [len({"tiny", "student", "teacher"})]
    assert "joins the models" in caption
    assert {"first", "second", "tiny", "student-int8"} <= set(texts(svg))
    assert texts(svg).count("teacher") == 1


def test_where_rows_differ_drops_are_drawn_and_each_report_has_its_front():
    svg, caption = trade_off_plot(pair(split="test"), "disk")
    assert "drop, points (upward is better)" in texts(svg)
    assert sorted(fronts(svg)) == [2, 3]
    assert "within each report" in caption


def test_speed_ups_are_never_joined_between_reports():
    svg, caption = trade_off_plot(pair(), "speedup")
    assert sorted(fronts(svg)) == [2, 3]
    assert "within each report" in caption
    assert "drop, points (upward is better)" in texts(svg)


def test_a_far_worse_model_is_named_with_its_number():
    models = [measured("teacher", 90_000_000, 12.0, 0.92), measured("lost", 5_000_000, 2.0, 0.5)]
    reports = {"first": stored(), "second": stored(models)}
    found = build_comparison(reports, "", {"reports": []})
    assert "lost (50.0)" in texts(trade_off_plot(found, "disk")[0])
    svg, caption = trade_off_plot(found, "speedup")
    assert "lost (42.0)" in texts(svg)
    assert caption.endswith("A number in brackets lies beyond the axis.")


def test_marks_and_colours_come_from_the_page():
    for across in ("disk", "speedup"):
        svg, _ = trade_off_plot(pair(), across)
        assert "#0102" not in svg
        assert not re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg)
        assert trade_off_plot(pair(), across) == trade_off_plot(pair(), across)


def test_what_cannot_be_drawn_on_one_axis_is_not():
    other = [measured("teacher", 90_000_000, 12.0, 0.92), measured("tiny", 5_000_000, 2.0, 0.9)]
    for model in other:
        model["accuracy"] = accuracy(10.0, "perplexity")
    units = {"first": stored(), "second": stored(other)}
    many = {f"r{index}": stored() for index in range(len(STYLES) + 1)}
    unscored = {"a": stored([measured("teacher", 90, 12.0), measured("tiny", 5, 2.0)])}
    for reports in (units, many, unscored):
        found = build_comparison(reports, "", {"reports": []})
        assert trade_off_plot(found, "disk") is None
        assert trade_off_plot(found, "speedup") is None
        assert "Nothing is drawn" in render_comparison_html(found)


def test_every_report_has_a_mark_of_its_own():
    assert len(set(STYLES)) == len(STYLES) == 16
    drawn = {f"r{index}": stored() for index in range(len(STYLES))}
    assert trade_off_plot(build_comparison(drawn, "", {"reports": []}), "disk")
