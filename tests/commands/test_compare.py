"""`compare` by the command line: what it refuses, writes, prints and leaves alone."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from compressor.cli import run
from compressor.measure.schema import validate_comparison
from measure.invented import measured, stored

OPEN, CLOSE = "<!-- compressor compare results -->", "<!-- /compressor compare results -->"


def go(*words):
    return run([str(word) for word in words])


def put(folder, report):
    """Store a report."""
    Path(folder).mkdir(parents=True)
    (Path(folder) / "report.json").write_text(json.dumps(report, allow_nan=True))


def small(**changes):
    models = [measured("teacher", 90_000_000, 12.0, 0.92), measured("small", 9_000_000, 3.0, 0.9)]
    return stored(models, **changes)


def everything(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the reports `one` and `two/report`."""
    monkeypatch.chdir(tmp_path)
    put("one", stored())
    put("two/report", small())
    return tmp_path


def as_json(report):
    return json.dumps(report).encode()


def without(key):
    report = stored()
    del report[key]
    return as_json(report)


def infinite():
    report = stored()
    report["models"][0]["speedup"] = float("inf")
    return as_json(report)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"{", "not JSON"),
        (b"[]", "a list"),
        (b"\xff\xfe{", "UTF-16"),
        (b"<!doctype html>", "web page"),
        (b'{"code": 4, "kind": "gate"}', "is no report of `compressor benchmark`"),
        (as_json({**stored(), "schema": 2}), "schema 2, expected 1"),
        (as_json({**stored(), "schema": None}), "schema None, expected 1"),
        (as_json({**stored(), "baseline": "nobody"}), "'nobody' is not among the models"),
        (without("machine"), "machine is missing"),
        (as_json(stored()).replace(b"0.92", b"NaN"), "NaN is not JSON"),
        (infinite(), "Infinity is not JSON"),
        (as_json(stored()).replace(b"0.92", b"1e999"), "expected a number, found inf"),
    ],
)
def test_what_is_no_report_is_refused_with_its_name(data, said, here, capsys):
    put("bad", {})
    (here / "bad" / "report.json").write_bytes(data)
    before = everything(here)
    assert go("compare", "one", "bad", "-o", "out") == 3
    captured = capsys.readouterr()
    assert said in captured.err
    assert "bad/report.json" in captured.err
    assert captured.out == ""
    assert captured.err.count("error: ") == 1
    assert everything(here) == before


def test_a_report_that_is_not_there_is_refused_with_what_is(here, capsys):
    assert go("compare", "one", "oen", "-o", "out") == 3
    assert "oen does not exist; nearest name there: one" in capsys.readouterr().err
    assert go("compare", "one", "two", "-o", "out") == 3
    said = capsys.readouterr().err
    assert "two holds no report.json, but report" in said
    assert "compressor benchmark" in said
    assert go("compare", "-o", "out") == 2


def test_a_report_given_twice_is_refused(here, capsys):
    put("copy", stored())
    for again in ("one", "one/report.json", here / "one", "copy"):
        assert go("compare", "one", again, "-o", "out") == 3
        assert "are the same report" in capsys.readouterr().err
    assert not (here / "out").exists()


def test_reports_of_one_name_are_told_apart_by_the_folders_above(here):
    put("a/run", stored(threads=4))
    put("b/run", small(threads=8))
    assert go("compare", "a/run", "b/run", "two/report", "-o", "out") == 0
    found = json.loads((here / "out" / "compare.json").read_text())
    assert [entry["name"] for entry in found["reports"]] == ["a/run", "b/run", "two"]
    put("deep/a/run", stored(threads=16))
    assert go("compare", "a/run", "deep/a/run", "-o", "other") == 0
    found = json.loads((here / "other" / "compare.json").read_text())
    assert [entry["name"] for entry in found["reports"]] == [f"{here.name}/a/run", "deep/a/run"]


def test_reports_that_nothing_tells_apart_are_refused(here, capsys):
    put("a/run", stored(threads=4))
    (here / "a" / "run.json").write_bytes(as_json(stored(threads=8)))
    assert go("compare", "a/run", "a/run.json", "-o", "out") == 3
    assert "two reports are called" in capsys.readouterr().err


