import json
import subprocess
import sys

import numpy as np
import pytest

import tiny
from compressor.data.dataset import open_dataset
from compressor.data.rows import NO_CLASS
from compressor.data.splits import overlap, split_for_evaluation, warn_absent_classes
from compressor.errors import InputError, UsageError


def data(folder, **splits):
    """A folder with a jsonl file for each split; rows are dicts, or (text, label)."""
    folder.mkdir(exist_ok=True)
    for name, rows in splits.items():
        lines = [
            json.dumps(row if isinstance(row, dict) else {"text": row[0], "label": row[1]})
            for row in rows
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return str(folder)


def test_names(tmp_path):
    dataset = open_dataset(str(tiny.data(tmp_path / "d")))
    assert dataset.task.name == "text-classification"
    assert dataset.text_columns == ("text",)
    assert dataset.label_column == "label"
    assert dataset.labels == ("negative", "positive")
    rows = list(dataset.rows("train"))
    assert len(rows) == 64
    assert rows[0].line == 1
    assert rows[0].file.name == "train.jsonl"
    expected = [("negative", "positive").index(row["label"]) for row in tiny.rows(64)]
    assert [row.label for row in rows] == expected
    assert dataset.hash.startswith("sha256:")


def test_regression(tmp_path):
    rows = [{"text_a": "a", "text_b": "b", "label": label} for label in (5, 2.5, "0.0")]
    dataset = open_dataset(data(tmp_path, train=rows))
    assert dataset.task.name == "regression"
    assert dataset.labels is None
    assert [row.label for row in dataset.rows("train")] == [5.0, 2.5, 0.0]
    assert next(dataset.rows("train")).texts == ("a", "b")


def test_a_head_with_one_output_is_regression(tmp_path):
    folder = data(tmp_path, train=[("a", 1), ("b", 5)])
    assert open_dataset(folder, model_labels=("LABEL_0",)).task.name == "regression"


def test_language_models_need_no_label(tmp_path):
    folder = data(tmp_path, validation=[{"text": "a"}, {"text": ""}])
    dataset = open_dataset(folder, task="masked-lm")
    assert dataset.label_column is None
    assert [row.label for row in dataset.rows("validation")] == [None, None]
    with pytest.raises(InputError, match="no label column among 'text'") as refused:
        open_dataset(folder)
    assert "--task masked-lm" in refused.value.hint


def test_every_format_gives_the_same_rows(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [("good film", 1), ('"bad" film', 0), ("a, b", 1)]
    data(tmp_path, train=rows)
    texts, labels = zip(*rows, strict=True)
    (tmp_path / "a.csv").write_text('text,label\ngood film,1\n"""bad"" film",0\n"a, b",1\n')
    (tmp_path / "a.tsv").write_text('text\tlabel\ngood film\t1\n"bad" film\t0\na, b\t1\n')
    pyarrow.parquet.write_table(
        pyarrow.table({"text": texts, "label": labels}), tmp_path / "a.parquet"
    )
    seen = []
    for name in ("train.jsonl", "a.csv", "a.tsv", "a.parquet"):
        dataset = open_dataset(str(tmp_path / name))
        assert dataset.labels == ("0", "1")
        seen.append([(row.texts[0], row.label) for row in dataset.rows("train")])
    assert seen == [rows] * 4


def test_single_file_for_an_evaluation(tmp_path):
    data(tmp_path, rows=[("a", 0), ("b", 1)])
    dataset = open_dataset(str(tmp_path / "rows.jsonl"), split_for_training="test")
    assert split_for_evaluation(dataset) == "test"


def test_split_for_evaluation(tmp_path):
    rows = [("a", 0), ("b", 1)]
    folder = data(tmp_path, train=rows)
    with pytest.raises(InputError, match="neither validation nor test rows"):
        split_for_evaluation(open_dataset(folder))
    data(tmp_path, test=rows)
    assert split_for_evaluation(open_dataset(folder)) == "test"
    data(tmp_path, validation=rows)
    assert split_for_evaluation(open_dataset(folder)) == "validation"


def test_case_27_row_without_the_column(tmp_path):
    rows = [("a", 0), {"label": 1}, {"text": None, "label": 1}, {"text": 3, "label": 1}]
    with pytest.raises(InputError) as refused:
        open_dataset(data(tmp_path, train=rows))
    message = refused.value.message
    assert refused.value.where.endswith("train.jsonl:2")
    assert "line 2: no column 'text' among 'label'" in message
    assert "line 3: column 'text' holds nothing" in message
    assert "line 4: column 'text' holds a int, not a text" in message


def test_case_27_column_missing_from_one_split(tmp_path):
    folder = data(tmp_path, train=[("a", 0)], validation=[{"text": "a", "labell": 0}])
    with pytest.raises(InputError, match="no column 'label' among 'text', 'labell'; did you mean"):
        open_dataset(folder)


def test_case_28_mixed_labels_anywhere_in_train(tmp_path):
    rows = [("a", index % 2) for index in range(2000)] + [("b", "pos")]
    with pytest.raises(InputError, match=r"mixes integers and names[\s\S]*train.jsonl:2001"):
        open_dataset(data(tmp_path, train=rows))


def test_case_28_missing_label_in_another_split(tmp_path):
    folder = data(tmp_path, train=[("a", 0), ("b", 1)], validation=[("a", 0), ("b", None)])
    with pytest.raises(InputError, match="no label in column 'label'") as refused:
        open_dataset(folder)
    assert refused.value.where.endswith("validation.jsonl:2")


def test_held_back_labels(tmp_path, capsys):
    folder = data(tmp_path, train=[("a", 0), ("b", 1)], test=[("a", None), ("b", None)])
    assert not open_dataset(folder).has("test")
    assert "test has no labels and is left out" in capsys.readouterr().err


def test_case_29_label_that_the_model_does_not_have(tmp_path):
    folder = data(tmp_path, train=[("a", "good"), ("b", "bad"), ("c", "bad")])
    with pytest.raises(InputError) as refused:
        open_dataset(folder, model_labels=("bad", "fine"))
    assert refused.value.where.endswith("train.jsonl:1")
    assert "label 'good' is not one of the labels bad, fine" in refused.value.message


def test_case_29_label_that_train_does_not_have(tmp_path):
    folder = data(tmp_path, train=[("a", 0), ("b", 1)], validation=[("a", 0), ("b", 5)])
    with pytest.raises(InputError, match="label 5 is not one of the labels 0, 1") as refused:
        open_dataset(folder)
    assert refused.value.where.endswith("validation.jsonl:2")


def test_case_29_beyond_the_first_thousand_rows(tmp_path):
    late = [("a", index % 2) for index in range(1500)] + [("b", 2)]
    dataset = open_dataset(data(tmp_path, train=[("a", 0), ("b", 1)], validation=late))
    with pytest.raises(InputError) as refused:
        list(dataset.rows("validation"))
    assert refused.value.where.endswith("validation.jsonl:1501")


def test_labels_are_mapped_to_the_model_by_name(tmp_path):
    folder = data(tmp_path, train=[("a", "neg"), ("b", "pos")])
    dataset = open_dataset(folder, model_labels=("POS", "NEG", "NEUTRAL"))
    assert dataset.labels == ("POS", "NEG", "NEUTRAL")
    assert [row.label for row in dataset.rows("train")] == [1, 0]


def test_case_30_one_class(tmp_path, capsys):
    open_dataset(data(tmp_path, train=[("a", "pos"), ("b", "pos")]))
    assert "every one of the 2 rows has the label 'pos'" in capsys.readouterr().err


def test_case_30_class_absent_from_evaluation(tmp_path, capsys):
    dataset = open_dataset(data(tmp_path, train=[("a", "neg"), ("b", "pos"), ("c", "so-so")]))
    warn_absent_classes(dataset, "validation", np.array([0, 0, 2]))
    assert "no validation row has the label pos (3 rows)" in capsys.readouterr().err
    warn_absent_classes(dataset, "validation", np.array([0, 1, 2]))
    assert capsys.readouterr().err == ""


def test_case_35_overlap(tmp_path):
    train = [("a", 0), ("b", 1), ("c", 1)]
    test = [("x", 0), ("b", 1), ("b", 1), ("y", 0), ("a", 1)]
    dataset = open_dataset(data(tmp_path, train=train, test=test))
    assert overlap(dataset, "train", "test") == (3, [2, 3, 5])


def test_split_that_is_not_there(tmp_path):
    dataset = open_dataset(data(tmp_path, train=[("a", 0), ("b", 1)]))
    with pytest.raises(InputError, match="no test rows; there are train rows"):
        list(dataset.rows("test"))


def test_unknown_task(tmp_path):
    with pytest.raises(UsageError):
        open_dataset(str(tmp_path), task="translation")


def test_several_files_of_one_split(tmp_path):
    tmp_path.joinpath("train-00000-of-00002.jsonl").write_text('{"text": "a", "label": 0}\n')
    tmp_path.joinpath("train-00001-of-00002.jsonl").write_text('{"text": "b", "label": 1}\n')
    assert [row.texts[0] for row in open_dataset(str(tmp_path)).rows("train")] == ["a", "b"]


def test_opening_imports_nothing_heavy(tmp_path):
    folder = tiny.data(tmp_path / "d", train=1000)
    code = f"""
import sys
from compressor.data.dataset import open_dataset
open_dataset({str(folder)!r})
heavy = {{"torch", "pandas", "pyarrow", "datasets", "transformers", "numpy"}}
print(sorted(heavy & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


LABELS = ("negative", "positive")


def test_training_rows_may_lack_a_label_where_the_model_has_the_classes(tmp_path, capsys):
    train = [("good", "positive"), ("so so", None), {"text": "absent"}, ("empty", "")]
    source = data(tmp_path / "d", train=train, validation=[("bad", "negative")])
    dataset = open_dataset(source, model_labels=LABELS, unlabelled=True)
    assert [row.label for row in dataset.rows("train")] == [1, NO_CLASS, NO_CLASS, NO_CLASS]
    assert [row.label for row in dataset.rows("validation")] == [0]
    assert "3 of 4 rows have no label" in capsys.readouterr().err
    with pytest.raises(InputError, match="mixes names and missing labels"):
        open_dataset(source, unlabelled=True)  # nobody names the classes
    with pytest.raises(InputError, match="mixes names and missing labels"):
        open_dataset(source, model_labels=LABELS)


@pytest.mark.parametrize("validation", [[("bad", 0), ("good", 1)], [{"text": "bare"}]])
def test_training_rows_without_a_label_column(tmp_path, capsys, validation):
    source = data(tmp_path / "d", train=[{"text": "one"}, {"text": "two"}], validation=validation)
    dataset = open_dataset(source, model_labels=LABELS, unlabelled=True)
    assert dataset.task.name == "text-classification"
    assert [row.label for row in dataset.rows("train")] == [NO_CLASS, NO_CLASS]
    if len(validation) == 2:
        assert [row.label for row in dataset.rows("validation")] == [0, 1]
    else:
        assert "validation has no labels and is left out" in capsys.readouterr().err


def test_unlabelled_rows_of_a_regression(tmp_path):
    source = data(tmp_path / "d", train=[("a", 0.5), ("b", None)], validation=[("c", 1.5)])
    dataset = open_dataset(source, model_labels=("LABEL_0",), unlabelled=True)
    assert dataset.task.name == "regression"
    first, second = (row.label for row in dataset.rows("train"))
    assert first == 0.5
    assert np.isnan(second)


def test_only_training_rows_may_lack_a_label(tmp_path):
    rows = [("bad", "negative"), ("what", None)]
    source = data(tmp_path / "d", train=[("good", "positive")], validation=rows)
    with pytest.raises(InputError, match="no label in column 'label'"):
        open_dataset(source, model_labels=LABELS, unlabelled=True)


def test_a_wrong_label_is_not_a_missing_one(tmp_path):
    source = data(tmp_path / "d", train=[("good", "positive"), ("what", "neutral")])
    with pytest.raises(InputError, match="label 'neutral' is not one of"):
        open_dataset(source, model_labels=LABELS, unlabelled=True)
