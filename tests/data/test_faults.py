from pathlib import Path

import pytest

from compressor.data import faults
from compressor.data.faults import Bad, excerpt, refuse_bad
from compressor.errors import InputError

FILE = Path("rows.jsonl")


def test_good_rows_pass_until_the_first_bad_one():
    rows = refuse_bad(iter([(1, "a"), (2, Bad("broken")), (3, "b")]), FILE)
    assert next(rows) == (1, "a")
    with pytest.raises(InputError) as refused:
        next(rows)
    assert refused.value.where == "rows.jsonl:2"
    assert refused.value.message == "broken"


def test_twenty_are_listed_and_the_rest_counted():
    rows = [(line, Bad("broken", f"row {line}")) for line in range(1, 31)]
    with pytest.raises(InputError) as refused:
        list(refuse_bad(rows, FILE))
    message = refused.value.message
    assert message.startswith("30 bad lines\n")
    assert "line 20: broken: row 20" in message
    assert "row 21" not in message
    assert message.endswith("and 10 more")


def test_looking_on_ends_somewhere(monkeypatch):
    monkeypatch.setattr(faults, "LOOK_ON_ROWS", 5)
    rows = [(line, Bad("broken")) for line in range(1, 100)]
    with pytest.raises(InputError, match="6 bad rows among the 5 looked at"):
        list(refuse_bad(rows, FILE, unit="row"))


def test_a_later_fault_of_another_kind_does_not_hide_the_first():
    def rows():
        yield 1, Bad("the first fault")
        raise InputError("the second fault")

    with pytest.raises(InputError, match="the first fault"):
        list(refuse_bad(rows(), FILE))


def test_excerpt_is_short_and_printable():
    assert excerpt("plain\r\n") == "plain"
    assert excerpt("tab\tand \x1b[31m") == "tab\\tand \\x1b[31m"
    assert excerpt("x" * 1_000_000) == "x" * 80 + " ..."
