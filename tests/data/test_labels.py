import pytest

from compressor.data import labels
from compressor.data.labels import LabelCounts, class_ids, label_key, listed
from compressor.data.tasks import TASKS
from compressor.errors import InputError

CLASSIFY, REGRESS = TASKS["text-classification"], TASKS["regression"]


@pytest.mark.parametrize(
    ("value", "kind", "key"),
    [
        (1, "integer", "1"),
        ("1", "integer", "1"),
        (" -1 ", "integer", "-1"),
        (1.0, "whole", "1"),
        ("1.0", "whole", "1"),
        (2.5, "fraction", "2.5"),
        ("2.5e-1", "fraction", "0.25"),
        ("007", "name", "007"),
        (" pos ", "name", "pos"),
        (True, "name", "true"),
        (None, "missing", ""),
        ("  ", "missing", ""),
        (float("nan"), "missing", ""),
        (float("inf"), "other", "inf"),
        ([1], "other", "[1]"),
        (10**400, "other", "1" + "0" * 39),
    ],
)
def test_label_key(value, kind, key):
    assert label_key(value) == (kind, key)


def counts(*values):
    made = LabelCounts("label")
    for line, value in enumerate(values, start=1):
        made.add(value, "train.csv", line)
    return made


def test_task_is_chosen_by_the_labels():
    assert counts(0, 1, "2").choose_task("d") is CLASSIFY
    assert counts("pos", "neg").choose_task("d") is CLASSIFY
    assert counts(True, False).choose_task("d") is CLASSIFY
    assert counts(5, 2.5).choose_task("d") is REGRESS
    assert counts("5.0", "4.0").choose_task("d") is REGRESS


def test_classes_are_in_order():
    assert list(counts(10, 9, 1, 1).class_counts().items()) == [("1", 2), ("9", 1), ("10", 1)]
    assert list(counts("pos", "neg").class_counts()) == ["neg", "pos"]
    assert list(counts("1.0", "0.0").class_counts()) == ["0", "1"]


def test_case_28_mixed_labels():
    with pytest.raises(InputError) as refused:
        counts(0, 0, "pos", 1, "pos").choose_task("d")
    message = refused.value.message
    assert "mixes integers and names" in message
    assert "0 (2 rows, first at train.csv:1), 1 (1 row, first at train.csv:4)" in message
    assert "'pos' (2 rows, first at train.csv:3)" in message


def test_case_28_missing_labels():
    with pytest.raises(InputError, match=r"missing labels.*\n.*\n.*first at train.csv:2"):
        counts("pos", None, "neg").choose_task("d")
    with pytest.raises(InputError, match="holds only missing labels"):
        counts(None, "").require(CLASSIFY, "d")


def test_a_named_task_must_suit_the_labels():
    counts(0, 1).require(REGRESS, "d")
    counts("1.0", "0.0").require(CLASSIFY, "d")
    with pytest.raises(InputError, match="expected classes") as refused:
        counts(0.5, 1.0).require(CLASSIFY, "d")
    assert refused.value.hint == "--task regression"
    with pytest.raises(InputError, match="holds names; expected numbers"):
        counts("pos").require(REGRESS, "d")


def test_too_many_classes(monkeypatch):
    monkeypatch.setattr(labels, "MAX_CLASSES", 3)
    counts("a", "b", "c").require(CLASSIFY, "d")
    with pytest.raises(InputError, match="more than 3 different values, such as 'a', 'b', 'c'"):
        counts("a", "b", "c", "d", "e").require(CLASSIFY, "d")


def test_class_ids_match_by_name_whatever_the_order():
    ids = class_ids(("positive", "negative"), ["negative", "positive"])
    assert ids["negative"] == 1
    assert class_ids(("NEGATIVE", "POSITIVE"), ["positive"])["positive"] == 1
    # not when two names differ by case only
    assert "a" not in class_ids(("A", "a!", "A!"), ["a"])


def test_integers_are_ids_where_they_number_every_class_or_classes_have_no_names():
    assert class_ids(("LABEL_0", "LABEL_1"), ["0", "1"])["1"] == 1
    assert class_ids(("", ""), ["0"])["1"] == 1
    assert class_ids(("negative", "positive"), ["1", "0"])["1"] == 1
    # two classes of another task are not two of these three
    assert "1" not in class_ids(("entailment", "neutral", "contradiction"), ["0", "1"])
    assert "1" not in class_ids(("negative", "positive"), ["1", "2"])
    assert "1" not in class_ids(("negative", "7"), ["0", "1"])
    assert "pos" not in class_ids(("LABEL_0", "LABEL_1"), ["neg", "pos"])
    assert class_ids(("1", "0"), ["0", "1"])["0"] == 1


def test_listed_is_short():
    assert listed([str(i) for i in range(22)]).endswith("18, 19 and 2 more")