def test_a_file_of_another_name_goes_by_it(here):
    (here / "kept.json").write_bytes(as_json(stored(threads=4)))
    assert go("compare", "kept.json", "one", "kept.json/../two/report", "-o", "out") == 3
    assert go("compare", "kept.json", "one", "-o", "out") == 0
    found = json.loads((here / "out" / "compare.json").read_text())
    assert [entry["name"] for entry in found["reports"]] == ["kept", "one"]


def test_the_folder_the_streams_and_the_files(here, capsys):
    before = everything(here)
    assert go("compare", "one", "two/report", "-o", "out") == 0
    captured = capsys.readouterr()
    assert captured.out == "out\n"
    assert "teacher (base)" in captured.err
    assert "never between reports" in captured.err
    assert "two: Example CPU, 8 cores, 2 threads; baseline teacher; 872 rows" in captured.err
    assert "\x1b" not in captured.err
    assert sorted(os.listdir(here / "out")) == ["compare.html", "compare.json", "compare.md"]
    found = json.loads((here / "out" / "compare.json").read_text())
    validate_comparison(found)
    assert found["command"] == "compressor compare one two/report -o out"
    assert str(here) not in json.dumps(found)
    for name in found["notes"]:
        assert name in (here / "out" / "compare.md").read_text()
        assert name in (here / "out" / "compare.html").read_text()
    after = everything(here)
    assert {name: after[name] for name in before} == before


def test_the_command_keeps_relative_paths_and_no_absolute_one(here):
    assert go("compare", here / "one", "./two/report", "-o", here / "out") == 0
    command = json.loads((here / "out" / "compare.json").read_text())["command"]
    assert command == "compressor compare one ./two/report -o out"


def test_the_same_command_gives_the_same_bytes(here):
    assert go("compare", "one", "two/report", "-o", "out") == 0
    first = everything(here / "out")
    assert go("compare", "one", "two/report", "-o", "out", "--force", "--quiet") == 0
    assert everything(here / "out") == first


def test_json_and_quiet(here, capsys):
    assert go("compare", "one", "two/report", "--json", "--quiet") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "output": "two-compare",
        "verb": "compare",
        "report": "two-compare/compare.json",
    }
    assert captured.err == ""


def test_a_path_from_the_stage_before(here, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"two/report\n")))
    assert go("compare", "one", "-", "-o", "out") == 0
    command = json.loads((here / "out" / "compare.json").read_text())["command"]
    assert command == "compressor compare one two/report -o out"


def test_an_output_in_the_way_and_inputs_are_left_alone(here, capsys):
    assert go("compare", "one", "-o", "out") == 0
    assert go("compare", "one", "two/report", "-o", "out") == 3
    assert "--force" in capsys.readouterr().err
    assert go("compare", "one", "two/report", "-o", "out", "--force") == 0
    for output in ("one", "two", "one/out"):
        assert go("compare", "one", "two/report", "-o", output, "--force") == 3
        assert "the input" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(here, capsys):
    (here / "R.md").write_text(f"{OPEN}\n{CLOSE}\n")
    before = everything(here)
    assert go("compare", "one", "two/report", "-o", "out", "--into", "R.md", "--dry-run") == 0
    assert "would compare one, two into out" in capsys.readouterr().err
    assert everything(here) == before


def test_reuse_does_again_only_what_changed(here, capsys):
    (here / "R.md").write_text(f"{OPEN}\n{CLOSE}\n")
    words = ["compare", "one", "two/report", "-o", "out", "--reuse", "--into", "R.md"]
    assert go(*words) == 0
    text, stamp = (here / "R.md").read_text(), (here / "out").stat().st_ino
    (here / "R.md").write_text(f"{OPEN}\nlost\n{CLOSE}\n")
    assert go(*words) == 0
    assert "already made" in capsys.readouterr().err
    assert (here / "out").stat().st_ino == stamp
    assert (here / "R.md").read_text() == text
    assert go("compare", "two/report", "one", "-o", "out", "--reuse", "--into", "R.md") == 3
    (here / "one" / "report.json").write_bytes(as_json(stored(threads=4)))
    assert go(*words, "--force") == 0
    assert (here / "out").stat().st_ino != stamp


