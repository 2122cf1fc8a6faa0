"""`run`: a recipe, which is the same verbs with the same flags, one after the other.

    description: what the recipe is for
    variables: {data: pkg:compressor/data/sentiment_sentences, seed: 42}
    steps:
      - finetune: {model: pkg:..., data: "{data}", epochs: 3, output: teacher}
      - benchmark: {models: [student, exported], baseline: teacher, output: report}

Keys are flags without their dashes; the verb's positional arguments go by their names. Every step
runs with `--reuse`, so a finished one is skipped, and an interrupted one goes on with `--resume`.
Folders are written below `--output`.
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from compressor import console
from compressor.commands.dispatch import dispatch
from compressor.commands.recipe import Recipe, find_recipe, read_recipe
from compressor.commands.signature import known_flags
from compressor.errors import CompressorError, InputError


def run(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="a recipe's name or a YAML file")
    ] = "",
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", help="folder to work in; named after the recipe")
    ] = "",
    set_: Annotated[
        list[str], typer.Option("--set", help="a variable of the recipe, KEY=VALUE; repeatable")
    ] = [],  # noqa: B006 - typer copies it
    print_: Annotated[
        bool, typer.Option("--print", help="print the shell commands and do nothing")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="replace the outputs of steps that changed")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="print errors only")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="print tracebacks")] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Run a recipe: the same verbs in order, finished steps skipped.

    compressor run quickstart

    compressor run quickstart --set seed=1 -o quickstart-seed-1
    """
    path = find_recipe(recipe)
    changes = dict(_pair(text) for text in set_)
    if print_:
        console.result(as_shell(read_recipe(path, changes)))
        return
    loaded = read_recipe(path, {key: _from_here(value) for key, value in changes.items()})
    folder = Path(output or path.stem)
    folder.mkdir(parents=True, exist_ok=True)
    _run_steps(loaded, folder, force=force)
    if json:
        console.result_json({"output": str(folder)})
    else:
        console.result(str(folder))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set {text}: expected KEY=VALUE", where="--set")
    return key, value


def _from_here(value: str) -> str:
    """A path that was typed in this folder, as the steps must name it: they run in another."""
    names_a_path = value and not value.isdecimal() and Path(value).exists()
    return str(Path(value).absolute()) if names_a_path else value


def as_shell(recipe: Recipe) -> str:
    """The commands that the recipe equals, one a line."""
    return "\n".join(shlex.join(["compressor", *words]) for words in recipe.commands)


def _run_steps(recipe: Recipe, folder: Path, *, force: bool) -> None:
    """Run every step inside `folder`; its stdout goes to stderr, ours is the folder's line.

    Raises:
        CompressorError: the step's own failure, with its number.
    """
    before = Path.cwd()
    os.chdir(folder)
    try:
        for number, words in enumerate(recipe.commands, start=1):
            console.note(f"[{number}/{len(recipe.commands)}] {shlex.join(words)}")
            with redirect_stdout(sys.stderr):
                try:
                    dispatch([*words, *_going_on(words, force=force)])
                except CompressorError as problem:
                    problem.where = problem.where or f"step {number} of {recipe.path.name}"
                    raise
    finally:
        os.chdir(before)


def _going_on(words: list[str], *, force: bool) -> list[str]:
    """The flags that make a second run of a recipe go on where the first one ended."""
    flags = ["--reuse", *(["--force"] if force else [])]
    resumes = "--resume" in known_flags(words[0], words[1:])
    return [*flags, "--resume"] if resumes and not force else flags
