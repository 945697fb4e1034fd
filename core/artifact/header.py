"""The header of an artifact: what the file says of itself, checked before anything is unpacked."""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, get_args

from core.arch.fields import from_plain, to_plain
from core.arch.params import num_frozen, param_table
from core.arch.spec import ModelSpec
from core.artifact.codecs import codec_name, decode, smallest
from core.artifact.groups import OneBit
from core.artifact.lowrank import MAX_CORRECTION
from core.artifact.packed import MAX_RANK, States
from core.artifact.table import (
    FIRST_VERSION,
    FORMAT_VERSION,
    Row,
    Stream,
    dump,
    is_label,
    version_of,
)

MAGIC = b"GOLF"
PREFIX = struct.Struct("<4sHHII32s")  # magic, version, codec id, packed and raw bytes, identity
CRC = struct.Struct("<I")
HEADER_CODECS = ("zlib", "lzma")

MAX_HEADER_BYTES = 4_000_000
MAX_RAW_BYTES = 4_000_000_000
MAX_TENSORS = 65_536
MAX_RATIO = 100  # of raw to packed bytes, for files that unpack to more than FREE_BYTES
FREE_BYTES = 256_000_000
MAX_SIZE = 1 << 24  # of any dimension of a model
MAX_ROTARY = 1 << 26  # seq_len x head_dim: tables made before any weight is looked at
MAX_FROZEN = 1 << 28  # weights that are drawn from a seed: no byte in the file stands for them

_FIELDS = ("format_version", "model_spec", "solver", "streams", "tensors")


@dataclass(frozen=True)
class Header:
    """`plain` is what the identity covers: the JSON data without streams and codecs."""

    plain: dict[str, Any]
    spec: ModelSpec | None
    solver: str
    rows: tuple[Row, ...]
    places: tuple[tuple[int, ...], ...]  # for each row, the stream of each of its parts
    streams: tuple[Stream, ...]
    identity: str
    header_bytes: int  # prefix included: where the streams start


def pack_header(
    plain: dict[str, Any], places: list[list[int]], streams: list[Stream], identity: str
) -> bytes:
    """The start of a file: prefix, checksum, compressed header."""
    table = [{**row, "streams": at} for row, at in zip(plain["tensors"], places, strict=True)]
    whole = {**plain, "tensors": table, "streams": [to_plain(stream) for stream in streams]}
    return seal(dump(whole), identity, plain["format_version"])


def seal(text: bytes, identity: str, version: int = FIRST_VERSION) -> bytes:
    """The header's text, compressed, behind a prefix and a checksum of both."""
    codec, packed = smallest(text, HEADER_CODECS)
    sizes = len(packed), len(text)
    prefix = PREFIX.pack(MAGIC, version, codec, *sizes, bytes.fromhex(identity))
    return prefix + CRC.pack(zlib.crc32(prefix + packed)) + packed


def unseal(data: bytes) -> tuple[bytes, str, int]:
    """What `seal` took, and where the streams start."""
    start = PREFIX.size + CRC.size
    if not data.startswith(MAGIC):
        raise ValueError(f"not an artifact: it starts with {data[:4]!r}, expected {MAGIC!r}")
    need(len(data) >= start, f"{len(data)} bytes, a prefix alone has {start}")
    _, version, codec, packed_bytes, raw_bytes, identity = PREFIX.unpack_from(data)
    if version > FORMAT_VERSION:
        raise ValueError(
            f"artifact of format {version}, written by a newer version; "
            f"this one reads up to {FORMAT_VERSION}: update golf"
        )
    need(version >= FIRST_VERSION, f"format version {version}, the first was {FIRST_VERSION}")
    need(raw_bytes <= MAX_HEADER_BYTES, f"a header of {raw_bytes} bytes exceeds {MAX_HEADER_BYTES}")
    end = start + packed_bytes
    need(end <= len(data), f"truncated: {len(data)} bytes, its header alone ends at {end}")
    packed = data[start:end]
    (checksum,) = CRC.unpack_from(data, PREFIX.size)
    found = zlib.crc32(data[: PREFIX.size] + packed)
    need(checksum == found, f"checksum of the header is {found:08x}, expected {checksum:08x}")
    return decode(codec_name(codec), packed, raw_bytes), identity.hex(), end


