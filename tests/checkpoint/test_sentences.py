"""How a sentence encoder says that it pools, read and kept."""

import json

import pytest

from compressor.checkpoint.sentences import Pooling, keep_beside, read_pooling
from compressor.errors import InputError

OLD = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False}


def encoder(folder, pooling, *more, path="1_Pooling", length=None, architecture="BertModel"):
    """The files beside a model as sentence-transformers writes them."""
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    kinds = ["Transformer", "Pooling", *more]
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": path if kind == "Pooling" else ""}
        for kind in kinds
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    if length:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length}))
    return folder


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        ({**OLD, "pooling_mode_mean_tokens": True}, "mean"),
        ({**OLD, "pooling_mode_cls_token": True}, "cls"),
        ({**OLD, "pooling_mode_max_tokens": True}, "max"),
        ({**OLD, "pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["max"]}, "max"),
    ],
)
def test_configs_of_every_version(tmp_path, config, mode):
    folder = encoder(tmp_path / "model", config, length=256)
    assert read_pooling(folder) == Pooling(mode, False, 256, "1_Pooling")


def test_normalized_only_where_it_says_so(tmp_path):
    folder = encoder(tmp_path / "model", {"pooling_mode": "mean"}, "Normalize")
    assert read_pooling(folder) == Pooling("mean", True, None, "1_Pooling")


def test_where_nothing_is_said_it_is_the_normalized_mean(tmp_path):
    assert read_pooling(tmp_path) == Pooling("mean", True, None, "")


@pytest.mark.parametrize(
    ("config", "more", "said"),
    [
        ({"pooling_mode": ["cls", "mean"]}, (), "cls and mean"),
        ({"pooling_mode": "weightedmean"}, (), "weightedmean"),
        (OLD, (), "pooling by nothing"),
        ({"pooling_mode": "mean"}, ("Dense", "Normalize"), "Dense"),
    ],
)
def test_what_is_not_known_is_said_and_not_kept(tmp_path, capsys, config, more, said):
    folder = encoder(tmp_path / "model", config, *more)
    assert read_pooling(folder) is None
    assert said in capsys.readouterr().err
    assert kept(folder, tmp_path) == ["config.json"]


@pytest.mark.parametrize("path", ["../outside", "/etc", "..", ".git", "a\\b"])
def test_a_folder_outside_is_refused(tmp_path, path):
    with pytest.raises(InputError, match="must lie inside the checkpoint"):
        read_pooling(encoder(tmp_path / "model", {"pooling_mode": "mean"}, path=path))


@pytest.mark.parametrize("text", ["{}{", "[1]", '[{"type": "a"}]', "3", "[" * 10_000])
def test_a_broken_list_is_refused(tmp_path, text):
    folder = encoder(tmp_path / "model", {"pooling_mode": "mean"})
    (folder / "modules.json").write_text(text)
    with pytest.raises(InputError, match="not a list of modules"):
        read_pooling(folder)


def kept(origin, place, architecture="BertModel") -> list[str]:
    """What lies in a new folder after everything was kept that still holds."""
    folder = place / "made"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    keep_beside(origin, folder)
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_files_stay_with_a_model_without_a_head(tmp_path):
    folder = encoder(tmp_path / "model", {"pooling_mode": "mean"}, length=64)
    names = ["1_Pooling/config.json", "config.json", "modules.json", "sentence_bert_config.json"]
    assert kept(folder, tmp_path) == names
    assert read_pooling(tmp_path / "made") == read_pooling(folder)


@pytest.mark.parametrize("head", ["BertForSequenceClassification", "GPT2LMHeadModel"])
def test_a_new_head_leaves_them_behind(tmp_path, head):
    folder = encoder(tmp_path / "model", {"pooling_mode": "mean"})
    assert kept(folder, tmp_path, head) == ["config.json"]


def test_pictures_are_made_ready_as_before(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/preprocessor_config.json").write_text('{"size": 32}')
    names = kept(tmp_path / "model", tmp_path, "ViTForImageClassification")
    assert names == ["config.json", "preprocessor_config.json"]


def test_rows_are_no_model(tmp_path):
    folder = encoder(tmp_path / "model", {"pooling_mode": "mean"})
    (tmp_path / "rows").mkdir()
    keep_beside(folder, tmp_path / "rows")
    assert not list((tmp_path / "rows").iterdir())
