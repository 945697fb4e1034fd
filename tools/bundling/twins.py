"""What a bundle has in place of richer code of the toolkit, each by its name.

A bundle makes one run, which is neither stopped nor gone on with; it reads no artifact but the one
that it wrote; it knows the kind of its tokenizer. What it refuses of data from outside is what the
toolkit refuses, in fewer words.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from core.arch.fields import changed
from core.arch.params import Weights
from core.arch.spec import ModelSpec
from core.artifact.codecs import codec_name, decode, lzma_filters, smallest
from core.artifact.container import Artifact
from core.artifact.header import CRC, PREFIX, seal
from core.artifact.ledger import CAP_BYTES
from core.artifact.packed import Packed, dequantize, matrix_shape
from core.artifact.table import DTYPES, FIRST_VERSION, Row, dump, version_of
from core.data.byte_tokenizer import ByteTokenizer
from core.data.case import CONTROLS
from core.data.lossy import folded_letters
from core.data.pieces import Ids, Piece, Tokenizer
from core.data.shards import (
    HEADER_BYTES,
    MAGIC,
    VERSION,
    TokenStream,
    check_tokens,
    sidecar_files,
    split_files,
)
from core.data.token_bytes import MARKER, ByteTable
from core.data.tokenizer import pieces_of
from core.data.unfinished import MANIFEST
from core.score.bpb import Scored
from core.score.scorers import Ranks
from core.score.scoring import NatsOf, Validation, bytes_of, open_tally
from core.score.windows import Window, fill
from core.train.events import log_line
from core.train.keeper import Snapshot
from core.train.recipe import Recipe, as_plain

Twins = dict[tuple[str, str], str]  # module, name: here
ALWAYS: Twins = {
    ("core.train.recipe", "to_json"): "to_json",
    ("core.train.keeper", "Keeper"): "Keeper",
    ("core.train.keeper", "Lead"): "Lead",
    ("core.train.run_folder", "RunFolder"): "RunFolder",
    ("core.artifact.ledger", "ledger"): "ledger",
    ("backend_torch.distributed", "_started_anew"): "started_once",
    ("backend_torch.attend", "attention_choice"): "attention_choice",
    ("backend_mlx.attend", "attention_choice"): "attention_choice",
    ("core.data.shards", "open_shard"): "open_shard",
    ("core.data.export", "read_manifest"): "read_manifest",
    ("core.data.export", "check_manifest"): "check_manifest",
    ("core.data.export", "check_files"): "check_files",
}
NEAREST: Twins = {("core.artifact.container", "weights_in"): "weights_in"}
SOLVED: Twins = {("core.artifact.container", "weights_in"): "solved_in"}
OF_ONE_CODEC: Twins = {
    ("core.artifact.container", "write"): "write",
    ("core.artifact.container", "identity"): "identity",
    ("core.artifact.codecs", "smallest"): "plain_smallest",
    ("core.artifact.codecs", "decode"): "plain_decode",
    ("core.artifact.codecs", "codec_name"): "plain_codec_name",
}
OF_MANY_CODECS: Twins = {("core.artifact.table", "plain_header"): "header_of_rows"}
CHUNKED_WHOLE: Twins = {("core.score.scoring", "score"): "score"}
OF_KIND: dict[str, Twins] = {
    "text": {
        ("core.data.tokenizer", "open_tokenizer"): "TextTokenizer",
        ("core.data.token_bytes", "check_table"): "check_table",
    },
    "bytes": {
        ("core.data.tokenizer", "open_tokenizer"): "open_bytes",
        ("core.data.token_bytes", "check_table"): "check_table",
    },
    "case": {},
}
WHOLE_SPLIT: Twins = {("core.data.decoding", "check_decoding"): "check_decoding"}
NOT_LOSSY: Twins = {("core.data.lossy", "require_text"): "require_text"}


def to_json(recipe: Recipe) -> str:
    """What is no default: a reader knows the rest."""
    return json.dumps(as_plain(recipe), indent=2) + "\n"


class Keeper:
    """Keeps nothing: a bundle runs once, from its first step to its last."""

    snapshot: Snapshot | None = None
    goes_on = False
    asked_to_stop = ""

    def __init__(self, folder: None, now: Callable[[], float]) -> None:
        pass

    def hold_to(self, data: dict[str, str]) -> None:
        pass

    def stops(self) -> bool:
        return False

    def due(self, step: int) -> bool:
        return False

    def silent(self) -> Keeper:
        return self

    def save(self, snapshot: Callable[[], Snapshot]) -> bool:
        return False

    def save_weights(self, weights: Weights) -> None:
        pass


class Lead:
    """Work of the first rank alone; the others wait for its end."""

    def __init__(self, group: Any, keeper: Keeper) -> None:
        self._group = group
        self.first = not group.rank

    def together(self, work: Callable[[], Any]) -> Any:
        return work()

    def alone(self, work: Callable[[None], Any]) -> Any:
        made = work(None) if self.first else None
        self._group.max(0.0)
        return made

    def share(self, data: bytes | None) -> bytes:
        shared: bytes = self._group.share(data or b"")
        return shared

    def ask(self, *_: object) -> None:
        pass


class RunFolder:
    """A run's files, in a folder of their own."""

    def __init__(self, root: str, run_id: str) -> None:
        self.path = Path(root) / run_id

    def create(self, recipe: Recipe) -> None:
        self.path.mkdir(parents=True)
        (self.path / "recipe.json").write_text(to_json(recipe))

    def save_model(self, data: bytes) -> None:
        (self.path / "model.bin").write_bytes(data)

    def log(self, kind: str, **fields: Any) -> None:
        """One event: all of it to log.jsonl, and its line to log.txt when it is due."""
        line = log_line(kind, fields)
        for name, text in (("log.jsonl", json.dumps({"event": kind, **fields})), ("log.txt", line)):
            if text is not None:
                with (self.path / name).open("a") as file:
                    file.write(text + "\n")


