"""Log scales: a byte stands for a step, an eighth of an octave from the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.artifact.grid import Array

Scales = NDArray[np.float16] | NDArray[np.uint8]

# 2**(k/8) as literals: a library's pow may differ in the last bit.
_EIGHTHS = np.array(
    [
        *(1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096),
        *(1.4142135623730951, 1.5422108254079407, 1.681792830507429, 1.8340080864093424),
    ],
    np.float64,
)


def log_scale_to_float(scale: NDArray[np.uint8]) -> Array:
    """b to 2**((b - 128) / 8), rounded once to float32: 2**-16 to 2**15.875."""
    steps = scale.astype(np.int64) - 128
    exact: NDArray[np.float64] = np.ldexp(_EIGHTHS[steps % 8], steps // 8)
    return exact.astype(np.float32)


def log_scale_from_float(value: Array) -> NDArray[np.uint8]:
    """The log scale nearest by ratio; beyond the ends, the end."""
    if not np.all(np.isfinite(value) & (value > 0)):
        raise ValueError("log scale: a scale must be positive and finite")
    known = log_scale_to_float(np.arange(256, dtype=np.uint8)).astype(np.float64)
    middles = np.sqrt(known[:-1] * known[1:])
    return np.searchsorted(middles, value.astype(np.float64)).astype(np.uint8)


def scale_values(scale: Scales) -> Array:
    """What stored scales stand for, float32."""
    if scale.dtype == np.uint8:
        return log_scale_to_float(scale.astype(np.uint8))
    return scale.astype(np.float32)
