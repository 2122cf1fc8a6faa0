"""Which columns hold text or images and the label, found by the names that data sets use."""

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
IMAGES = ("image", "img", "image_path", "file_name")
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


def find_inputs(
    columns: Sequence[str],
    *,
    reads: str | None,
    texts: str | None,
    image: str | None,
    where: str,
) -> tuple[str, tuple[str, ...]]:
    """What the rows hold, and the columns that hold it.

    Images are found where no column of text is: text often has a file's name beside it.

    Args:
        columns: the columns of the data.
        reads: "text" or "image" where a task asks for it; None for either.
        texts: what `--text-columns` says; None finds them by name.
        image: what `--image-column` says; None finds it by name.
        where: the data set, for the refusal.

    Returns:
        "text" and one or two columns, or "image" and one.

    Raises:
        InputError: no such column.
        UsageError: what was asked for contradicts itself.
    """
    if image is not None and (reads == "text" or texts is not None):
        other = "--text-columns" if texts is not None else "a --task for text"
        raise UsageError(f"--image-column and {other} exclude each other", where="--image-column")
    if reads == "image" and texts is not None:
        raise UsageError(
            "--text-columns names texts, and image-classification reads images",
            hint="--image-column COLUMN",
            where="--text-columns",
        )
    if image is not None:
        return "image", (_existing(image.strip(), columns, where),)
    if texts is not None or reads == "text":
        return "text", find_text_columns(columns, texts, where)
    found = next((known for name in IMAGES if (known := _known(columns).get(name))), None)
    if reads == "image" and found is None:
        raise InputError(
            f"no image column among {_listed(columns)}",
            hint="name it: --image-column COLUMN, with the path of an image file in each row",
            where=where,
        )
    if found is not None and (reads == "image" or not _text_by_name(columns)):
        return "image", (found,)
    return "text", find_text_columns(columns, None, where)


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
    found = _text_by_name(columns)
    if found:
        return found
    raise InputError(
        f"no text column among {_listed(columns)}",
        hint="name it: --text-columns COLUMN, or COLUMN,COLUMN for pairs, or --image-column "
        "COLUMN; csv and tsv files need a header row",
        where=where,
    )


def _text_by_name(columns: Sequence[str]) -> tuple[str, ...]:
    """The text columns whose names are known; () where there are none."""
    known = _known(columns)
    for names in (*PAIRS, *((name,) for name in SINGLES)):
        if all(name in known for name in names):
            return tuple(known[name] for name in names)
    return ()


def _known(columns: Sequence[str]) -> dict[str, str]:
    return {name.strip().casefold(): name for name in columns}


def find_label_column(
    columns: Sequence[str], wanted: str | None, texts: Sequence[str], where: str
) -> str | None:
    """The column that holds the label, None when no name looks like one.

    Args:
        columns: the columns of the data.
        wanted: what the user asked for; None finds it by name.
        texts: the columns of text or images, which are no labels.
        where: the data set, for the refusal.

    Raises:
        InputError: the wanted column does not exist.
    """
    if wanted is not None:
        return _existing(wanted.strip(), columns, where)
    known = _known([name for name in columns if name not in texts])
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