def started_once() -> dict[str, Any]:
    """A bundle goes on with nothing: where a launcher starts it again, its folder is taken."""
    return {}


def attention_choice(device: object, recipe: object) -> str:
    """Where it is done; which kernel it is, `golf doctor` says."""
    return str(device)


def open_shard(path: Path) -> np.memmap[Any, np.dtype[np.uint16]]:
    """The tokens of one shard; ValueError where its header or its size is another."""
    header, count = np.fromfile(path, "<i4", 3), (path.stat().st_size - HEADER_BYTES) / 2
    if header.tolist() != [MAGIC, VERSION, count]:
        raise ValueError("no whole shard")
    return np.memmap(path, "<u2", "r", offset=HEADER_BYTES, shape=(int(count),))


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What lies beside the shards, or none."""
    path = folder / MANIFEST
    return json.loads(path.read_bytes()) if path.is_file() else None


def check_manifest(manifest: dict[str, Any], tokenizer: Tokenizer) -> None:
    """Raise ValueError unless the shards were made with this very tokenizer."""
    made_with = manifest["tokenizer"]
    if (made_with["sha256"], made_with.get("transform")) != (tokenizer.sha256, tokenizer.transform):
        raise ValueError("the shards are of another tokenizer")


def check_files(manifest: dict[str, Any], folder: Path) -> None:
    """Raise ValueError unless the split's files are those of the manifest, byte for byte."""
    paths = [*split_files(folder, "val"), *sidecar_files(folder)]
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    files = manifest["files"].items()
    if found != {name: sha for name, sha in files if name.startswith("fineweb_val_")}:
        raise ValueError("the validation split is not that of its manifest")


KINDS = {"int8": "<i1", "int16": "<i2", "fp16": "<f2"}


def read(data: bytes, spec: ModelSpec) -> Weights:
    """The weights in the artifact that was just written, all from its bytes."""
    _, _, codec, packed_bytes, raw_bytes, identity = PREFIX.unpack_from(data)
    at = PREFIX.size + CRC.size
    plain = json.loads(decode(codec_name(codec), data[at : at + packed_bytes], raw_bytes))
    at += packed_bytes
    streams = list[BytesIO]()
    for row in plain.pop("streams"):
        packed = data[at : at + row["packed_bytes"]]
        streams.append(BytesIO(decode(codec_name(row["codec"]), packed, row["raw_bytes"])))
        at += row["packed_bytes"]
    places = [row.pop("streams") for row in plain["tensors"]]
    sha, found = hashlib.sha256(dump(plain) + b"\n"), dict[str, Any]()
    for row, place in zip(plain["tensors"], places, strict=True):
        rows, cols = matrix_shape(row["shape"])
        if spec.linear in ("ternary", "binary") and "group_size" in row:
            rows, cols = rows * cols // row["group_size"], row["group_size"]
        parts = []
        for part_of, kind, count in zip(
            place, (row["values"], row["row_scale"]), (rows * cols, rows), strict=False
        ):
            dtype = np.dtype(KINDS[kind])
            part = streams[part_of].read(count * dtype.itemsize)
            sha.update(part)
            parts.append(np.frombuffer(part, dtype).astype(np.float32))
        weight = parts[0].reshape(rows, cols)
        for scale in parts[1:]:
            weight = weight * scale[:, None]
        found[row["name"]] = weight.reshape(row["shape"])
    if sha.digest() != identity:
        raise ValueError("the artifact is not what was written")
    return found


def weights_in(data: bytes, spec: ModelSpec) -> Weights:
    return read(data, spec)


