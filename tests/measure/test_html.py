from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from compressor.errors import InputError
from compressor.measure.html import render_html
from compressor.measure.report import build_report

EMPTY = {"meta", "link", "br", "path", "use", "rect"}


class Page(HTMLParser):
    """Collects what a browser would see: tags, addresses, cells with exact numbers, text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.exact, self.words, self.open = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        facts = dict(attributes)
        self.tags.append(tag)
        self.addresses += [facts[name] for name in ("href", "src", "xlink:href") if name in facts]
        if "data-value" in facts:
            self.exact.append(float(facts["data-value"]))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name == "href"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page(rendered):
    return Page(rendered[1])


def test_every_tag_is_closed_and_every_part_is_there(page):
    assert page.open == []
    assert page.tags.count("svg") == 7
    for heading in (
        "Gates", "Models", "Trade-offs", "Size", "Latency", "Layers", "Training", "Lineage",
        "What the numbers mean", "Machine", "Make this report again",
    ):  # fmt: skip
        assert heading in page.text


def test_nothing_is_fetched(rendered, page):
    assert all(address.startswith(("#", "data:,")) for address in page.addresses)
    text = rendered[1]
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|@import|@font-face|url\((?!#)", text)


def test_the_report_inside_is_the_report(rendered):
    report, text = rendered
    inside = re.search(r'<script type="application/json" id="report">(.*?)</script>', text).group(1)
    assert json.loads(inside) == report


def test_cells_hold_the_numbers_of_the_report(rendered, page):
    report = rendered[0]
    for model in report["models"]:
        exact = [
            model["accuracy"]["value"], model["drop"], model["retention"], model["speedup"],
            model["compression_to_accuracy"], model["size"]["disk"], model["size"]["nonzero"],
            model["compression_ratio"]["disk"], *(row["p95_ms"] for row in model["latency"]),
            *(row["sparsity"] for row in model["layers"]),
            *(row["bits_per_weight"] for row in model["layers"]),
        ]  # fmt: skip
        assert set(exact) <= set(page.exact)
    for training in report["training"]:
        losses = training["loss"]
        assert {losses[0]["value"], losses[-1]["value"], 30, 0.875} <= set(page.exact)
    assert report["summary"] in page.text
    assert all(sentence in page.text for sentence in report["findings"])
    assert "1 of 2 failed" in page.text


def test_tokenisation_stands_beside_the_latency(machine, make, page):
    assert "Tokenisation is not included: 0.200 ms for teacher at the first shape." in page.text
    models = [make.measured("a", 90_000_000, 9.0, 0.9)]
    task = {"name": "text-classification", "tokenise_ms_per_row": 0.125}
    text = Page(render_html(build_report(machine, task, "a", models, "", 0))).text
    assert "Tokenisation is not included: 0.125 ms a row." in text


def test_a_best_candidate_that_is_slower_says_so(machine, make):
    models = [make.measured("a", 90_000_000, 4.0, 0.9), make.measured("b", 9_000_000, 8.0, 0.9)]
    task = {"name": "text-classification"}
    text = Page(render_html(build_report(machine, task, "a", models, "", 0))).text
    assert "10.0x smaller on disk" in text
    assert "2.00x slower, mean of 3 shapes 4.00 → 8.00 ms at batch 1, length 32" in text
    assert "Faster, mean of 3 shapes" in text
    assert "0.50x faster" not in text


def test_lineage_is_a_chain_with_commands(page):
    assert "finetune → distill soft_labels → quantize dynamic" in page.text
    assert "compressor distill m" in page.text


def test_names_cannot_become_markup(machine, models, make):
    evil = '</script><script>alert(1)</script><img src="//x">'
    models[1]["name"] = evil
    models[1]["path"] = '" onmouseover="alert(1)'
    models[1]["steps"] = [{"verb": evil, "method": evil, "command": evil}]
    task = {"name": evil, "data": evil, "split": evil, "labels": [evil, evil]}
    machine = {**machine, "cpu": evil, "versions": {evil: evil}}
    models[1]["layers"] = make.layers(2, 0.5, 8.0)
    models[1]["layers"][1]["part"] = evil
    report = build_report(machine, task, "teacher", models, evil, 0)
    report["training"] = [make.training(evil, evil, [evil, "teacher"], evil)]
    text = render_html(report)
    page = Page(text)
    assert page.open == []
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert 'onmouseover="alert' not in text
    assert evil in page.text


def test_the_same_report_gives_the_same_page(rendered):
    assert render_html(rendered[0]) == rendered[1]


def test_a_report_of_latency_and_size_alone(machine, make):
    models = [make.measured("a", 90_000_000, 9.0), make.measured("b", 20_000_000, 3.0)]
    page = Page(render_html(build_report(machine, None, "a", models, "compressor benchmark", 0)))
    assert "Retention" not in page.text
    assert "Gates" not in page.text
    assert not {"Lineage", "Layers", "Training"} & set(page.text.split())
    assert page.tags.count("svg") == 2


def test_a_report_of_one_model(machine, make):
    models = [make.measured("a", 90_000_000, 9.0, 0.9)]
    report = build_report(machine, {"name": "text-classification"}, "a", models, "", 0)
    assert "measured alone" in Page(render_html(report)).text


def test_a_dead_model_and_perplexity_are_shown(machine, make):
    models = [make.measured(name, 90, 9.0) for name in "abc"]
    for model, value in zip(models, (10.0, 11.0, float("nan")), strict=True):
        model["accuracy"] = make.accuracy(value, "perplexity")
    text = Page(render_html(build_report(machine, {"name": "causal-lm"}, "a", models, "", 0))).text
    assert "+10.0 %" in text
    assert "Drop, %" in text
    assert "c has no perplexity" in text


def test_several_metrics_have_their_own_table(machine, make):
    models = [make.measured(name, 90, 9.0, 0.9) for name in "ab"]
    for model in models:
        more = make.accuracy(0.875, "f1_macro")["all"]
        model["accuracy"]["all"] = {**model["accuracy"]["all"], **more}
    text = Page(render_html(build_report(machine, None, "a", models, "", 0))).text
    assert "Every metric" in text
    assert "87.5 (85.5\u201389.5)" in text


def test_only_a_valid_report_is_drawn(report):
    del report["models"][0]["pareto"]
    with pytest.raises(InputError, match="pareto is missing"):
        render_html(report)


def test_growth_is_drawn_and_its_prices_are_told(report):
    from compressor.measure.scaling import scaling_of

    shapes = [(batch, length) for batch in (1, 4) for length in (16, 32, 64)]
    rows = [{"batch": b, "length": n, "p50_ms": 2 + 0.25 * b * n} for b, n in shapes]
    products = [{**row, "p50_ms": row["p50_ms"] / 4} for row in rows]
    assert "Growth" not in render_html(report)
    report["models"][1]["scaling"] = scaling_of(rows, products)
    page = render_html(report)
    assert "<h2>Growth</h2>" in page
    assert "batch 4" in page
    assert ">250<" in page  # microseconds a token
    assert "25.0 % at " in page


def test_start_and_memory_are_told(report):
    assert "Start and memory" not in render_html(report)
    report["models"][0] |= {
        "open_ms": 2000.0,
        "first_ms": 30.0,
        "answer_ms": 2030.0,
        "peak_memory_bytes": 500_000_000,
    }
    page = render_html(report)
    assert 'data-value="2030.0"' in page
    assert "500.0 MB" in page
    assert "Peak GPU memory" not in page
    report["models"][0]["peak_gpu_bytes"] = 700_000_000
    page = render_html(report)
    assert "Peak GPU memory" in page
    assert "700.0 MB" in page


def test_what_the_same_rows_say_is_told(report):
    assert "on the same rows" not in render_html(report)
    report["models"][1]["paired"] = {
        "difference": -0.01,
        "low": -0.02,
        "high": 0.0,
        "agreement": 0.95,
        "mcnemar": 0.04,
    }
    page = Page(render_html(report))
    assert "Against the baseline on the same rows" in page.text
    assert "student -1.0 -2.0 to 0.0 95.0 % 0.040" in page.text
    assert {-0.01, 0.95, 0.04} <= set(page.exact)
