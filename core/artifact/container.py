"""Container: packed tensors <-> one file that anyone can read.

A file is little-endian and has no padding:
  prefix    "GOLF", format version u16, codec id u16, packed and raw header bytes u32 u32,
            identity (32 bytes), crc32 u32 of all these and of the packed header
  header    compressed JSON: format_version, model_spec (or null), solver, and two tables,
            streams  codec (its id, see codecs.py), packed_bytes, raw_bytes, crc32 (of the packed)
            tensors  in name order: name, shape, values (int8, int16, fp8 or fp16), row_scale
                     (null, fp16 or log8), col_scale (null or log8), trellis, streams; where they
                     say something, group_size (levels that share a row scale) and rank
  streams   one after the other, to the end of the file
A file is of format version 1 unless a tensor is fp8 or has a group_size or a rank: then of 2.
A tensor has its parts in this order: values, row scale, column scale; with a rank the left and the
right side of its low rank, int8, and their scales, fp32. Its `streams` says in which stream each
lies; within a stream the parts follow each other in the order of the table. What the numbers mean
is told by packed.Packed. The payload is the header's canonical JSON without the two `streams`, a
newline, and all parts in the order of the table; the identity is its sha256.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from core.arch.params import Weights, check_weights, param_table
from core.arch.spec import ModelSpec
from core.artifact.codecs import candidates, codec_name, smallest
from core.artifact.header import MAX_TENSORS, Header, pack_header, unpack_header
from core.artifact.packed import Packed, dequantize
from core.artifact.streams import digest, part_bytes, payload_pieces, tensors_behind
from core.artifact.table import Stream, is_label, plain_header, row_of


@dataclass(frozen=True, eq=False)
class Artifact:
    """What a file holds. The tensors are kept in name order, in whatever order they come."""

    spec: ModelSpec | None
    tensors: tuple[Packed, ...]
    solver: str = "rtn"  # who chose the levels

    def __post_init__(self) -> None:
        in_order = tuple(sorted(self.tensors, key=lambda tensor: tensor.name))
        object.__setattr__(self, "tensors", in_order)
        if len(in_order) > MAX_TENSORS:
            raise ValueError(f"artifact: {len(in_order)} tensors exceed {MAX_TENSORS}")
        names = Counter(tensor.name for tensor in in_order)
        for name in (self.solver, *names):
            if not is_label(name):
                raise ValueError(f"artifact: {name!r:.40} is not a short printable ASCII name")
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"artifact: two tensors are named {twice[0]!r}")


def payload(artifact: Artifact) -> bytes:
    """The content before compression: equal for equal levels, whatever packs them."""
    return b"".join(payload_pieces(_plain(artifact), artifact.tensors))


def identity(artifact: Artifact) -> str:
    """sha256 of the payload, in hex."""
    return digest(_plain(artifact), artifact.tensors)


def write(artifact: Artifact, codec: str = "zlib") -> bytes:
    """The file. Parts of one kind share a stream, compressed by `codec` unless raw is smaller.

    Where `codec` leaves a choice ("best", "any"), each tensor's levels have the codec that makes
    them smallest, and share a stream with those that have the same.
    """
    runs, places = _runs(artifact, codec)
    streams, body = [], b""
    for run in runs:
        raw = b"".join(run.pieces)
        codec_id, packed = smallest(raw, run.allowed, run.shapes)
        checksum = zlib.crc32(packed)
        sizes = {"packed_bytes": len(packed), "raw_bytes": len(raw)}
        streams.append(Stream(codec=codec_id, crc32=checksum, **sizes))
        body += packed
    return pack_header(_plain(artifact), places, streams, identity(artifact)) + body


def read(data: bytes) -> Artifact:
    """The artifact in a file; ValueError unless every byte is as it was written.

    Nothing in the file is executed, and nothing is allocated that its header, checked first,
    does not account for.
    """
    header, tensors = _open(data)
    return Artifact(header.spec, tensors, header.solver)


def weights(artifact: Artifact) -> Weights:
    """Every tensor dequantized to float32; they fit the spec if there is one."""
    tensors = {tensor.name: dequantize(tensor) for tensor in artifact.tensors}
    if artifact.spec is not None:
        for row in param_table(artifact.spec):
            if row.name in tensors and tensors[row.name].size == row.size:  # groups are rows
                tensors[row.name] = tensors[row.name].reshape(row.shape)
        check_weights(tensors, artifact.spec, "artifact")
    return tensors


def weights_in(data: bytes, spec: ModelSpec) -> Weights:
    """Those of the file of a model of this spec."""
    artifact = read(data)
    if artifact.spec != spec:
        raise ValueError("the artifact is of another model: its model_spec is not the run's")
    return weights(artifact)


def inspect(data: bytes) -> dict[str, Any]:
    """What a file holds and what each part of it costs, as JSON data.

    A tensor's bytes are its share of the streams it lies in, by raw size; the shares and the
    header add up to the file.
    """
    header, tensors = _open(data)
    spent = _shares(header)
    parts = {"header": header.header_bytes, "levels": 0, "scales": 0, "fp16": 0}
    for row, shares in zip(header.rows, spent, strict=True):
        for part, share in zip(row.parts(), shares, strict=True):
            parts[part.share] += share
    table = [
        {
            "name": row.name,
            "shape": list(row.shape),
            "format": row.values,
            **{name: row.plain()[name] for name in ("group_size", "rank") if name in row.plain()},
            "bytes": sum(shares),
            "codec": codec_name(header.streams[places[0]].codec),
        }
        for row, places, shares in zip(header.rows, header.places, spent, strict=True)
    ]
    return {
        "identity": header.identity,
        "model_bytes": len(data),
        "format_version": header.plain["format_version"],
        "model_spec": header.plain["model_spec"],
        "solver": header.solver,
        "parameters": sum(tensor.size for tensor in tensors),
        "bytes": parts,
        "tensors": table,
    }


@dataclass(frozen=True)
class _Run:
    """Parts that share a stream, and the codecs that it may have."""

    allowed: tuple[str, ...]
    pieces: list[bytes] = field(default_factory=list)
    shapes: list[tuple[int, int]] = field(default_factory=list)


def _runs(artifact: Artifact, codec: str) -> tuple[list[_Run], list[list[int]]]:
    """The runs in the order of their first part; for each tensor, the runs of its parts."""
    runs: dict[tuple[str, ...], _Run] = {}
    places: list[list[int]] = []
    for tensor in artifact.tensors:
        places.append([])
        for part in row_of(tensor).parts():
            piece, allowed = part_bytes(tensor, part), candidates(codec, part.kind)
            if part.share == "levels" and len(allowed) > 2:
                codec_id, _ = smallest(piece, allowed, [part.matrix], joins=True)
                allowed = (codec_name(codec_id), "raw")
            kind = (part.share, part.kind, *allowed)
            run = runs.setdefault(kind, _Run(allowed))
            run.pieces.append(piece)
            run.shapes.append(part.matrix)
            places[-1].append(list(runs).index(kind))
    return list(runs.values()), places


def _plain(artifact: Artifact) -> dict[str, Any]:
    rows = [row_of(tensor) for tensor in artifact.tensors]
    return plain_header(artifact.spec, artifact.solver, rows)


def _open(data: bytes) -> tuple[Header, tuple[Packed, ...]]:
    """Header and tensors of a file, all checksums and the identity verified."""
    header = unpack_header(data)
    return header, tensors_behind(header, data)


def _shares(header: Header) -> list[list[int]]:
    """For each tensor the packed bytes of its parts, rounded so that every stream adds up."""
    starts, spent = [0] * len(header.streams), []
    for row, places in zip(header.rows, header.places, strict=True):
        shares = []
        for part, at in zip(row.parts(), places, strict=True):
            stream, start = header.streams[at], starts[at]
            starts[at] += part.raw_bytes
            ends = [size * stream.packed_bytes // stream.raw_bytes for size in (start, starts[at])]
            shares.append(ends[1] - ends[0])
        spent.append(shares)
    return spent
