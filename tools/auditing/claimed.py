"""A stranger's byte table, read as data: base bytes, leading space, boundary, one entry a piece."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.data.shards import Tokens
from core.data.token_bytes import ByteTable, Flags

MAX_BYTES = 1 << 26  # of a file, and of what it unpacks to
NAMES = ("base_bytes", "has_leading_space", "is_boundary_token")
_PARTS = ("base", "space", "bound")  # how the names in use are told apart


@dataclass(frozen=True, eq=False, kw_only=True)
class ClaimedTable:
    """What is claimed (V,); a table of averages is no integer."""

    base_bytes: NDArray[np.float64]
    leading_space: Flags
    boundary: Flags

    def count_run(self, tokens: Tokens) -> NDArray[np.float64]:
        """Bytes of each of consecutive tokens but the first (N,) -> (N - 1,)."""
        previous, targets = tokens[:-1], tokens[1:]
        spaces = self.leading_space[targets] & ~self.boundary[previous]
        counts: NDArray[np.float64] = self.base_bytes[targets] + spaces
        return counts


def read_claimed(path: Path, ours: ByteTable) -> tuple[ClaimedTable, int]:
    """A table and how many entries it had before it was cut to the vocabulary.

    .npz or .json by name, .npy as base bytes (V,) or all three (3, V). Without flags nothing is
    said of spaces. ValueError for anything else; nothing is unpickled.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such table; expected .npz, .npy or .json")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size:,} bytes, {MAX_BYTES:,} are the most")
    held = _arrays(path)
    base = _numbers(path, held[NAMES[0]])
    size = len(ours.base_bytes)
    if len(base) < size:
        raise ValueError(
            f"{path}: {len(base)} entries, the tokenizer has {size} pieces; they do not belong "
            "together"
        )
    spaces = held.get(NAMES[1], np.zeros(len(base), np.bool_))
    limits = held.get(NAMES[2], np.concatenate([ours.boundary, np.ones(len(base) - size)]))
    for name, found in zip(NAMES[1:], (spaces, limits), strict=True):
        if len(found) != len(base):
            raise ValueError(f"{path}: {len(found)} entries of {name}, {len(base)} of {NAMES[0]}")
    table = ClaimedTable(
        base_bytes=base[:size],
        leading_space=_numbers(path, spaces)[:size] != 0,
        boundary=_numbers(path, limits)[:size] != 0,
    )
    return table, len(base)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays by our names for them."""
    try:
        if path.suffix == ".json":
            return _by_name(path, _parsed(path.read_bytes()))
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as packed:
                if (size := sum(one.file_size for one in packed.infolist())) > MAX_BYTES:
                    raise ValueError(f"unpacks to {size:,} bytes, {MAX_BYTES:,} are the most")
            with np.load(path, allow_pickle=False) as held:
                return _by_name(path, {name: held[name] for name in held.files})
        if path.suffix == ".npy":
            return _rows(np.load(path, allow_pickle=False, mmap_mode="r"))
    except (ValueError, OSError, EOFError, RecursionError, zipfile.BadZipFile) as error:
        said = str(error)
        whole = said if said.startswith(str(path)) else f"{path}: no byte table ({said:.200})"
        raise ValueError(whole) from None
    raise ValueError(f"{path}: expected a table in .npz, .npy or .json")


def _parsed(content: bytes) -> Mapping[str, Any]:
    fields = json.loads(content)
    if isinstance(fields, list):
        return {NAMES[0]: np.array(fields)}
    if not isinstance(fields, dict):
        raise ValueError("expected an object of lists, or a list of bytes")
    return {name: np.array(value) for name, value in fields.items() if isinstance(value, list)}


def _by_name(path: Path, held: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    found = {}
    for ours, part in zip(NAMES, _PARTS, strict=True):
        names = [name for name in held if part in name]
        if len(names) > 1 and ours in names:
            names = [ours]
        if len(names) > 1:
            raise ValueError(f"{path}: {', '.join(names)}: which of them is {ours}?")
        if names:
            found[ours] = held[names[0]]
    if NAMES[0] not in found:
        shown = ", ".join(held) or "nothing"
        raise ValueError(f"{path}: found {shown:.200}; expected {', '.join(NAMES)}")
    return found


def _rows(held: NDArray[Any]) -> dict[str, NDArray[Any]]:
    if held.ndim == 1:
        return {NAMES[0]: held}
    if held.ndim != 2 or held.shape[0] != len(NAMES):
        raise ValueError(f"shape {held.shape}; expected (V,) or (3, V)")
    return dict(zip(NAMES, held, strict=True))


def _numbers(path: Path, held: NDArray[Any]) -> NDArray[np.float64]:
    if held.ndim != 1 or held.dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected one number a piece, found {held.dtype} {held.shape}")
    found = held.astype(np.float64)
    if not (np.isfinite(found).all() and (np.abs(found) < 1e6).all()):
        raise ValueError(f"{path}: numbers that are no byte counts")
    return found
