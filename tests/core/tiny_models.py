"""SentencePiece models small enough to train inside a test, and one edited byte by byte."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from core.data.shards import Tokens, TokenStream
from core.data.tokenizer import SentencePieceTokenizer, train_tokenizer

WORDS = "the cat of a house and its door in some time that was as light to read with all of them"
CORPUS = tuple(
    " ".join(WORDS.split()[(i * k) % 20] for i in range(30)) + ".\n  In the end,\t of the 1984 é."
    for k in range(1, 40)
)
VOCAB_SIZE = 380
KEEP = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}


@cache
def _trained(settings: tuple[tuple[str, Any], ...]) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.model"
        options: dict[str, Any] = {"vocab_size": VOCAB_SIZE, **dict(settings)}
        train_tokenizer(CORPUS, options.pop("vocab_size"), path, **options)
        return path.read_bytes()


def tiny(**settings: Any) -> SentencePieceTokenizer:
    return SentencePieceTokenizer("tiny", _trained(tuple(sorted(settings.items()))))


def edited(old: bytes, new: bytes, **settings: Any) -> SentencePieceTokenizer:
    """A tiny model with one byte string, found exactly once, replaced by another as long."""
    model = _trained(tuple(sorted(settings.items())))
    assert model.count(old) == 1 and len(old) == len(new), model.count(old)
    return SentencePieceTokenizer("edited", model.replace(old, new))


def without_marker() -> SentencePieceTokenizer:
    """No U+2581 piece: its entry (field 1, 3 bytes, then the score) now reads U+2582."""
    return edited(b"\n\x03\xe2\x96\x81\x15", b"\n\x03\xe2\x96\x82\x15")


def with_unused() -> SentencePieceTokenizer:
    """The piece of EOS, a control piece (type 3), turned into an unused one (type 5)."""
    head = b"\n\x04</s>\x15\x00\x00\x00\x00\x18"
    return edited(head + b"\x03", head + b"\x05")


def stream(tokenizer: SentencePieceTokenizer, *documents: str) -> TokenStream:
    """BOS and tokens of every document, as a shard holds them."""
    bos = np.array([tokenizer.bos_id], np.uint16)
    parts: list[Tokens] = []
    for text in documents:
        parts += [bos, tokenizer.encode_ids(text)]
    return TokenStream([np.concatenate(parts)])
