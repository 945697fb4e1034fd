"""Float8: e4m3, a sign, four bits of exponent and three of mantissa; no infinity, largest 448."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.artifact.grid import Array

Codes = NDArray[np.uint8]

LARGEST = 448.0
_LEAST_EXPONENT = -6  # of normal numbers; below it they lie 2**-9 apart
_NAN = 127  # without its sign


def float8_codes(weight: Array) -> Codes:
    """Finite numbers to the nearest, halves to the even one, beyond 448 to 448; -0 to 0.

    The bits are those of OCP's e4m3 (2023), as in torch.float8_e4m3fn. Powers of two and whole
    numbers alone: equal on every machine.
    """
    size = np.minimum(np.abs(weight.astype(np.float64)), LARGEST)
    _, above = np.frexp(size)
    exponent = np.maximum(np.where(size > 0, above - 1, _LEAST_EXPONENT), _LEAST_EXPONENT)
    eighths = np.rint(np.ldexp(size, 3 - exponent)).astype(np.int64)  # 8 to 16, or fewer
    code = 8 * (exponent + 7) + eighths - 8
    signed: Codes = np.where((weight < 0) & (code > 0), code + 128, code).astype(np.uint8)
    return signed


def float8_values(codes: Codes) -> Array:
    """What they stand for, float32; the two codes of NaN are not asked for."""
    exponent, eighths = (codes >> 3 & 15).astype(np.int64), (codes & 7).astype(np.float32)
    size = np.ldexp(eighths + 8 * (exponent > 0), np.maximum(exponent, 1) - 10)
    signed: Array = np.where(codes > 127, -size, size).astype(np.float32)
    return signed


def has_nan(codes: Codes) -> bool:
    return bool(np.any(codes & 127 == _NAN))
