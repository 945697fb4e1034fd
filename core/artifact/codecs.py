"""Codecs: name -> id, encode and a bounded decode; only brotli and zstd need other packages."""

from __future__ import annotations

import contextlib
import lzma
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from core.arch.fields import closest
from core.artifact.entropy import Shapes, rans_encode, states_bytes
from core.artifact.packing import PACKINGS, UnfitError
from core.artifact.rans import rans_decode
from core.artifact.wide import wide_decode, wide_encode

_ROW_BYTES = 4096  # of data whose shapes are not told
_PACKED = struct.Struct("<BII")  # codec id of what follows; bytes before it; levels
_MAX_WINDOW_BYTES = 1 << 26  # how far back lzma and zstd may point
_ZSTD_BLOCK_BYTES = 1 << 17  # what four bytes of zstd can stand for at most


@dataclass(frozen=True)
class Codec:
    """`unpack(data, raw_bytes)` stops at raw_bytes + 1; it may return less, or raise anything."""

    id: int
    encode: Callable[[bytes, Shapes], bytes]
    unpack: Callable[[bytes, int], bytes]
    once: Callable[[int], int] = lambda raw_bytes: 0  # what a stream pays, whatever it holds


def encode(codec: str, data: bytes, shapes: Shapes | None = None) -> bytes:
    """`data` compressed. `shapes`: of the matrices of bytes in it; some codecs gain by them.

    Raises UnfitError where the codec has no room for the values in it.
    """
    return _codec(codec).encode(data, shapes or _rows(data))


def decode(codec: str, data: bytes, raw_bytes: int) -> bytes:
    """The `raw_bytes` bytes that `data` stands for.

    Raises ValueError where it stands for fewer, more or nothing, and stops expanding there.
    """
    entry = _codec(codec)
    try:
        raw = entry.unpack(data, raw_bytes)
    except _Missing:
        raise
    except Exception as error:  # each library has its own kind
        raise ValueError(f"corrupt artifact: {codec} data: {error}") from error
    if len(raw) != raw_bytes:
        found = f"more than {raw_bytes}" if len(raw) > raw_bytes else str(len(raw))
        raise ValueError(
            f"corrupt artifact: {codec} data holds {found} bytes, expected {raw_bytes}"
        )
    return raw


def smallest(
    data: bytes, codecs: Iterable[str], shapes: Shapes | None = None, joins: bool = False
) -> tuple[int, bytes]:
    """The id and the output of the codec that makes `data` smallest; the first of equals.

    joins: it will share a stream, so that what each stream pays once does not count.
    """
    found = []
    for entry in map(_codec, codecs):
        with contextlib.suppress(UnfitError):
            packed = entry.encode(data, shapes or _rows(data))
            found.append((len(packed) - joins * entry.once(len(data)), entry.id, packed))
    _, codec_id, best = min(found, key=lambda entry: entry[0])
    return codec_id, best


def candidates(codec: str, kind: str = "int8") -> tuple[str, ...]:
    """The codecs that quant.codec allows: itself and raw, all of Python's and ours, or all.

    For int16 the coder of wide levels stands in the place of the one of bytes.
    """
    other, rans = ("rans", "wide") if kind == "int16" else ("wide", "rans")
    own = tuple(name for name in CODECS if name not in (*_PACKAGES, other))
    every = tuple(name for name in CODECS if name != other)
    named = rans if codec == "rans" else codec
    return {"best": own, "any": every}.get(codec, (named, "raw"))


def codec_name(codec_id: int) -> str:
    """The codec with this id in a file."""
    for name, codec in CODECS.items():
        if codec.id == codec_id:
            return name
    raise ValueError(f"corrupt artifact: codec id {codec_id} is unknown to this version")


class _Missing(ValueError):
    """A package outside the standard library is needed and not installed."""


def _codec(name: str) -> Codec:
    if name not in CODECS:
        raise ValueError(f"codec {name!r} is unknown; {closest(name, CODECS)}")
    return CODECS[name]


def _rows(data: bytes) -> Shapes:
    """Shapes for data that tell none."""
    rows, rest = divmod(len(data), _ROW_BYTES)
    return [(rows, _ROW_BYTES), (1, rest)]


def _raw_encode(data: bytes, shapes: Shapes) -> bytes:
    return data


def _raw_decode(data: bytes, raw_bytes: int) -> bytes:
    return data[: raw_bytes + 1]


def _zlib_encode(data: bytes, shapes: Shapes) -> bytes:
    return zlib.compress(data, 9)


def _zlib_decode(data: bytes, raw_bytes: int) -> bytes:
    return _drain(zlib.decompressobj(), data, raw_bytes)


