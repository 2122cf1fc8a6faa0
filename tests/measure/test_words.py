from __future__ import annotations

from pathlib import Path

import pytest

from compressor.measure import words

DASH = "\u2013"


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1.0, "1.00x"), (8.204, "8.20x"), (9.996, "10.0x"), (41.26, "41.3x"), (412.4, "412x")],
)
def test_times(ratio, text):
    assert words.times_text(ratio) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.4123, "0.412"), (4.123, "4.12"), (41.23, "41.2"), (412.3, "412"), (99.96, "100")],
)
def test_three_significant_digits(value, text):
    assert words.significant(value) == text


def test_bounded_metrics_are_shown_times_a_hundred_and_others_as_they_are():
    assert words.metric_text("accuracy", 0.9234) == "92.3"
    assert words.metric_text("matthews", -0.0001) == "0.0"
    assert words.metric_text("perplexity", 12.345) == "12.3"
    assert words.metric_heading("matthews") == "Matthews correlation x100"
    assert words.metric_heading("perplexity") == "perplexity"


def test_drops_carry_their_unit():
    assert words.drop_text(1.24, words.drop_unit("accuracy")) == "1.2"
    assert words.drop_text(-0.01, words.drop_unit("accuracy")) == "0.0"
    assert words.drop_unit("perplexity") == "per cent more perplexity"
    assert words.drop_text(4.0, words.drop_unit("perplexity")) == "4.0 %"


def test_what_is_lost_names_its_metric():
    assert words.lost_text("accuracy", 0.52) == "0.52 points of accuracy"
    assert words.lost_text("perplexity", 1.3) == "1.30 per cent more perplexity"


def test_nothing_measured_is_a_dash():
    assert words.metric_text("accuracy", None) == DASH
    assert words.interval_text("accuracy", None, None) == DASH
    assert words.drop_text(None, None) == words.times_text(None) == words.significant(None) == DASH
    assert words.interval_text("accuracy", 0.9, 0.95) == f"90.0{DASH}95.0"


def test_lists_read_like_english():
    assert words.listed(["a"]) == "a"
    assert words.listed(["a", "b", "c"]) == "a, b and c"


def test_folders_are_told_apart_by_as_many_above_them_as_it_takes():
    folders = [Path("/runs/s0/bert/final"), Path("/runs/s1/bert/final"), Path("/runs/s1/teacher")]
    names = words.unique_names([folder.name for folder in folders], folders)
    assert names == ["s0/bert/final", "s1/bert/final", "teacher"]
    assert words.unique_names(["a", "b"], [Path("/x/a"), Path("/x/b")]) == ["a", "b"]
    deeper = [Path("/a/run"), Path("/b/run"), Path("/deep/b/run")]
    assert words.unique_names(["run"] * 3, deeper)[0] == "a/run"
    assert len(set(words.unique_names(["run"] * 3, deeper))) == 3
