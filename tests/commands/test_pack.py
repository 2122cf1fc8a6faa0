"""`--pack`: what verbs write with it, every verb reads, and nothing of the model changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compressor.checkpoint.arrays import read_stored
from compressor.checkpoint.folder import open_checkpoint
from compressor.cli import run


def go(*words):
    return run([str(word) for word in words])


@pytest.fixture
def here(workshop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("data", "teacher"):
        (tmp_path / name).symlink_to(workshop / name)
    return tmp_path


def bits(folder: str) -> dict[str, bytes]:
    tensors = open_checkpoint(Path(folder)).tensors
    return {name: read_stored(info).tobytes() for name, info in tensors.items()}


def test_every_verb_reads_a_packed_checkpoint(here, capsys):
    sparse = ("prune", "teacher", "--method", "magnitude", "--sparsity", 0.9)
    assert go(*sparse, "-o", "plain") == 0
    assert go(*sparse, "--pack", "-o", "packed") == 0
    assert bits("packed") == bits("plain")
    assert not list(Path("packed").glob("model.safetensors"))
    steps = open_checkpoint(Path("packed")).steps
    assert steps[-1]["options"]["pack"] is True
    assert "pack" not in open_checkpoint(Path("plain")).steps[-1]["options"]

    training = ("--data", "data", "--max-steps", 2, "--with", "lock_sparsity")
    for source in ("plain", "packed"):
        assert go("quantize", source, "-o", f"{source}-int8") == 0
        assert go("finetune", source, *training, "-o", f"{source}-tuned") == 0
        assert go("prune", source, "--method", "layer_drop", "--drop", 1, "-o", f"{source}-1") == 0
    for made in ("int8", "tuned", "1"):
        assert bits(f"packed-{made}") == bits(f"plain-{made}")

    found = {}
    for name in ("plain", "packed"):
        capsys.readouterr()
        assert go("inspect", name, "--json") == 0
        found[name] = json.loads(capsys.readouterr().out)["size"]
    assert found["packed"].pop("disk") < found["plain"].pop("disk")
    assert found["packed"] == found["plain"]


def test_a_packed_int8_checkpoint_is_exported_and_measured(here):
    assert go("prune", "teacher", "--method", "magnitude", "--sparsity", 0.9, "-o", "sparse") == 0
    assert go("quantize", "sparse", "-o", "int8") == 0
    assert go("quantize", "sparse", "--pack", "-o", "packed") == 0
    assert bits("packed") == bits("int8")
    for name in ("int8", "packed"):
        assert go("export", name, "-o", f"{name}-onnx") == 0
    assert Path("packed-onnx/model.onnx").read_bytes() == Path("int8-onnx/model.onnx").read_bytes()
    words = (
        "--baseline",
        "sparse",
        "--data",
        "data",
        "--shapes",
        "1x8",
        "--starts",
        1,
        "-o",
        "report",
    )
    assert go("benchmark", "int8", "packed", *words) == 0
    rows = {m["name"]: m for m in json.loads(Path("report/report.json").read_text())["models"]}
    assert rows["packed"]["accuracy"] == rows["int8"]["accuracy"]
    assert rows["packed"]["size"]["disk"] < rows["int8"]["size"]["disk"]
