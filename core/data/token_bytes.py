"""How many bytes a token stands for, exactly or not at all.

The table counts as the leaderboard does: bytes of the decoded text, a space given to the token
that begins with it unless a document has just begun. Where a tokenizer's own decoding disagrees,
the table is refused: a wrong count moves the score and nothing else shows it. Of case-transformed
text it counts the bytes before the transform.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.data.case import CONTROL_BYTES, CONTROLS, ESCAPE
from core.data.pieces import Ids, Piece, Tokenizer
from core.data.shards import Tokens

MARKER = "\u2581"  # SentencePiece's sign for a space; an escape, so that no encoding can eat it
LARGEST = 65_535  # of one sidecar entry
ADVICE = "choose or train a tokenizer with the task's settings (`golf tokenizer train`)"
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
    controls: tuple[int, ...] = ()  # of them the ids of the case transform, if it was that one
    escape: int = -1  # and which one makes a literal of the next

    @property
    def needs_sidecar(self) -> bool:
        """The token before does not tell whether a marker is text."""
        return bool(self.markers)

    def count(self, previous: Tokens, targets: Tokens) -> Counts:
        """Bytes of each target, given the token before it; any shape."""
        spaces = self.leading_space[targets] & ~self.boundary[previous]
        return self.base_bytes[targets] + spaces

    def count_run(self, tokens: Tokens) -> Counts:
        """Bytes of each of consecutive tokens but the first (N,) -> (N - 1,), literals and all."""
        counts = self.count(tokens[:-1], tokens[1:])
        if self.controls and (tokens == self.escape).any():
            is_literal = _escapes(tokens == self.escape)[:-1] & np.isin(tokens[1:], self.controls)
            counts[is_literal] = CONTROL_BYTES
        return counts

    def context(self, tokens: Tokens) -> Tokens:
        """The end of a run, as far as the count of what follows depends on it."""
        others = np.flatnonzero(tokens != self.escape)
        return tokens[others[-1] :] if others.size else tokens


def byte_table(tokenizer: Tokenizer) -> ByteTable:
    """Control, unknown and unused pieces: 0 and a boundary. Byte pieces: 1. Others: their text.

    A control piece is no boundary where the tokenizer gives the first space of a text back.
    """
    pieces = tokenizer.pieces()
    is_case = tokenizer.transform is not None
    controls = tuple(i for i, piece in enumerate(pieces) if is_case and piece.text in CONTROLS)
    base_bytes = np.array([_own_bytes(piece) for piece in pieces], np.int64)
    if is_case:
        base_bytes[list(controls)] = 0
    return ByteTable(
        base_bytes=base_bytes,
        leading_space=np.array([_is_spaced(piece) for piece in pieces], np.bool_),
        boundary=_boundaries(tokenizer),
        markers=tuple(piece.text for piece in pieces if _is_private(piece)),
        controls=controls,
        escape=next((i for i in controls if pieces[i].text == ESCAPE), -1),
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


def check_table(table: ByteTable, tokenizer: Tokenizer, *, sidecar: bool = False) -> None:
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
        advice = "tokenize the documents with `golf data tokenize`, which writes one"
        raise refusal(tokenizer, why, [repr(marker) for marker in table.markers], advice)
    _check_kinds(table, tokenizer)
    if any(piece.kind in _ORDINARY for piece in pieces):
        _check_marker(table, tokenizer)
        _check_text(table, tokenizer)


def _check_marker(table: ByteTable, tokenizer: Tokenizer) -> None:
    pieces = tokenizer.pieces()
    if not table.leading_space.any():
        raise refusal(tokenizer, "no piece begins with the space marker U+2581", [])
    if not any(piece.text == MARKER and piece.kind in _ORDINARY for piece in pieces):
        why = "U+2581 is no piece by itself, so a lone space becomes three byte pieces"
        raise refusal(tokenizer, why, [])
    flags = np.array([_is_spaced(piece) for piece in pieces])
    _refuse_where(
        flags != table.leading_space, tokenizer, "the leading space is flagged wrongly in"
    )


def _check_kinds(table: ByteTable, tokenizer: Tokenizer) -> None:
    kinds = np.array([piece.kind for piece in tokenizer.pieces()])
    silent, wordless = np.isin(kinds, _SILENT), "control, unknown and unused pieces"
    limits = _boundaries(tokenizer)
    rules = (
        (silent & (table.base_bytes != 0), f"{wordless} stand for 0 bytes, not so"),
        (limits != table.boundary, f"{wordless}, no others, are boundaries, not so"),
        ((kinds == "byte") & (table.base_bytes != 1), "a byte piece stands for 1 byte, not so"),
    )
    for wrong, why in rules:
        _refuse_where(wrong, tokenizer, why)


def _check_text(table: ByteTable, tokenizer: Tokenizer) -> None:
    """Each ordinary piece against the tokenizer's own decoding of it behind an ordinary piece."""
    pieces = tokenizer.pieces()
    before = next((i for i, p in enumerate(pieces) if is_anchor(p) and MARKER not in p.text), None)
    if before is None:
        raise refusal(tokenizer, "no ordinary piece without U+2581 in it", [])
    ids = [i for i, piece in enumerate(pieces) if piece.kind in _ORDINARY]
    alone = utf8_length(tokenizer, [before])
    decoded = np.array([utf8_length(tokenizer, [before, i]) - alone for i in ids])
    counted = table.count(np.full(len(ids), before, np.uint16), np.array(ids, np.uint16))
    named = [
        f"{pieces[i].text!r} (counts {count}, decodes to {length})"
        for i, count, length in zip(ids, counted.tolist(), decoded.tolist(), strict=True)
        if count != length
    ]
    if named:
        raise refusal(tokenizer, "the table's bytes are not those of the decoded text in", named)


