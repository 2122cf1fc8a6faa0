"""`compare`: stored reports side by side, in one table and plot."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from compressor import console
from compressor.checkpoint.blocks import Block
from compressor.checkpoint.lineage import file_hash
from compressor.checkpoint.reading import file_names, nearest, shown, some
from compressor.checkpoint.store import check_target, locked, writing
from compressor.commands.job import command_line, path_from_stdin, print_folder
from compressor.commands.judged import is_made, write_pages
from compressor.commands.options import Output
from compressor.commands.stored import MAKE_ONE, REPORT, read_report
from compressor.errors import InputError, UsageError
from compressor.measure.comparison import abouts, build_comparison, comparison_rows, sentences
from compressor.measure.comparison_html import render_comparison_html
from compressor.measure.exchange import render_comparison_markdown
from compressor.measure.words import unique_names

_BLOCK_NAME = re.compile(r"[A-Za-z0-9]+([._-][A-Za-z0-9]+)*")


def run(
    reports: Annotated[
        list[str],
        typer.Argument(
            metavar="REPORT...",
            help=f"a {REPORT}, a folder that holds one, or - for a path on stdin",
        ),
    ],
    *,
    into: Annotated[
        str, typer.Option(help="Markdown file to write the table into", show_default=False)
    ] = "",
    block: Annotated[
        str,
        typer.Option(
            help="name of the place in it, after the line <!-- compressor compare NAME --> and "
            "before <!-- /compressor compare NAME -->; results if absent",
            show_default=False,
        ),
    ] = "",
    shared: Output,
    words: list[str],
) -> None:
    """Put stored reports side by side: a table, plots, and what may not be compared.

    compressor compare first/report second/report -o comparison

    compressor compare first/report second/report --into RESULTS.md --block recipes
    """
    place = _block(into, block)
    paths = [Path(path_from_stdin() if report == "-" else report) for report in reports]
    files = [path / REPORT if path.is_dir() else path for path in paths]
    opened = [_open(path, file) for path, file in zip(paths, files, strict=True)]
    names = _names(files)
    if place:
        place.check()
    inputs = {
        "reports": [
            {"name": name, "hash": file_hash(file)} for name, file in zip(names, files, strict=True)
        ],
        "into": [shown(place.path.name), place.name] if place else [],
    }
    target = Path(shared.output or f"{_place(files[-1]).name.removesuffix('.json')}-compare")
    if shared.reuse and is_made(target / "compare.json", inputs):
        console.note(f"compare: {target} is already made by this command")
        if place:
            place.write((target / "compare.md").read_text("utf-8"))
        return print_folder(target, {"verb": "compare", "reused": True})
    touched = [*paths, *([place.path] if place else [])]
    check_target(target, force=shared.force, inputs=touched, needed_bytes=1_000_000)
    if shared.dry_run:
        return console.note(f"would compare {', '.join(names)} into {target}")
    piped = [str(path) for report, path in zip(reports, paths, strict=True) if report == "-"]
    typed = [piped[0] if word == "-" else word for word in words]
    with locked(target):
        comparison = build_comparison(
            dict(zip(names, opened, strict=True)), command_line(typed, relative=True), inputs
        )
        _publish(comparison, target, shared, place)
    return None


def _block(into: str, name: str) -> Block | None:
    """Where the table goes besides its folder; None for nowhere.

    Raises:
        UsageError: a name without a file, or one that no line can hold.
    """
    if name and not into:
        raise UsageError("--block names a place in a file: add --into FILE", where="--block")
    if name and not _BLOCK_NAME.fullmatch(name):
        raise UsageError(
            f"--block {name}: expected letters and digits, joined by . _ or -", where="--block"
        )
    return Block(Path(into), f"compressor compare {name or 'results'}") if into else None


def _open(path: Path, file: Path) -> dict[str, Any]:
    """A stored report.

    Args:
        path: as the user named it.
        file: the file that it means.

    Raises:
        InputError: there is none, it is no report, or one of another schema.
    """
    if not file.exists():
        if path.is_dir():
            held = some(file_names(path)) or "nothing"
            raise InputError(
                f"{path} holds no {REPORT}, but {held}", hint=MAKE_ONE, where=str(path)
            )
        parent = path.parent
        like = nearest(path.name, file_names(parent)) if parent.is_dir() else None
        near = f"; nearest name there: {parent / like}" if like else ""
        raise InputError(
            f"{shown(str(path))} does not exist{near}", hint=MAKE_ONE, where=shown(str(path))
        )
    return read_report(file)


def _place(file: Path) -> Path:
    """What names a report: its folder, or the one above if that is called `report` as in recipes.

    A file with a name of its own names itself.
    """
    file = file.resolve()
    if file.name != REPORT:
        return file
    above = file.parent.parent
    return above if file.parent.name == "report" and above.name else file.parent


def _names(files: list[Path]) -> list[str]:
    """A name for each report.

    Raises:
        InputError: a report stands there twice, or two cannot be told apart.
    """
    places = [_place(file) for file in files]
    names = unique_names([place.name.removesuffix(".json") for place in places], places)
    names = [shown(name) for name in names]
    hashes = [file_hash(file) for file in files]
    for index, (name, content) in enumerate(zip(names, hashes, strict=True)):
        if content in hashes[:index]:
            first = files[hashes.index(content)]
            raise InputError(f"{files[index]} and {first} are the same report", hint="name it once")
        if name in names[:index]:
            raise InputError(
                f"two reports are called {name}: {files[names.index(name)]} and {files[index]}",
                hint="rename one of their folders",
            )
    return names


def _publish(comparison: dict[str, Any], target: Path, shared: Output, place: Block | None) -> None:
    """Write the folder and the block, or neither; show the table; print the folder's path."""
    text = render_comparison_markdown(comparison)
    with writing(target, force=shared.force) as folder:
        write_pages(folder, "compare", comparison, render_comparison_html(comparison), text)
        if place:
            place.write(text)
    columns, rows = comparison_rows(comparison)
    console.table("", columns, rows, to_stdout=False, texts=3)
    for line in (*sentences(comparison), *abouts(comparison)):
        console.note(line)
    print_folder(target, {"verb": "compare", "report": str(target / "compare.json")})
