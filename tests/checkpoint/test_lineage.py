"""Lineage: the same bytes for the same steps, changes are noticed, the root is found."""

from __future__ import annotations

import hashlib
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoint import folders
from checkpoint.folders import change_json, edit, get_json, put_json
from compressor import __version__
from compressor.checkpoint import lineage
from compressor.checkpoint.folder import open_checkpoint, refuse_quantized
from compressor.checkpoint.lineage import (
    baseline_of,
    changed_files,
    file_hash,
    find_by_hash,
    make_step,
    read_lineage,
    weights_hash,
    write_lineage,
)
from compressor.errors import InputError


def step(verb, **inputs):
    named = {role: {"name": role, "weights": weights} for role, weights in inputs.items()}
    return make_step(verb, "", {}, 0, named, f"compressor {verb} m")


def child(folder, verb, parent, role="model"):
    """A folder that `verb` made from `parent`, with weights of its own."""
    folders.make(folder)
    edit(folder, classifier__bias=np.array([len(folder.name), 1], np.float32))
    steps = [*read_lineage(parent), step(verb, **{role: weights_hash(parent)})]
    write_lineage(folder, steps)
    put_json(folder / "run.json", {"inputs": {role: str(parent)}})
    return folder


def test_a_record_holds_steps_and_files(folder):
    (folder / "inner").mkdir()
    (folder / "inner" / "a.txt").write_text("a")
    (folder / "run.json").write_text("{}")
    write_lineage(folder, [step("finetune")])
    record = get_json(folder / "compression.json")
    assert list(record) == ["schema", "compressor", "steps", "files"]
    assert record["schema"] == 1
    assert record["compressor"] == __version__
    assert list(record["files"]) == [
        "config.json",
        "inner/a.txt",
        "model.safetensors",
        "tokenizer.json",
    ]
    data = (folder / "config.json").read_bytes()
    expected = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert record["files"]["config.json"] == expected
    assert read_lineage(folder) == [step("finetune")]


def test_a_step_says_what_was_done():
    made = make_step(
        "prune",
        "gmp",
        {"sparsity": 0.5, "heads": (1, 2)},
        7,
        {"data": {"name": "sst2"}},
        "compressor prune m",
        {"accuracy": 0.9},
    )
    assert list(made) == [
        "verb",
        "method",
        "options",
        "seed",
        "versions",
        "inputs",
        "metrics",
        "command",
    ]
    assert made["options"] == {"sparsity": 0.5, "heads": [1, 2]}
    assert made["versions"]["compressor"] == __version__
    assert {"torch", "transformers", "numpy"} <= set(made["versions"])
    with pytest.raises(ValueError, match="JSON compliant"):
        make_step("prune", "gmp", {"sparsity": float("nan")}, 0, {}, "")


def test_the_same_steps_give_the_same_bytes_anywhere(tmp_path):
    records = []
    for name in ("a", "b/c"):
        folder = folders.make(tmp_path / name)
        put_json(folder / "run.json", {"inputs": {"model": str(folder)}})
        write_lineage(folder, [step("finetune")])
        records.append((folder / "compression.json").read_bytes())
    assert records[0] == records[1]
    assert str(tmp_path).encode() not in records[0]


def test_no_record_is_no_lineage(folder):
    assert read_lineage(folder) == []
    assert changed_files(folder) == []


def test_changes_are_found(folder):
    write_lineage(folder, [])
    assert changed_files(folder) == []
    before = file_hash(folder / "model.safetensors")
    edit(folder, classifier__bias=np.ones(2, np.float32))  # same size
    (folder / "tokenizer.json").unlink()
    (folder / "README.md").write_text("added later, which is no change")
    after = file_hash(folder / "model.safetensors")
    assert changed_files(folder) == [
        ("model.safetensors", before, after),
        ("tokenizer.json", lineage.changed_files(folder)[1][1], "nothing"),
    ]
    assert before != after


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"schema": "1"},
        {"schema": True},
        {"schema": 0},
        {"steps": [1]},
        {"files": []},
        {"files": {"/etc/passwd": {"size": 1, "sha256": ""}}},
        {"files": {"a/../../b": {"size": 1, "sha256": ""}}},
        {"files": {"config.json": {"size": 1}}},
    ],
)
def test_a_foreign_record_is_refused(change, folder):
    write_lineage(folder, [])
    change_json(folder / "compression.json", **change)
    for read in (read_lineage, changed_files):
        with pytest.raises(InputError, match=r"compression.json"):
            read(folder)


