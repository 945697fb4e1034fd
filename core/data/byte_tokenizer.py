"""byte260: four special ids, then one for every byte; nothing to train and nothing to lose."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

from core.data.pieces import Ids, Piece, Tokenizer

BYTE260 = "byte260"
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
FIRST_BYTE = len(SPECIALS)
CONFIG = {
    "pad_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "unk_id": 3,
    "byte_offset": FIRST_BYTE,
    "byte_count": 256,
}
KIND = "pure_byte"
LARGEST_FILE_BYTES = 1 << 16


class ByteTokenizer(Tokenizer):
    """The task's variant of this name; its file is JSON with `tokenizer_type` pure_byte."""

    marks_spaces = False

    def __init__(self, name: str = BYTE260, model: bytes = b"") -> None:
        """`model`: the file; none is needed. Its hash is that of the content, however spaced."""
        if model:
            _check(name, model)
        self.name = name
        self.model = canonical_file()
        self.sha256 = hashlib.sha256(self.model).hexdigest()
        self.vocab_size = FIRST_BYTE + 256
        self.bos_id, self.unk_id = CONFIG["bos_id"], CONFIG["unk_id"]

    def encode(self, text: str) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        ids = self.encode_ids(text)
        return ids, np.ones(len(ids), np.int64)

    def encode_ids(self, text: str) -> NDArray[np.uint16]:
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.uint16) + FIRST_BYTE

    def decode(self, ids: Ids) -> str:
        """Bytes that are no UTF-8 become U+FFFD."""
        found = np.asarray(ids, np.int64)
        held = found[found >= FIRST_BYTE] - FIRST_BYTE
        return held.astype(np.uint8).tobytes().decode("utf-8", errors="replace")

    def pieces(self) -> list[Piece]:
        controls = [Piece(text, "control") for text in SPECIALS[:-1]]
        unknown = Piece(SPECIALS[-1], "unknown")
        return [*controls, unknown, *(Piece(f"<0x{byte:02X}>", "byte") for byte in range(256))]


def canonical_file() -> bytes:
    """The file as the task's exporter writes it."""
    fields = {"tokenizer_type": KIND, "config": CONFIG, "vocab_size": FIRST_BYTE + 256}
    return (json.dumps(fields, indent=2, sort_keys=True) + "\n").encode()


def _check(name: str, model: bytes) -> None:
    """Raise ValueError unless the file says what canonical_file says."""
    try:
        if len(model) > LARGEST_FILE_BYTES:
            raise ValueError(f"{len(model)} bytes, at most {LARGEST_FILE_BYTES}")
        fields = json.loads(model)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: not the JSON of a tokenizer ({error})") from None
    kind = fields.get("tokenizer_type") if isinstance(fields, dict) else None
    if kind != KIND:
        raise ValueError(f"{name}: tokenizer_type {kind!r:.60}, expected {KIND!r} or a .model file")
    for key, expected in (("config", CONFIG), ("vocab_size", FIRST_BYTE + 256)):
        if fields.get(key, expected) != expected:
            raise ValueError(
                f"{name}: {key} {fields[key]!r:.200}, but byte260 has {expected!r}; "
                "name it `byte260` to use the task's layout"
            )
