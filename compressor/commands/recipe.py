"""Recipes: YAML files that say the same as command lines, checked before anything runs."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.commands.dispatch import VERBS
from compressor.errors import InputError, UsageError

# In a checkout the recipes lie beside the package, in a wheel inside it.
FOLDERS = (
    Path(__file__).parents[1] / "recipes",
    Path(__file__).parents[2] / "recipes",
)
KEYS = ("description", "variables", "steps")


@dataclass(frozen=True)
class Recipe:
    """A recipe as command lines.

    Attributes:
        path: the file.
        description: what it is for.
        commands: the words of each step, verb first.
    """

    path: Path
    description: str
    commands: list[list[str]]


def find_recipe(name: str) -> Path:
    """The file of a recipe that ships with the package, or that the user wrote.

    Raises:
        InputError: there is none; the message lists those that ship.
    """
    if name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise InputError(f"no recipe file {name}", where=name)
    shipped = {file.stem: file for folder in FOLDERS for file in folder.glob("*.yaml")}
    if name in shipped:
        return shipped[name]
    near = difflib.get_close_matches(name, shipped, n=1)
    raise InputError(
        f"no recipe is called {name!r}; there are {', '.join(sorted(shipped))}"
        if name
        else f"name a recipe: {', '.join(sorted(shipped))}",
        hint=f"compressor run {near[0]}" if near else "give the path of a YAML file",
    )


def read_recipe(path: Path, changes: Mapping[str, str]) -> Recipe:
    """Read and check a recipe.

    Args:
        path: a YAML file.
        changes: values for its variables, over those that it gives itself.

    Raises:
        InputError: YAML that does not parse, unknown keys, verbs or flags, missing variables;
            with file and line.
    """
    content, lines = _load(path)
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise InputError(
            f"unknown key {unknown[0]}; a recipe has {', '.join(KEYS)}", where=str(path)
        )
    variables = {**(content.get("variables") or {}), **changes}
    surplus = sorted(set(changes) - set(content.get("variables") or {}))
    if surplus:
        raise UsageError(
            f"--set {surplus[0]}: the recipe's variables are "
            f"{', '.join(content.get('variables') or {}) or 'none'}"
        )
    commands = []
    for step, line in zip(content["steps"], lines, strict=True):
        where = f"{path}:{line}"
        if not isinstance(step, dict) or len(step) != 1:
            raise InputError("a step is one verb with its flags, `- prune: {...}`", where=where)
        ((verb, flags),) = step.items()
        commands.append(_words(verb, flags or {}, variables, where))
    return Recipe(path, content.get("description", ""), commands)


def _load(path: Path) -> tuple[dict[str, Any], list[int]]:
    """The file's content and the line of each step."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        content, node = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as problem:
        raise InputError(
            "a recipe is UTF-8 text", hint="re-save it as UTF-8", where=str(path)
        ) from problem
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(
            f"not a recipe: {getattr(problem, 'problem', None) or problem}",
            where=f"{path}{line}",
        ) from problem
    if not isinstance(content, dict) or not isinstance(content.get("steps"), list):
        raise InputError("a recipe is a mapping with a list of steps", where=str(path))
    if not isinstance(content.get("variables") or {}, dict):
        raise InputError("variables must be a mapping from names to values", where=str(path))
    steps = next(value for key, value in node.value if key.value == "steps")
    return content, [step.start_mark.line + 1 for step in steps.value]


def _words(verb: str, flags: Any, variables: Mapping[str, Any], where: str) -> list[str]:
    """One step as the words of a command line."""
    if verb not in VERBS:
        near = difflib.get_close_matches(str(verb), VERBS, n=1)
        raise InputError(
            f"unknown verb {verb}; there are {', '.join(VERBS)}",
            hint=f"{near[0]}:" if near else "",
            where=where,
        )
    if not isinstance(flags, dict):
        raise InputError(f"the flags of {verb} must be a mapping", where=where)
    positional: list[str] = []
    named: list[str] = []
    arguments = _positionals(verb)
    for key, value in flags.items():
        texts = [_filled(item, variables, where) for item in _as_list(value)]
        if key in arguments:
            positional += texts
        elif value is True:
            named.append(f"--{key}".replace("_", "-"))
        elif value is not False:
            for text in texts:
                named += [f"--{key}".replace("_", "-"), text]
    words = [verb, *positional, *named]
    _check_flags(words, where)
    return words


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _filled(value: Any, variables: Mapping[str, Any], where: str) -> str:
    """A value with its `{variable}`s replaced."""
    try:
        return str(value).format_map(variables) if isinstance(value, str) else str(value)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as problem:
        raise InputError(
            f"{value!r} needs a variable {problem}; "
            f"the recipe has {', '.join(variables) or 'none'}",
            hint="--set NAME=VALUE, or add it under variables",
            where=where,
        ) from problem


def _positionals(verb: str) -> list[str]:
    """Names of a verb's positional arguments."""
    import importlib

    import typer

    run = importlib.import_module(f"compressor.commands.{verb}").run
    return [
        name
        for name, parameter in inspect.signature(run, eval_str=True).parameters.items()
        if any(
            isinstance(part, type(typer.Argument()))
            for part in getattr(parameter.annotation, "__metadata__", ())
        )
    ]


def _check_flags(words: list[str], where: str) -> None:
    """Refuse flags that the step's verb and methods do not have."""
    from compressor.commands.signature import known_flags

    known = known_flags(words[0], words[1:])
    for word in words:
        if word.startswith("--") and word not in known:
            near = difflib.get_close_matches(word, known, n=1)
            raise InputError(
                f"{words[0]} has no flag {word}", hint=near[0] if near else "", where=where
            )
