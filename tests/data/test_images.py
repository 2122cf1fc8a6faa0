"""Images: found by their column, refused in words, and read as transformers reads them."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import tiny
from compressor.data import dataset as datasets
from compressor.data.columns import find_inputs
from compressor.data.dataset import open_dataset
from compressor.data.distinct import distinct
from compressor.data.faults import Bad
from compressor.data.images import image_format
from compressor.data.pixels import Pixels, read_images
from compressor.errors import InputError, UsageError

SAID = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 12}}


def find(columns, reads=None, texts=None, image=None):
    return find_inputs(columns, reads=reads, texts=texts, image=image, where="d")


@pytest.mark.parametrize("name", ["image", "img", "Image_Path", "file_name"])
def test_a_column_of_images_is_found_by_name_where_no_text_is(name):
    assert find([name, "label"]) == ("image", (name,))
    assert find([name, "text", "label"]) == ("text", ("text",))
    assert find([name, "text", "label"], reads="image") == ("image", (name,))
    assert find([name, "text", "label"], reads="text") == ("text", ("text",))
    assert find([name, "words"], texts="words") == ("text", ("words",))


def test_a_column_of_images_can_be_named():
    assert find(["photo", "text"], image="photo") == ("image", ("photo",))
    with pytest.raises(InputError, match="'foto' among 'photo'; did you mean 'photo'"):
        find(["photo"], image="foto")
    with pytest.raises(InputError, match="no image column among 'photo'") as refused:
        find(["photo"], reads="image")
    assert "--image-column" in refused.value.hint


@pytest.mark.parametrize(
    "asked",
    [
        {"image": "image", "texts": "text"},
        {"image": "image", "reads": "text"},
        {"texts": "text", "reads": "image"},
    ],
)
def test_what_is_asked_for_must_agree(asked):
    with pytest.raises(UsageError):
        find(["image", "text"], **asked)


def test_rows_of_images(tmp_path):
    dataset = open_dataset(str(tiny.images(tmp_path / "d")))
    assert dataset.task.name == "image-classification"
    assert dataset.labels == tiny.COLOURS
    rows = list(dataset.rows("train"))
    assert rows[4].image == tmp_path / "d" / "images" / "train4.png"
    assert [row.label for row in rows[:4]] == [0, 1, 2, 0]


def test_classes_may_be_numbers_with_a_point(tmp_path):
    folder = tiny.images(tmp_path / "d", train=2, validation=2)
    write(folder / "train.jsonl", [{"image": f"images/train{n}.png", "label": 0.0} for n in (0, 0)])
    write(folder / "validation.jsonl", [{"image": "images/train0.png", "label": 0.0}])
    assert open_dataset(str(folder)).task.name == "image-classification"


# Wrong rows --------------------------------------------------------------------------------


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("images/none.png", "cannot be read: No such file"),
        ("images/train0.png/x.png", "cannot be read: Not a directory"),
        ("../d/images/train0.png", "leaves the folder of the data"),
        ("images/../../secret.png", "leaves the folder of the data"),
        ("{folder}/images/train0.png", "leaves the folder of the data"),
        ("train.jsonl", "is not an image"),
        ("images", "is not an image"),
        ("deep.png", "more than 8 bits"),
        ("run.eps", "is not an image"),
        (" ", "is empty"),
        (None, "holds nothing"),
        ({"bytes": "..."}, "holds a dict, not a path"),
    ],
)
def test_a_row_without_its_image_is_refused_with_its_line(value, words, tmp_path):
    folder = tiny.images(tmp_path / "d", train=4)
    Image.fromarray(np.zeros((4, 4), dtype=np.uint16)).save(folder / "deep.png")
    (folder / "run.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    if isinstance(value, str):
        value = value.format(folder=folder)
    rows = [{"image": f"images/train{n}.{'jpg' if n % 2 else 'png'}", "label": "a"} for n in (0, 1)]
    write(folder / "train.jsonl", [*rows, {"image": value, "label": "b"}])
    with pytest.raises(InputError, match=words) as refused:
        open_dataset(str(folder))
    assert refused.value.where == f"{folder}/train.jsonl:3"


def test_bad_rows_are_listed_together(tmp_path):
    folder = tiny.images(tmp_path / "d", train=4)
    names = [f"images/{name}.png" for name in ("train0", "a", "train2", "b")]
    write(folder / "train.jsonl", [{"image": name, "label": "x"} for name in names])
    with pytest.raises(InputError) as refused:
        open_dataset(str(folder))
    assert "2 bad lines" in refused.value.message
    assert "line 2: " in refused.value.message
    assert "line 4: " in refused.value.message


def test_only_the_first_rows_are_opened_before_a_model_loads(tmp_path, monkeypatch):
    folder = tiny.images(tmp_path / "d", train=6)
    (folder / "images" / "train5.jpg").unlink()
    monkeypatch.setattr(datasets, "CHECKED_ROWS", 5)
    dataset = open_dataset(str(folder))
    with pytest.raises(InputError, match=r"train5\.jpg cannot be read") as refused:
        read_images(dataset.rows("train"), image_format(SAID, 3, ""), tmp_path / "work")
    assert refused.value.where == f"{folder}/train.jsonl:6"
    monkeypatch.setattr(datasets, "CHECKED_ROWS", 6)
    with pytest.raises(InputError):
        open_dataset(str(folder))


def test_a_file_that_was_cut_short_is_refused_when_it_is_decoded(tmp_path):
    folder = tiny.images(tmp_path / "d", train=6)
    cut = folder / "images" / "train3.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    dataset = open_dataset(str(folder))
    with pytest.raises(InputError, match=r"train3\.jpg is broken: .*truncated") as refused:
        read_images(dataset.rows("train"), image_format(SAID, 3, ""), tmp_path / "work")
    assert refused.value.where == f"{folder}/train.jsonl:4"


def test_rows_of_a_stream_lie_beside_no_images(tmp_path):
    row = '{"image": "a.png", "label": "x"}\n'
    words = "from compressor.data.dataset import open_dataset; open_dataset('-')"
    done = subprocess.run(
        [sys.executable, "-c", words], input=row, text=True, capture_output=True, check=False
    )
    assert "must lie in a folder beside the images" in done.stderr


def test_text_needs_no_pillow(tmp_path):
    tiny.data(tmp_path / "d", train=2, validation=2)
    words = (
        "import sys; from compressor.data.dataset import open_dataset; "
        f"list(open_dataset('{tmp_path}/d').rows('train')); assert 'PIL' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", words], check=True, capture_output=True)


# The format --------------------------------------------------------------------------------


def pictures(folder):
    """One file of each kind that is decoded in its own way."""
    draw = np.random.default_rng(0)
    colours = Image.fromarray(draw.integers(0, 256, (23, 40, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    colours.save(folder / "plain.jpg")
    colours.save(folder / "turned.jpg", exif=turned)
    colours.resize((12, 16)).save(folder / "sized.png")
    colours.convert("L").save(folder / "grey.png")
    colours.convert("RGBA").save(folder / "clear.png")
    colours.quantize(9).save(folder / "palette.gif")
    colours.convert("CMYK").save(folder / "print.jpg")
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"resample": 3},
        {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
    ],
)
def test_images_are_read_as_transformers_reads_them(other, tmp_path):
    from transformers.image_utils import load_image
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    processor = ViTImageProcessorPil(size=SAID["size"], **other)
    made = image_format(json.loads(processor.to_json_string()), 3, "")
    for path in pictures(tmp_path):
        values = made.values(path)
        assert values.dtype == np.uint8
        found = Pixels(values[None], np.zeros(1, dtype=np.int64), made).batch(np.array([0]))
        wanted = processor(load_image(str(path)), return_tensors="np")["pixel_values"]
        assert found["pixel_values"].dtype == np.float32
        assert found["pixel_values"].shape == (1, 3, 16, 12)
        np.testing.assert_allclose(found["pixel_values"], wanted, atol=2e-6)


def test_black_and_white_by_hand(tmp_path):
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).save(tmp_path / "two.png")
    said = {"size": {"height": 1, "width": 2}, "image_mean": [0.5], "image_std": [0.25]}
    made = image_format(said, 1, "")
    pixels = Pixels(made.values(tmp_path / "two.png")[None], np.array([3]), made)
    batch = pixels.batch(np.array([0, 0]))
    assert batch["pixel_values"].tolist() == [[[[-2.0, 2.0]]]] * 2
    assert batch["labels"].tolist() == [3, 3]


def test_what_is_said_in_old_ways_is_understood():
    old = {"feature_extractor_type": "ViTFeatureExtractor", "size": 32, "image_mean": [0.1] * 3}
    made = image_format(old, 3, "")
    assert (made.height, made.width, made.resample) == (32, 32, 2)
    assert made.mean == (0.1, 0.1, 0.1)
    assert made.scale == 1 / 255


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"do_center_crop": True}, "do_center_crop is set"),
        ({"do_pad": True, "do_flip_channel_order": True}, "do_flip_channel_order, do_pad is set"),
        ({"image_processor_type": "CLIPImageProcessor"}, "by a CLIPImageProcessor"),
        ({"size": {"shortest_edge": 16}}, "expected a height and a width"),
        ({"size": {"height": 0, "width": 16}}, "expected a height and a width"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is .*expected 3 numbers"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std holds 0"),
        ({"rescale_factor": "big"}, "rescale_factor is 'big'"),
        ({"resample": 9}, "resample is 9"),
    ],
)
def test_what_is_not_done_here_is_refused(said, words):
    with pytest.raises(InputError, match=words) as refused:
        image_format({**SAID, **said}, 3, "m/preprocessor_config.json")
    assert refused.value.where == "m/preprocessor_config.json"


def test_four_channels_are_no_image():
    with pytest.raises(InputError, match="the model reads 4 channels"):
        image_format(SAID, 4, "")


def test_without_resizing_every_image_must_have_the_size(tmp_path):
    pictures(tmp_path)
    made = image_format({**SAID, "do_resize": False}, 3, "")
    assert not isinstance(made.values(tmp_path / "sized.png"), Bad)
    found = made.values(tmp_path / "plain.jpg")
    assert "is 40 x 23" in found.problem
    assert "expected 12 x 16" in found.problem


# Kept pixels -------------------------------------------------------------------------------


def test_pixels_are_kept_on_disk(tmp_path):
    dataset = open_dataset(str(tiny.images(tmp_path / "d")))
    made = image_format(SAID, 3, "")
    pixels = read_images(dataset.rows("train"), made, tmp_path / "work")
    assert isinstance(pixels.values, np.memmap)
    assert (tmp_path / "work" / "pixels.bin").stat().st_size == 48 * 3 * 16 * 12
    assert pixels.labels.tolist() == [0, 1, 2] * 16
    for number in (0, 5, 47):
        path = list(dataset.rows("train"))[number].image
        assert (pixels.values[number] == made.values(path)).all()
    assert (pixels.lengths == 1).all()


def test_like_images_are_one_to_a_teacher_unless_it_reads_them_otherwise(tmp_path):
    folder = tiny.images(tmp_path / "d", train=4)
    same = (folder / "images" / "train0.png").read_bytes()
    (folder / "images" / "train2.png").write_bytes(same)
    made = image_format(SAID, 3, "")
    rows = open_dataset(str(folder)).rows("train")
    pixels = read_images(rows, made, tmp_path / "work")
    found = distinct([pixels])
    assert len(found) == 3
    assert found.places[0] == found.places[2] != found.places[1]
    other = replace(pixels, format=replace(made, mean=(0.4, 0.4, 0.4)))
    assert distinct([other]).fingerprint != found.fingerprint
    assert distinct([replace(pixels)]).fingerprint == found.fingerprint