def lzma_filters(raw_bytes: int) -> list[dict[str, int]]:
    """LZMA2 without the .xz frame; its window is no larger than the data."""
    window = max(4096, min(raw_bytes, _MAX_WINDOW_BYTES))
    preset = 9 | lzma.PRESET_EXTREME
    return [{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": window}]


def _lzma_encode(data: bytes, shapes: Shapes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_RAW, filters=lzma_filters(len(data)))


def _lzma_decode(data: bytes, raw_bytes: int) -> bytes:
    machine = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=lzma_filters(raw_bytes))
    return _drain(machine, data, raw_bytes)


def _drain(machine: Any, data: bytes, raw_bytes: int) -> bytes:
    """What a standard library decompressor gives, at most one byte too many."""
    raw: bytes = machine.decompress(data, raw_bytes + 1)
    if len(raw) <= raw_bytes and not machine.eof:
        raise ValueError("ends too early")
    if machine.unused_data:
        raise ValueError(f"{len(machine.unused_data)} bytes follow its end")
    return raw


def _brotli() -> Any:
    try:
        import brotli
    except ImportError as error:
        raise _Missing("codec brotli: pip install brotli, or choose zlib or lzma") from error
    if not hasattr(brotli.Decompressor, "can_accept_more_data"):
        raise _Missing("codec brotli: version 1.2 or later is needed; pip install -U brotli")
    return brotli


def _brotli_encode(data: bytes, shapes: Shapes) -> bytes:
    packed: bytes = _brotli().compress(data, quality=11, lgwin=24)
    return packed


def _brotli_decode(data: bytes, raw_bytes: int) -> bytes:
    machine = _brotli().Decompressor()
    raw = bytearray(machine.process(data, output_buffer_limit=raw_bytes + 1))
    while len(raw) <= raw_bytes and not machine.is_finished():
        more = machine.process(b"", output_buffer_limit=raw_bytes + 1 - len(raw))
        if not more:
            raise ValueError("ends too early")
        raw += more
    return bytes(raw)


def _zstd() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise _Missing("codec zstd: pip install zstandard, or choose zlib or lzma") from error
    return zstandard


def _zstd_encode(data: bytes, shapes: Shapes) -> bytes:
    packed: bytes = _zstd().ZstdCompressor(level=22).compress(data)
    return packed


def _zstd_decode(data: bytes, raw_bytes: int) -> bytes:
    """It allocates the size its frame states, so that one is checked first."""
    zstandard = _zstd()
    stated = zstandard.frame_content_size(data)
    if stated != raw_bytes or stated > len(data) * _ZSTD_BLOCK_BYTES // 4:
        raise ValueError(f"its frame states {stated} bytes, expected {raw_bytes}")
    machine = zstandard.ZstdDecompressor(max_window_size=2 * _MAX_WINDOW_BYTES)
    raw: bytes = machine.decompress(data, max_output_size=raw_bytes, allow_extra_data=False)
    return raw


def _dense(number: int, name: str) -> Codec:
    """A packing, behind it lzma where that helps."""
    packing = PACKINGS[name]

    def packed_(data: bytes, shapes: Shapes) -> bytes:
        dense = packing.pack(data)
        codec_id, packed = smallest(dense, _BEHIND)
        return _PACKED.pack(codec_id, len(dense), len(data)) + packed

    def unpacked(data: bytes, raw_bytes: int) -> bytes:
        codec_id, dense_bytes, size = _PACKED.unpack_from(data)
        behind = codec_name(codec_id)
        if behind not in _BEHIND or size != raw_bytes or dense_bytes > raw_bytes + 1:
            raise ValueError(f"{size} levels in {dense_bytes} bytes of {behind}")
        return packing.unpack(decode(behind, data[_PACKED.size :], dense_bytes), size)

    return Codec(number, packed_, unpacked)


_BEHIND = ("raw", "lzma")
_PACKAGES = ("brotli", "zstd")
CODECS: dict[str, Codec] = {
    "raw": Codec(0, _raw_encode, _raw_decode),
    "zlib": Codec(1, _zlib_encode, _zlib_decode),
    "lzma": Codec(2, _lzma_encode, _lzma_decode),
    "brotli": Codec(3, _brotli_encode, _brotli_decode),
    "zstd": Codec(4, _zstd_encode, _zstd_decode),
    "rans": Codec(5, rans_encode, rans_decode, states_bytes),
    "trits": _dense(6, "trits"),
    "mask": _dense(7, "mask"),
    "bits": _dense(8, "bits"),
    "wide": Codec(9, wide_encode, wide_decode, states_bytes),
}
