"""One matrix through which every method goes, whatever it does.

It runs by the command line, gives the same bytes twice, records its options, and what it wrote
reloads with plain transformers, or as data; those that take long also survive being stopped and
resumed.
"""

import hashlib
import json
import os
import signal
from pathlib import Path

import pytest
import torch
import transformers

import tiny
from compressor.cli import run
from compressor.methods.find import every
from compressor.train import kept, loop

METHODS = {
    f"{method.kind[:-1]}-{method.name}": method for method in every() if method.kind != "generators"
}
GENERATORS = {method.name: method for method in every() if method.kind == "generators"}
HEADS = {"masked-lm": "AutoModelForMaskedLM", "causal-lm": "AutoModelForCausalLM"}
TRAINING = "--epochs 1 --batch-size 16 --save-steps 2"


def command(method) -> str:
    """The shortest command that uses a method of each kind."""
    sparse, training = "sparse", f"--data data {TRAINING}"
    if method.kind == "students":
        return f"distill teacher --student {method.name} {training}"
    if method.kind == "objectives" and serves_text(method):
        return f"distill masked --method {method.name} --task masked-lm {training}"
    if method.kind == "objectives":
        if getattr(method.module, "FEWEST_CLASSES", 2) > 2:
            return f"distill teacher-3 --method {method.name} --data data-3 {TRAINING}"
        return f"distill teacher --method {method.name} {training}"
    if method.kind == "modifiers":
        if serves_images(method):
            sparse, training = "vit", f"--data images {TRAINING}"
        verb = "prune teacher --method" if "prune" in method.verbs else f"finetune {sparse} --with"
        # Where the processor has bf16, a small noise is refused.
        exact = " --precision fp32" if "--hype-sigma" in method.flags() else ""
        often = " --eval-steps 2" if getattr(method.module, "NEEDS_HELD_OUT", False) else ""
        return f"{verb} {method.name} {training}{exact}{often}"
    data = " --data data" if method.module.needs_data(method.options()) else ""
    narrow = " --group-size 16" if "--group-size" in method.flags() else ""
    return f"{method.verbs[0]} teacher --method {method.name}{data}{narrow}"


def serves_text(method) -> bool:
    """Whether a method learns from text without labels only."""
    return "masked-lm" in getattr(method.module, "TASKS", ())


def serves_images(method) -> bool:
    """Whether a method learns from images only."""
    return "image-classification" in getattr(method.module, "TASKS", ())


def trains(method) -> bool:
    return method.kind != "transforms"


@pytest.fixture(scope="session")
def three_classes(tmp_path_factory):
    """A folder with `teacher-3`, untrained, and `data-3`, for methods that need a third class."""
    folder = tmp_path_factory.mktemp("three")
    classes = ("bad", "fine", "good")
    tiny.checkpoint(folder / "teacher-3", labels=classes)
    (folder / "data-3").mkdir()
    for split, count in (("train", 120), ("validation", 30)):
        rows = [{**row, "label": classes[n % 3]} for n, row in enumerate(tiny.rows(count))]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data-3" / f"{split}.jsonl").write_text(lines)
    return folder


@pytest.fixture(scope="session")
def sparse(workshop, tmp_path_factory):
    """The teacher with half of its matrices' entries zero, for methods that hold them."""
    folder = tmp_path_factory.mktemp("sparse") / "sparse"
    assert run(["prune", f"{workshop}/teacher", "--method", "magnitude", "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def studio(tmp_path_factory):
    """A folder with `vit`, untrained, and `images`, for methods that need images."""
    folder = tmp_path_factory.mktemp("studio")
    tiny.vit(folder / "vit")
    tiny.images(folder / "images", train=120, validation=30)
    return folder


@pytest.fixture
def here(workshop, three_classes, sparse, studio, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("vit", "images"):
        (tmp_path / name).symlink_to(studio / name)
    (tmp_path / "sparse").symlink_to(sparse)
    for name in ("teacher", "data"):
        (tmp_path / name).symlink_to(workshop / name)
        (tmp_path / f"{name}-3").symlink_to(three_classes / f"{name}-3")
    tiny.checkpoint(tmp_path / "masked", head="AutoModelForMaskedLM", labels=None)
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
        if file.name not in ("run.json", "compression.json", "generation.json")
    }


def last_step(folder: Path, record: str = "compression.json") -> dict:
    return json.loads((folder / record).read_text())["steps"][-1]


@pytest.mark.parametrize("name", METHODS)
def test_runs_repeats_records_and_reloads(name, here):
    words = command(METHODS[name]).split()
    assert run([*words, "-o", "one"]) == 0
    assert run([*words, "-o", "two"]) == 0
    assert contents(here / "one") == contents(here / "two")

    recorded = json.dumps(last_step(here / "one"))
    for flag in METHODS[name].flags():
        assert f'"{flag[2:].replace("-", "_")}"' in recorded

    images = serves_images(METHODS[name])
    head = "ImageClassification" if images else "SequenceClassification"
    head = "MaskedLM" if serves_text(METHODS[name]) else head
    model, report = getattr(transformers, f"AutoModelFor{head}").from_pretrained(
        here / "one", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    if images:
        inputs = {"pixel_values": torch.zeros(1, 3, 16, 16)}
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(here / "one")
        inputs = tokenizer("great film", return_tensors="pt")
    assert model(**inputs).logits.isfinite().all()


@pytest.mark.parametrize("name", [name for name in METHODS if trains(METHODS[name])])
def test_stopped_and_resumed_it_ends_in_the_same_bytes(name, here, monkeypatch):
    words = command(METHODS[name]).split()
    assert run([*words, "-o", "whole"]) == 0

    plain = loop._Loop._step

    def stopped(self, step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Loop, "_step", stopped)
        assert run([*words, "-o", "cut"]) == 143
    assert not (here / "cut").exists()
    assert run([*words, "-o", "cut"]) == 3  # an unfinished run is not thrown away by accident
    assert run([*words, "-o", "cut", "--resume"]) == 0
    assert contents(here / "whole") == contents(here / "cut")
    assert not (here / "cut.state").exists()


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_repeats_records_resumes_and_is_read_as_data(name, here, monkeypatch):
    head = HEADS[GENERATORS[name].module.MODEL_TASK]
    tiny.checkpoint(here / "words", head=head, labels=None)
    words = f"generate words --method {name} --data data".split()
    assert run([*words, "-o", "one"]) == 0
    assert run([*words, "-o", "two"]) == 0
    assert contents(here / "one") == contents(here / "two")
    recorded = last_step(here / "one", "generation.json")
    for flag in GENERATORS[name].flags():
        assert flag[2:].replace("-", "_") in recorded["options"]
    assert recorded["metrics"]["generated"]
    assert run(["finetune", "teacher", "--data", "one", "--dry-run"]) == 0

    plain = kept.KeptFile.append

    def stopped(self, value):
        plain(self, value)
        if len(self) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(kept.KeptFile, "append", stopped)
        assert run([*words, "-o", "cut"]) == 143
    assert not (here / "cut").exists()
    assert run([*words, "-o", "cut"]) == 3
    assert run([*words, "-o", "cut", "--resume"]) == 0
    assert contents(here / "one") == contents(here / "cut")
    assert not (here / "cut.state").exists()
