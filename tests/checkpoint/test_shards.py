"""Shards, their index, and which files count."""

from __future__ import annotations

import pytest

from checkpoint import folders
from checkpoint.folders import change_json, get_json
from compressor.checkpoint.folder import open_checkpoint
from compressor.checkpoint.shards import INDEX, read_tensors, weight_files
from compressor.errors import InputError


@pytest.fixture
def folder(tmp_path):
    return folders.make_sharded(tmp_path / "sharded")


def redirect(folder, shard, first=True):
    shards = get_json(folder / INDEX)["weight_map"]
    for name in list(shards)[:1] if first else list(shards):
        shards[name] = shard
    change_json(folder / INDEX, weight_map=shards)


def test_shards_are_read_as_one(folder):
    assert set(read_tensors(folder)) == set(folders.tensors())
    assert [file.name[:11] for file in weight_files(folder)] == ["model-00001", "model-00002"]


@pytest.mark.parametrize(
    "shard",
    [
        "../other/model.safetensors",
        "/model.safetensors",
        "a/b.safetensors",
        "a\\b.safetensors",
        "..",
        "",
        "model.bin",
        3,
        None,
    ],
)
def test_case_10_a_shard_elsewhere(shard, folder):
    other = folders.make(folder.parent / "other")
    redirect(folder, shard)
    with pytest.raises(InputError, match="must be a file name inside the folder"):
        open_checkpoint(folder)
    assert other.exists()


def test_case_10_a_missing_shard(folder):
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="1 of 2 shards are missing: model-00002-of-00002"):
        open_checkpoint(folder)


def test_a_tensor_that_the_index_places_wrongly(folder):
    redirect(folder, "model-00002-of-00002.safetensors")
    with pytest.raises(InputError, match=r"index does not know, bert.embeddings.position"):
        open_checkpoint(folder)


def test_a_tensor_that_no_shard_holds(folder):
    shards = get_json(folder / INDEX)["weight_map"]
    change_json(folder / INDEX, weight_map={**shards, "new": "model-00002-of-00002.safetensors"})
    with pytest.raises(InputError, match=r"lacks new .1 in all"):
        open_checkpoint(folder)


@pytest.mark.parametrize("shards", [None, {}, []])
def test_an_index_without_a_map(shards, folder):
    change_json(folder / INDEX, weight_map=shards)
    with pytest.raises(InputError, match="no weight_map"):
        open_checkpoint(folder)


def test_a_folder_without_weights_has_no_weight_files(tmp_path):
    with pytest.raises(InputError, match="holds no weights"):
        weight_files(tmp_path)


def test_a_shard_may_be_a_link_as_in_the_hubs_cache(folder):
    shard = folder / "model-00001-of-00002.safetensors"
    blob = shard.rename(folder.parent / "blob")
    shard.symlink_to(blob)
    assert set(open_checkpoint(folder).tensors) == set(folders.tensors())
