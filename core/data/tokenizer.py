"""SentencePiece and its training; and whatever file is a tokenizer, opened as what it is."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.data.byte_tokenizer import BYTE260, ByteTokenizer
from core.data.case import CONTROLS, encode_case
from core.data.case_tokenizer import CaseTokenizer, has_controls
from core.data.pieces import Ids, Kind, Piece, Tokenizer

_KINDS: tuple[Kind, ...] = ("normal", "unknown", "control", "user_defined", "unused", "byte")

# What the task's tokenizers were trained with. SentencePiece would drop longer "sentences" than
# 4192 bytes without a word; a document is one sentence here, so the limit is out of reach.
TRAINER_SETTINGS: dict[str, Any] = {
    "model_type": "bpe",
    "byte_fallback": True,
    "split_digits": True,
    "normalization_rule_name": "nmt_nfkc",
    "add_dummy_prefix": False,
    "character_coverage": 0.999,
    "pad_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "unk_id": 3,
    "hard_vocab_limit": False,
    "max_sentence_length": 2**30,
}
# What SentencePiece leaves a text as it is with; the task's settings do not.
LOSSLESS_SETTINGS: dict[str, Any] = {
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
}
# A training sentence with U+0000 or U+2585 (the trainer's own mark) would be dropped whole.
_RESERVED = str.maketrans("\0\u2585", "  ")


class SentencePieceTokenizer(Tokenizer):
    """A trained model: `name` for people, `sha256` of its bytes for machines."""

    def __init__(self, name: str, model: bytes) -> None:
        self.name = name
        self.sha256 = hashlib.sha256(model).hexdigest()
        self.model = model
        self._sp = _load(name, model)
        self.vocab_size: int = self._sp.get_piece_size()
        self.bos_id: int = self._sp.bos_id()
        self.unk_id: int = self._sp.unk_id()
        if self.bos_id < 0:
            raise ValueError(f"{name}: no BOS piece; a shard starts every document with one")
        if self.vocab_size > 65_536:
            raise ValueError(f"{name}: {self.vocab_size} pieces; a shard's token is 16 bits")

    def encode(self, text: str) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        """Text that normalization strips from the ends goes to the first or last token, a fused
        character to the token completing it.
        """
        found = self._sp.encode(text, return_type="offset_mapping", return_bytes=True)
        ids = np.array(found["ids"], np.uint16)
        ends = np.array([end for _, end in found["offsets"]], np.int64)
        ends[-1:] = len(text.encode("utf-8"))
        return ids, np.diff(np.maximum.accumulate(ends), prepend=0)

    def encode_ids(self, text: str) -> NDArray[np.uint16]:
        """Ids (N,) alone: twice as fast."""
        return np.array(self._sp.encode(text), np.uint16)

    def decode(self, ids: Ids) -> str:
        text: str = self._sp.decode(np.asarray(ids).tolist())
        return text

    def pieces(self) -> list[Piece]:
        return self._pieces

    @cached_property
    def _pieces(self) -> list[Piece]:
        return pieces_of(self.model)


def open_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a file, by its content; `byte260` where there is no such file needs none."""
    path = Path(path)
    if path.is_file():
        return tokenizer_of(path.stem, path.read_bytes())
    if str(path) == BYTE260:
        return ByteTokenizer()
    raise ValueError(
        f"{path}: no such tokenizer; make one with `golf tokenizer train`, fetch the task's with "
        f"`golf data get`, or name {BYTE260}"
    )


def tokenizer_of(name: str, content: bytes) -> Tokenizer:
    """JSON is the byte tokenizer's; else a SentencePiece model.

    A model with the four controls is for transformed text alone, so nobody has to say it: a flag
    that is forgotten once gives wrong bytes.
    """
    if content.startswith(b"{"):
        return ByteTokenizer(name, content)
    model = SentencePieceTokenizer(name, content)
    return CaseTokenizer(model) if has_controls(model) else model


def train_case_tokenizer(
    documents: Iterable[str], vocab_size: int, model_path: Path, **settings: Any
) -> CaseTokenizer:
    """`train_tokenizer` on the transformed documents, with the controls as ids 4 to 7."""
    encoded = (encode_case(text) for text in documents)
    options = {"user_defined_symbols": list(CONTROLS), **settings}
    return CaseTokenizer(train_tokenizer(encoded, vocab_size, model_path, **options))


def train_tokenizer(
    documents: Iterable[str], vocab_size: int, model_path: Path, **settings: Any
) -> SentencePieceTokenizer:
    """Train a model on every document, whole, and write it at once.

    `settings` replace the task's. The same documents give the same bytes, whatever the number of
    cores. Too little text for `vocab_size` pieces gives fewer: read it from the result.
    """
    failures: list[BaseException] = []
    model = io.BytesIO()
    options = {**TRAINER_SETTINGS, "vocab_size": vocab_size, "minloglevel": 2, **settings}
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=_feed(documents, failures), model_writer=model, **options
        )
    except RuntimeError as error:
        if failures:  # the trainer hides what a reader of documents raised
            raise failures[0] from None
        raise ValueError(f"no tokenizer of {vocab_size} pieces: {_hint(error)}") from None
    tokenizer = SentencePieceTokenizer(model_path.stem, model.getvalue())
    model_path.parent.mkdir(parents=True, exist_ok=True)
    partial = model_path.with_name(model_path.name + ".partial")
    partial.write_bytes(model.getvalue())
    partial.replace(model_path)
    return tokenizer


def _feed(documents: Iterable[str], failures: list[BaseException]) -> Iterator[str]:
    try:
        for text in documents:
            yield text.translate(_RESERVED)
    except BaseException as error:
        failures.append(error)
        raise


def _hint(error: RuntimeError) -> str:
    said = str(error)
    if "required_chars" in said:
        return f"more are needed for bytes and characters alone ({said.split('] ')[-1].strip()})"
    if "sentences_.empty" in said or "all_chars_count" in said:
        return "the documents hold no text"
    return said


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError:
        raise ValueError("sentencepiece is missing; `pip install sentencepiece`") from None
    return sentencepiece


def _load(name: str, model: bytes) -> Any:
    library = _sentencepiece()
    if not hasattr(library.SentencePieceProcessor, "EncodeAsOffsetMapping"):
        raise ValueError(
            f"sentencepiece {library.__version__} tells no byte offsets; "
            "`pip install 'sentencepiece>=0.2.3'`"
        )
    try:
        processor = library.SentencePieceProcessor(model_proto=model) if model else None
    except RuntimeError:
        processor = None
    if processor is None or processor.get_piece_size() == 0:
        raise ValueError(f"{name}: not a SentencePiece model ({len(model)} bytes)")
    return processor


def pieces_of(model: bytes) -> list[Piece]:
    """The vocabulary in a model's file."""
    return [_piece(value) for number, value in _fields(model) if number == 1]


def _piece(message: bytes | int) -> Piece:
    """One SentencePiece message of sentencepiece_model.proto: 1 is the text, 3 the kind."""
    assert isinstance(message, bytes)
    fields = dict(_fields(message))
    text, kind = fields.get(1, b""), fields.get(3, 1)
    assert isinstance(text, bytes)
    assert isinstance(kind, int)
    return Piece(text.decode("utf-8"), _KINDS[kind - 1])


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """(field number, value) of a protobuf message that SentencePiece has already accepted."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value: bytes | int
        if key & 7 == 0:
            value, at = _varint(message, at)
        else:
            size, at = _varint(message, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
            value, at = message[at : at + size], at + size
        yield key >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
