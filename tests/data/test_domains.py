"""Rows by domain: a column or folders, what is chosen, and what is refused."""

import json

import pytest

from compressor.data.dataset import open_dataset
from compressor.data.domains import Domains, count_domains, domains_of
from compressor.data.source import open_source
from compressor.errors import InputError, UsageError

ROWS = [("a", "bad"), ("a", "good"), ("b", "good"), ("c", "good"), ("b", "bad"), ("a", "bad")]


def lines(rows, column="domain"):
    made = [
        {"text": f"text {n}", "label": label, column: domain}
        for n, (domain, label) in enumerate(rows)
    ]
    return "".join(json.dumps(row) + "\n" for row in made)


@pytest.fixture
def column(tmp_path):
    """One folder whose rows name their domain; only `a` has rows to choose by."""
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "train.jsonl").write_text(lines(ROWS))
    (folder / "validation.jsonl").write_text(lines(ROWS[:2]))
    return folder


@pytest.fixture
def folders(tmp_path):
    """A folder for each domain; `c` has test rows alone."""
    for name, split in (("a", "train"), ("b", "train"), ("b", "test"), ("c", "test")):
        folder = tmp_path / "parts" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{split}.jsonl").write_text(lines([r for r in ROWS if r[0] == name][:2], "at"))
    return tmp_path / "parts"


def texts(dataset, split="train"):
    return [row.texts[0] for row in dataset.rows(split)]


def test_domains_by_column(column):
    left = open_dataset(str(column), domains=Domains(without=("a",)))
    assert texts(left) == ["text 2", "text 3", "text 4"]
    assert left.source.name == "rows without a"
    assert not left.has("validation")  # it had rows of a alone
    only = open_dataset(str(column), domains=Domains(only=("a", "b")))
    assert texts(only) == ["text 0", "text 1", "text 2", "text 4", "text 5"]
    assert [row.line for row in only.rows("train")] == [1, 2, 3, 5, 6]


def test_classes_are_those_of_the_chosen_rows(column):
    whole = (column / "train.jsonl").read_text()
    odd = whole.replace('"good", "domain": "c"', '"odd", "domain": "c"')
    (column / "train.jsonl").write_text(odd)
    assert open_dataset(str(column)).labels == ("bad", "good", "odd")
    assert open_dataset(str(column), domains=Domains(without=("c",))).labels == ("bad", "good")


def test_domains_by_folder(folders):
    left = open_dataset(str(folders), domains=Domains(without=("a",)))
    assert texts(left) == ["text 0", "text 1"]
    assert {row.file.parent.name for row in left.rows("test")} == {"b", "c"}
    with pytest.raises(InputError, match="no train, validation or test file"):
        open_dataset(str(folders))


def test_a_column_goes_before_folders(folders):
    named = open_dataset(str(folders), domains=Domains("at", only=("c",)))
    assert texts(named, "test") == ["text 0"]


def test_the_hash_tells_choices_apart(column):
    chosen = [Domains(), Domains(only=("a",)), Domains(only=("b",)), Domains(without=("a",))]
    found = {open_dataset(str(column), domains=domains).hash for domains in chosen}
    assert len(found) == 4


def test_counts(folders):
    counts = count_domains(open_source(str(folders), parts=True))
    assert counts == {"train": {"a": 2, "b": 2}, "test": {"b": 2, "c": 1}}


@pytest.mark.parametrize("domains", [Domains(only=("az",)), Domains(without=("az",))])
def test_an_unknown_domain_is_refused_with_those_that_are(column, domains):
    with pytest.raises(InputError, match="'az'; there are a, b, c") as refused:
        open_dataset(str(column), domains=domains)
    assert refused.value.hint == "did you mean a?"


def test_nothing_left_is_refused(column):
    with pytest.raises(InputError, match="no domain is left"):
        open_dataset(str(column), domains=Domains(without=("a", "b", "c")))


def test_a_missing_column_is_refused(column):
    with pytest.raises(InputError, match="no column 'source' among 'text', 'label', 'domain'"):
        open_dataset(str(column), domains=Domains("source", only=("a",)))


def test_rows_without_a_domain_are_listed(column):
    whole = (column / "train.jsonl").read_text()
    (column / "train.jsonl").write_text(whole.replace('"domain": "c"', '"domain": null'))
    with pytest.raises(InputError, match="no domain in column 'domain'") as refused:
        open_dataset(str(column), domains=Domains(without=("a",)))
    assert refused.value.where.endswith("train.jsonl:4")


def test_flags():
    assert domains_of("site", "a, b", "") == Domains("site", ("a", "b"))
    with pytest.raises(UsageError, match="no domain is chosen"):
        domains_of("site", "", " , ")