def test_a_recipe_may_compare_and_does_so_once(here, capsys):
    reports = [str(here / "one"), str(here / "two" / "report")]
    step = {"compare": {"reports": reports, "output": "both"}}
    (here / "r.yaml").write_text(json.dumps({"steps": [step]}))
    assert go("run", "r.yaml") == 0
    assert go("run", "r.yaml") == 0
    captured = capsys.readouterr()
    assert captured.out == "r\nr\n"
    assert captured.err.count("already made") == 1
    assert (here / "r" / "both" / "compare.json").is_file()


def test_the_table_is_written_between_the_lines_of_a_file(here):
    (here / "R.md").write_bytes(f"# Results\r\n\r\n{OPEN}\nold\n{CLOSE}\r\nend".encode())
    assert go("compare", "one", "two/report", "-o", "out", "--into", "R.md") == 0
    written = (here / "R.md").read_bytes().decode()
    table = (here / "out" / "compare.md").read_text()
    assert written == f"# Results\r\n\r\n{OPEN}\n{table}{CLOSE}\r\nend"
    assert table.startswith("`compressor compare one two/report -o out --into R.md`\n")


def test_the_command_in_a_block_makes_the_block_again(here):
    (here / "R.md").write_text(
        f"{OPEN.replace('results', 'x.1')}\n{CLOSE.replace('results', 'x.1')}"
    )
    words = ["one", "two/report", "-o", "out", "--into", "R.md", "--block", "x.1", "--quiet"]
    assert go("compare", *words) == 0
    first = (here / "R.md").read_text()
    command = first.splitlines()[1].strip("`").split()
    assert go(*command[1:], "--force") == 0
    assert (here / "R.md").read_text() == first


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--into R.md", 3, "R.md must have the line <!-- compressor compare results --> once"),
        ("--into R.md --block twice", 3, "has it in lines 2, 4"),
        (
            "--into R.md --block open",
            3,
            "<!-- /compressor compare open --> once, and has it nowhere",
        ),
        ("--into none.md", 3, "none.md does not exist"),
        ("--into one", 3, "not a regular file"),
        ("--block results", 2, "--into FILE"),
        ("--into R.md --block a--b", 2, "--block a--b: expected letters"),
        ("--into R.md --block -->", 2, "--block"),
        ("--into out/R.md --force", 3, "R.md"),
    ],
)
def test_a_block_that_cannot_be_written_is_refused_before_any_work(words, code, said, here, capsys):
    line = "<!-- compressor compare {} -->\n<!-- /compressor compare {} -->\n"
    open_only = "<!-- compressor compare open -->\n"
    (here / "R.md").write_text("\n" + 2 * line.format("twice", "twice") + open_only)
    before = everything(here)
    assert go("compare", "one", "two/report", "-o", "out", *words.split()) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert everything(here) == before


def test_an_output_that_would_swallow_the_file_is_refused(here, capsys):
    assert go("compare", "one", "-o", "out") == 0
    (here / "out" / "R.md").write_text(f"{OPEN}\n{CLOSE}\n")
    assert go("compare", "one", "two/report", "-o", "out", "--into", "out/R.md", "--force") == 3
    assert "holds the input out/R.md" in capsys.readouterr().err


def test_without_the_block_there_is_no_folder_either(here, monkeypatch, capsys):
    from compressor.checkpoint import blocks

    def full(path, data):
        raise OSError(28, "No space left on device")

    (here / "R.md").write_text(f"{OPEN}\n{CLOSE}\n")
    monkeypatch.setattr(blocks, "replace_file", full)
    before = everything(here)
    assert go("compare", "one", "two/report", "-o", "out", "--into", "R.md") == 6
    assert capsys.readouterr().out == ""
    assert everything(here) == before


def test_a_refused_report_is_compared_and_says_so(here, capsys):
    report = stored(threads=4)
    report["gates"] = [
        {"gate": "max-drop", "model": "student", "limit": 0.1, "value": 1.0, "passed": False}
    ]
    put("late.refused", report)
    assert go("compare", "one", "late.refused", "-o", "out") == 0
    assert "late.refused: Refused: student fails --max-drop" in (
        (here / "out" / "compare.md").read_text()
    )
