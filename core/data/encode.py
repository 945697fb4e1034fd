"""Documents to what a split holds of them: tokens, bytes of tokens, counts. A pure function."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from core.data.documents import Block
from core.data.pieces import Tokenizer
from core.data.shards import Split, Tokens
from core.data.token_bytes import spill

COUNTED = ("documents", "tokens", "raw_bytes", "normalised_bytes", "changed_documents")
NOTHING = np.empty(0, np.uint16)


@dataclass(frozen=True)
class Texts:
    """Documents at hand."""

    held: list[str]
    read_bytes: int = 0

    @property
    def documents(self) -> int:
        return len(self.held)

    def texts(self) -> Iterator[str]:
        return iter(self.held)

    def checksum(self, before: int) -> int:
        return before


@dataclass(frozen=True)
class Run:
    """Tokens of whole documents; only the very first may lack its BOS."""

    tokens: Tokens
    documents: int
    read_bytes: int

    def checksum(self, before: int) -> int:
        return zlib.crc32(self.tokens.tobytes(), before)


Source = Block | Texts | Run


@dataclass(frozen=True)
class Work:
    """A source, and which of its documents are validation: the first `val`."""

    source: Source
    first: int  # its first document's number among all
    val: int
    sidecar: bool = True


@dataclass(frozen=True)
class Part:
    """What one split gains. Counts follow COUNTED; a digest is the SHA-256 of a document."""

    split: Split
    tokens: Tokens
    sidecar: Tokens
    counts: tuple[int, ...]
    digests: list[bytes]


def assigned(sources: Iterable[Source], val_docs: int) -> Iterator[Work]:
    """The first `val_docs` documents of all are validation."""
    first = 0
    for source in sources:
        documents = source.documents
        yield Work(source, first, min(max(val_docs - first, 0), documents))
        first += documents


def text_encoder(tokenizer: Tokenizer) -> Callable[[Work], list[Part]]:
    """Work whose source has texts."""

    def encode(work: Work) -> list[Part]:
        assert not isinstance(work.source, Run)
        return _parts(work, work.source.texts(), tokenizer)

    return encode


def run_encoder(old: Tokenizer, new: Tokenizer) -> Callable[[Work], list[Part]]:
    """Work whose source is a Run of the old tokenizer's tokens."""

    def encode(work: Work) -> list[Part]:
        assert isinstance(work.source, Run)
        return _parts(work, _decoded(work, old), new)

    return encode


def _decoded(work: Work, tokenizer: Tokenizer) -> Iterator[str]:
    assert isinstance(work.source, Run)
    tokens = work.source.tokens
    starts = np.union1d([0], np.flatnonzero(tokens == tokenizer.bos_id))
    for number, document in enumerate(np.split(tokens, starts[1:]), work.first):
        if (document == tokenizer.unk_id).any():
            raise ValueError(
                f"document {number} of the shards holds unknown text, which {tokenizer.name} "
                "cannot give back; tokenize the original documents"
            )
        yield tokenizer.decode(document)


def _parts(work: Work, texts: Iterator[str], tokenizer: Tokenizer) -> list[Part]:
    val, train = list(islice(texts, work.val)), list(texts)
    parts = []
    if val:
        parts.append(_part("val", val, tokenizer, work))
    if train:
        parts.append(_part("train", train, tokenizer, replace(work, sidecar=False)))
    return parts


def _part(split: Split, texts: list[str], tokenizer: Tokenizer, work: Work) -> Part:
    counts = np.zeros(len(COUNTED), np.int64)
    tokens: list[Tokens] = []
    sidecar: list[Tokens] = []
    digests = []
    for number, text in enumerate(texts, work.first):
        raw = text.encode("utf-8")
        if work.sidecar:
            ids, raw_bytes = _with_bytes(text, tokenizer, f"validation document {number}")
            sidecar.append(raw_bytes)
        else:
            ids = _after_bos(tokenizer.encode_ids(text), tokenizer)
        decoded = tokenizer.decode(ids)
        counts += (1, len(ids), len(raw), len(decoded.encode("utf-8")), int(decoded != text))
        tokens.append(ids)
        digests.append(hashlib.sha256(raw).digest())
    joined = np.concatenate(sidecar) if sidecar else NOTHING
    return Part(split, np.concatenate(tokens), joined, tuple(counts.tolist()), digests)


def _after_bos(ids: Tokens, tokenizer: Tokenizer) -> Tokens:
    return np.concatenate([np.array([tokenizer.bos_id], np.uint16), ids])


def _with_bytes(text: str, tokenizer: Tokenizer, where: str) -> tuple[Tokens, Tokens]:
    """A document's tokens and their sidecar; text without tokens puts its bytes on its BOS."""
    ids, raw_bytes = tokenizer.encode(text)
    bos_bytes = 0 if ids.size else len(text.encode("utf-8"))
    try:
        sidecar = spill(np.concatenate([np.array([bos_bytes], np.int64), raw_bytes]))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return _after_bos(ids, tokenizer), sidecar
