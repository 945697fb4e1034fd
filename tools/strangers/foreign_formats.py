"""The formats that strangers keep tensors in: torch files, pickles, npz, npy and safetensors."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tools.strangers.bounded import Budget, Entry, Zip
from tools.strangers.pickle_arrays import (
    Array,
    Named,
    Object,
    Table,
    dtype_name,
    item_bytes,
    shape_of,
)
from tools.strangers.pickles import read_pickle

MAX_TENSORS = 65_536
MAX_DEPTH = 64
_MAX_TABLE_BYTES = 8_000_000
_LEGACY_TORCH = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_GROUPED = b"PGRP"
_SAFE = {"F": "float", "I": "int", "U": "uint", "BF": "bfloat"}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An array in a blob: `bytes` is what its numbers take, before any compression around it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


# How a dict, a list or an object begins in protocols 0 and 1, which have no mark.
_OLD_PICKLES = (b"(dp", b"(lp", b"(dq", b"(lq", b"}q", b"]q", b"ccollections\n", b"cnumpy.")

Reader = Callable[[bytes, Budget], tuple[str, list[Tensor]]]


def reader_of(data: bytes) -> Reader | None:
    """Who reads what starts like this; None where nobody does."""
    if data[:4] == b"PK\x03\x04":
        return _zip
    if data[:6] == b"\x93NUMPY":
        return lambda raw, _: ("npy", [_npy("array", raw[: 1 << 16], len(raw))])
    if data[:1] == b"\x80" and len(data) > 2 and 2 <= data[1] <= 5:
        return _legacy if data[2:14] == _LEGACY_TORCH else _pickle
    if data.startswith(_OLD_PICKLES) and data.endswith(b"."):
        return _pickle
    if len(data) > 9 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        return _safetensors
    if data[:4] == _GROUPED:
        raise ValueError("PGRP: groups packed by lrzip, which is not read")
    return None


def _zip(data: bytes, budget: Budget) -> tuple[str, list[Tensor]]:
    packed = Zip(data, budget)
    roots = [entry for entry in packed.entries if _last(entry.name) == "data.pkl"]
    if roots:
        return "torch zip", _torch_zip(packed, roots[0])
    arrays = [entry for entry in packed.entries if entry.name.endswith(".npy")]
    if not arrays:
        raise ValueError("a zip file with neither data.pkl (torch) nor .npy (numpy) in it")
    return "npz", [_member(packed, entry) for entry in arrays]


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _member(packed: Zip, entry: Entry) -> Tensor:
    """An array of an npz: its header, and its size counted rather than believed."""
    pieces = packed.pieces(entry)
    head = next(pieces, b"")
    size = len(head) + sum(len(piece) for piece in pieces)
    return _npy(entry.name.removesuffix(".npy"), head, size)


def _npy(name: str, head: bytes, size: int) -> Tensor:
    """An array file by its header, a literal of three fields, and the bytes that follow it."""
    start = 10 if head[6:7] == b"\x01" else 12
    length = int.from_bytes(head[8:start], "little")
    try:
        if not head.startswith(b"\x93NUMPY") or length > 10_000:
            raise ValueError(f"{head[:8]!r}, {length:,} bytes")
        row = ast.literal_eval(head[start : start + length].decode("latin-1").strip())
        code, shape = row["descr"], shape_of(row["shape"])
    except Exception as error:  # a literal that is no header raises whatever it likes
        raise ValueError(f"{name!r:.60}: a corrupt npy header: {error!s:.100}") from None
    held = size - start - length
    kind = "object" if "O" in str(code) else dtype_name(code) if isinstance(code, str) else "record"
    wanted = math.prod(shape) * item_bytes(kind)
    if held < 0 or (wanted and wanted != held):
        raise ValueError(f"{name!r:.60}: {held:,} bytes, its header tells {wanted:,}")
    return Tensor(name=name[:200], shape=shape, dtype=kind, bytes=held)


def _torch_zip(packed: Zip, root: Entry) -> list[Tensor]:
    folder = root.name.removesuffix("data.pkl")
    sizes = {entry.name: entry.size for entry in packed.entries}
    tensors = []
    for name, array in _arrays(read_pickle(packed.read(root))[0]):
        if array.storage is not None:
            held = sizes.get(f"{folder}data/{array.storage.key}")
            wanted = array.storage.count * item_bytes(array.storage.dtype)
            if held is None or held < wanted:
                raise ValueError(f"{name!r:.60}: a storage of {held} bytes, expected {wanted:,}")
        tensors.append(_tensor(name, array))
    return tensors


def _pickle(data: bytes, _budget: Budget) -> tuple[str, list[Tensor]]:
    value, end = read_pickle(data)
    if len(data) - end > 16:
        raise ValueError(f"{len(data) - end:,} bytes follow the pickle")
    return "pickle", [_tensor(name, array) for name, array in _arrays(value)]


def _legacy(data: bytes, _budget: Budget) -> tuple[str, list[Tensor]]:
    """torch.save before it wrote zip files: magic, version, system, object, keys, storages."""
    at = 0
    value: Any = None
    for _ in range(4):
        value, at = read_pickle(data, at)
    return "torch pickle", [_tensor(name, array) for name, array in _arrays(value)]


def _safetensors(data: bytes, _budget: Budget) -> tuple[str, list[Tensor]]:
    length = int.from_bytes(data[:8], "little")
    if length > _MAX_TABLE_BYTES:
        raise ValueError(f"a safetensors header of {length:,} bytes")
    try:
        table = json.loads(data[8 : 8 + length].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a safetensors header that is no JSON: {error!s:.100}") from None
    table.pop("__metadata__", None)
    if len(table) > MAX_TENSORS:
        raise ValueError(f"more than {MAX_TENSORS:,} tensors")
    held = len(data) - 8 - length
    return "safetensors", [_safe_row(name, row, held) for name, row in table.items()]


def _safe_row(name: str, row: Any, held: int) -> Tensor:
    try:
        start, end = row["data_offsets"]
        shape, code = shape_of(row["shape"]), str(row["dtype"])
        fits = 0 <= start <= end <= held
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{name!r:.60}: a corrupt row of safetensors: {error!s:.100}") from None
    kind = code.rstrip("0123456789")
    dtype = f"{_SAFE[kind]}{code[len(kind) :]}" if kind in _SAFE else code.lower()[:20]
    wanted = math.prod(shape) * item_bytes(dtype)
    if not fits or (wanted and wanted != end - start):
        raise ValueError(f"{name!r:.60}: bytes {start} to {end} of {held:,}, expected {wanted:,}")
    return Tensor(name=name[:200], shape=shape, dtype=dtype, bytes=end - start)


def _tensor(name: str, array: Array) -> Tensor:
    return Tensor(name=name, shape=array.shape, dtype=array.dtype, bytes=array.size_bytes)


def _arrays(value: Any) -> Iterator[tuple[str, Array]]:
    """Every array with its path; what is held twice is told once, by its first path."""
    seen: set[int] = set()
    waiting, found = [("", value, 0)], 0
    while waiting:
        name, one, depth = waiting.pop()
        if id(one) in seen or not isinstance(one, Array | Table | Object | Named | list | tuple):
            continue
        seen.add(id(one))
        if isinstance(one, Array):
            found += 1
            if found > MAX_TENSORS:
                raise ValueError(f"more than {MAX_TENSORS:,} tensors")
            yield name or "array", one
        elif depth < MAX_DEPTH:
            waiting += [(_path(name, key), part, depth + 1) for key, part in _parts(one)]


def _path(name: str, key: str) -> str:
    return f"{name}/{key[:200]}".strip("/")[:200]


def _parts(one: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(one, Table | Object):
        for key, part in one.pairs:
            yield (key if isinstance(key, str) else f"{key}" if type(key) is int else "?"), part
    if isinstance(one, Object):
        yield from (("", part) for part in one.held)
        yield "", one.args
    for at, part in enumerate(one if isinstance(one, list | tuple) else ()):
        pair = isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], str)
        yield (part[0], part[1]) if pair else (str(at), part)
