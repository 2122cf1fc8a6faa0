"""Rows out of files, one at a time: jsonl, csv, tsv, txt here; parquet and arrow in `tables`.

Memory stays flat whatever the size of the file: a line is the most that is held, and a line over
10 MB is refused. UTF-8 with or without a byte order mark, and both kinds of line end, are read;
everything else is refused with its file and line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from compressor import console
from compressor.data.faults import Bad, excerpt, refuse_bad
from compressor.errors import InputError, MachineError

MAX_LINE_BYTES = 10_000_000
PIECE_BYTES = 1_000_000
UTF8_MARK = b"\xef\xbb\xbf"
RESAVE = "re-save the file as UTF-8"

Pairs = Iterator[tuple[int, "dict[str, Any] | Bad"]]


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Stream the rows of a file with their 1-based line numbers (row numbers for binary files).

    jsonl: one object a line. csv, tsv: a header row, then one row a record; a csv record may hold
    line breaks inside quotes and is numbered by its first line, a tsv has no quoting. txt: every
    line that is not blank is a row with the one column `text`.

    Raises:
        InputError: the file is missing, of an unknown kind, has no rows, or holds lines that
            cannot be read; up to twenty bad lines are listed.
        MachineError: the file may not be read.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"cannot read a {path.suffix or 'nameless'} file",
            hint=f"convert it to one of {', '.join(FORMATS)}",
            where=str(path),
        )
    unit = "row" if reader is _table else "line"
    empty = True
    for pair in refuse_bad(reader(path), path, unit=unit):
        empty = False
        yield pair
    if empty:
        raise InputError("no rows", hint="is it empty, or only a header?", where=str(path))


def open_binary(path: Path) -> BinaryIO:
    """Open a file for reading, with the reason in words when that fails."""
    try:
        return path.open("rb")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as problem:
        raise InputError(
            f"no such file; data files are {', '.join(FORMATS)}", where=str(path)
        ) from problem
    except PermissionError as problem:
        status = path.stat()
        raise MachineError(
            f"may not be read: owner {status.st_uid}, mode {status.st_mode & 0o777:04o}",
            hint=f"chmod u+r {path}, or run as its owner",
            where=str(path),
        ) from problem


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The raw lines of a file without its byte order mark, numbered from 1."""
    with open_binary(path) as handle:
        number = 0
        while raw := handle.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                size = len(raw)
                while not raw.endswith(b"\n") and (raw := handle.readline(PIECE_BYTES)):
                    size += len(raw)
                raise InputError(
                    f"a line of {console.size(size)}; the longest that is read is "
                    f"{console.size(MAX_LINE_BYTES)}",
                    hint="write one row a line",
                    where=f"{path}:{number}",
                )
            yield number, raw.removeprefix(UTF8_MARK) if number == 1 else raw


