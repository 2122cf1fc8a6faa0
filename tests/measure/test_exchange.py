"""Reports for other programs."""

from xml.etree import ElementTree

import pytest

from compressor.measure.exchange import render_junit, render_markdown
from compressor.measure.gates import Gates, check


@pytest.fixture
def judged(report):
    gates = check(report, Gates(max_drop=0.1, min_compression=1.1))
    return {**report, "gates": gates}


def test_markdown_has_the_table_the_findings_and_the_gates(judged):
    text = render_markdown(judged)
    assert judged["summary"] in text
    assert all(finding in text for finding in judged["findings"])
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(judged["models"])
    assert len({line.count("|") for line in table}) == 1
    assert text.count("❌") == sum(not gate["passed"] for gate in judged["gates"]) > 0
    assert text.count("✅") == sum(gate["passed"] for gate in judged["gates"]) > 0


def test_markdown_says_what_its_columns_are_and_what_the_same_rows_say(judged):
    text = render_markdown(judged)
    assert "faster: ms of the baseline / of the model, geometric mean over 3 shapes" in text
    assert "on the same rows" not in text
    judged["models"][1]["paired"] = {
        "difference": -0.01,
        "low": -0.02,
        "high": 0.0,
        "agreement": 0.95,
        "mcnemar": 0.04,
    }
    text = render_markdown(judged)
    assert "Against the baseline on the same rows:" in text
    assert "| student | -1.0 | -2.0 to 0.0 | 95.0 % | 0.040 |" in text


def test_a_name_cannot_break_the_table(judged):
    judged["models"][1]["name"] = "a|b<!--"
    assert "a\\|b&lt;!--" in render_markdown(judged)


def test_junit_has_a_case_for_every_judgement(judged):
    suite = ElementTree.fromstring(render_junit(judged))
    failed = [gate for gate in judged["gates"] if not gate["passed"]]
    assert suite.attrib["tests"] == str(len(judged["gates"]))
    assert suite.attrib["failures"] == str(len(failed))
    assert len(suite.findall("testcase/failure")) == len(failed)
    assert suite.find("testcase").attrib["name"].startswith("--max-drop 0.1")
