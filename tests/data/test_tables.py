import json

import pyarrow
import pyarrow.parquet
import pytest

from compressor.data import tables
from compressor.data.readers import read_rows
from compressor.errors import InputError

ROWS = {"text": ["one", "two", "three"], "label": [1, 0, -1]}


def noted(table):
    """`table` with the note that the datasets library writes for class labels."""
    feature = {"names": ["neg", "pos"], "_type": "ClassLabel"}
    note = {"info": {"features": {"label": feature, "text": {"_type": "Value"}}}}
    return table.replace_schema_metadata({"huggingface": json.dumps(note)})


def test_parquet(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 2)
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table(ROWS), path)
    assert list(read_rows(path))[2] == (3, {"text": "three", "label": -1})


def test_class_labels_come_out_as_names(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(noted(pyarrow.table(ROWS)), path)
    assert [row["label"] for _, row in read_rows(path)] == ["pos", "neg", None]


def test_a_note_of_another_tool_is_left_alone():
    schema = pyarrow.schema([("text", pyarrow.string())])
    for note in (b"not json", b"[]", b'{"info": null}'):
        assert tables.class_names(schema.with_metadata({"huggingface": note})) == {}


def test_arrow_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 2)
    path = tmp_path / "a.arrow"
    table = noted(pyarrow.table(ROWS))
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    assert [(line, row["label"]) for line, row in read_rows(path)] == [
        (1, "pos"),
        (2, "neg"),
        (3, None),
    ]


def test_case_26_not_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    for content in (b"text,label\n", b"PAR1" + bytes(100) + b"PAR1", b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a readable parquet file") as refused:
            list(read_rows(path))
        assert refused.value.where == str(path)


def test_case_26_cut_short(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table(ROWS), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="not a readable parquet file"):
        list(read_rows(path))


def test_case_25_nul_in_a_string(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["fine", "a\0b"]}), path)
    with pytest.raises(InputError, match="NUL in a string") as refused:
        list(read_rows(path))
    assert refused.value.where.endswith("a.parquet:2")


def test_case_23_no_rows(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), path)
    with pytest.raises(InputError, match="no rows"):
        list(read_rows(path))
