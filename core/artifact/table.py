"""The table of an artifact: a row for each tensor, as dataclasses and as canonical JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.arch.fields import changed, from_plain, to_plain
from core.arch.spec import ModelSpec
from core.artifact.packed import Packed, matrix_shape

FIRST_VERSION = 1
FORMAT_VERSION = 2  # of files with fp8 values, groups or low ranks; the others are of the first
MAX_NAME_CHARS = 256

DTYPES = {  # little-endian in a file
    "int8": "<i1",
    "int16": "<i2",
    "fp8": "<u1",
    "fp16": "<f2",
    "log8": "<u1",
    "fp32": "<f4",
}
_VALUES: dict[str, Any] = {"int8": "int8", "int16": "int16", "uint8": "fp8", "float16": "fp16"}
_SCALES: dict[str, Any] = {"float16": "fp16", "uint8": "log8"}
_NEWER = ("group_size", "rank")  # fields of a row that are there where they say something


@dataclass(frozen=True)
class Part:
    """An array of one tensor: its values, a scale of them, or a side of its low rank."""

    field: Literal["values", "row_scale", "col_scale", "left", "right", "scale"]
    kind: str  # of DTYPES
    shape: tuple[int, ...]

    @property
    def raw_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(DTYPES[self.kind]).itemsize

    @property
    def matrix(self) -> tuple[int, int]:
        """Its bytes as a matrix; numbers of fp16 are rows, so that like bytes make columns."""
        if self.kind == "fp16":
            return math.prod(self.shape), 2
        rows, cols = matrix_shape(self.shape)
        return rows, cols * np.dtype(DTYPES[self.kind]).itemsize

    @property
    def share(self) -> str:
        """What the ledger calls it."""
        if self.field in ("left", "right"):
            return "levels"
        if self.field != "values":
            return "scales"
        return "fp16" if self.kind == "fp16" else "levels"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tensor in the table."""

    name: str
    values: Literal["int8", "int16", "fp8", "fp16"]
    row_scale: Literal["fp16", "log8"] | None
    col_scale: Literal["log8"] | None
    trellis: int
    shape: tuple[int, ...] = ()
    group_size: int = 0
    rank: int = 0  # outer products of its low rank

    @property
    def version(self) -> int:
        """The first version that has such tensors."""
        return 1 + bool(self.values == "fp8" or self.group_size or self.rank)

    def parts(self) -> list[Part]:
        """In the order of the payload."""
        rows, cols = matrix_shape(self.shape)
        parts = [Part("values", self.values, self.shape)]
        if self.row_scale is not None:
            scales = math.prod(self.shape) // self.group_size if self.group_size else rows
            parts.append(Part("row_scale", self.row_scale, (scales,)))
        if self.col_scale is not None:
            parts.append(Part("col_scale", self.col_scale, (cols,)))
        if self.rank:
            parts.append(Part("left", "int8", (rows, self.rank)))
            parts.append(Part("right", "int8", (self.rank, cols)))
            parts.append(Part("scale", "fp32", (self.rank,)))
        return parts

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        told = to_plain(self)
        return {name: value for name, value in told.items() if name not in _NEWER or value}


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A run of compressed bytes that holds one or more parts, in the order of the table."""

    codec: int
    packed_bytes: int
    raw_bytes: int
    crc32: int  # of the packed bytes


def row_of(tensor: Packed) -> Row:
    """The table's row for a tensor."""
    return Row(
        name=tensor.name,
        values=_VALUES[tensor.values.dtype.name],
        row_scale=_kind(tensor.row_scale),
        col_scale=_kind(tensor.col_scale),
        trellis=tensor.trellis,
        shape=tensor.shape,
        group_size=tensor.group_size,
        rank=0 if tensor.low_rank is None else len(tensor.low_rank.scale),
    )


def version_of(rows: Iterable[Row]) -> int:
    """Of a file with these tensors."""
    return max((row.version for row in rows), default=FIRST_VERSION)


def plain_header(spec: ModelSpec | None, solver: str, rows: list[Row]) -> dict[str, Any]:
    """What the identity covers, as JSON data.

    The spec goes through from_plain once, so that 30 and 30.0 are spelled alike.
    """
    fields = None if spec is None else changed(from_plain(ModelSpec, to_plain(spec), "model_spec"))
    return {
        "format_version": version_of(rows),
        "model_spec": fields,
        "solver": solver,
        "tensors": [row.plain() for row in rows],
    }


def dump(plain: dict[str, Any]) -> bytes:
    """Canonical JSON: sorted keys, no spaces, ASCII, no NaN."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def is_label(text: object) -> bool:
    """Whether `text` can name a tensor or a solver: short, and safe to print."""
    return (
        isinstance(text, str)
        and 0 < len(text) <= MAX_NAME_CHARS
        and text.isascii()
        and text.isprintable()
    )


def _kind(array: NDArray[Any] | None) -> Any:
    return None if array is None else _SCALES[array.dtype.name]
