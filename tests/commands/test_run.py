"""Recipes: the same as command lines, checked before anything runs, finished steps skipped."""

import functools
import json
from pathlib import Path

import pytest

from compressor.cli import run
from compressor.commands.recipe import FOLDERS, find_recipe, read_recipe
from compressor.errors import InputError, UsageError

RECIPE = """\
description: two steps on a tiny model
variables: {data: DATA, seed: 7}
steps:
  - prune: {model: TEACHER, method: magnitude, sparsity: 0.5, seed: "{seed}", output: pruned}
  - distill: {teacher: TEACHER, layers: 2, data: "{data}", epochs: 1, with: gmp, output: student}
"""


@pytest.fixture
def recipe(workshop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = RECIPE.replace("DATA", str(workshop / "data"))
    file = tmp_path / "tiny.yaml"
    file.write_text(text.replace("TEACHER", str(workshop / "teacher")))
    return file


def test_steps_run_in_order_and_a_second_run_skips_them(recipe, tmp_path, capsys):
    assert run(["run", "tiny.yaml"]) == 0
    first = capsys.readouterr()
    assert first.out == "tiny\n"
    steps = json.loads((tmp_path / "tiny/student/compression.json").read_text())["steps"]
    assert steps[-1]["options"]["with"][0]["method"] == "gmp"
    assert run(["run", "tiny.yaml"]) == 0
    assert capsys.readouterr().err.count("already made") == 2


def test_a_step_that_fails_stops_the_recipe_with_its_own_code(recipe, capsys):
    recipe.write_text(recipe.read_text().replace("layers: 2", "layers: 99"))
    assert run(["run", "tiny.yaml"]) == 2
    captured = capsys.readouterr()
    assert "step 2" in captured.err or "--layers 99" in captured.err
    assert captured.out == ""


def test_a_path_typed_here_is_found_although_the_steps_run_elsewhere(recipe, workshop, tmp_path):
    (tmp_path / "rows").symlink_to(workshop / "data")
    assert run(["run", "tiny.yaml", "--set", "data=rows"]) == 0
    steps = json.loads((tmp_path / "tiny/student/compression.json").read_text())["steps"]
    assert str(tmp_path) not in json.dumps(steps)


@pytest.mark.parametrize("file", sorted(FOLDERS[1].glob("*.yaml")), ids=lambda file: file.stem)
def test_the_recipes_that_ship_are_short_and_hold_known_flags(file):
    assert len(file.read_text().splitlines()) <= 30
    assert len(read_recipe(file, {}).commands) > 1


def test_print_gives_the_commands_that_can_be_typed(recipe, capsys):
    assert run(["run", "tiny.yaml", "--print", "--set", "seed=3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "--method magnitude --sparsity 0.5 --seed 3 --output pruned" in lines[0]
    assert lines[1].startswith("compressor distill ")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "method: magnitude, ",
            "method: magnitude, sparsty: 1, ",
            "tiny.yaml:4: prune has no flag",
        ),
        ("- prune:", "- prun:", "unknown verb prun"),
        ('"{seed}"', '"{sede}"', "sede"),
        ("description:", "descripton:", "descripton"),
        ("steps:", "stages:", "list of steps"),
        ("{data: ", "{data: [", "tiny.yaml"),
        ("two steps", "!!python/object/apply:os.system ['true']", "tiny.yaml"),
        ("- prune: {", "- prune: [", "tiny.yaml"),
    ],
)
def test_a_broken_recipe_is_refused_before_anything_runs(
    recipe, tmp_path, capsys, before, after, said
):
    text = recipe.read_text()
    assert before in text or "DATA" in before
    recipe.write_text(
        text.replace(before, after) if before in text else text.replace("{data: ", "{data: [")
    )
    assert run(["run", "tiny.yaml"]) == 3
    assert said in capsys.readouterr().err
    assert not (tmp_path / "tiny").exists()


def test_unknown_recipes_and_variables(recipe, capsys):
    assert run(["run", "quickstrat"]) == 3
    assert "compressor run quickstart" in capsys.readouterr().err
    with pytest.raises(UsageError, match="colour"):
        read_recipe(recipe, {"colour": "red"})
    with pytest.raises(InputError, match="no recipe file"):
        find_recipe("missing.yaml")


@pytest.mark.parametrize("file", [file for folder in FOLDERS for file in folder.glob("*.yaml")])
def test_every_shipped_recipe_is_short_and_valid(file):
    recipe = read_recipe(file, {})
    assert recipe.description
    assert recipe.commands
    assert len(file.read_text().splitlines()) <= 30


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_commands_of_the_ci_examples_exist(name):
    import re

    import yaml

    from compressor.cli import VERBS

    text = (Path(__file__).parents[2] / f"recipes/ci/{name}.yml").read_text()
    assert yaml.safe_load(text)
    commands = re.findall(r"compressor (\w+) ", text)
    assert {"distill", "quantize", "export", "benchmark"} <= set(commands)
    for verb in set(commands) - {"with"}:
        assert verb in VERBS
    for flag in set(re.findall(r"(--[a-z-]+)", text)):
        assert any(flag in help_of(verb) for verb in commands), flag


@functools.cache
def help_of(verb: str) -> str:
    import subprocess
    import sys

    words = [sys.executable, "-m", "compressor", verb, "--help"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
