"""The table's bytes against the decoded text, document by document, in bounded memory."""

from __future__ import annotations

import numpy as np

from core.data.pieces import Piece, Tokenizer
from core.data.segments import segments
from core.data.shards import Tokens, TokenStream
from core.data.token_bytes import MARKER, ByteTable, Flags, is_anchor, refusal, utf8_length


def check_decoding(
    table: ByteTable,
    tokenizer: Tokenizer,
    tokens: TokenStream,
    *,
    block_tokens: int = 1 << 20,
    allow_unknown: bool = False,
) -> None:
    """Raise ValueError unless every document's table count is the length of its decoded text.

    Memory holds a few blocks, however long the data. The last document may be cut inside a
    character: byte pieces at its end are left out. `allow_unknown`: documents with unknown text
    pass, although their bytes are lost.
    """
    seen, ends = 0, character_ends(tokenizer)
    for run, last in segments(tokens, tokenizer.bos_id, _anchors(tokenizer), block_tokens):
        if last:
            text = np.flatnonzero(ends[run])
            run = run[: text[-1] + 1]  # there is one: the first
        _check_run(table, tokenizer, run, seen, allow_unknown)
        seen += int((run == tokenizer.bos_id).sum())


def character_ends(tokenizer: Tokenizer) -> Flags:
    """Pieces (V,) in front of and behind which no character is cut: no part of a longer one."""
    return np.array([p.kind != "byte" or _is_ascii(p) for p in tokenizer.pieces()], np.bool_)


def _anchors(tokenizer: Tokenizer) -> Flags:
    """Pieces (V,) that decode to the same wherever they stand; without words, ASCII bytes."""
    of_bytes = not tokenizer.marks_spaces
    pieces = tokenizer.pieces()
    return np.array([is_anchor(p) or (of_bytes and _is_ascii(p)) for p in pieces], np.bool_)


def _is_ascii(piece: Piece) -> bool:
    return piece.kind == "byte" and int(piece.text[3:5], 16) < 128


def _check_run(
    table: ByteTable, tokenizer: Tokenizer, run: Tokens, seen: int, allow_unknown: bool
) -> None:
    """Documents; the first may be the rest of one, behind a token that is not counted again."""
    starts = np.union1d([0], np.flatnonzero(run == tokenizer.bos_id))
    counts = np.zeros(len(run), np.int64)
    counts[1:] = table.count_run(run)
    sums = np.add.reduceat(counts, starts).tolist()
    first = seen - int(run[0] != tokenizer.bos_id)
    for i, document in enumerate(np.split(run, starts[1:])):
        if allow_unknown and (document == tokenizer.unk_id).any():
            continue
        why = _disagreement(tokenizer, document, sums[i])
        if why:
            named = _culprits(table, tokenizer, document)
            raise refusal(tokenizer, f"document {max(first + i, 0)}: {why}; it parts at", named)


def _disagreement(tokenizer: Tokenizer, document: Tokens, counted: int) -> str:
    if (document == tokenizer.unk_id).any():
        return "it holds unknown text, whose bytes are lost"
    text = tokenizer.decode(document)
    decoded = len(text.encode("utf-8"))
    if document[0] != tokenizer.bos_id:
        decoded -= utf8_length(tokenizer, document[:1])
    if counted != decoded:
        return f"the table counts {counted} bytes, the decoded text has {decoded}"
    if tokenizer.marks_spaces and MARKER in text:
        return "a space is spelled in byte pieces (U+2581), 3 bytes for 1"
    return ""


def _culprits(table: ByteTable, tokenizer: Tokenizer, document: Tokens) -> list[str]:
    """The pieces up to where table and decoding part, found by halving."""
    pieces = tokenizer.pieces()
    ends = [*(np.flatnonzero(character_ends(tokenizer)[document]) + 1).tolist(), len(document)]
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        part = document[: ends[middle]]
        agrees = not _disagreement(tokenizer, part, int(table.count_run(part).sum()))
        low, high = (middle + 1, high) if agrees else (low, middle)
    return [repr(pieces[t].text) for t in document[max(ends[low] - 4, 0) : ends[low]].tolist()]