def unpack_header(data: bytes) -> Header:
    """Read and check the header: every length against the file, every shape against a length."""
    text, identity, end = unseal(data)
    try:
        whole = _parse(text, PREFIX.unpack_from(data)[1])
        streams = tuple(_stream(entry, at) for at, entry in enumerate(whole["streams"]))
        table = [_row(entry, at, len(streams)) for at, entry in enumerate(whole["tensors"])]
        spec = _spec(whole["model_spec"], len(table))
    except (AttributeError, OverflowError, TypeError) as error:
        raise ValueError(f"corrupt artifact: a wrong form in its header: {error}") from error
    rows, places = tuple(row for row, _ in table), tuple(places for _, places in table)
    found = version_of(rows)
    need(whole["format_version"] == found, f"its tensors are of format version {found}")
    _check_names(rows, whole["solver"])
    _check_lengths(rows, places, streams, len(data) - end)
    if spec is not None:
        _check_table(rows, spec)
    for entry in whole["tensors"]:
        del entry["streams"]
    del whole["streams"]
    return Header(whole, spec, whole["solver"], rows, places, streams, identity, end)


def need(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(f"corrupt artifact: {message}")


def _parse(text: bytes, version: int) -> dict[str, Any]:
    """JSON data with the header's fields; anything but the canonical spelling is refused."""
    try:
        whole = json.loads(text)
        canonical = isinstance(whole, dict) and dump(whole) == text
    except (ValueError, RecursionError) as error:
        raise ValueError(f"corrupt artifact: its header is not JSON: {error}") from error
    need(canonical, "its header is not canonical JSON")
    need(tuple(sorted(whole)) == _FIELDS, f"its header has fields {sorted(whole)[:9]}")
    need(whole["format_version"] == version, "its header states another format version")
    for name in ("streams", "tensors"):
        need(isinstance(whole[name], list), f"{name} is not a list")
        need(len(whole[name]) <= MAX_TENSORS, f"{len(whole[name])} {name} exceed {MAX_TENSORS}")
    parsed: dict[str, Any] = whole
    return parsed


def _stream(entry: object, at: int) -> Stream:
    stream = from_plain(Stream, entry, f"corrupt artifact: stream {at}")
    codec_name(stream.codec)
    sizes = stream.packed_bytes, stream.raw_bytes
    need(min(sizes) >= 1, f"stream {at} has {sizes[0]} bytes for {sizes[1]}")
    return stream


def _row(entry: dict[str, Any], at: int, num_streams: int) -> tuple[Row, tuple[int, ...]]:
    """One row of the table and the streams of its parts."""
    where = f"tensor {at}"
    lists = {name: entry.get(name) for name in ("shape", "streams")}
    for name, found in lists.items():
        whole = isinstance(found, list) and all(type(number) is int for number in found)
        need(whole, f"{where}: {name} is not a list of integers")
    shape, places = tuple(lists["shape"] or ()), tuple(lists["streams"] or ())
    fields = {name: value for name, value in entry.items() if name not in lists}
    row = replace(from_plain(Row, fields, f"corrupt artifact: {where}"), shape=shape)
    if row.trellis not in get_args(States):
        raise ValueError(f"artifact {where}: trellis {row.trellis}: written by a newer version")
    positive = len(shape) <= MAX_RANK and all(size > 0 for size in shape)
    need(positive, f"{where}: shape {shape[:9]}, expected at most {MAX_RANK} positive sizes")
    _check_newer(row, entry, where)
    known = len(places) == len(row.parts()) and all(0 <= i < num_streams for i in places)
    need(known, f"{where}: its {len(row.parts())} parts lie in streams {places[:9]}")
    return row, places


def _check_newer(row: Row, entry: dict[str, Any], where: str) -> None:
    """Groups and ranks, before they are divided or multiplied by; each is told one way."""
    spelled = row.plain()
    fits = {**spelled, "shape": list(row.shape), "streams": entry["streams"]} == entry
    need(fits, f"{where}: a field that says nothing, of {sorted({*entry} - {*spelled})[:9]}")
    size, group = math.prod(row.shape), row.group_size
    whole = group == 0 or (group > 0 and row.row_scale is not None and size % group == 0)
    need(whole, f"{where}: {size} levels in groups of {group}")
    need(0 <= row.rank <= MAX_CORRECTION, f"{where}: rank {row.rank} exceeds {MAX_CORRECTION}")


def _spec(fields: object, num_tensors: int) -> ModelSpec | None:
    """The checked spec; sizes that would be costly before any weight is compared are bounded."""
    if fields is None:
        return None
    try:
        spec = from_plain(ModelSpec, fields, "model_spec")
    except ValueError as error:
        raise ValueError(f"artifact: {error}; was it written by a newer version?") from error
    layers = spec.num_layers
    need(layers <= num_tensors, f"{layers} layers but {num_tensors} tensors")
    for name in ("model_dim", "mlp_dim", "seq_len"):
        size = getattr(spec, name)
        need(size <= MAX_SIZE, f"{name} {str(size)[:20]} exceeds {MAX_SIZE}")
    rotary = spec.seq_len * spec.head_dim
    need(rotary <= MAX_ROTARY, f"seq_len x head_dim {rotary} exceeds {MAX_ROTARY}")
    frozen = num_frozen(spec)
    need(frozen <= MAX_FROZEN, f"{frozen} random weights exceed {MAX_FROZEN}")
    return spec


def _check_table(rows: tuple[Row, ...], spec: ModelSpec) -> None:
    """Names and shapes are those of the spec's parameter table: known before anything unpacks.

    Or, of a ternary or one-bit matrix, its groups are rows.
    """
    stated = {row.name: row.shape for row in rows}
    wanted = {param.name: param.shape for param in param_table(spec)}
    for param in param_table(spec):
        groups = (param.size // spec.linear_group, spec.linear_group)
        if spec.linear in get_args(OneBit) and param.role in ("attn", "mlp"):
            wanted[param.name] = groups if stated.get(param.name) == groups else param.shape
    wrong = sorted(set(stated.items()) ^ set(wanted.items()))
    need(not wrong, f"its tensors do not fit its model_spec, first {str(wrong[:1])[:80]}")


def _check_names(rows: tuple[Row, ...], solver: object) -> None:
    need(is_label(solver), f"solver {solver!r:.40} is not a short printable name")
    for row in rows:
        need(is_label(row.name), f"tensor {row.name!r:.40} has no short printable name")
    for one, two in pairwise(rows):
        need(one.name != two.name, f"two tensors are named {one.name!r}")
        need(one.name < two.name, f"tensor {two.name!r} comes after {one.name!r}, out of order")


def _check_lengths(
    rows: tuple[Row, ...],
    places: tuple[tuple[int, ...], ...],
    streams: tuple[Stream, ...],
    body_bytes: int,
) -> None:
    """Shapes against the streams' raw lengths, packed lengths against the file."""
    packed = sum(stream.packed_bytes for stream in streams)
    need(packed <= body_bytes, f"truncated: its streams have {packed} bytes, found {body_bytes}")
    need(packed == body_bytes, f"{body_bytes - packed} bytes follow its last stream")
    total = sum(stream.raw_bytes for stream in streams)
    most = min(MAX_RAW_BYTES, max(FREE_BYTES, MAX_RATIO * packed))
    need(total <= most, f"{packed} bytes that state {total} of weights, more than {most}")
    needed = [0] * len(streams)
    for row, at in zip(rows, places, strict=True):
        for part, index in zip(row.parts(), at, strict=True):
            needed[index] += part.raw_bytes
    for index, (stream, size) in enumerate(zip(streams, needed, strict=True)):
        stated = f"stream {index} states {stream.raw_bytes} bytes"
        need(stream.raw_bytes == size, f"{stated}, the shapes in it take {size}")
