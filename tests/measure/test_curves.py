from __future__ import annotations

import re
from xml.etree import ElementTree

from compressor.measure.curves import training_plots


def texts(svg):
    return ["".join(each.itertext()).strip() for each in ElementTree.fromstring(svg).iter("text")]


def test_loss_and_score_of_every_run(report):
    (first, caption), (second, other) = training_plots(report)
    assert {"loss of training batches", "accuracy % on validation rows", "step"} <= set(
        texts(first)
    )
    assert "loss on validation rows" in texts(second)
    assert caption == "finetune task, in the lineage of teacher, student, student-int8 and worse."
    assert other == "distill soft_labels, in the lineage of student and student-int8."


def test_scores_are_printed_like_everywhere_else(report):
    ticks = [float(text) for text in texts(training_plots(report)[0][0]) if "." in text]
    assert any(82 <= tick <= 91 for tick in ticks)  # per cent
    report["training"][0]["metric"] = "loss"
    ticks = [float(text) for text in texts(training_plots(report)[0][0]) if "." in text]
    assert all(tick < 2 for tick in ticks)


def test_a_run_without_scores_or_without_losses_has_one_panel(report):
    report["training"][0].update(scores=[], metric=None)
    report["training"][1]["loss"] = []
    (first, _), (second, _) = training_plots(report)
    assert "step" in texts(first)
    assert not any("validation" in text for text in texts(first))
    assert not any("training" in text for text in texts(second))


def test_the_kept_weights_have_a_ring_where_they_were_scored(report):
    with_ring = training_plots(report)[0][0]
    report["training"][0]["kept_step"] = 31
    assert with_ring.count("<use ") == training_plots(report)[0][0].count("<use ") + 1


def test_many_names_are_cut_short(report):
    report["training"][0]["models"] = list("abcdefg")
    assert training_plots(report)[0][1].endswith("of a, b, c and 4 more.")


def test_nothing_kept_is_nothing_drawn(report):
    report["training"] = [{**report["training"][0], "loss": [], "scores": []}]
    assert training_plots(report) == []
    del report["training"]
    assert training_plots(report) == []


def test_it_is_the_same_twice_and_shares_no_id(report):
    first, second = training_plots(report)
    assert [first, second] == training_plots(report)
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg, _ in (first, second)]
    assert not ids[0] & ids[1]
