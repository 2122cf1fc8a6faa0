"""Whatever bytes a file holds, it is read or refused in words; nothing else comes out."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressor.data.dataset import open_dataset
from compressor.data.readers import read_rows
from compressor.errors import InputError

QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PIECES = st.sampled_from(
    (
        *(b'{"text": "a", "label": 1}', b"text,label", b"a,1", b"text\tlabel", b"[", b"{", b"}"),
        *(b'"', b",", b"\t", b"\n", b"\r\n", b"\r", b"\x00", b"\\ud800"),
        *(b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80"),
    )
)
BYTES = st.lists(PIECES | st.binary(max_size=6), max_size=12).map(b"".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "txt", "parquet"])
@QUICK
@given(content=BYTES)
def test_any_bytes(tmp_path, suffix, content):
    path = tmp_path / f"train.{suffix}"
    path.write_bytes(content)
    try:
        for _, row in read_rows(path):
            assert not any("\0" in value for value in row.values() if isinstance(value, str))
    except InputError as refused:
        assert refused.where.startswith(str(path))  # noqa: PT017 - either outcome is right


@QUICK
@given(rows=st.lists(st.fixed_dictionaries({"text": VALUES, "label": VALUES}), max_size=4))
def test_any_values(tmp_path, rows):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        dataset = open_dataset(str(path))
    except InputError:
        return
    for row in dataset.rows("train"):
        assert isinstance(row.texts[0], str)
        assert dataset.labels is None or 0 <= row.label < len(dataset.labels)
