"""Quant: how weights are stored, and each to the nearest numbers of its format."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from core.arch.params import Param, Role, Weights, check_weights, param_table
from core.arch.spec import ModelSpec
from core.artifact.grid import Array, Grid
from core.artifact.groups import OneBit, grouped_levels
from core.artifact.lowrank import MAX_CORRECTION
from core.artifact.packed import Packed, States, matrix_shape
from core.artifact.rounding import FP16_TINY, quantize_float8, quantize_rows, to_fp16

Width = Literal["int8", "int7", "int6", "int5", "int4", "int3", "int2"]
Format = Literal[Width, OneBit, "fp8", "fp16"]
Group = Literal["row", "tensor"] | int
CodecChoice = Literal["zlib", "lzma", "brotli", "zstd", "rans", "best", "any"]
Steps = Literal["rows", "tensor", "weighted", "columns", "fisher"]


@dataclass(frozen=True, kw_only=True)
class Quant:
    """How weights are stored: for each role of param_table a format and the rule of its steps.

    solver gptq chooses levels by what the inputs of a matrix are; steps and trellis are its own.

    codec "best": for each tensor the smallest of those that need no other package; "any": of all.
    Levels of any width are stored as int8. ternary and binary are of a model whose matrices are
    multiplied as such: what its forward pass rounds to, in its groups. fp8 is e4m3 in units of a
    scale, the row's reach being 448. By default a row reaches to its largest |weight|; grid.Grid
    says what `sigmas` and `quantile` do instead. A group is so many weights of a row.
    """

    embed: Format = "int8"
    head: Format = "int8"
    attn: Format = "int8"
    mlp: Format = "int8"
    control: Format = "fp16"
    embed_sigmas: float = 0.0  # k of SDClip: a step of k / qmax sigmas; from 10 on it clips nothing
    head_sigmas: float = 0.0
    attn_sigmas: float = 0.0
    mlp_sigmas: float = 0.0
    embed_quantile: float = 1.0
    head_quantile: float = 1.0
    attn_quantile: float = 1.0
    mlp_quantile: float = 1.0
    embed_group: Group = "row"  # what has one scale; or the number of columns that have
    head_group: Group = "row"
    attn_group: Group = "row"
    mlp_group: Group = "row"
    scale_format: Literal["fp16", "log8"] = "fp16"  # log8: a byte, an eighth of an octave a step
    keep_below: int = 65_537  # a tensor with fewer elements stays fp16; so does every vector
    scale_floor: float = 0.0  # least row scale; the reference scripts' is 1/127
    codec: CodecChoice = "zlib"
    solver: Literal["nearest", "gptq"] = "nearest"  # gptq: by its inputs
    calibration_batches: int = 16  # training steps' tokens that gptq measures the inputs on
    calibration_rows: int = 0  # or so many rows that the model writes itself; 0: training's
    lqer_rank: int = 0  # outer products that correct each of the worst matrices: lqer.py
    lqer_matrices: int = 3  # so many of them
    lqer_bits: int = 4  # of the levels of both sides
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
        if self.calibration_rows < 0:
            raise ValueError(
                f"quant: calibration_rows {self.calibration_rows} must not be negative"
            )
        if not 0 <= self.trellis_lambda < math.inf:
            raise ValueError(f"quant: trellis_lambda {self.trellis_lambda} must be at least 0")
        if self.solver != "gptq" and (self.steps != "rows" or self.trellis):
            raise ValueError(
                f"quant: steps {self.steps} and trellis {self.trellis} are of quant.solver=gptq, "
                f"found {self.solver}"
            )
        for name, least, most in (
            *(("lqer_rank", 0, MAX_CORRECTION), ("lqer_matrices", 1, 1 << 16)),
            ("lqer_bits", 2, 8),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"quant: {name} {getattr(self, name)} must be {least} to {most}")
        for role in get_args(Role):
            self.grid(role)  # raises where its fields do not fit
        for group in self.groups:
            if not isinstance(group, str) and group < 1:
                raise ValueError(f"quant: a group of {group} columns must have at least 1")
        if self.has_scale_groups and self.steps != "rows":
            raise ValueError(
                f"quant: groups {self.groups} are of quant.steps=rows, found {self.steps}"
            )

    @property
    def forms(self) -> tuple[Format, ...]:
        return self.embed, self.head, self.attn, self.mlp, self.control

    @property
    def groups(self) -> tuple[Group, ...]:
        return self.embed_group, self.head_group, self.attn_group, self.mlp_group

    @property
    def has_signs(self) -> bool:
        """Whether some role's matrices are multiplied as they are stored."""
        return "ternary" in self.forms or "binary" in self.forms

    @property
    def has_fp8(self) -> bool:
        return "fp8" in self.forms

    @property
    def has_scale_groups(self) -> bool:
        return any(group != "row" for group in self.groups)

    def group(self, row: Param) -> int:
        """How many of a matrix's weights have one scale; 0: a row's.

        Raises ValueError where its rows are no whole groups.
        """
        if not self.has_scale_groups:
            return 0
        group: Group = "row" if row.role == "control" else getattr(self, f"{row.role}_group")
        if isinstance(group, str):
            return row.size if group == "tensor" else 0
        _need(row.name, row.shape[-1] % group == 0, f"{row.shape} has no rows of whole {group}")
        return group

    def grid(self, role: Role) -> Grid:
        """The levels of a role's matrices; of 8 bits where its format is no width."""
        form: Format = getattr(self, role)
        bits = int(form.removeprefix("int")) if form in get_args(Width) else 8
        own = form == "fp8" or self.steps == "fisher"  # whose steps are no multiple
        times = 1.0 if own else self.step_scale
        log = self.scale_format == "log8"
        if role == "control":
            return Grid(bits=bits, floor=self.scale_floor, times=times, log_scales=log)
        return Grid(
            bits=bits,
            sigmas=getattr(self, f"{role}_sigmas"),
            quantile=getattr(self, f"{role}_quantile"),
            floor=self.scale_floor,
            times=times,
            log_scales=log,
        )


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
    return [
        _signs(row, np.asarray(weights[row.name], np.float32), spec, quant)
        if quant.has_signs and stored_format(row, quant) in get_args(OneBit)
        else quantized(row, np.asarray(weights[row.name], np.float32), quant)
        for row in rows
    ]


