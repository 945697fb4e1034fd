"""How many bytes a token stands for, exactly or not at all.

The table counts as the leaderboard does: bytes of the decoded text, a space given to the token
that begins with it unless a document has just begun. Where a tokenizer's own decoding disagrees,
the table is refused: a wrong count moves the score and nothing else shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.data.segments import segments
from core.data.shards import Tokens, TokenStream
from core.data.tokenizer import Piece, SentencePieceTokenizer

MARKER = "\u2581"  # SentencePiece's sign for a space; an escape, so that no encoding can eat it
LARGEST = 65_535  # of one sidecar entry
_SILENT = ("control", "unknown", "unused")
_ORDINARY = ("normal", "user_defined")
_NAMED = 5  # pieces that a message lists

Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ByteTable:
    """The reference tables, one entry a piece (V,)."""

    base_bytes: Counts  # UTF-8 bytes without the leading space
    leading_space: Flags  # begins with a space
    boundary: Flags  # a space after this piece is not text
    markers: tuple[str, ...] = ()  # private-use symbols: the text was transformed before encoding

    @property
    def needs_sidecar(self) -> bool:
        """Only a sidecar knows the original bytes: the table would count the markers too."""
        return bool(self.markers)

    def count(self, previous: Tokens, targets: Tokens) -> Counts:
        """Bytes of each target, given the token before it; any shape."""
        spaces = self.leading_space[targets] & ~self.boundary[previous]
        return self.base_bytes[targets] + spaces


def byte_table(tokenizer: SentencePieceTokenizer) -> ByteTable:
    """Control, unknown and unused pieces: 0 and a boundary. Byte pieces: 1. Others: their text."""
    pieces = tokenizer.pieces()
    return ByteTable(
        base_bytes=np.array([_own_bytes(piece) for piece in pieces], np.int64),
        leading_space=np.array([_is_spaced(piece) for piece in pieces], np.bool_),
        boundary=np.array([piece.kind in _SILENT for piece in pieces], np.bool_),
        markers=tuple(piece.text for piece in pieces if _is_private(piece)),
    )


def spill(raw_bytes: Counts) -> Tokens:
    """One document's sidecar, BOS first; what exceeds 65,535 goes to its next tokens."""
    if raw_bytes.max(initial=0) <= LARGEST:
        return raw_bytes.astype(np.uint16)
    held, carried = np.empty(raw_bytes.shape, np.uint16), 0
    for i, count in enumerate(raw_bytes.tolist()):
        carried += count
        held[i] = min(carried, LARGEST)
        carried -= min(carried, LARGEST)
    if carried:
        raise ValueError(
            f"a document of {raw_bytes.sum()} bytes in {len(raw_bytes)} tokens ends with {carried} "
            f"bytes more than its last tokens can hold at {LARGEST} each; shorten its run of blanks"
        )
    return held


def check_table(
    table: ByteTable, tokenizer: SentencePieceTokenizer, *, sidecar: bool = False
) -> None:
    """Raise ValueError unless every piece counts what it decodes to after an ordinary piece.

    `sidecar`: the original bytes are at hand, so private-use symbols may pass.
    """
    pieces = tokenizer.pieces()
    if len(table.base_bytes) != len(pieces):
        raise ValueError(
            f"{tokenizer.name}: the byte table has {len(table.base_bytes)} entries, the tokenizer "
            f"{len(pieces)} pieces; they do not belong together"
        )
    if table.needs_sidecar and not sidecar:
        why = "private-use symbols mean transformed text, whose bytes only a sidecar tells:"
        raise _refusal(tokenizer, why, [repr(marker) for marker in table.markers])
    _check_marker(table, tokenizer)
    _check_kinds(table, tokenizer)
    _check_text(table, tokenizer)


def _check_marker(table: ByteTable, tokenizer: SentencePieceTokenizer) -> None:
    pieces = tokenizer.pieces()
    if not table.leading_space.any():
        raise _refusal(tokenizer, "no piece begins with the space marker U+2581", [])
    if not any(piece.text == MARKER and piece.kind in _ORDINARY for piece in pieces):
        why = "U+2581 is no piece by itself, so a lone space becomes three byte pieces"
        raise _refusal(tokenizer, why, [])
    flags = np.array([_is_spaced(piece) for piece in pieces])
    _refuse_where(
        flags != table.leading_space, tokenizer, "the leading space is flagged wrongly in"
    )


def _check_kinds(table: ByteTable, tokenizer: SentencePieceTokenizer) -> None:
    kinds = np.array([piece.kind for piece in tokenizer.pieces()])
    silent, wordless = np.isin(kinds, _SILENT), "control, unknown and unused pieces"
    rules = (
        (silent & (table.base_bytes != 0), f"{wordless} stand for 0 bytes, not so"),
        (silent != table.boundary, f"{wordless}, no others, are boundaries, not so"),
        ((kinds == "byte") & (table.base_bytes != 1), "a byte piece stands for 1 byte, not so"),
    )
    for wrong, why in rules:
        _refuse_where(wrong, tokenizer, why)


