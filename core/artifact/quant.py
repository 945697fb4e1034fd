"""Quant: one weight <-> integers and scales, round to nearest, equal bits on every machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from core.arch.params import Param, Role, Weights, check_weights, param_table
from core.arch.spec import ModelSpec
from core.artifact.grid import FP16_MAX, Array, Grid
from core.artifact.groups import OneBit, grouped_levels
from core.artifact.scales import Scales, scale_values
from core.artifact.trellis import trellis_values

Width = Literal["int8", "int7", "int6", "int5", "int4", "int3", "int2"]
Format = Literal[Width, OneBit, "fp16"]
CodecChoice = Literal["zlib", "lzma", "brotli", "zstd", "rans", "best", "any"]
Levels = NDArray[np.int8] | NDArray[np.int16]
Steps = Literal["rows", "tensor", "weighted", "columns", "fisher"]
States = Literal[0, 4, 8]

FP16_TINY = np.float16(2.0**-24)
MAX_RANK = 4
ABSMAX = Grid()


@dataclass(frozen=True, kw_only=True)
class Quant:
    """How weights are stored: for each role of param_table a format and the rule of its steps.

    solver gptq chooses levels by what the inputs of a matrix are; steps and trellis are its own.

    codec "best": for each tensor the smallest of those that need no other package; "any": of all.
    Levels of any width are stored as int8. ternary and binary are of a model whose matrices are
    multiplied as such: what its forward pass rounds to, in its groups. By default a row reaches to
    its largest |weight|; grid.Grid says what `sigmas` and `quantile` do instead.
    """

    embed: Format = "int8"
    head: Format = "int8"
    attn: Format = "int8"
    mlp: Format = "int8"
    control: Format = "fp16"
    embed_sigmas: float = 0.0
    head_sigmas: float = 0.0
    attn_sigmas: float = 0.0
    mlp_sigmas: float = 0.0
    embed_quantile: float = 1.0
    head_quantile: float = 1.0
    attn_quantile: float = 1.0
    mlp_quantile: float = 1.0
    keep_below: int = 65_537  # a tensor with fewer elements stays fp16; so does every vector
    scale_floor: float = 0.0  # least row scale; the reference scripts' is 1/127
    codec: CodecChoice = "zlib"
    solver: Literal["nearest", "gptq"] = "nearest"  # gptq: by its inputs
    calibration_batches: int = 16  # training steps' tokens that gptq measures the inputs on
    lqer_rank: int = 0  # of what corrects the worst matrices; not in runs yet, which say so
    steps: Steps = "rows"  # how wide they are; allocation.py says what the others do
    step_scale: float = 1.0  # times every one, when packed: the constant that meets a byte target
    trellis: States = 0  # that levels run through; 0: none
    trellis_lambda: float = 0.1  # squared steps that a bit is worth to it

    def __post_init__(self) -> None:
        if self.keep_below < 0:
            raise ValueError(f"quant: keep_below {self.keep_below} must not be negative")
        if self.calibration_batches < 1:
            raise ValueError(
                f"quant: calibration_batches {self.calibration_batches} must be at least 1"
            )
        if not 0 <= self.trellis_lambda < math.inf:
            raise ValueError(f"quant: trellis_lambda {self.trellis_lambda} must be at least 0")
        if self.solver != "gptq" and (self.steps != "rows" or self.trellis):
            raise ValueError(
                f"quant: steps {self.steps} and trellis {self.trellis} are of quant.solver=gptq, "
                f"found {self.solver}"
            )
        for role in get_args(Role):
            self.grid(role)  # raises where its fields do not fit

    @property
    def has_groups(self) -> bool:
        """Whether some role's groups are stored as rows."""
        forms = (self.embed, self.head, self.attn, self.mlp)
        return "ternary" in forms or "binary" in forms

    def grid(self, role: Role) -> Grid:
        """The levels of a role's matrices; of 8 bits where its format is no width."""
        form: Format = getattr(self, role)
        bits = int(form.removeprefix("int")) if form in get_args(Width) else 8
        times = 1.0 if self.steps == "fisher" else self.step_scale  # there it is no multiple
        if role == "control":
            return Grid(bits=bits, floor=self.scale_floor, times=times)
        return Grid(
            bits=bits,
            sigmas=getattr(self, f"{role}_sigmas"),
            quantile=getattr(self, f"{role}_quantile"),
            floor=self.scale_floor,
            times=times,
        )


