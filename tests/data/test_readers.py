import json
import tracemalloc

import pytest

from compressor.data import readers
from compressor.data.readers import read_rows
from compressor.errors import CompressorError, InputError, MachineError


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path, content=None) -> CompressorError:
    if content is not None:
        write(path, content)
    with pytest.raises(CompressorError) as refused:
        list(read_rows(path))
    return refused.value


def test_jsonl(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "one", "label": 1}\n\n{"text": "zwei"}')
    assert list(read_rows(path)) == [(1, {"text": "one", "label": 1}), (3, {"text": "zwei"})]


def test_csv_with_quotes_and_line_breaks(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"a, ""b""\nc",1\n\nd,0\n')
    assert list(read_rows(path)) == [
        (2, {"text": 'a, "b"\nc', "label": "1"}),
        (5, {"text": "d", "label": "0"}),
    ]


def test_csv_fields_over_the_module_default(tmp_path):
    long = "word " * 100_000
    path = write(tmp_path / "a.csv", f"text,label\n{long},1\n")
    assert next(read_rows(path))[1]["text"] == long


def test_tsv_has_no_quoting(tmp_path):
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"he said\t1\nit\'s "fine"\t0\n')
    texts = [row["text"] for _, row in read_rows(path)]
    assert texts == ['"he said', 'it\'s "fine"']


def test_txt_has_a_row_for_each_line_that_is_not_blank(tmp_path):
    path = write(tmp_path / "a.txt", "one\n \n\n two \r\n")
    assert list(read_rows(path)) == [(1, {"text": "one"}), (4, {"text": " two "})]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "txt"])
def test_mark_and_both_line_ends_are_accepted(tmp_path, suffix):
    separator = {"csv": ",", "tsv": "\t"}.get(suffix)
    if separator:
        lines = ["text" + separator + "label", "café" + separator + "1"]
    elif suffix == "jsonl":
        lines = [json.dumps({"text": "café"}, ensure_ascii=False)]
    else:
        lines = ["café"]
    for end in ("\n", "\r\n"):
        path = write(tmp_path / f"a.{suffix}", b"\xef\xbb\xbf" + (end.join(lines) + end).encode())
        assert [row["text"] for _, row in read_rows(path)] == ["café"]


def test_case_22_missing_and_wrong_extension(tmp_path):
    assert "no such file" in refusal(tmp_path / "gone.jsonl").message
    (tmp_path / "folder.jsonl").mkdir()
    assert "no such file" in refusal(tmp_path / "folder.jsonl").message
    refused = refusal(tmp_path / "a.xlsx", "x")
    assert ".xlsx" in refused.message
    assert ".parquet" in refused.hint


def test_unreadable_file(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", "x")

    def refuse(self, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    refused = refusal(path)
    assert isinstance(refused, MachineError)
    assert "mode 0" in refused.message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", ""),
        ("a.jsonl", "\n\n"),
        ("a.csv", ""),
        ("a.csv", "text,label\n"),
        ("a.txt", " "),
    ],
)
def test_case_23_no_rows(tmp_path, name, content):
    assert refusal(tmp_path / name, content).message == "no rows"


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.txt"])
def test_case_24_latin_1(tmp_path, name):
    good = {"a.jsonl": '{"text": "x"}', "a.csv": "text", "a.tsv": "text", "a.txt": "text"}[name]
    refused = refusal(tmp_path / name, f"{good}\ncaf".encode() + b"\xe9 noir\n")
    assert refused.where.endswith(f"{name}:2")
    assert "byte 0xE9 at position 4" in refused.message
    assert "looks like latin-1" in refused.message
    assert "café noir" in refused.message
    assert "UTF-8" in refused.hint


