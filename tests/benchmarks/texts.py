"""Sentences and questions for a small masked language model, from several data sets.

    python tests/benchmarks/texts.py DATA -o FOLDER

DATA holds the folders `sst2_socher`, `trec`, `wikiqa` and `imdb_subset`. Taken are training texts
alone, of TREC those that the other benchmarks train on: sentences of film reviews, questions, and
5,000 sentences of 5 to 40 words drawn from longer reviews. Every twentieth is for validation.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path
from typing import Any


def rows_of(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def gathered(data: Path) -> list[str]:
    """All texts, in an order that is drawn once and for all."""
    random.seed(0)
    texts = [row["text"] for row in rows_of(data / "sst2_socher/train.jsonl")]
    questions = rows_of(data / "trec/train.jsonl")
    texts += [row["text"] for number, row in enumerate(questions) if number % 10]
    texts += dict.fromkeys(row["question"] for row in rows_of(data / "wikiqa/train.jsonl"))
    reviews = [
        row["text"].replace("<br />", " ") for row in rows_of(data / "imdb_subset/train.jsonl")
    ]
    sentences = [part for review in reviews for part in re.split(r"(?<=[.!?])\s+", review)]
    texts += random.sample([part for part in sentences if 5 <= len(part.split()) <= 40], 5000)
    random.shuffle(texts)
    return texts


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text}) + "\n" for text in gathered(given.data)]
    train = [line for number, line in enumerate(lines) if number % 20]
    (given.output / "train.jsonl").write_text("".join(train), encoding="utf-8")
    (given.output / "validation.jsonl").write_text("".join(lines[::20]), encoding="utf-8")


if __name__ == "__main__":
    main()
