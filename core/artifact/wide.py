"""Wide levels: int16 as two matrices of bytes, each with tables of its own."""

from __future__ import annotations

import numpy as np

from core.artifact.entropy import Shapes, rans_encode
from core.artifact.packing import UnfitError
from core.artifact.rans import rans_decode


def wide_encode(data: bytes, shapes: Shapes) -> bytes:
    """The low bytes, signed, of all matrices; then what is left for the high ones: mostly zero.

    Raises UnfitError where the shapes, in bytes, are not of int16.
    """
    if any(cols % 2 for _, cols in shapes):
        raise UnfitError("a row has half a level")
    levels = np.frombuffer(data, "<i2")
    low = levels.astype(np.int8)
    high = (levels - low >> 8).astype(np.int8)
    halves = [(rows, cols // 2) for rows, cols in shapes]
    return rans_encode(low.tobytes() + high.tobytes(), halves * 2)


def wide_decode(data: bytes, raw_bytes: int) -> bytes:
    """What wide_encode took; raises anything where `data` stands for nothing."""
    low, high = np.frombuffer(rans_decode(data, raw_bytes), np.int8).reshape(2, -1)
    return (high.astype("<i2") * np.int16(256) + low).astype("<i2").tobytes()
