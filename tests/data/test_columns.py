import pytest

from compressor.data.columns import find_label_column, find_text_columns
from compressor.errors import InputError, UsageError


@pytest.mark.parametrize(
    ("columns", "texts", "label"),
    [
        (["text", "label"], ("text",), "label"),
        (["text", "label", "fine_label"], ("text",), "label"),
        (["text", "coarse_label", "fine_label"], ("text",), "coarse_label"),
        (["text_a", "text_b", "label", "genre"], ("text_a", "text_b"), "label"),
        (["question", "answer", "label", "question_id", "title"], ("question", "answer"), "label"),
        (["idx", "question", "sentence", "label"], ("question", "sentence"), "label"),
        (["premise", "hypothesis", "gold_label"], ("premise", "hypothesis"), "gold_label"),
        (["sentence1", "sentence2", "score"], ("sentence1", "sentence2"), "score"),
        (["question1", "question2", "is_duplicate"], ("question1", "question2"), "is_duplicate"),
        (["query", "passage", "similarity"], ("query", "passage"), "similarity"),
        (["Review", "Sentiment"], ("Review",), "Sentiment"),
        (["target", "tweet"], ("tweet",), "target"),
        (["text"], ("text",), None),
    ],
)
def test_columns_are_found_by_name(columns, texts, label):
    assert find_text_columns(columns, None, "d") == texts
    assert find_label_column(columns, None, texts, "d") == label


def test_columns_can_be_named():
    columns = ["text", "summary", "label", "mood"]
    assert find_text_columns(columns, "summary", "d") == ("summary",)
    assert find_text_columns(columns, "summary, text", "d") == ("summary", "text")
    assert find_label_column(columns, "mood", ("text",), "d") == "mood"


def test_case_27_no_such_column():
    with pytest.raises(InputError, match="no text column among 'image', 'label'") as refused:
        find_text_columns(["image", "label"], None, "d")
    assert "--text-columns" in refused.value.hint
    with pytest.raises(InputError, match="'txt' among 'text', 'label'; did you mean 'text'"):
        find_text_columns(["text", "label"], "txt", "d")
    with pytest.raises(InputError, match="did you mean 'label'"):
        find_label_column(["text", "label"], "lable", ("text",), "d")


@pytest.mark.parametrize("wanted", ["", "a,b,c", "a,a", "a,"])
def test_one_or_two_columns(wanted):
    with pytest.raises(UsageError, match="one or two columns"):
        find_text_columns(["a", "b", "c"], wanted, "d")
