"""A patch of every image comes from another image of its batch, and so does a share of its label.

S. Yun, D. Han, S. J. Oh, S. Chun, J. Choe, Y. Yoo: CutMix: Regularization Strategy to Train Strong
Classifiers with Localizable Features, 2019, arXiv 1905.04899. Of a batch of images H x W

    l ~ Beta(a, a)      a box of H sqrt(1 - l) x W sqrt(1 - l) around a point drawn evenly
    x_A' = x_A outside the box, x_B inside it
    loss = l' CE(x_A', y_A) + (1 - l') CE(x_A', y_B)      l' = 1 - the box's share of the image

where the images B are those of the batch in a random order, with one box for the batch. What lies
outside the image is cut off, which is why l' is counted anew, as in the authors' code.
Cross-entropy is linear in the label, so both terms are one, with shares of two classes as the
label. A batch is mixed with probability p, in training alone; a teacher is asked about the mixed
images. A batch in which a row has no label is left alone.

The authors take a = 1, and p = 1 on ImageNet, 0.5 on CIFAR; the defaults are those of a recipe for
images of other domains than those of training (H. Chen and others, 2022, arXiv 2209.08473).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.methods.contract import Batch, Context
from compressor.methods.option import option

if TYPE_CHECKING:
    import numpy as np
    import torch

VERBS = ()
TASKS = ("image-classification",)
MIXES_LABELS = True


@dataclass(frozen=True)
class Options:
    """How often, and how much."""

    cutmix_probability: float = option(
        0.1, "p, the share of batches that are mixed", low=0.0, high=1.0, source="Chen 2022"
    )
    cutmix_alpha: float = option(
        0.3, "a of Beta(a, a); 1 draws sizes evenly", low=1e-3, source="Chen 2022"
    )


def box(height: int, width: int, kept: float, draw: np.random.Generator) -> tuple[slice, slice]:
    """The rows and columns of the patch, perhaps none.

    Args:
        height: of the images.
        width: of the images.
        kept: l, the share of an image that would be kept if the patch lay inside it.
        draw: of the patch's centre.
    """
    found = []
    for size in (height, width):
        centre, half = int(draw.integers(size)), int(size * (1 - kept) ** 0.5) // 2
        found.append(slice(max(centre - half, 0), min(centre + half, size)))
    return found[0], found[1]


def mix(
    pixels: torch.Tensor, labels: torch.Tensor, order: torch.Tensor, patch: tuple[slice, slice]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with the patch of others, and their labels in the same shares.

    Args:
        pixels: [batch, channels, height, width].
        labels: shares of the classes, [batch, classes].
        order: the other image of each, [batch].
        patch: rows and columns of the box.
    """
    rows, columns = patch
    mixed = pixels.clone()
    mixed[:, :, rows, columns] = pixels[order][:, :, rows, columns]
    height, width = pixels.shape[-2:]
    share = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    return mixed, (1 - share) * labels + share * labels[order]


class Modifier:
    """Mixes some of the training batches."""

    def __init__(self, options: Options, context: Context) -> None:
        self.options, self.classes = options, context.student_config.num_labels

    def batch(self, batch: Batch, draw: np.random.Generator) -> Batch:
        """The batch, or in its place a mixed one, whose rows are no rows of the data any more."""
        import torch
        from torch.nn import functional as F

        labels, pixels = batch["labels"], batch["pixel_values"]
        if draw.random() >= self.options.cutmix_probability or (labels < 0).any():
            return batch
        kept = draw.beta(self.options.cutmix_alpha, self.options.cutmix_alpha)
        patch = box(pixels.shape[-2], pixels.shape[-1], kept, draw)
        order = torch.from_numpy(draw.permutation(len(labels))).to(labels.device)
        shares = F.one_hot(labels, self.classes).float()  # [batch, classes]
        mixed, shares = mix(pixels, shares, order, patch)
        return {"pixel_values": mixed, "labels": shares}
