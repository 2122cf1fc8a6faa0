"""A decoder's graph that writes on: the likeliest token, again and again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from compressor.export.session import Session


def continued(session: Session, inputs: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    """The next `count` tokens of every row, [rows, count].

    The first call reads the whole text, every other one the token before it.

    Args:
        session: of a graph with keys and values.
        inputs: `input_ids` and `attention_mask` [rows, length], padded on the left.
        count: how many tokens.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    past: dict[str, np.ndarray] = {}
    written = []
    for _ in range(count):
        logits, past = session.step({"input_ids": ids, "attention_mask": mask, **past})
        ids = logits[:, -1].argmax(-1)[:, None]  # [rows, 1]
        mask = np.concatenate([mask, np.ones_like(ids)], axis=1)
        written.append(ids)
    return np.concatenate(written, axis=1)
