"""How a model reads rows: its tokenizer, or the format of its images; known before it is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.checkpoint.config import size_in
from compressor.checkpoint.folder import Checkpoint
from compressor.checkpoint.reading import file_names, read_object
from compressor.checkpoint.sentences import PICTURES
from compressor.data.images import ImageFormat, image_format
from compressor.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from compressor.data.encode import Encoded
    from compressor.data.pixels import Pixels
    from compressor.data.rows import Row
    from compressor.data.tasks import Task

USUAL_SIDE, USUAL_CHANNELS = 224, 3  # what a ViT's config leaves out


@dataclass(frozen=True)
class Reader:
    """What turns rows into the inputs of one model.

    Attributes:
        tokenizer: None for a model of images.
        images: how it wants its images; None for a model of text.
        longest: most tokens that it takes.
    """

    tokenizer: PreTrainedTokenizerBase | None
    images: ImageFormat | None
    longest: int

    def encode(
        self, rows: Iterable[Row], task: Task, *, max_length: int, folder: Path, on_long: Any
    ) -> Encoded | Pixels:
        """Rows as token ids or pixels in `folder`; see `compressor.train.feed.feed_of`."""
        if self.images is not None:
            from compressor.data.pixels import read_images

            return read_images(rows, self.images, folder)
        from compressor.data.encode import encode

        longest = min(max_length, self.longest)
        return encode(
            rows, self.tokenizer, task, max_length=longest, folder=folder, on_long=on_long
        )

    def read(self, row: Row) -> None:
        """Make one row ready and forget it; what a clock is held to."""
        if self.images is not None:
            self.images.values(row.image)
        else:
            self.tokenizer(*row.texts)


def images_of(checkpoint: Checkpoint) -> ImageFormat | None:
    """How the model of a checkpoint wants its images; None for a model of text.

    Raises:
        InputError: nothing says it, it is not done here, or it does not fit the model.
    """
    if not checkpoint.reads_images:
        return None
    where = checkpoint.path / PICTURES
    if PICTURES not in file_names(checkpoint.path):
        raise InputError(
            f"{checkpoint.name} has no {PICTURES}, so nothing says how its images are made ready",
            hint="copy it from where the model comes from",
            where=str(checkpoint.path),
        )
    channels, height, width = image_shape(checkpoint)
    made = image_format(read_object(where), channels, str(where))
    if (made.height, made.width) != (height, width):
        raise InputError(
            f"{PICTURES} makes images of {made.height} x {made.width}, and the model takes "
            f"{height} x {width} (image_size in config.json)",
            hint="correct size in it",
            where=str(where),
        )
    return made


def image_shape(checkpoint: Checkpoint) -> tuple[int, int, int]:
    """Channels, height and width of the images that a model takes.

    Raises:
        InputError: the config says something else than numbers.
    """
    config, where = checkpoint.config, checkpoint.path / "config.json"
    sides = config.get("image_size")
    if isinstance(sides, list) and len(sides) == 2:
        height, width = (size_in({**config, "image_size": s}, "image_size", where) for s in sides)
    else:
        height = width = size_in(config, "image_size", where) or USUAL_SIDE
    return size_in(config, "num_channels", where) or USUAL_CHANNELS, height, width


def refuse_unreadable(checkpoint: Checkpoint, task: Task, where: str) -> None:
    """Refuse rows that a model cannot read, before it is loaded.

    Args:
        checkpoint: of the model.
        task: of the rows.
        where: name of the data.

    Raises:
        InputError: texts for a model of images, or the other way round; or see `images_of`.
    """
    reads = "image" if checkpoint.reads_images else "text"
    if reads != task.reads:
        hint = "--text-columns COLUMN" if reads == "text" else "--image-column COLUMN"
        raise InputError(
            f"{checkpoint.name} ({checkpoint.model_type}) reads {reads}s, and {where} was opened "
            f"for {task.name}",
            hint=f"name the column to read: {hint}, or take another model",
            where=str(checkpoint.path),
        )
    images_of(checkpoint)