def test_case_24_utf_16(tmp_path):
    content = '{"text": "x"}\n{"text": "y"}\n'
    assert "looks like UTF-16" in refusal(tmp_path / "a.jsonl", content.encode("utf-16")).message
    assert "looks like UTF-16" in refusal(tmp_path / "b.csv", content.encode("utf-16-le")).message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"text": "a\x00b"}', "NUL at position 12"),
        (b'{"text": "a\\u0000b"}', "NUL in a string"),
        (b'{"text": "a\\ud800b"}', "half of a surrogate pair in a string"),
        (b'{"text": "a\xed\xa0\x80b"}', "half of a surrogate pair"),
    ],
)
def test_case_25_nul_and_surrogates(tmp_path, line, words):
    refused = refusal(tmp_path / "a.jsonl", b'{"text": "x"}\n' + line + b"\n")
    assert words in refused.message
    assert refused.where.endswith("a.jsonl:2")


def test_an_escaped_pair_is_one_character(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "\\ud83d\\ude00"}')
    assert next(read_rows(path))[1]["text"] == "\N{GRINNING FACE}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "x" "label": 1}', "column 14"),
        ('{"text": "x"', "not JSON"),
        ("[1, 2]", "a JSON list; expected an object"),
        ("3", "a JSON value"),
        ("[" * 100_000, "not JSON"),
        ('{"text": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_case_26_broken_json(tmp_path, line, words):
    refused = refusal(tmp_path / "a.jsonl", '{"text": "fine"}\n' + line + "\n")
    assert words in refused.message
    assert refused.where.endswith("a.jsonl:2")
    assert line[:80] in refused.message


def test_case_26_all_bad_lines_are_named(tmp_path):
    lines = ['{"text": "fine"}', "{oops", '{"text": "fine"}', "{again"]
    refused = refusal(tmp_path / "a.jsonl", "\n".join(lines))
    assert "2 bad lines" in refused.message
    assert "line 2:" in refused.message
    assert "line 4:" in refused.message
    assert "{again" in refused.message


def test_case_26_ragged_rows(tmp_path):
    refused = refusal(tmp_path / "a.csv", "text,label\na,1\nb\nc,1,2\n")
    assert refused.where.endswith("a.csv:3")
    assert "line 3: 1 field where the header has 2: b" in refused.message
    assert "line 4: 3 fields where the header has 2: c,1,2" in refused.message
    refused = refusal(tmp_path / "a.tsv", "text\tlabel\na 1\n")
    assert refused.where.endswith("a.tsv:2")


def test_case_26_unclosed_quote(tmp_path):
    refused = refusal(tmp_path / "a.csv", 'text,label\na,1\n"b,1\nc,0\n')
    assert refused.where.endswith("a.csv:3")
    assert "a quote is opened and never closed" in refused.message
    assert '"b,1' in refused.message
    refused = refusal(tmp_path / "b.csv", 'text,label\n"b" c,1\n')
    assert refused.where.endswith("b.csv:2")
    assert "broken quoting" in refused.message


def test_header_names_a_column_twice(tmp_path):
    assert "'text' twice" in refusal(tmp_path / "a.csv", "text,text\na,b\n").message


def test_case_36_a_line_that_is_too_long(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "fine"}\n{"text": "')
        for _ in range(30):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n')
    tracemalloc.start()
    refused = refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.where.endswith("a.jsonl:2")
    assert "30.0 MB" in refused.message
    # one line at the limit, and the next piece of it
    assert peak < 25_000_000


def test_case_36_an_open_quote_does_not_swallow_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 1000)
    refused = refusal(tmp_path / "a.csv", 'text,label\n"open,1\n' + "more,0\n" * 1000)
    assert refused.where.endswith("a.csv:2")
    assert "is a quote never closed?" in refused.message


def test_case_36_memory_is_flat(tmp_path):
    path = tmp_path / "a.jsonl"
    line = json.dumps({"text": "word " * 200, "label": 1}) + "\n"
    with path.open("w") as file:
        for _ in range(20_000_000 // len(line)):
            file.write(line)
    tracemalloc.start()
    count = sum(1 for _ in read_rows(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count > 19_000
    assert peak < 1_000_000


def test_reading_can_stop_early(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "fine"}\n{broken\n')
    assert next(read_rows(path)) == (1, {"text": "fine"})
    with pytest.raises(InputError):
        list(read_rows(path))
