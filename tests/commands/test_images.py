"""A small ViT on invented images through every verb, and what is refused of it in words."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

import tiny
from compressor.cli import run
from compressor.methods.find import every
from compressor.model import load as loading

QUICK = "--data d --batch-size 16 --epochs 1 --lr 1e-3 --precision fp32"
FORMAT = "preprocessor_config.json"


def go(words):
    return run(words.split())


@pytest.fixture(scope="session")
def studio(tmp_path_factory):
    """A folder with `d`, `vit` and `base`, and `teacher` of two layers, fine-tuned."""
    folder = tmp_path_factory.mktemp("studio")
    tiny.images(folder / "d")
    tiny.vit(folder / "vit")
    words = f"finetune {folder}/vit --data {folder}/d -o {folder}/teacher --must-learn"
    assert go(f"{words} --epochs 4 --batch-size 16 --lr 3e-3") == 0
    return folder


@pytest.fixture
def here(studio, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("d", "vit", "teacher"):
        (tmp_path / name).symlink_to(studio / name)
    return tmp_path


def last_step(folder):
    return json.loads((folder / "compression.json").read_text())["steps"][-1]


def accuracy_by_transformers(folder: Path, data: Path) -> float:
    """Scored without a line of ours: transformers' model, processor and loader."""
    model = transformers.ViTForImageClassification.from_pretrained(folder)
    processor = ViTImageProcessorPil.from_pretrained(folder)
    rows = [json.loads(line) for line in (data / "validation.jsonl").read_text().splitlines()]
    images = [Image.open(data / row["image"]) for row in rows]
    inputs = processor(images, return_tensors="pt")
    found = model(**inputs).logits.argmax(-1).tolist()
    pairs = zip(found, rows, strict=True)
    return float(np.mean([model.config.id2label[k] == row["label"] for k, row in pairs]))


def test_a_vit_learns_and_opens_with_transformers(here):
    step = last_step(here / "teacher")
    assert step["metrics"]["accuracy"] > 0.9
    assert set(step["metrics"]) == {"accuracy", "f1_macro", "matthews"}
    found = accuracy_by_transformers(here / "teacher", here / "d")
    assert found == pytest.approx(step["metrics"]["accuracy"], abs=1e-6)
    assert (here / "teacher" / FORMAT).read_bytes() == (here / "vit" / FORMAT).read_bytes()


def test_from_a_teacher_to_a_report(here, capsys):
    methods = "--method soft_labels --method hidden_mse --layer-pairs last"
    assert go(f"distill teacher --layers 1 {methods} {QUICK} -o small") == 0
    assert go("prune small --method magnitude --sparsity 0.5 --data d -o sparse") == 0
    assert go("quantize sparse --data d -o int8") == 0
    for name in ("small", "sparse", "int8"):
        assert (here / name / FORMAT).read_bytes() == (here / "vit" / FORMAT).read_bytes()
    assert go("benchmark small int8 --data d --shapes 3 --rounds 3 --starts 1 -o report") == 0
    report = json.loads((here / "report" / "report.json").read_text())
    teacher, small, int8 = report["models"]
    assert report["baseline"] == "teacher"
    assert report["task"]["name"] == "image-classification"
    assert [(row["batch"], row["length"]) for row in teacher["latency"]] == [(3, 1)]
    assert teacher["accuracy"]["value"] == last_step(here / "teacher")["metrics"]["accuracy"]
    assert int8["compression_ratio"]["weights"] > small["compression_ratio"]["weights"] > 1
    assert "Decoding of images is not included" in (here / "report" / "report.html").read_text()
    capsys.readouterr()
    assert go("inspect sparse --json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shape"] == {"layers": 1, "hidden": 16, "heads": 2, "ffn": 32}
    layer = next(row for row in found["layers"] if row["part"] == "layer 0")
    assert layer["sparsity"] == 0.5


@pytest.mark.slow
def test_a_graph_answers_as_its_model(here):
    assert go("export teacher --weights fp32 --data d -o graph") == 0
    assert last_step(here / "graph")["metrics"]["judged"]["lost"] == 0
    assert (here / "graph" / FORMAT).read_bytes() == (here / "vit" / FORMAT).read_bytes()
    assert go("benchmark graph --data d --shapes 2 --rounds 3 --starts 1 -o report") == 0
    teacher, graph = json.loads((here / "report" / "report.json").read_text())["models"]
    assert graph["accuracy"]["value"] == teacher["accuracy"]["value"]
    assert [row["batch"] for row in graph["latency"]] == [2]


def some(items, quick):
    """Items as parameters of a test, of which those without a name in `quick` are slow."""
    return [
        pytest.param(item, id=name, marks=[] if name in quick else pytest.mark.slow)
        for item in items
        for name in [getattr(item, "name", item)]
    ]


MODIFIERS = [method for method in every() if method.kind == "modifiers"]
OBJECTIVES = ("logit_mse", "dkd", "cosine", "pkd", "rkd", "minilm_v2", "tinybert")


@pytest.mark.parametrize("method", some(MODIFIERS, ("swad", "delta_sam", "cofi")))
def test_every_modifier_trains_on_images_or_says_why_not(method, here, capsys):
    if method.name == "cofi":
        assert go(f"prune teacher --method cofi {QUICK} -o made") == 3
        assert "heads and neurons of a vit model cannot be removed" in capsys.readouterr().err
        return
    model = "teacher"
    if method.name == "lock_sparsity":
        assert go("prune teacher --method magnitude --sparsity 0.5 -o sparse") == 0
        model = "sparse"
    often = " --eval-steps 1" if method.name == "swad" else ""
    assert go(f"finetune {model} --with {method.name} {QUICK}{often} -o made") == 0
    assert last_step(here / "made")["metrics"]["accuracy"] > 0.9
    if method.name != "qat":
        accuracy_by_transformers(here / "made", here / "d")


