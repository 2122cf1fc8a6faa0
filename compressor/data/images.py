"""Image files: whether they can be opened, and the numbers that a model reads of them.

Pillow is imported where a file is opened. An image is turned as its camera noted, brought to the
model's colours and size, and kept as bytes; `pixels` makes floats of many at once.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.data.faults import Bad, refuse_bad
from compressor.data.rows import Row
from compressor.data.source import Source
from compressor.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

# Other formats that Pillow knows are rare, and one of them (EPS) is run rather than read.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
# The classes whose defaults the values below are, old names and new.
_PROCESSORS = re.compile(r"ViT(ImageProcessor(Fast|Pil)?|FeatureExtractor)")
_STEPS = ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb")
_COLOURS = {1: "L", 3: "RGB"}
# What Pillow's readers raise at a file that is cut short or broken.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error)


@dataclass(frozen=True)
class ImageFormat:
    """How an image becomes the numbers that a model reads: (value x scale - mean) / deviation.

    Attributes:
        height: of the result.
        width: of the result.
        channels: 3 for colours, 1 for greys.
        resize: whether other sizes are brought to that one; otherwise they are refused.
        resample: number of Pillow's filter for that.
        scale: what a value from 0 to 255 is multiplied with.
        mean: of each channel.
        deviation: of each channel.
    """

    height: int
    width: int
    channels: int
    resize: bool
    resample: int
    scale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __str__(self) -> str:
        mean, deviation = (
            ", ".join(f"{value:g}" for value in values) for values in (self.mean, self.deviation)
        )
        return (
            f"{self.width} x {self.height} x {self.channels}, scale {self.scale:.4g}, mean {mean}, "
            f"deviation {deviation}"
        )

    def values(self, path: Path) -> np.ndarray | Bad:
        """The values of an image file, uint8 [channels, height, width], or why it has none."""
        import numpy as np
        from PIL import ImageOps

        image = open_image(path)
        if isinstance(image, Bad):
            return image
        try:
            with image:
                image = ImageOps.exif_transpose(image).convert(_COLOURS[self.channels])
        except _BROKEN as problem:
            return Bad(f"the image {path} is broken: {problem}")
        size = (self.width, self.height)
        if image.size != size and not self.resize:
            found = " x ".join(map(str, image.size))
            return Bad(
                f"the image {path} is {found}, and the model's preprocessor_config.json does "
                f"not resize; expected {self.width} x {self.height}"
            )
        if image.size != size:
            image = image.resize(size, self.resample)
        values = np.asarray(image).reshape(self.height, self.width, self.channels)
        return values.transpose(2, 0, 1)  # [channels, height, width]


def open_image(path: Path) -> Image | Bad:
    """An image whose header was read, not its values; or why it is none."""
    from PIL import Image, UnidentifiedImageError

    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnidentifiedImageError  # a pipe would be waited for
        image = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        return Bad(f"{path} is not an image of one of {', '.join(FORMATS)}")
    except Image.DecompressionBombError:
        return Bad(f"the image {path} has more points than are ever read")
    except _BROKEN as problem:
        reason = getattr(problem, "strerror", None) or problem
        return Bad(f"the image {path} cannot be read: {reason}")
    if image.mode.startswith(("I", "F")):
        image.close()
        return Bad(f"the image {path} has more than 8 bits a value ({image.mode})")
    return image


def refuse_nowhere(source: Source) -> None:
    """Refuse rows that lie in no folder, from which the paths of images could count.

    Raises:
        InputError: they came through standard input or from the hub.
    """
    if source.name == "-" or source.hub:
        raise InputError(
            "rows with paths of images must lie in a folder beside the images",
            hint="write them to a file there and name it: --data FOLDER/train.jsonl",
            where=f"--data {source.name}",
        )


def openable(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows, each with an image whose header can be read.

    Raises:
        InputError: some cannot; it lists up to twenty.
    """

    def looked_at(of_one_file: Iterable[Row]) -> Iterator[tuple[int, Row | Bad]]:
        for row in of_one_file:
            image = open_image(row.image)
            if not isinstance(image, Bad):
                image.close()
            yield row.line, image if isinstance(image, Bad) else row

    for file, of_one_file in groupby(rows, key=lambda row: row.file):
        for _, row in refuse_bad(looked_at(of_one_file), file):
            yield row


def image_format(said: Mapping[str, Any], channels: int, where: str) -> ImageFormat:
    """What a preprocessor_config.json says; transformers' defaults for ViT where it is silent.

    Args:
        said: its content.
        channels: of the model.
        where: the file, for the refusal.

    Raises:
        InputError: it asks for what is not done here, or is broken.
    """
    kind = said.get("image_processor_type") or said.get("feature_extractor_type")
    other = [key for key, value in said.items() if key.startswith("do_") and value]
    other = sorted(set(other) - set(_STEPS))
    if kind is not None and not _PROCESSORS.fullmatch(str(kind)):
        raise _unsupported(f"images are made ready by a {kind}", where)
    if other:
        raise _unsupported(f"{', '.join(other)} is set", where)
    if channels not in _COLOURS:
        raise _unsupported(f"the model reads {channels} channels, and images have 1 or 3", where)
    height, width = _size(said.get("size", 224), where)
    filters = said.get("resample", 2)
    if type(filters) is not int or not 0 <= filters <= 5:
        raise _unsupported(f"resample is {filters!r}, expected a number from 0 to 5", where)
    normalize = said.get("do_normalize", True)
    scale = _numbers(said, "rescale_factor", 1 / 255, 1, where)[0]
    deviation = _numbers(said, "image_std", 0.5, channels, where) if normalize else (1.0,)
    if 0 in deviation:
        raise _unsupported("image_std holds 0, by which nothing can be divided", where)
    return ImageFormat(
        height=height,
        width=width,
        channels=channels,
        resize=bool(said.get("do_resize", True)),
        resample=filters,
        scale=scale if said.get("do_rescale", True) else 1.0,
        mean=_numbers(said, "image_mean", 0.5, channels, where) if normalize else (0.0,),
        deviation=deviation,
    )


def _size(size: Any, where: str) -> tuple[int, int]:
    """Height and width; a shortest edge alone would leave images of many shapes."""
    sides = size if isinstance(size, dict) else {"height": size, "width": size}
    both = sides.get("height"), sides.get("width")
    if all(type(side) is int and side > 0 for side in both):
        return both
    raise _unsupported(f"size is {size!r}, expected a height and a width", where)


def _numbers(
    said: Mapping[str, Any], key: str, default: float, count: int, where: str
) -> tuple[float, ...]:
    """One number for each channel; a single one counts for all."""
    given = said.get(key, default)
    values = given if isinstance(given, list) else [given] * count
    if len(values) != count or not all(type(value) in (int, float) for value in values):
        raise _unsupported(f"{key} is {given!r}, expected {count} numbers", where)
    return tuple(map(float, values))


def _unsupported(found: str, where: str) -> InputError:
    return InputError(
        f"preprocessor_config.json is not understood: {found}",
        hint="a height and a width to resize to, rescaling, and a mean and deviation of each "
        "channel are; save such a ViTImageProcessor beside the model",
        where=where,
    )