@dataclass(frozen=True, eq=False)
class Packed:
    """One stored tensor. Levels are read as a matrix (rows, cols): all leading axes are rows.

    weight = level * row scale * column scale, a missing scale being 1; float16 values are the
    weights themselves. A uint8 scale b stands for 2**((b - 128) / 8). With a trellis, what it
    makes of the levels stands in their place: trellis.py.
    """

    name: str
    shape: tuple[int, ...]
    values: NDArray[np.int8] | NDArray[np.int16] | NDArray[np.float16]  # of `shape`
    row_scale: Scales | None = None  # (rows,)
    col_scale: NDArray[np.uint8] | None = None  # (cols,)
    trellis: int = 0  # states of the trellis; 0: the levels are plain

    def __post_init__(self) -> None:
        _need(self.name, len(self.shape) <= MAX_RANK, f"rank {len(self.shape)} exceeds {MAX_RANK}")
        _need(self.name, all(size > 0 for size in self.shape), f"shape {self.shape} is empty")
        _check_array(self.name, "values", self.values, self.shape, ("int8", "int16", "float16"))
        rows, cols = matrix_shape(self.shape)
        if self.row_scale is not None:
            _check_array(self.name, "row scale", self.row_scale, (rows,), ("float16", "uint8"))
            if self.row_scale.dtype == np.float16:
                _need(self.name, bool(np.all(self.row_scale > 0)), "a row scale is not positive")
        if self.col_scale is not None:
            _check_array(self.name, "column scale", self.col_scale, (cols,), ("uint8",))
        _need(self.name, self.trellis in (0, 4, 8), f"trellis {self.trellis} must be 0, 4 or 8")
        plain = self.row_scale is None and self.col_scale is None and self.trellis == 0
        is_fp16 = self.values.dtype == np.float16
        _need(self.name, plain or not is_fp16, "fp16 values take no scale and no trellis")

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, cols) of a tensor read as a matrix; a scalar is 1 x 1."""
    return (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1)


def stored_format(row: Param, quant: Quant) -> Format:
    """The format of one row of param_table: its role's, unless it is a vector or small."""
    if len(row.shape) < 2 or row.size < quant.keep_below:
        return "fp16"
    formats = {"embed": quant.embed, "head": quant.head, "attn": quant.attn, "mlp": quant.mlp}
    return formats.get(row.role, quant.control)


def quantize(weights: Weights, spec: ModelSpec, quant: Quant) -> list[Packed]:
    """Every parameter of `spec`, stored as `quant` says, sorted by name."""
    check_weights(weights, spec, "quantize")
    rows = sorted(param_table(spec), key=lambda row: row.name)
    return [_stored(row, np.asarray(weights[row.name], np.float32), spec, quant) for row in rows]


def _stored(row: Param, weight: Array, spec: ModelSpec, quant: Quant) -> Packed:
    """One weight in its format."""
    form = stored_format(row, quant)
    if form == "fp16":
        return Packed(row.name, row.shape, to_fp16(weight, row.name))
    if quant.has_groups and form in ("ternary", "binary"):
        _need(row.name, spec.linear == form, f"format {form}, but arch.linear is {spec.linear}")
        _need(row.name, bool(np.all(np.isfinite(weight))), "a weight is NaN or infinite")
        groups, size = grouped_levels(weight, spec.linear_group, form)
        return Packed(row.name, groups.shape, groups, np.maximum(to_fp16(size), FP16_TINY))
    matrix = weight.reshape(matrix_shape(row.shape))
    levels, scale = quantize_rows(matrix, quant.grid(row.role), row.name)
    return Packed(row.name, row.shape, levels.reshape(row.shape), scale)


def quantize_rows(
    weight: Array, grid: Grid, name: str = "weight"
) -> tuple[Levels, NDArray[np.float16]]:
    """(R, C) to the nearest levels (R, C) and fp16 scales (R,); row_scales says which.

    Levels are int8, or int16 where the grid's are wider.
    Elementwise IEEE operations alone: equal bits on every machine.
    """
    scale = row_scales(weight, grid, name)
    with np.errstate(over="ignore"):
        levels = np.rint(weight / scale.astype(np.float32)[:, None])
    if grid.last > 127:
        return narrow(np.clip(levels, -grid.last, grid.last)), scale
    return np.clip(levels, -grid.last, grid.last).astype(np.int8), scale


def narrow(levels: NDArray[Any]) -> Levels:
    """Whole numbers as int8 where all of them fit, else as int16."""
    fits = levels.size == 0 or np.abs(levels).max() <= 127
    return levels.astype(np.int8) if fits else levels.astype(np.int16)


def row_scales(weight: Array, grid: Grid, name: str = "weight") -> NDArray[np.float16]:
    """(R, C) to the steps of its rows (R,): reach / qmax, at least the floor, as often as `times`.

    Rounded to fp16 before anything is divided by them, so that levels are the nearest ones for
    the scale that is stored. Raises where a weight is not finite or no fp16 scale is enough.
    """
    _need(name, bool(np.all(np.isfinite(weight))), "a weight is NaN or infinite; did it diverge?")
    with np.errstate(over="ignore"):
        reach = grid.reach(weight).astype(np.float32)
    wanted = np.maximum(reach / np.float32(grid.qmax), np.float32(grid.floor))
    if grid.times != 1:
        wanted *= np.float32(grid.times)
    fits = bool(np.all(wanted <= FP16_MAX))
    _need(name, fits, f"weight {np.abs(weight).max():g} overflows an fp16 scale")
    scale: NDArray[np.float16] = np.maximum(wanted.astype(np.float16), FP16_TINY)
    last = np.float32(grid.last + 0.5)
    clips = scale.astype(np.float32) * last < reach  # where fp16 is too coarse: 2**-24
    np.nextafter(scale, np.float16(np.inf), out=scale, where=clips)
    return scale


def to_fp16(weight: Array, name: str = "weight") -> NDArray[np.float16]:
    """Rounded to nearest; raises where fp16 has no finite value."""
    with np.errstate(over="ignore"):
        half = weight.astype(np.float16)
    _need(name, bool(np.all(np.isfinite(half))), "a weight is NaN, infinite or over 65504 in fp16")
    return half


def dequantize(packed: Packed) -> Array:
    """The weight, float32, of `packed.shape`; equal bits on every machine."""
    weight = packed.values.astype(np.float32).reshape(matrix_shape(packed.shape))
    if packed.trellis:
        weight = trellis_values(weight, packed.trellis)
    if packed.row_scale is not None:
        weight = weight * scale_values(packed.row_scale)[:, None]
    if packed.col_scale is not None:
        weight = weight * scale_values(packed.col_scale)[None, :]
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