def solved_in(data: bytes, spec: ModelSpec) -> Weights:
    """The same of levels that a solver chose: of two bytes, by columns, in a trellis."""
    _, _, codec, packed_bytes, raw_bytes, identity = PREFIX.unpack_from(data)
    at = PREFIX.size + CRC.size
    plain = json.loads(decode(codec_name(codec), data[at : at + packed_bytes], raw_bytes))
    at += packed_bytes
    streams = list[BytesIO]()
    for row in plain.pop("streams"):
        packed = data[at : at + row["packed_bytes"]]
        streams.append(BytesIO(decode(codec_name(row["codec"]), packed, row["raw_bytes"])))
        at += row["packed_bytes"]
    places = [row.pop("streams") for row in plain["tensors"]]
    sha, found = hashlib.sha256(dump(plain) + b"\n"), dict[str, Any]()
    for row, place in zip(plain["tensors"], places, strict=True):
        rows, cols = matrix_shape(row["shape"])
        kinds = row["values"], row["row_scale"], row["col_scale"]
        parts = list[Any]()
        for part_of, kind, count in zip(place, kinds, (rows * cols, rows, cols), strict=False):
            dtype = np.dtype(DTYPES[kind])
            part = streams[part_of].read(count * dtype.itemsize)
            sha.update(part)
            parts.append(np.frombuffer(part, dtype))
        values, row_scale, col_scale = (*parts, None, None)[:3]
        shape, trellis = tuple(row["shape"]), row["trellis"]
        levels = values.reshape(shape)
        tensor = Packed(row["name"], shape, levels, row_scale, col_scale, trellis)
        found[row["name"]] = dequantize(tensor)
    if sha.digest() != identity:
        raise ValueError("the artifact is not what was written")
    return found


ENCODERS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "raw": (0, bytes),
    "zlib": (1, lambda data: zlib.compress(data, 9)),
    "lzma": (2, lambda data: lzma.compress(data, lzma.FORMAT_RAW, filters=lzma_filters(len(data)))),
}


def plain_smallest(data: bytes, codecs: Iterable[str]) -> tuple[int, bytes]:
    """Of what the standard library has."""
    packed = [(ENCODERS[codec][0], ENCODERS[codec][1](data)) for codec in codecs]
    return min(packed, key=lambda pair: len(pair[1]))


def plain_codec_name(codec_id: int) -> str:
    return list(ENCODERS)[codec_id]


def plain_decode(codec: str, data: bytes, raw_bytes: int) -> bytes:
    if codec == "lzma":
        return lzma.decompress(data, lzma.FORMAT_RAW, filters=lzma_filters(raw_bytes))
    return zlib.decompress(data) if codec == "zlib" else data


@dataclass(frozen=True)
class Ledger:
    """Code and model together, the model as one."""

    model_bytes: int
    code_bytes: int

    @property
    def artifact_bytes(self) -> int:
        return self.code_bytes + self.model_bytes

    @property
    def margin_bytes(self) -> int:
        return CAP_BYTES - self.artifact_bytes

    @property
    def fits(self) -> bool:
        return self.margin_bytes >= 0


def ledger(model: bytes, code_bytes: int) -> Ledger:
    return Ledger(len(model), code_bytes)


def identity(artifact: Artifact) -> str:
    """sha256 of the header's JSON and all parts, in hex."""
    parts = [part.tobytes() for tensor in artifact.tensors for part in parts_of(tensor)]
    plain = plain_header(artifact.spec, artifact.tensors)
    return hashlib.sha256(b"".join([dump(plain), b"\n", *parts])).hexdigest()


def write(artifact: Artifact, codec: str) -> bytes:
    """The file, of the formats that quantize gives."""
    plain, body = plain_header(artifact.spec, artifact.tensors), b""
    runs: dict[tuple[bool, str], list[bytes]] = {}
    for tensor, row in zip(artifact.tensors, plain["tensors"], strict=True):
        row["streams"] = []
        for part in parts_of(tensor):
            kind = part is tensor.values, part.dtype.name
            runs.setdefault(kind, []).append(part.tobytes())
            row["streams"].append(list(runs).index(kind))
    plain["streams"] = []
    for run in runs.values():
        raw = b"".join(run)
        codec_id, packed = smallest(raw, (codec, "raw"))
        sizes = {"packed_bytes": len(packed), "raw_bytes": len(raw)}
        plain["streams"].append({"codec": codec_id, "crc32": zlib.crc32(packed), **sizes})
        body += packed
    return seal(dump(plain), identity(artifact), version_for(artifact.tensors)) + body


def version_for(tensors: tuple[Packed, ...]) -> int:
    return FIRST_VERSION + any(True for tensor in tensors if tensor.group_size)


