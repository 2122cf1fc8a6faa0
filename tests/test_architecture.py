"""The rules that keep the house in order: who imports whom, how long things are, who prints."""

import ast
import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "compressor"
FILES = sorted(PACKAGE.rglob("*.py"))
# A room may import from rooms that stand lower, never from its neighbours.
LEVELS = (
    ("errors", "__init__"),
    ("console",),
    ("checkpoint", "data", "measure"),
    ("model",),
    ("methods", "train", "export"),
    ("commands",),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
# What the loop and the methods agree on lies with the methods.
SHARED = {"compressor.methods.contract", "compressor.methods.option"}
METHODS = [
    path
    for kind in ("students", "objectives", "modifiers", "transforms", "generators")
    for path in sorted((PACKAGE / "methods" / kind).glob("[!_]*.py"))
]
LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 300, 60


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST, *, inside_functions: bool = True) -> Iterator[tuple[int, str]]:
    """(line, module) of every import that runs; those under TYPE_CHECKING do not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not inside_functions:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # `from compressor import console` imports a module by its name.
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield node.lineno, module if node.module == "compressor" else str(node.module)
        yield from imports(node, inside_functions=inside_functions)


def room_of_module(module: str) -> str:
    """The room of `compressor.x.y`; a plain attribute of the package counts as the package."""
    part = module.split(".")[1] if "." in module else "__init__"
    return part if part in LEVEL else "__init__"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_one_way(path):
    room = room_of(path)
    assert room in LEVEL, f"which level does {room} belong to?"
    wrong = []
    for line, module in imports(tree_of(path)):
        if module.partition(".")[0] != "compressor" or module in SHARED:
            continue
        other = room_of_module(module)
        if other != room and LEVEL[other] >= LEVEL[room]:
            wrong.append(f"{name_of(path)}:{line} imports {module}")
    assert not wrong


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if room_of(path) in ("checkpoint", "data", "measure")],
    ids=name_of,
)
def test_rooms_that_know_no_torch(path):
    heavy = {"torch", "transformers", "accelerate", "compressed_tensors"}
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for line, module in imports(tree_of(path))
        if module.partition(".")[0] in heavy or module.startswith("safetensors.torch")
    ]
    assert not wrong


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in FILES
        if room_of(path) in ("cli", "console", "errors", "commands", "methods")
    ],
    ids=name_of,
)
def test_the_catalogue_and_the_verbs_load_without_torch(path):
    top = {module.partition(".")[0] for _, module in imports(tree_of(path), inside_functions=False)}
    assert not top & {"torch", "transformers", "accelerate", "onnx", "onnxruntime", "datasets"}


@pytest.mark.parametrize("path", METHODS, ids=name_of)
def test_methods_know_neither_the_loop_nor_the_store_nor_the_verbs(path):
    banned = ("compressor.train", "compressor.commands", "compressor.export", "compressor.cli")
    wrong = [
        module
        for _, module in imports(tree_of(path))
        if module.startswith((*banned, "compressor.checkpoint.store"))
        # No method inherits from another or lists one; what they share lies below them.
        or (module.startswith("compressor.methods.find"))
    ]
    assert not wrong


@pytest.mark.parametrize("path", METHODS, ids=name_of)
def test_a_method_is_one_file_with_its_source_and_its_options(path):
    module = importlib.import_module(f"compressor.methods.{path.parent.name}.{path.stem}")
    lines = (module.__doc__ or "").strip().splitlines()
    assert len(lines) > 3, "title, authors, year, equation, what was left out"
    assert re.search(r"\b(19|20)\d\d\b", module.__doc__) or "plain" in module.__doc__.casefold()
    assert isinstance(module.VERBS, tuple)
    assert module.VERBS or path.parent.name == "modifiers"  # `--with` takes every modifier
    assert dataclasses.is_dataclass(module.Options)
    assert module.Options.__dataclass_params__.frozen
    for field in dataclasses.fields(module.Options):
        assert field.metadata["help"], f"{field.name} has no help"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_small(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LINES_OF_A_FILE
    long = {
        node.name: length_of(node)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and length_of(node) > LINES_OF_A_FUNCTION
    }
    assert not long


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring, which is welcome to be long."""
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    docstring = first.end_lineno - first.lineno + 1 if documented else 0
    return function.end_lineno - function.lineno + 1 - docstring


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_says_what_it_is_for(path):
    assert ast.get_docstring(tree_of(path))


@pytest.mark.parametrize(
    "path", [path for path in FILES if room_of(path) not in ("console", "cli")], ids=name_of
)
def test_only_the_console_prints(path):
    wrong = []
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in ("print", "typer.echo", "sys.stdout.write", "sys.stderr.write"):
            wrong.append(f"{name_of(path)}:{node.lineno} calls {called}")
    assert not wrong


def test_nothing_mentions_a_folder_of_one_machine():
    texts = [*FILES, *ROOT.glob("*.md"), *ROOT.glob("*.toml"), *(ROOT / "recipes").rglob("*")]
    paths = re.compile(r"(?<![\w.:/-])/(work|tmp|home|root|Users|mnt|srv)/\w+")
    wrong = [
        f"{name_of(path)}: {found[0]}"
        for path in texts
        if path.is_file() and path.suffix in (".py", ".md", ".toml", ".yaml")
        for found in [paths.search(path.read_text(encoding="utf-8"))]
        if found
    ]
    assert not wrong