def _own_bytes(piece: Piece) -> int:
    if piece.kind in _SILENT:
        return 0
    return 1 if piece.kind == "byte" else len(piece.text.removeprefix(MARKER).encode("utf-8"))


def _is_spaced(piece: Piece) -> bool:
    return piece.kind in _ORDINARY and piece.text.startswith(MARKER)


def is_anchor(piece: Piece) -> bool:
    """Text that decodes to something wherever it stands."""
    return piece.kind == "normal" and piece.text.strip(MARKER + " ") != ""


def _boundaries(tokenizer: Tokenizer) -> Flags:
    pieces = tokenizer.pieces()
    silent = _SILENT[1:] if _keeps_first_space(tokenizer) else _SILENT
    return np.array([piece.kind in silent for piece in pieces], np.bool_)


def _keeps_first_space(tokenizer: Tokenizer) -> bool:
    """Whether a space behind BOS is in the decoded text."""
    spaced = next((i for i, piece in enumerate(tokenizer.pieces()) if _is_spaced(piece)), None)
    return spaced is not None and tokenizer.decode([tokenizer.bos_id, spaced]).startswith(" ")


def _escapes(is_mark: Flags) -> Flags:
    """Which escape marks are not made literals by the one before: every other of a run of them."""
    at = np.arange(len(is_mark))
    run_starts = np.maximum.accumulate(np.where(is_mark, 0, at + 1))
    even = (at - run_starts) % 2 == 0
    marks: Flags = np.logical_and(is_mark, even)
    return marks


def _is_private(piece: Piece) -> bool:
    areas = ((0xE000, 0xF8FF), (0xF0000, 0xFFFFD), (0x100000, 0x10FFFD))
    return piece.kind == "user_defined" and any(
        low <= ord(letter) <= high for letter in piece.text for low, high in areas
    )


def utf8_length(tokenizer: Tokenizer, ids: Ids) -> int:
    return len(tokenizer.decode(ids).encode("utf-8"))


def _refuse_where(wrong: Flags, tokenizer: Tokenizer, why: str) -> None:
    if wrong.any():
        pieces = tokenizer.pieces()
        raise refusal(tokenizer, why, [repr(pieces[i].text) for i in np.flatnonzero(wrong)])


def refusal(
    tokenizer: Tokenizer, why: str, named: Sequence[str], advice: str = ADVICE
) -> ValueError:
    rest = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    listed = f" {len(named)} pieces: " + ", ".join(named[:_NAMED]) + rest if named else ""
    return ValueError(f"{tokenizer.name}: bytes cannot be counted: {why}{listed}; {advice}")