def plain_header(spec: ModelSpec | None, tensors: tuple[Packed, ...]) -> dict[str, Any]:
    """With a model_spec that is a constant of the script."""
    return {
        "format_version": version_for(tensors),
        "model_spec": changed(spec),
        "solver": "rtn",
        "tensors": [
            {
                "name": tensor.name,
                "shape": tensor.shape,
                "values": "fp16" if tensor.row_scale is None else "int8",
                "row_scale": None if tensor.row_scale is None else "fp16",
                "col_scale": None,
                "trellis": 0,
                **({"group_size": tensor.group_size} if tensor.group_size else {}),
            }
            for tensor in tensors
        ],
    }


def header_of_rows(spec: ModelSpec, solver: str, rows: list[Row]) -> dict[str, Any]:
    """With a model_spec that is a constant of the script."""
    return {
        "format_version": version_of(rows),
        "model_spec": changed(spec),
        "solver": solver,
        "tensors": [row.plain() for row in rows],
    }


def parts_of(tensor: Packed) -> list[Any]:
    return [part for part in (tensor.values, tensor.row_scale) if part is not None]


class TextTokenizer:
    """A SentencePiece model for text as it is: what scoring asks of it."""

    marks_spaces = True
    transform: str | None = None

    def __init__(self, path: str) -> None:
        import sentencepiece

        model = Path(path).read_bytes()
        self.sha256 = hashlib.sha256(model).hexdigest()
        self._sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self._sp.get_piece_size()
        self.bos_id = self._sp.bos_id()
        self.unk_id = self._sp.unk_id()
        self._pieces = pieces_of(model)
        symbols = {piece.text for piece in self._pieces if piece.kind == "user_defined"}
        if symbols.issuperset(CONTROLS):
            raise ValueError("the tokenizer is for transformed text: make the bundle beside it")

    def encode_ids(self, text: str) -> list[int]:
        return list(self._sp.encode(text))

    def decode(self, ids: Ids) -> str:
        return str(self._sp.decode(np.asarray(ids).tolist()))

    def pieces(self) -> list[Piece]:
        return self._pieces


def open_bytes(path: str) -> ByteTokenizer:
    """The byte tokenizer, with or without its file."""
    file = Path(path)
    return ByteTokenizer(file.stem, file.read_bytes() if file.is_file() else b"")


def require_text(tokenizer: Any, allow_lossy: bool) -> str:
    """Raise ValueError for a tokenizer that loses text."""
    kinds = [piece.kind for piece in tokenizer.pieces()]
    if kinds.count("byte") < 256 or folded_letters(tokenizer):
        raise ValueError("the tokenizer is lossy")
    return ""


def check_table(table: ByteTable, tokenizer: Any, *, sidecar: bool) -> None:
    """Transformed text needs a sidecar; the rest is found by check_decoding."""
    if table.needs_sidecar and not sidecar:
        raise ValueError("private-use symbols mean transformed text, whose bytes a sidecar tells")


def check_decoding(
    table: ByteTable, tokenizer: Any, tokens: TokenStream, *, allow_unknown: bool
) -> None:
    """Raise ValueError unless every document's table count is the length of its decoded text."""
    pieces, whole = tokenizer.pieces(), tokens.slice(0, len(tokens))
    check_tokens(whole, len(pieces))
    # The last document may be cut inside a character.
    ends = np.array([p.kind != "byte" or int(p.text[3:5], 16) < 128 for p in pieces])
    whole = whole[: np.flatnonzero(ends[whole])[-1] + 1]
    starts = np.flatnonzero(whole == tokenizer.bos_id)
    if starts[0] > 0:
        raise ValueError("the validation split begins inside a document")
    for document in np.split(whole, starts[1:]):
        text = tokenizer.decode(document)
        counted = table.count_run(document).sum()
        unknown = (document == tokenizer.unk_id).any()
        spelled = tokenizer.marks_spaces and MARKER in text
        if unknown or spelled or counted != len(text.encode("utf-8")):
            raise ValueError("the table's bytes are not those of the decoded text")


def score(
    nats_of: NatsOf,
    validation: Validation,
    seq_len: int,
    batch: int,
    after: object = None,
    *,
    ranks: Ranks,
) -> Scored:
    """Every target of the split once, in windows that do not overlap; each rank takes its turn."""
    stream, tally = validation.stream, open_tally(validation, seq_len)
    last = len(stream) - 1
    windows = [Window(i, min(seq_len, last - i)) for i in range(0, last, seq_len)]
    groups = [windows[i : i + batch] for i in range(0, len(windows), batch)]
    for turn in range(0, len(groups), ranks.world_size):
        mine = groups[min(turn + ranks.rank, len(groups) - 1)]
        given = ranks.gather(nats_of(*fill(stream, mine, batch, seq_len)))
        for group, nats in zip(groups[turn : turn + ranks.world_size], given, strict=False):
            for row, window in enumerate(group):
                tally.add(window.first, nats[row, : window.count], *bytes_of(validation, window))
    return tally.result()
