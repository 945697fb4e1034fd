"""Streams: the bytes behind a header <-> packed tensors, and the payload that both stand for."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.artifact.codecs import codec_name, decode
from core.artifact.header import Header, need
from core.artifact.lowrank import LowRank
from core.artifact.packed import Packed
from core.artifact.table import DTYPES, Part, Row, dump, row_of

Rows = tuple[Row, ...]
Places = tuple[tuple[int, ...], ...]  # for each row, the stream of each of its parts


def tensors_behind(header: Header, data: bytes) -> tuple[Packed, ...]:
    """The tensors of a file, all checksums and the identity verified."""
    tensors = tensors_of(header.rows, header.places, _raw_streams(header, data))
    found = digest(header.plain, tensors)
    need(found == header.identity, f"its identity is {found}, expected {header.identity}")
    return tensors


def tensors_of(rows: Rows, all_places: Places, streams: list[bytes]) -> tuple[Packed, ...]:
    """Views into the unpacked streams; Packed checks what they hold."""
    starts, tensors = [0] * len(streams), []
    for row, places in zip(rows, all_places, strict=True):
        arrays: dict[str, NDArray[Any]] = {}
        for part, at in zip(row.parts(), places, strict=True):
            arrays[part.field] = _array(streams[at], part, starts[at])
            starts[at] += part.raw_bytes
        try:
            tensors.append(_tensor(row, arrays))
        except ValueError as error:
            raise ValueError(f"corrupt artifact: {error}") from error
    return tuple(tensors)


def _tensor(row: Row, arrays: dict[str, NDArray[Any]]) -> Packed:
    low = LowRank(arrays["left"], arrays["right"], arrays["scale"]) if row.rank else None
    scales = arrays.get("row_scale"), arrays.get("col_scale")
    return Packed(row.name, row.shape, arrays["values"], *scales, row.trellis, row.group_size, low)


def payload_pieces(plain: dict[str, Any], tensors: tuple[Packed, ...]) -> Iterator[bytes]:
    """What the identity is the sha256 of."""
    yield dump(plain) + b"\n"
    for tensor in tensors:
        for part in row_of(tensor).parts():
            yield part_bytes(tensor, part)


def digest(plain: dict[str, Any], tensors: tuple[Packed, ...]) -> str:
    sha = hashlib.sha256()
    for piece in payload_pieces(plain, tensors):
        sha.update(piece)
    return sha.hexdigest()


def part_bytes(tensor: Packed, part: Part) -> bytes:
    owner = tensor.low_rank if part.field in ("left", "right", "scale") else tensor
    array: NDArray[Any] = getattr(owner, part.field)
    return array.astype(DTYPES[part.kind], copy=False).tobytes()


def _raw_streams(header: Header, data: bytes) -> list[bytes]:
    raw, start = [], header.header_bytes
    for index, stream in enumerate(header.streams):
        packed = data[start : start + stream.packed_bytes]
        found = zlib.crc32(packed)
        need(found == stream.crc32, f"checksum of stream {index} is {found:08x}")
        raw.append(decode(codec_name(stream.codec), packed, stream.raw_bytes))
        start += stream.packed_bytes
    return raw


def _array(stream: bytes, part: Part, start: int) -> NDArray[Any]:
    dtype = np.dtype(DTYPES[part.kind])
    flat = np.frombuffer(stream, dtype, part.raw_bytes // dtype.itemsize, start)
    return flat.reshape(part.shape).astype(dtype.newbyteorder("="), copy=False)
