"""Packed: one stored tensor and the floats that it stands for, equal bits on every machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.artifact.float8 import float8_values, has_nan
from core.artifact.grid import Array
from core.artifact.lowrank import LowRank
from core.artifact.scales import Scales, scale_values
from core.artifact.trellis import trellis_values

Levels = NDArray[np.int8] | NDArray[np.int16]
Values = Levels | NDArray[np.uint8] | NDArray[np.float16]
States = Literal[0, 4, 8]

MAX_RANK = 4
VALUES = ("int8", "int16", "uint8", "float16")


@dataclass(frozen=True, eq=False)
class Packed:
    """One stored tensor. Levels are read as a matrix (rows, cols): all leading axes are rows.

    weight = level * row scale * column scale + low rank, what is missing being 1 or 0; float16
    values are the weights themselves, uint8 values levels of float8.py. A uint8 scale b stands for
    2**((b - 128) / 8). With a trellis, what it makes of the levels stands in their place:
    trellis.py. With groups, so many levels, counted row by row, have one scale.
    """

    name: str
    shape: tuple[int, ...]
    values: Values  # of `shape`
    row_scale: Scales | None = None  # (rows,), or (size / group_size,)
    col_scale: NDArray[np.uint8] | None = None  # (cols,)
    trellis: int = 0  # states of the trellis; 0: the levels are plain
    group_size: int = 0  # levels that share a row scale; 0: those of a row
    low_rank: LowRank | None = None  # (rows, cols)

    def __post_init__(self) -> None:
        _need(self.name, len(self.shape) <= MAX_RANK, f"rank {len(self.shape)} exceeds {MAX_RANK}")
        _need(self.name, all(size > 0 for size in self.shape), f"shape {self.shape} is empty")
        _check_array(self.name, "values", self.values, self.shape, VALUES)
        kind = self.values.dtype.name
        if kind == "uint8":
            _need(self.name, not has_nan(self.values.astype(np.uint8)), "values: a number is NaN")
        _need(self.name, self.trellis in (0, 4, 8), f"trellis {self.trellis} must be 0, 4 or 8")
        levels = self.trellis == 0 or kind.startswith("int")
        _need(self.name, levels, f"{kind} values take no trellis")
        plain = self.row_scale is None and self.col_scale is None and self.low_rank is None
        _need(self.name, plain or kind != "float16", "fp16 values take no scale and no low rank")
        self._check_scales()
        if self.low_rank is not None:
            found, wanted = self.low_rank.shape, matrix_shape(self.shape)
            _need(self.name, found == wanted, f"low rank is {found}, expected {wanted}")

    def _check_scales(self) -> None:
        rows, cols = matrix_shape(self.shape)
        if self.group_size:
            whole = self.group_size > 0 and self.size % self.group_size == 0
            _need(self.name, whole, f"{self.size} levels are no groups of {self.group_size}")
            _need(self.name, self.row_scale is not None, "groups without scales")
            rows = self.size // self.group_size
        if self.row_scale is not None:
            _check_array(self.name, "row scale", self.row_scale, (rows,), ("float16", "uint8"))
            if self.row_scale.dtype == np.float16:
                _need(self.name, bool(np.all(self.row_scale > 0)), "a row scale is not positive")
        if self.col_scale is not None:
            _check_array(self.name, "column scale", self.col_scale, (cols,), ("uint8",))

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_float8(self) -> bool:
        return self.values.dtype == np.uint8


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, cols) of a tensor read as a matrix; a scalar is 1 x 1."""
    return (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1)


def dequantize(packed: Packed) -> Array:
    """The weight, float32, of `packed.shape`; equal bits on every machine."""
    shape = matrix_shape(packed.shape)
    if packed.is_float8:
        weight = float8_values(packed.values.astype(np.uint8)).reshape(shape)
    else:
        weight = packed.values.astype(np.float32).reshape(shape)
    if packed.trellis:
        weight = trellis_values(weight, packed.trellis)
    if packed.row_scale is not None:
        scale = scale_values(packed.row_scale)
        weight = (weight.reshape(len(scale), -1) * scale[:, None]).reshape(shape)
    if packed.col_scale is not None:
        weight = weight * scale_values(packed.col_scale)[None, :]
    if packed.low_rank is not None:
        weight = weight + packed.low_rank.values()
    return weight.reshape(packed.shape)


def _check_array(
    name: str, part: str, array: NDArray[Any], shape: tuple[int, ...], dtypes: tuple[str, ...]
) -> None:
    """Raise unless `array` has the shape and one of the dtypes, and is finite."""
    fits = array.shape == shape and array.dtype.name in dtypes
    found = f"{part} is {array.dtype.name} {array.shape}"
    _need(name, fits, f"{found}, expected {' or '.join(dtypes)} {shape}")
    if array.dtype == np.float16:
        _need(name, bool(np.all(np.isfinite(array))), f"{part}: a number is NaN or infinite")


def _need(name: str, holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(f"{name}: {message}")