def test_weights_hash_of_one_file_is_its_sha256(folder):
    data = (folder / "model.safetensors").read_bytes()
    assert weights_hash(folder) == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_weights_hash_covers_every_shard(tmp_path):
    folder = folders.make_sharded(tmp_path / "m")
    before = weights_hash(folder)
    assert before == weights_hash(shutil.copytree(folder, tmp_path / "copy"))
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert weights_hash(folder) != before


def test_a_hash_is_not_remembered_past_a_change(tmp_path):
    file = tmp_path / "a"
    for text in ("a", "b", "c"):  # same name, size and, to the clock tick, time
        file.write_text(text)
        assert file_hash(file) == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def test_a_settled_file_is_read_once(tmp_path, monkeypatch):
    file = tmp_path / "a"
    file.write_text("a")
    monkeypatch.setattr(lineage, "_SETTLED_NS", -1)
    first = file_hash(file)
    monkeypatch.setattr(lineage.hashlib, "sha256", None)
    assert file_hash(file) == first


def test_find_by_hash_looks_beside_and_along_the_run(tmp_path):
    elsewhere = folders.make(tmp_path / "elsewhere" / "base")
    work = tmp_path / "work"
    parent = child(work / "parent", "prune", elsewhere)
    last = child(work / "last-one", "quantize", parent)
    assert find_by_hash(weights_hash(parent), [last]) == parent
    assert find_by_hash(weights_hash(elsewhere), [last]) == elsewhere
    assert find_by_hash("sha256:0", [last]) is None
    (last / "run.json").unlink()
    assert find_by_hash(weights_hash(parent), [last]) == parent
    (parent / "run.json").write_text("[")
    assert find_by_hash(weights_hash(elsewhere), [last]) is None


def test_find_by_hash_verifies_what_a_record_claims(tmp_path):
    one, other = (folders.make(tmp_path / name) for name in ("one", "other"))
    write_lineage(other, [])
    wanted = weights_hash(other)
    edit(one, classifier__bias=np.ones(2, np.float32))
    edit(other, classifier__bias=np.full(2, 2, np.float32))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("")
    (tmp_path / "broken" / "compression.json").write_text("")
    assert find_by_hash(wanted, [one]) is None


def test_the_root_is_what_the_first_training_wrote(tmp_path):
    base = folders.make(tmp_path / "base")
    teacher = child(tmp_path / "teacher", "finetune", base)
    student = child(tmp_path / "student1", "distill", teacher, "teacher")
    pruned = child(tmp_path / "pruned12", "prune", student)
    root = (weights_hash(teacher), teacher)
    for folder in (teacher, student, pruned):
        assert baseline_of(open_checkpoint(folder)) == root
    shutil.rmtree(teacher)
    assert baseline_of(open_checkpoint(pruned)) == (root[0], None)


def test_the_root_is_what_another_tool_made(tmp_path):
    base = folders.make(tmp_path / "base")
    pruned = child(tmp_path / "pruned", "prune", base)
    quantized = child(tmp_path / "quantized", "quantize", pruned)
    for folder in (pruned, quantized):
        assert baseline_of(open_checkpoint(folder)) == (weights_hash(base), base)
    assert baseline_of(open_checkpoint(base)) is None


def test_a_helping_teacher_is_not_the_root():
    both = {"model": "sha256:m", "teacher": "sha256:t"}
    for verb, weights in (("prune", "sha256:m"), ("distill", "sha256:t")):
        checkpoint = SimpleNamespace(steps=[step(verb, **both)], path=folders.Path("/nowhere/x"))
        assert lineage._input_hash(checkpoint.steps[0]) == weights


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-1, 3), st.text(max_size=4)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=5,
)
steps = st.fixed_dictionaries(
    {},
    optional={
        "verb": st.sampled_from(["finetune", "prune", "distill"]) | anything,
        "inputs": st.fixed_dictionaries({}, optional=dict.fromkeys(("model", "teacher"), anything))
        | anything,
        "versions": st.fixed_dictionaries({}, optional={"compressor": anything}) | anything,
    },
)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    return folders.make_int8(tmp_path_factory.mktemp("fuzz") / "m")


@settings(max_examples=100, deadline=2000)
@given(
    record=st.fixed_dictionaries(
        {"schema": st.just(1) | anything},
        optional={
            "steps": st.lists(steps, max_size=3) | anything,
            "files": st.just({}) | st.dictionaries(st.text(max_size=5), anything) | anything,
            "compressor": anything,
        },
    ),
    run=anything,
)
def test_any_record_is_read_or_refused(quantized, record, run):
    put_json(quantized / "compression.json", record)
    put_json(quantized / "run.json", {"inputs": run})
    try:
        checkpoint = open_checkpoint(quantized)
        baseline_of(checkpoint)
        refuse_quantized(checkpoint, "prune")
    except InputError as refusal:
        refusal.message.encode()
        refusal.hint.encode()