def _signs(row: Param, weight: Array, spec: ModelSpec, quant: Quant) -> Packed:
    """What the model multiplies by in a matrix's place."""
    form = stored_format(row, quant)
    assert form in ("ternary", "binary")
    _need(row.name, spec.linear == form, f"format {form}, but arch.linear is {spec.linear}")
    _need(row.name, bool(np.all(np.isfinite(weight))), "a weight is NaN or infinite")
    levels, size = grouped_levels(weight, spec.linear_group, form)
    scale = np.maximum(to_fp16(size), FP16_TINY)
    levels = levels.reshape(row.shape)
    return Packed(row.name, row.shape, levels, scale, group_size=spec.linear_group)


def quantized(row: Param, weight: Array, quant: Quant) -> Packed:
    """One weight to the nearest numbers of its format, which needs no model."""
    form = stored_format(row, quant)
    if form == "fp16":
        return Packed(row.name, row.shape, to_fp16(weight, row.name))
    if quant.has_signs:
        _need(row.name, form not in get_args(OneBit), f"{form} is of a model that multiplies by it")
    group = quant.group(row)
    matrix = weight.reshape(-1, group) if group else weight.reshape(matrix_shape(row.shape))
    if quant.has_fp8 and form == "fp8":
        codes, scale = quantize_float8(matrix, quant.grid(row.role), row.name)
        return Packed(row.name, row.shape, codes.reshape(row.shape), scale, group_size=group)
    levels, scale = quantize_rows(matrix, quant.grid(row.role), row.name)
    return Packed(row.name, row.shape, levels.reshape(row.shape), scale, group_size=group)


def _need(name: str, holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(f"{name}: {message}")
