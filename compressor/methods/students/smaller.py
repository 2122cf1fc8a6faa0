"""A student of the teacher's family with other sizes and random weights.

X. Jiao and others: TinyBERT, Findings of EMNLP 2020, arXiv 1909.10351 (a 4-layer, 312-wide BERT);
W. Wang and others: MiniLMv2, Findings of ACL 2021, arXiv 2012.15828 (students of any shape).

Layers, hidden width, feed-forward width and heads are chosen freely; vocabulary, positions and
everything else stay the teacher's. Nothing is copied, so it has to learn from hidden states or
attention (`minilm_v2`, `tinybert`) before answers are of use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.methods.option import option

if TYPE_CHECKING:
    from compressor.model.load import Loaded

VERBS = ("distill",)
SHAPE_FLAGS = ("--student-layers", "--student-hidden", "--student-ffn", "--student-heads")


@dataclass(frozen=True)
class Options:
    """The student's sizes."""

    student_layers: int = option(0, "number of layers; 0 for the teacher's", low=0)
    student_hidden: int = option(0, "width of the hidden states; 0 for the teacher's", low=0)
    student_ffn: int = option(
        0, "feed-forward width; 0 for the teacher's ratio to the hidden width", low=0
    )
    student_heads: int = option(0, "number of attention heads; 0 for the teacher's", low=0)


def build(teacher: Loaded, options: Options) -> Loaded:
    """A random model of the chosen sizes, from torch's generator as it stands."""
    from compressor.model.shapes import reshaped

    config = reshaped(
        teacher.model.config,
        layers=options.student_layers,
        hidden=options.student_hidden,
        ffn=options.student_ffn,
        heads=options.student_heads,
    )
    return teacher.with_model(type(teacher.model)(config).eval())
