"""Which columns hold the text and the label, found by the names that data sets commonly use."""

from __future__ import annotations

from collections.abc import Sequence

from compressor.errors import InputError, UsageError

# The first pair whose columns are both there wins over a single column: "question" alone is a
# text, beside "answer" it is half of one.
PAIRS = (
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("text_1", "text_2"),
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("sentence_a", "sentence_b"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "answer"),
    ("question", "passage"),
    ("query", "passage"),
    ("query", "document"),
    ("query", "answer"),
)
SINGLES = (
    "text",
    "sentence",
    "content",
    "review",
    "tweet",
    "document",
    "question",
    "comment",
    "message",
    "utterance",
    "headline",
    "query",
    "passage",
    "body",
    "title",
)
LABELS = (
    "label",
    "labels",
    "score",
    "target",
    "class",
    "similarity",
    "gold",
    "gold_label",
    "coarse_label",
    "sentiment",
    "rating",
    "stars",
    "category",
    "intent",
    "emotion",
    "topic",
    "relatedness_score",
    "is_duplicate",
    "label_text",
)


def find_text_columns(columns: Sequence[str], wanted: str | None, where: str) -> tuple[str, ...]:
    """The one or two columns that hold the text.

    Args:
        columns: the columns of the data.
        wanted: what the user asked for, separated by a comma; None finds them by name.
        where: the data set, for the refusal.

    Raises:
        InputError: no such column.
        UsageError: `wanted` does not name one or two different columns.
    """
    if wanted is not None:
        names = tuple(name.strip() for name in wanted.split(","))
        if not 1 <= len(set(names)) == len(names) <= 2 or not all(names):
            raise UsageError(
                f"{wanted!r} does not name one or two columns",
                hint="--text-columns text, or --text-columns premise,hypothesis",
                where="--text-columns",
            )
        return tuple(_existing(name, columns, where) for name in names)
    known = {name.strip().casefold(): name for name in columns}
    for pair in PAIRS:
        if all(name in known for name in pair):
            return tuple(known[name] for name in pair)
    for name in SINGLES:
        if name in known:
            return (known[name],)
    raise InputError(
        f"no text column among {_listed(columns)}",
        hint="name it: --text-columns COLUMN, or COLUMN,COLUMN for pairs; "
        "csv and tsv files need a header row",
        where=where,
    )


def find_label_column(
    columns: Sequence[str], wanted: str | None, texts: Sequence[str], where: str
) -> str | None:
    """The column that holds the label, None when no name looks like one.

    Args:
        columns: the columns of the data.
        wanted: what the user asked for; None finds it by name.
        texts: the text columns, which are no labels.
        where: the data set, for the refusal.

    Raises:
        InputError: the wanted column does not exist.
    """
    if wanted is not None:
        return _existing(wanted.strip(), columns, where)
    known = {name.strip().casefold(): name for name in columns if name not in texts}
    return next((known[name] for name in LABELS if name in known), None)


def missing_column(name: str, columns: Sequence[str]) -> str:
    """The sentence about a column that is not there: what is, and what comes nearest."""
    import difflib

    near = difflib.get_close_matches(name, columns, n=1)
    suggestion = f"; did you mean {near[0]!r}?" if near else ""
    return f"no column {name!r} among {_listed(columns)}{suggestion}"


def _existing(name: str, columns: Sequence[str], where: str) -> str:
    if name in columns:
        return name
    raise InputError(missing_column(name, columns), where=where)


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(map(repr, columns)) or "no columns at all"