@pytest.mark.parametrize("name", some(OBJECTIVES, ("dkd", "minilm_v2")))
def test_every_kind_of_objective_serves_images(name, here):
    assert go(f"distill teacher --method {name} --layers 1 {QUICK} -o made") == 0
    facts = json.loads((here / "made" / "run.json").read_text())
    losses = [entry["loss"] for entry in facts["curve"] if "loss" in entry]
    assert all(np.isfinite(losses))
    assert max(losses) > 0


@pytest.mark.parametrize("name", ["wanda", "layer_drop --strategy contribution"])
def test_methods_that_draw_on_rows_draw_on_images(name, here):
    assert go(f"prune teacher --method {name} --data d -o made") == 0
    assert last_step(here / "made")["metrics"]["accuracy"] > 0.3


def test_a_teacher_that_reads_images_larger_teaches_by_its_answers(here, capsys):
    tiny.vit(here / "large", side=32)
    assert go(f"finetune large {QUICK} -o tuned") == 0
    assert go(f"distill tuned --student vit {QUICK} -o made --teacher-cache kept") == 0
    err = capsys.readouterr().err
    assert "teacher and student read images as 32 x 32 x 3" in err
    assert "kept has the teacher's answers to 48 distinct rows" in err
    assert (here / "made" / FORMAT).read_bytes() == (here / "vit" / FORMAT).read_bytes()
    tiny.vit(here / "coarse", patch_size=8)
    for teacher, student in (("tuned", "vit"), ("teacher", "coarse")):
        words = f"distill {teacher} --student {student} --method hidden_mse {QUICK} -o other"
        assert go(words) == 3
        assert "compares the two token by token" in capsys.readouterr().err


def test_kept_answers_are_those_to_these_pixels(here, capsys):
    (here / "d").unlink()
    tiny.images(here / "d")
    words = f"distill teacher --layers 1 {QUICK} --teacher-cache kept"
    assert go(f"{words} -o one") == 0
    Image.new("RGB", (20, 20)).save(here / "d" / "images" / "train0.png")
    assert go(f"{words} -o two") == 3  # the rows are the same, an image is not
    assert "they differ in tokens" in capsys.readouterr().err


# Refused before a model is loaded --------------------------------------------------------------


@pytest.fixture
def unloaded(here, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(loading, "load", refuse)
    return here


def changed(folder: Path, name: str, **said) -> None:
    """`vit` as `folder`, with other values in one of its files."""
    shutil.copytree("vit", folder)
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, **said}))


def test_models_and_rows_of_different_kinds(unloaded, capsys):
    tiny.checkpoint(unloaded / "bert")
    tiny.data(unloaded / "texts", train=4, validation=4)
    assert go("finetune bert --data d -o made") == 3
    assert "bert (bert) reads texts, and d was opened for image-class" in capsys.readouterr().err
    assert go("finetune vit --data texts -o made") == 3
    assert "vit (vit) reads images, and texts was opened for text-class" in capsys.readouterr().err
    assert go("finetune vit --data texts --task image-classification -o made") == 3
    assert "no image column among 'text', 'label'" in capsys.readouterr().err
    assert go("finetune bert --data d --task text-classification -o made") == 3
    assert "no text column among 'image', 'label'" in capsys.readouterr().err
    assert go("benchmark teacher bert -o made") == 3
    assert "teacher reads images and the others text" in capsys.readouterr().err


def test_a_model_that_does_not_say_how_it_reads_images(unloaded, capsys):
    shutil.copytree("vit", "bare")
    (unloaded / "bare" / FORMAT).unlink()
    assert go("finetune bare --data d -o made") == 3
    assert f"bare has no {FORMAT}" in capsys.readouterr().err
    assert go("prune bare --method magnitude --sparsity 0.5 -o made --dry-run") == 0
    changed(unloaded / "cropping", FORMAT, do_center_crop=True)
    assert go("finetune cropping --data d -o made") == 3
    assert "do_center_crop is set" in capsys.readouterr().err
    changed(unloaded / "larger", "config.json", image_size=32)
    assert go("finetune larger --data d -o made") == 3
    assert "images of 16 x 16, and the model takes 32 x 32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("benchmark teacher --shapes 1x32", "takes images of one size; expected batches such"),
        ("benchmark teacher --scaling", "an image has none"),
        ("export teacher --tune 1x32", "this model takes images"),
        ("distill teacher --method distilbert --data d", "distilbert serves masked-lm and causal"),
        ("finetune vit --data d --image-column image --text-columns label", "exclude each other"),
    ],
)
def test_what_has_no_meaning_for_images(words, said, unloaded, capsys):
    assert go(f"{words} -o made") == 2
    assert said in capsys.readouterr().err


def test_hidden_states_of_images_are_not_kept(here, capsys):
    words = f"distill teacher --layers 1 --method hidden_mse --layer-pairs last {QUICK}"
    assert go(f"{words} --cache-hidden -o made") == 2
    assert "hidden states of images are not kept" in capsys.readouterr().err


def test_an_image_that_is_gone_is_named_with_its_line(unloaded, capsys):
    (unloaded / "d").unlink()
    tiny.images(unloaded / "d")
    (unloaded / "d" / "images" / "train1.jpg").unlink()
    assert go(f"finetune vit {QUICK} -o made") == 3
    err = capsys.readouterr().err
    assert "train1.jpg cannot be read" in err
    assert "train.jsonl:2" in err
