"""What kind of data a file holds, by its first bytes before its name; nothing is unpacked whole."""

from __future__ import annotations

import zlib

SHARD_MAGIC = (20240520).to_bytes(4, "little")
START_BYTES = 4096  # of a file that are looked at
LARGE_PICTURE = 1_000_000  # bytes
LARGE_BINARY = 65_536  # bytes of no known kind that nobody reads
DATA_SUFFIXES = {
    *(".pt", ".pth", ".ptz", ".bin", ".safetensors", ".npz", ".npy", ".ckpt", ".pkl", ".pickle"),
    *(".onnx", ".gguf", ".zip", ".tar", ".gz", ".xz", ".zst", ".br", ".7z", ".parquet", ".jsonl"),
}
DATA_STARTS = {  # how files of weights and archives begin
    SHARD_MAGIC: "a shard of tokens",
    b"GOLF": "an artifact of this toolkit",
    b"PK\x03\x04": "a zip file, as torch.save writes",
    b"\x1f\x8b": "a gzip file",
    b"\xfd7zXZ": "an xz file",
    b"\x5d\0\0": "an lzma file",
    b"BZh": "a bzip2 file",
    b"7z\xbc\xaf": "a 7z file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"\x93NUMPY": "a numpy array",
    b"\x89HDF": "an HDF5 file",
    b"GGUF": "a GGUF model",
    b"PAR1": "a Parquet file",
    b"BSHF": "a packed model",
    b"PGRP": "a packed model",
}
PICTURES = {  # by suffix, how they begin
    ".png": b"\x89PNG",
    ".jpg": b"\xff\xd8\xff",
    ".jpeg": b"\xff\xd8\xff",
    ".gif": b"GIF8",
    ".pdf": b"%PDF",
}
TEXTS = {".md", ".rst", ".log", ".csv", ".tsv", ".svg", ".txt", ".json", ".yaml", ".yml", ".toml"}
_ZLIB_STARTS = {b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x58\x85", b"\x68\x81"}


def data_kind(name: str, suffix: str, size: int, start: bytes, end: bytes) -> str:
    """What a file of weights, tokens or an archive is, by its content or its name, or nothing."""
    for mark, what in DATA_STARTS.items():
        if start.startswith(mark):
            return what
    if start[257:262] == b"ustar":
        return "a tar file"
    if _is_pickle(start, end):
        return "a pickle"
    if _is_zlib(start):
        return "a zlib stream"
    if _is_safetensors(start, size):
        return "a safetensors file"
    if name.startswith(("fineweb_train_", "fineweb_val_")):
        return "a shard by its name"
    return f"data by its suffix {suffix}" if suffix in DATA_SUFFIXES else ""


def is_text(start: bytes) -> bool:
    """Whether the first bytes are of a text; a character may be cut at their end."""
    if b"\0" in start:
        return start.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4 and len(start) >= START_BYTES
    return True


def is_picture(suffix: str, start: bytes) -> bool:
    return suffix in PICTURES and start.startswith(PICTURES[suffix])


def odd_kind(suffix: str, size: int, start: bytes) -> str:
    """Why a file is not what its name says, or not what readers read; nothing where it is."""
    if suffix in PICTURES:
        return "" if is_picture(suffix, start) else f"no picture, although it ends in {suffix}"
    if suffix in TEXTS and not is_text(start):
        return f"no text, although it ends in {suffix}"
    if size >= LARGE_BINARY and not is_text(start):
        return "binary, of no known kind"
    return ""


def _is_pickle(start: bytes, end: bytes) -> bool:
    return len(start) > 4 and start[0] == 0x80 and start[1] in range(2, 6) and end.endswith(b".")


def _is_zlib(start: bytes) -> bool:
    if start[:2] not in _ZLIB_STARTS:
        return False
    try:
        return len(zlib.decompressobj().decompress(start, 64)) > 0
    except zlib.error:
        return False


def _is_safetensors(start: bytes, size: int) -> bool:
    """Eight bytes of a length, and that much JSON, of which the start is here."""
    length = int.from_bytes(start[:8], "little")
    if not 2 <= length <= size - 8 or start[8:9] != b"{":
        return False
    return b'"dtype"' in start or b'"__metadata__"' in start
