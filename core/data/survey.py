"""What a tokenizer makes of a text: bytes per token, what is lost, which pieces go unused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from core.data.decoding import check_decoding
from core.data.pieces import Kind, Tokenizer
from core.data.shards import TokenStream
from core.data.token_bytes import byte_table, check_table

AROUND = 20  # characters shown before and behind a difference
NAMED = 20


@dataclass
class Survey:
    """Sums over documents; tokens are without BOS."""

    documents: int = 0
    text_bytes: int = 0
    decoded_bytes: int = 0  # of what comes back; the same, where nothing is lost
    tokens: int = 0
    lost_documents: int = 0  # not what they were after encoding and decoding
    first_lost: dict[str, int | str] | None = None
    uncounted: str = ""  # why the byte table fails on this text, if it does
    used: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # times, by id

    @property
    def bytes_per_token(self) -> float:
        return self.text_bytes / max(self.tokens, 1)

    @property
    def tokens_per_document(self) -> float:
        return self.tokens / max(self.documents, 1)


def survey(tokenizer: Tokenizer, documents: Iterable[str]) -> Survey:
    """Encode and decode every document, one at a time."""
    found = Survey(used=np.zeros(tokenizer.vocab_size, np.int64))
    table = byte_table(tokenizer)
    for text in documents:
        ids = tokenizer.encode_ids(text)
        decoded = tokenizer.decode(ids)
        if decoded != text:
            found.lost_documents += 1
            found.first_lost = found.first_lost or _difference(found.documents, text, decoded)
        if not found.uncounted:
            document = np.concatenate([np.array([tokenizer.bos_id], np.uint16), ids])
            try:
                check_decoding(table, tokenizer, TokenStream([document]))
            except ValueError as error:
                found.uncounted = f"number {found.documents} of the text: {error}"
        found.documents += 1
        found.text_bytes += len(text.encode("utf-8"))
        found.decoded_bytes += len(decoded.encode("utf-8"))
        found.tokens += len(ids)
        found.used += np.bincount(ids, minlength=tokenizer.vocab_size)
    return found


def kinds(tokenizer: Tokenizer) -> dict[Kind, int]:
    return dict(Counter(piece.kind for piece in tokenizer.pieces()))


def unused(tokenizer: Tokenizer, found: Survey) -> list[str]:
    """Ordinary pieces that the text never needed, by id; byte pieces are there for other text."""
    pieces = tokenizer.pieces()
    ordinary = ("normal", "user_defined")
    return [pieces[i].text for i in np.flatnonzero(found.used == 0) if pieces[i].kind in ordinary]


def why_inexact(tokenizer: Tokenizer) -> str:
    """Why bytes cannot be counted with this tokenizer's table; nothing if they can."""
    try:
        check_table(byte_table(tokenizer), tokenizer)
    except ValueError as error:
        return str(error)
    return ""


def _difference(number: int, text: str, decoded: str) -> dict[str, int | str]:
    """Where two texts part, with what stands around it."""
    pairs = enumerate(zip(text, decoded, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(text), len(decoded)))
    window = slice(max(at - AROUND, 0), at + AROUND)
    return {"document": number, "at": at, "text": text[window], "decoded": decoded[window]}
