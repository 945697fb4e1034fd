"""Rotary tables (Su et al. 2021), made once in float64 and handed to both engines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.arch.spec import ModelSpec

Table = NDArray[np.float32]


def rotary_tables(spec: ModelSpec) -> tuple[Table, Table]:
    """cos and sin, each float32 (T, R/2), of position * rope_base**(-2i/R).

    The pair (x1, x2) = (x[i], x[i + R/2]) turns to (x1 cos + x2 sin, -x1 sin + x2 cos).
    """
    dims = spec.rotated_dims
    frequencies = spec.rope_base ** (-np.arange(0, dims, 2, dtype=np.float64) / max(dims, 1))
    angles = np.outer(np.arange(spec.seq_len, dtype=np.float64), frequencies)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
