import io
import sys
from pathlib import Path

import pytest

from compressor.data.source import Source, open_source, source_hash
from compressor.errors import InputError, UsageError


def folder(path, *names, content='{"text": "x"}\n'):
    path.mkdir(exist_ok=True)
    for name in names:
        (path / name).write_text(content)
    return path


def test_folder(tmp_path):
    made = folder(tmp_path / "d", "test.csv", "train.jsonl", "dev.tsv", "README.md", "notes.jsonl")
    source = open_source(str(made))
    assert source.name == "d"
    assert source.hub is None
    assert source.splits == {
        "train": [made / "train.jsonl"],
        "validation": [made / "dev.tsv"],
        "test": [made / "test.csv"],
    }
    assert list(source.splits) == ["train", "validation", "test"]


def test_shards_are_one_split_and_two_data_sets_are_not(tmp_path):
    shards = ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet")
    made = folder(tmp_path / "d", *shards)
    assert [file.name for file in open_source(str(made)).splits["train"]] == list(shards)
    for second in ("train.jsonl", "train-00000-of-00003.parquet"):
        folder(made, second)
        with pytest.raises(InputError, match="train stands in 3 files"):
            open_source(str(made))
        (made / second).unlink()


def test_single_file_stands_for_the_split_that_is_asked_for(tmp_path):
    made = folder(tmp_path / "d", "rows.jsonl", "test.jsonl")
    rows = str(made / "rows.jsonl")
    assert open_source(rows) == Source("rows.jsonl", {"train": [Path(rows)]})
    assert list(open_source(rows, single="test").splits) == ["test"]
    assert list(open_source(str(made / "test.jsonl")).splits) == ["test"]


def test_case_22_missing(tmp_path):
    folder(tmp_path / "reviews", "train.jsonl")
    with pytest.raises(InputError, match=r"did you mean .*reviews") as refused:
        open_source(str(tmp_path / "review"))
    assert ".jsonl" in refused.value.hint
    with pytest.raises(InputError, match="no such folder") as refused:
        open_source("stanfordnlp/sst2")
    assert "hub:stanfordnlp/sst2" in refused.value.hint


def test_case_22_wrong_extension(tmp_path):
    made = folder(tmp_path / "d", "train.xlsx")
    with pytest.raises(InputError, match=r"cannot read a \.xlsx file"):
        open_source(str(made / "train.xlsx"))
    with pytest.raises(InputError, match=r"no train, validation or test .* train\.xlsx"):
        open_source(str(made))


def test_a_folder_of_folders_says_where_the_data_is(tmp_path):
    made = tmp_path / "d"
    made.mkdir()
    folder(made / "yelp", "test.jsonl")
    with pytest.raises(InputError) as refused:
        open_source(str(made))
    assert str(made / "yelp") in refused.value.hint


def test_package_folder(tmp_path, monkeypatch):
    source = open_source("pkg:compressor/data/sentiment_sentences")
    assert source.name == "pkg:compressor/data/sentiment_sentences"
    assert list(source.splits) == ["train", "validation", "test"]
    with pytest.raises(InputError, match="no Python package 'nosuchpackage'"):
        open_source("pkg:nosuchpackage/data")
    with pytest.raises(InputError, match="has no folder 'nosuchfolder'"):
        open_source("pkg:compressor/nosuchfolder")


def test_package_is_found_without_running_it(tmp_path, monkeypatch):
    package = tmp_path / "carries_rows"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    folder(package / "rows", "train.jsonl")
    monkeypatch.syspath_prepend(tmp_path)
    assert open_source("pkg:carries_rows/rows").splits["train"][0].is_file()


class Stdin(io.TextIOWrapper):
    terminal = False

    def isatty(self):
        return self.terminal


def test_stdin_is_spooled(monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(io.BytesIO(b'{"text": "x"}\n')))
    source = open_source("-")
    assert source.name == "-"
    (path,) = source.splits["train"]
    assert path.read_bytes() == b'{"text": "x"}\n'


def test_stdin_empty_or_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(io.BytesIO(b"")))
    with pytest.raises(InputError, match="no rows on standard input"):
        open_source("-")
    terminal = Stdin(io.BytesIO(b""))
    terminal.terminal = True
    monkeypatch.setattr(sys, "stdin", terminal)
    with pytest.raises(UsageError, match="terminal"):
        open_source("-")


def test_hash_is_of_contents_and_splits_only(tmp_path):
    first = open_source(str(folder(tmp_path / "a", "train.jsonl", "dev.jsonl")))
    same = open_source(str(folder(tmp_path / "b", "train.jsonl", "validation.jsonl")))
    assert source_hash(first) == source_hash(same)
    assert source_hash(first).startswith("sha256:")
    other = open_source(str(folder(tmp_path / "c", "train.jsonl", "test.jsonl")))
    assert source_hash(first) != source_hash(other)
    (tmp_path / "b" / "train.jsonl").write_text('{"text": "y"}\n')
    assert source_hash(first) != source_hash(same)
