"""Reads an artifact where there is no toolkit: what `golf bundle --decoder-only` prints."""

from __future__ import annotations

import json
import lzma
import zlib
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from core.artifact.codecs import lzma_filters
from core.artifact.groups import OneBit
from core.artifact.header import CRC, MAGIC, MAX_HEADER_BYTES, PREFIX, need
from core.artifact.packed import dequantize
from core.artifact.packing import bits_unpack, mask_unpack, trits_unpack
from core.artifact.rans import rans_decode
from core.artifact.streams import digest, tensors_of
from core.artifact.table import FIRST_VERSION, FORMAT_VERSION, Row, Stream
from core.artifact.wide import wide_decode

Weights = dict[str, NDArray[np.float32]]


def read_weights(data: bytes) -> Weights:
    """Every weight in the bytes of a file, by name, bit-equal to what the toolkit reads.

    Raises ValueError unless every byte is as it was written.
    """
    need(data[:4] == MAGIC, f"it starts with {data[:4]!r}, an artifact with {MAGIC!r}")
    at = PREFIX.size + CRC.size
    need(len(data) >= at, f"truncated: {len(data)} bytes")
    _, version, codec, packed_bytes, raw_bytes, identity = PREFIX.unpack_from(data)
    need(1 <= version <= FORMAT_VERSION, f"format {version}; this decoder is of {FORMAT_VERSION}")
    packed = data[at : at + packed_bytes]
    same = zlib.crc32(data[: PREFIX.size] + packed) == CRC.unpack_from(data, PREFIX.size)[0]
    need(same and raw_bytes <= MAX_HEADER_BYTES, "the checksum of its header is another")
    try:
        plain = json.loads(_unpacked(codec, packed, raw_bytes))
        return _weights(plain, data[at + packed_bytes :], identity)
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"corrupt artifact: a wrong form in its header: {error!r}") from error


def _weights(plain: dict[str, Any], body: bytes, identity: bytes) -> Weights:
    streams = [Stream(**entry) for entry in plain.pop("streams")]
    places = tuple(tuple(entry.pop("streams")) for entry in plain["tensors"])
    linear = (plain["model_spec"] or {}).get("linear")
    grouped = plain["format_version"] == FIRST_VERSION and linear in get_args(OneBit)
    need(not grouped, f"a {linear} model of format 1 has groups as rows: golf pack makes format 2")
    rows = tuple(Row(**{**row, "shape": tuple(row["shape"])}) for row in plain["tensors"])
    raw, start = list[bytes](), 0
    for stream in streams:
        packed = body[start : start + stream.packed_bytes]
        need(zlib.crc32(packed) == stream.crc32, f"the checksum of stream {len(raw)} is another")
        raw.append(_unpacked(stream.codec, packed, stream.raw_bytes))
        start += stream.packed_bytes
    need(start == len(body), f"{len(body)} bytes of streams, expected {start}")
    needed = [0] * len(raw)
    for row, at in zip(rows, places, strict=True):
        for part, place in zip(row.parts(), at, strict=True):
            needed[place] += part.raw_bytes
    need(needed == [len(stream) for stream in raw], "its shapes do not fit its streams")
    tensors = tensors_of(rows, places, raw)
    need(digest(plain, tensors) == identity.hex(), "its identity is another")
    return {tensor.name: dequantize(tensor) for tensor in tensors}


def _unpacked(codec: int, packed: bytes, raw_bytes: int) -> bytes:
    """What a stream stands for, and not a byte more."""
    need(codec in DECODERS, f"codec {codec} is not in this decoder, which has {[*DECODERS]}")
    try:
        raw = DECODERS[codec](packed, raw_bytes)
    except Exception as error:  # each codec has its own kind
        raise ValueError(f"corrupt artifact: codec {codec}: {error}") from error
    need(len(raw) == raw_bytes, f"codec {codec} gives {len(raw)} bytes, expected {raw_bytes}")
    return raw


def _raw(packed: bytes, raw_bytes: int) -> bytes:
    return packed


def _zlib(packed: bytes, raw_bytes: int) -> bytes:
    return zlib.decompressobj().decompress(packed, raw_bytes + 1)


def _lzma(packed: bytes, raw_bytes: int) -> bytes:
    machine = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=lzma_filters(raw_bytes))
    return machine.decompress(packed, raw_bytes + 1)


def _brotli(packed: bytes, raw_bytes: int) -> bytes:
    import brotli

    raw: bytes = brotli.Decompressor().process(packed, output_buffer_limit=raw_bytes + 1)
    return raw


def _zstd(packed: bytes, raw_bytes: int) -> bytes:
    import zstandard

    raw: bytes = zstandard.ZstdDecompressor().decompress(packed, max_output_size=raw_bytes)
    return raw


def _dense(unpack: Callable[[bytes, int], bytes]) -> Callable[[bytes, int], bytes]:
    """Behind the codec's id and two sizes: bytes that hold several levels each."""

    def unpacked(packed: bytes, raw_bytes: int) -> bytes:
        size = int.from_bytes(packed[1:5], "little")
        return unpack(_unpacked(packed[0], packed[9:], size), raw_bytes)

    return unpacked


DECODERS: dict[int, Callable[[bytes, int], bytes]] = {
    0: _raw,
    1: _zlib,
    2: _lzma,
    3: _brotli,
    4: _zstd,
    5: rans_decode,
    6: _dense(trits_unpack),
    7: _dense(mask_unpack),
    8: _dense(bits_unpack),
    9: wide_decode,
}
