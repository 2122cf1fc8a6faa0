"""The data of the quick start: what its README says is so."""

import hashlib
from collections import Counter

from compressor.data.dataset import open_dataset
from compressor.data.readers import read_rows
from compressor.data.splits import overlap

SPLITS = {"train": 320, "validation": 60, "test": 120}


def open_it():
    return open_dataset("pkg:compressor/data/sentiment_sentences")


def raw():
    source = open_it().source
    return {
        split: [row for _, row in read_rows(files[0])] for split, files in source.splits.items()
    }


def letters(text):
    return "".join(c for c in text.lower() if c.isalnum())


def test_opens_without_flags():
    dataset = open_it()
    assert dataset.task.name == "text-classification"
    assert dataset.text_columns == ("text",)
    assert dataset.labels == ("negative", "positive")


def test_counts():
    for split, rows in raw().items():
        counts = Counter((row["site"], row["label"]) for row in rows)
        assert len(counts) == 6
        assert set(counts.values()) == {SPLITS[split]}


def test_no_sentence_stands_in_two_files():
    dataset = open_it()
    assert overlap(dataset, "train", "validation") == (0, [])
    assert overlap(dataset, "train", "test") == (0, [])
    assert overlap(dataset, "validation", "test") == (0, [])
    texts = [{letters(row["text"]) for row in rows} for rows in raw().values()]
    assert sum(map(len, texts)) == len(set.union(*texts))


def test_the_split_follows_its_rule():
    def order(row):
        return hashlib.sha256(row["text"].encode()).hexdigest()

    splits = raw()
    everything = [row for rows in splits.values() for row in rows]
    seen = Counter(letters(row["text"]) for row in everything)
    assert sum(count for count in seen.values() if count > 1) == 54
    test, validation = [], []
    for group in sorted({(row["site"], row["label"]) for row in everything}):
        rows = [row for row in everything if (row["site"], row["label"]) == group]
        once = sorted((row for row in rows if seen[letters(row["text"])] == 1), key=order)
        test += once[:120]
        validation += once[120:180]
    assert splits["test"] == sorted(test, key=order)
    assert splits["validation"] == sorted(validation, key=order)
    assert [order(row) for row in splits["train"]] == sorted(map(order, splits["train"]))
