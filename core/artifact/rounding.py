"""Rounding: rows of a matrix to their nearest levels and scales, equal bits on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.artifact.float8 import LARGEST, float8_codes
from core.artifact.grid import FP16_MAX, Array, Grid
from core.artifact.packed import Levels
from core.artifact.scales import Scales, log_scale_from_float, log_scale_to_float, scale_values

FP16_TINY = np.float16(2.0**-24)
ABSMAX = Grid()


def quantize_float8(
    weight: Array, grid: Grid, name: str = "weight"
) -> tuple[NDArray[np.uint8], Scales]:
    """(R, C) to codes of float8.py (R, C) in units of scales (R,): a row reaches to 448."""
    scale = row_scales(weight * np.float32(grid.qmax / LARGEST), grid, name)
    with np.errstate(over="ignore"):
        return float8_codes(weight / scale_values(scale)[:, None]), scale


def quantize_rows(weight: Array, grid: Grid, name: str = "weight") -> tuple[Levels, Scales]:
    """(R, C) to the nearest levels (R, C) and scales (R,); row_scales says which.

    Levels are int8, or int16 where the grid's are wider.
    Elementwise IEEE operations alone: equal bits on every machine.
    """
    scale = row_scales(weight, grid, name)
    with np.errstate(over="ignore"):
        levels = np.rint(weight / _values(scale, grid)[:, None])
    if grid.last > 127:
        return narrow(np.clip(levels, -grid.last, grid.last)), scale
    return np.clip(levels, -grid.last, grid.last).astype(np.int8), scale


def _values(scale: Scales, grid: Grid) -> Array:
    return scale_values(scale) if grid.log_scales else scale.astype(np.float32)


def narrow(levels: NDArray[Any]) -> Levels:
    """Whole numbers as int8 where all of them fit, else as int16."""
    fits = levels.size == 0 or np.abs(levels).max() <= 127
    return levels.astype(np.int8) if fits else levels.astype(np.int16)


def row_scales(weight: Array, grid: Grid, name: str = "weight") -> Scales:
    """(R, C) to the steps of its rows (R,): reach / qmax, at least the floor, as often as `times`.

    Rounded as they are stored before anything is divided by them, so that levels are the nearest
    ones for these. Raises where a weight is not finite or no such scale is enough.
    """
    _need(name, bool(np.all(np.isfinite(weight))), "a weight is NaN or infinite; did it diverge?")
    with np.errstate(over="ignore"):
        reach = grid.reach(weight).astype(np.float32)
    wanted = np.maximum(reach / np.float32(grid.qmax), np.float32(grid.floor))
    if grid.times != 1:
        wanted *= np.float32(grid.times)
    if grid.log_scales:
        return _log_scales(wanted, reach / np.float32(grid.last + 0.5), name)
    fits = bool(np.all(wanted <= FP16_MAX))
    _need(name, fits, f"weight {np.abs(weight).max():g} overflows an fp16 scale")
    scale: NDArray[np.float16] = np.maximum(wanted.astype(np.float16), FP16_TINY)
    last = np.float32(grid.last + 0.5)
    clips = scale.astype(np.float32) * last < reach  # where fp16 is too coarse: 2**-24
    np.nextafter(scale, np.float16(np.inf), out=scale, where=clips)
    return scale


def _log_scales(wanted: Array, least: Array, name: str) -> NDArray[np.uint8]:
    """The nearest log scales, or the next larger ones where these would clip."""
    ends = log_scale_to_float(np.array([0, 255], np.uint8))
    _need(name, bool(np.all(wanted <= ends[1])), f"a scale of {wanted.max():g} has no log scale")
    scale = log_scale_from_float(np.maximum(wanted, ends[0]))
    return scale + (log_scale_to_float(scale) < least).astype(np.uint8)


def to_fp16(weight: Array, name: str = "weight") -> NDArray[np.float16]:
    """Rounded to nearest; raises where fp16 has no finite value."""
    with np.errstate(over="ignore"):
        half = weight.astype(np.float16)
    _need(name, bool(np.all(np.isfinite(half))), "a weight is NaN, infinite or over 65504 in fp16")
    return half


def _need(name: str, holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(f"{name}: {message}")
