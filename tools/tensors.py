"""Arrays of a stranger's safetensors file: read as data, every length checked first."""

from __future__ import annotations

import json
import math
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.artifact.solving import Calibration

MAX_TABLE_BYTES = 100_000_000
MAX_TENSORS = 65_536
_FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}
_SUFFIXES = (".fisher", ".counts")


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor by its name: float16, float32, float64, or bfloat16 as float32.

    Raises ValueError, with the file's name, for what is no such file.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    data = path.read_bytes()
    try:
        table, start = _table(data)
        spans = {name: _span(name, row, len(data) - start) for name, row in table.items()}
        total = sum(end - first for first, end in spans.values())
        _need(total <= len(data) - start, f"its tensors state {total:,} bytes, more than it has")
        return {name: _array(row, data, start, spans[name]) for name, row in table.items()}
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from None


def read_calibration(path: Path | None) -> Calibration:
    """Hessians under their weights' names, NAME.fisher (R,) or (1,), NAME.counts of tokens (R,)."""
    if path is None:
        return Calibration()
    tensors = read_tensors(path)
    held = {name: np.ascontiguousarray(array, np.float64) for name, array in tensors.items()}
    for name, array in held.items():
        square = array.ndim == 2 and array.shape[0] == array.shape[1]
        fits = array.ndim == 1 if name.endswith(_SUFFIXES) else square
        if not fits:
            raise ValueError(f"{path}: {name} is {array.shape}, not a Hessian (C, C)")

    def of(suffix: str) -> dict[str, NDArray[np.float64]]:
        return {n.removesuffix(suffix): a for n, a in held.items() if n.endswith(suffix)}

    same: dict[bytes, NDArray[np.float64]] = {}  # matrices that have one input: factored once
    whole = {n: a for n, a in held.items() if not n.endswith(_SUFFIXES)}
    return Calibration(
        hessians={n: same.setdefault(sha256(a.tobytes()).digest(), a) for n, a in whole.items()},
        fisher=of(".fisher"),
        counts=of(".counts"),
    )


def calibration_arrays(known: Calibration) -> dict[str, NDArray[np.float64]]:
    """What read_calibration reads, by the names that it has in a file."""
    fisher = {f"{name}.fisher": array for name, array in known.fisher.items()}
    counts = {f"{name}.counts": array for name, array in known.counts.items()}
    return {**known.hessians, **fisher, **counts}


def _table(data: bytes) -> tuple[dict[str, Any], int]:
    """The rows by name, and where the numbers begin."""
    size = int.from_bytes(data[:8], "little")
    _need(len(data) >= 8 and size <= len(data) - 8, f"a header of {size:,} bytes in {len(data):,}")
    _need(size <= MAX_TABLE_BYTES, f"a header of {size:,} bytes")
    try:
        table = json.loads(data[8 : 8 + size].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is no JSON: {error!s:.100}") from None
    _need(isinstance(table, dict), "its header is no table")
    table.pop("__metadata__", None)
    _need(len(table) <= MAX_TENSORS, f"{len(table):,} tensors exceed {MAX_TENSORS:,}")
    return table, 8 + size


def _span(name: str, row: Any, held: int) -> tuple[int, int]:
    """Where a tensor begins and ends behind the header."""
    try:
        kind, shape, (first, end) = row["dtype"], row["shape"], row["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"{name!r:.60}: a corrupt row") from None
    _need(
        kind in list(_FLOATS),
        f"{name!r:.60} is {kind!r:.20}; floats alone are packed: {list(_FLOATS)}",
    )
    whole = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    _need(whole and type(first) is type(end) is int, f"{name!r:.60}: a corrupt row")
    wanted = math.prod(shape) * np.dtype(_FLOATS[kind]).itemsize
    fits = 0 <= first <= end <= held and end - first == wanted
    _need(fits, f"{name!r:.60}: bytes {first} to {end} of {held:,}, expected {wanted:,}")
    return first, end


def _array(row: Any, data: bytes, start: int, span: tuple[int, int]) -> NDArray[Any]:
    flat = np.frombuffer(data[start + span[0] : start + span[1]], _FLOATS[row["dtype"]])
    if row["dtype"] == "BF16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.reshape(row["shape"])


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
