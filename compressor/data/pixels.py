"""Images become bytes in a flat file, so that memory does not grow with the data.

Every image stands once, at the model's size, as it was decoded; a batch of them becomes floats by
one multiplication and one addition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compressor.data.faults import Bad, kept_in
from compressor.data.images import ImageFormat
from compressor.data.rows import Row
from compressor.errors import InputError


@dataclass(frozen=True)
class Pixels:
    """Images of one size.

    Attributes:
        values: uint8 [images, channels, height, width], memory-mapped.
        labels: int64 [images].
        format: what the values mean to the model.
        max_length: of an input; images are never cut.
    """

    values: np.ndarray
    labels: np.ndarray
    format: ImageFormat
    max_length: int = 0

    def __len__(self) -> int:
        return len(self.values)

    @property
    def lengths(self) -> np.ndarray:
        """What each image costs, int64 [images]: all the same."""
        return np.ones(len(self), dtype=np.int64)

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Some images as a model reads them.

        Args:
            indices: int [batch].

        Returns:
            `pixel_values` float32 [batch, channels, height, width], `labels` int64 [batch].
        """
        mean, deviation = (
            np.asarray(numbers, dtype=np.float64)[:, None, None]
            for numbers in (self.format.mean, self.format.deviation)
        )
        values = self.values[indices].astype(np.float32)
        values *= (self.format.scale / deviation).astype(np.float32)
        values -= (mean / deviation).astype(np.float32)
        return {"pixel_values": values, "labels": self.labels[indices]}

    def keys(self) -> np.ndarray:
        """Two hashes of what a model reads of each image, uint64 [images, 2]."""
        start = hashlib.blake2b(str(self.format).encode(), digest_size=16)
        keys = np.empty((len(self), 2), dtype=np.uint64)
        for number, image in enumerate(self.values):
            digest = start.copy()
            digest.update(image)
            keys[number] = np.frombuffer(digest.digest(), dtype=np.uint64)
        return keys


def read_images(rows: Iterable[Row], made: ImageFormat, folder: Path) -> Pixels:
    """Decode the images of rows into `pixels.bin` in `folder`.

    Args:
        rows: from `Dataset.rows`.
        made: how the model wants them.
        folder: made when it is missing; a file of an earlier call in it is overwritten.

    Raises:
        InputError: no rows, or an image that cannot be decoded.
        MachineError: the folder cannot be written.
    """
    labels = []
    place = folder / "pixels.bin"
    with kept_in(folder, "images"), place.open("wb") as file:
        for row in rows:
            values = made.values(row.image)
            if isinstance(values, Bad):
                raise InputError(
                    values.problem, hint="repair or remove it", where=f"{row.file}:{row.line}"
                )
            # Not `tofile`, which does not notice that the disk is full.
            file.write(np.ascontiguousarray(values).data)
            labels.append(row.label)
    if not labels:
        raise InputError("no rows")
    shape = (len(labels), made.channels, made.height, made.width)
    values = np.memmap(place, dtype=np.uint8, mode="r", shape=shape)
    return Pixels(values, np.array(labels, dtype=np.int64), made)
