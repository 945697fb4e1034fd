"""Ternary and one-bit matrices as they are stored: a row a group of weights, and its scale."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.artifact.grid import Array, mean_size

OneBit = Literal["ternary", "binary"]


def grouped_levels(
    weight: Array, group: int, form: OneBit
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Any shape to levels -1, 0 and 1, int8 (N / group, group), and a scale each, (N / group,).

    The levels are those that the model's forward pass makes of these weights, by s, the mean
    magnitude of a group. What is stored is rounded once more when it is scored, by its own mean
    magnitude: that is s again, because the scale is s over the mean |level|.
    """
    rows = weight.reshape(-1, group)
    size = mean_size(rows)[:, None]
    if form == "binary":
        levels = np.where(rows >= 0, 1, -1)
    else:
        levels = np.clip(np.rint(rows / np.where(size > 0, size, 1)), -1, 1)
    held = np.abs(levels).mean(axis=1)
    scale = size[:, 0] / np.where(held > 0, held, 1)
    return levels.astype(np.int8), scale.astype(np.float32)