def _decode(raw: bytes) -> str | Bad:
    """A line as text, or why it is none."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as problem:
        byte = raw[problem.start]
        shown = excerpt(raw.decode("latin-1"))
        place = f"byte 0x{byte:02X} at position {problem.start + 1}"
        if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return Bad("not UTF-8 (looks like UTF-16)", shown, RESAVE)
        if byte == 0xED and problem.start + 1 < len(raw) and raw[problem.start + 1] >= 0xA0:
            return Bad(f"{place} starts half of a surrogate pair", shown, RESAVE)
        return Bad(f"{place} is not UTF-8 (looks like latin-1)", shown, RESAVE)
    if "\0" in text:
        many = text.count("\0") > len(text) // 4
        guess = " (looks like UTF-16)" if many else ""
        hint = RESAVE if many else "remove the NUL"
        return Bad(f"NUL at position {text.index(chr(0)) + 1}{guess}", excerpt(text), hint)
    return text


def unusable(value: Any) -> str:
    """Why a string cannot be a text (NUL, half of a surrogate pair); empty when it can."""
    if not isinstance(value, str):
        return ""
    if "\0" in value:
        return "NUL in a string"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return "half of a surrogate pair in a string"
    return ""


def _jsonl(path: Path) -> Pairs:
    decode_json = json.JSONDecoder().decode
    for number, raw in _lines(path):
        text = _decode(raw)
        if isinstance(text, Bad):
            yield number, text
            continue
        if not text.strip():
            continue
        try:
            row = decode_json(text)
        except json.JSONDecodeError as problem:
            yield number, Bad(f"not JSON, {problem.msg} at column {problem.colno}", excerpt(text))
            continue
        except (ValueError, RecursionError) as problem:
            yield number, Bad(f"not JSON that can be read, {problem}", excerpt(text))
            continue
        if not isinstance(row, dict):
            kind = "list" if isinstance(row, list) else "value without column names"
            hint = 'write one object a line: {"text": "...", "label": "..."}'
            yield number, Bad(f"a JSON {kind}; expected an object", excerpt(text), hint)
            continue
        # Only an escape can bring a NUL or half a surrogate pair past the checks on the line.
        reason = next(filter(None, map(unusable, row.values())), "") if "\\u" in text else ""
        yield number, Bad(reason, excerpt(text)) if reason else row


class _Undecodable(Exception):  # noqa: N818 - carries a `Bad`, never leaves this file
    def __init__(self, bad: Bad) -> None:
        super().__init__(bad.problem)
        self.bad = bad


class _CsvLines:
    """Decoded lines for `csv.reader`, which remember where the current record began.

    An iterator object and not a generator: reading goes on after a line that is not UTF-8.
    """

    def __init__(self, path: Path) -> None:
        self._lines = _lines(path)
        self.line = 0
        self.record_line = 0
        self.record_text = ""

    def start_record(self) -> None:
        self.record_line = 0

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        self.line, raw = next(self._lines)
        text = _decode(raw)
        if isinstance(text, Bad):
            raise _Undecodable(text)
        if not self.record_line:
            self.record_line, self.record_text = self.line, text
        return text


def _csv(path: Path) -> Pairs:
    return _separated(path, delimiter=",", quoting=csv.QUOTE_MINIMAL)


def _tsv(path: Path) -> Pairs:
    # No quoting: a quote in a tsv is a character like any other, as in GLUE's files.
    return _separated(path, delimiter="\t", quoting=csv.QUOTE_NONE)


def _separated(path: Path, *, delimiter: str, quoting: Literal[0, 3]) -> Pairs:
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = _CsvLines(path)
    records = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    header: list[str] | None = None
    while True:
        lines.start_record()
        try:
            record = next(records)
        except StopIteration:
            return
        except _Undecodable as problem:
            yield lines.line, problem.bad
            if header is None:
                return
            continue
        except csv.Error as problem:
            # Past a broken quote nobody knows where the records begin: stop looking.
            yield lines.record_line, Bad(_quote_problem(problem), excerpt(lines.record_text))
            return
        if not record:
            continue
        if header is None:
            header = [name.strip() for name in record]
            twice = sorted({name for name in header if header.count(name) > 1})
            if twice:
                yield lines.record_line, Bad(f"the header names {twice[0]!r} twice")
                return
        elif len(record) == len(header):
            yield lines.record_line, dict(zip(header, record, strict=True))
        else:
            found = f"{len(record)} field{'s' if len(record) > 1 else ''}"
            problem_text = f"{found} where the header has {len(header)}"
            yield lines.record_line, Bad(problem_text, excerpt(lines.record_text))


def _quote_problem(problem: csv.Error) -> str:
    reason = str(problem)
    if "unexpected end of data" in reason:
        return "a quote is opened and never closed"
    if "field limit" in reason:
        return f"a field of over {console.size(MAX_LINE_BYTES)}; is a quote never closed?"
    return f"broken quoting, {reason}"


def _txt(path: Path) -> Pairs:
    for number, raw in _lines(path):
        text = _decode(raw)
        if isinstance(text, Bad):
            yield number, text
        elif text.strip():
            yield number, {"text": text.rstrip("\r\n")}


def _table(path: Path) -> Pairs:
    from compressor.data.tables import read_table

    return read_table(path)


READERS: dict[str, Callable[[Path], Pairs]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _table,
    ".txt": _txt,
    # What the `datasets` library keeps of a hub data set; never asked of a user.
    ".arrow": _table,
}
FORMATS = tuple(suffix for suffix in READERS if suffix != ".arrow")