def _check_text(table: ByteTable, tokenizer: SentencePieceTokenizer) -> None:
    """Each ordinary piece against the tokenizer's own decoding of it behind an ordinary piece."""
    pieces = tokenizer.pieces()
    before = next((i for i, p in enumerate(pieces) if _is_anchor(p) and MARKER not in p.text), None)
    if before is None:
        raise _refusal(tokenizer, "no ordinary piece without U+2581 in it", [])
    ids = [i for i, piece in enumerate(pieces) if piece.kind in _ORDINARY]
    alone = _utf8(tokenizer, [before])
    decoded = np.array([_utf8(tokenizer, [before, i]) - alone for i in ids])
    counted = table.count(np.full(len(ids), before, np.uint16), np.array(ids, np.uint16))
    named = [
        f"{pieces[i].text!r} (counts {count}, decodes to {length})"
        for i, count, length in zip(ids, counted.tolist(), decoded.tolist(), strict=True)
        if count != length
    ]
    if named:
        raise _refusal(tokenizer, "the table's bytes are not those of the decoded text in", named)


def check_decoding(
    table: ByteTable,
    tokenizer: SentencePieceTokenizer,
    tokens: TokenStream,
    *,
    block_tokens: int = 1 << 20,
) -> None:
    """Raise ValueError unless every document's table count is the length of its decoded text.

    Memory holds a few blocks, however long the data. The last document may be cut inside a
    character: byte pieces at its end are left out.
    """
    pieces = tokenizer.pieces()
    is_byte = np.array([piece.kind == "byte" for piece in pieces])
    anchors = np.array([_is_anchor(piece) for piece in pieces])
    seen = 0
    for run, last in segments(tokens, tokenizer.bos_id, anchors, block_tokens):
        if last:
            text = np.flatnonzero(~is_byte[run])
            run = run[: text[-1] + 1]  # there is one: the first
        _check_run(table, tokenizer, run, seen)
        seen += int((run == tokenizer.bos_id).sum())


def _check_run(table: ByteTable, tokenizer: SentencePieceTokenizer, run: Tokens, seen: int) -> None:
    """Documents; the first may be the rest of one, behind a token that is not counted again."""
    starts = np.union1d([0], np.flatnonzero(run == tokenizer.bos_id))
    counts = np.zeros(len(run), np.int64)
    counts[1:] = table.count(run[:-1], run[1:])
    sums = np.add.reduceat(counts, starts).tolist()
    first = seen - int(run[0] != tokenizer.bos_id)
    for i, document in enumerate(np.split(run, starts[1:])):
        why = _disagreement(tokenizer, document, sums[i])
        if why:
            named = _culprits(table, tokenizer, document)
            raise _refusal(tokenizer, f"document {max(first + i, 0)}: {why}; it parts at", named)


def _disagreement(tokenizer: SentencePieceTokenizer, document: Tokens, counted: int) -> str:
    if (document == tokenizer.unk_id).any():
        return "it holds unknown text, whose bytes are lost"
    text = tokenizer.decode(document)
    decoded = len(text.encode("utf-8"))
    if document[0] != tokenizer.bos_id:
        decoded -= _utf8(tokenizer, document[:1])
    if counted != decoded:
        return f"the table counts {counted} bytes, the decoded text has {decoded}"
    if MARKER in text:
        return "a space is spelled in byte pieces (U+2581), 3 bytes for 1"
    return ""


def _culprits(table: ByteTable, tokenizer: SentencePieceTokenizer, document: Tokens) -> list[str]:
    """The pieces up to where table and decoding part, found by halving."""
    pieces = tokenizer.pieces()
    ends = [i + 1 for i, t in enumerate(document.tolist()) if pieces[t].kind != "byte"]
    ends += [len(document)]
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        part = document[: ends[middle]]
        agrees = not _disagreement(tokenizer, part, int(table.count(part[:-1], part[1:]).sum()))
        low, high = (middle + 1, high) if agrees else (low, middle)
    return [repr(pieces[t].text) for t in document[max(ends[low] - 4, 0) : ends[low]].tolist()]


def _own_bytes(piece: Piece) -> int:
    if piece.kind in _SILENT:
        return 0
    return 1 if piece.kind == "byte" else len(piece.text.removeprefix(MARKER).encode("utf-8"))


def _is_spaced(piece: Piece) -> bool:
    return piece.kind in _ORDINARY and piece.text.startswith(MARKER)


def _is_anchor(piece: Piece) -> bool:
    """Text that decodes to something wherever it stands."""
    return piece.kind == "normal" and piece.text.strip(MARKER + " ") != ""


def _is_private(piece: Piece) -> bool:
    areas = ((0xE000, 0xF8FF), (0xF0000, 0xFFFFD), (0x100000, 0x10FFFD))
    return piece.kind == "user_defined" and any(
        low <= ord(letter) <= high for letter in piece.text for low, high in areas
    )


def _utf8(tokenizer: SentencePieceTokenizer, ids: Sequence[int] | Tokens) -> int:
    return len(tokenizer.decode(ids).encode("utf-8"))


def _refuse_where(wrong: Flags, tokenizer: SentencePieceTokenizer, why: str) -> None:
    if wrong.any():
        pieces = tokenizer.pieces()
        raise _refusal(tokenizer, why, [repr(pieces[i].text) for i in np.flatnonzero(wrong)])


def _refusal(tokenizer: SentencePieceTokenizer, why: str, named: Sequence[str]) -> ValueError:
    rest = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    listed = f" {len(named)} pieces: " + ", ".join(named[:_NAMED]) + rest if named else ""
    return ValueError(
        f"{tokenizer.name}: bytes cannot be counted: {why}{listed}; "
        "choose or train a tokenizer with the task's settings (`golf tokenizer train`)"
    )
