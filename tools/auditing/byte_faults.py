"""How a claimed byte table differs from the exact one, piece by piece, by the known failures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.data.findings import Finding
from core.data.pieces import Tokenizer
from core.data.token_bytes import MARKER, ByteTable, Flags, byte_table
from core.score.book import ruled
from tools.auditing.claimed import ClaimedTable

NAMED = 3  # pieces that a finding shows
CLASSES = ("B1", "B2", "B3", "B4", "B6", "B7", "B18")


def faults(table: ClaimedTable, tokenizer: Tokenizer) -> dict[str, Flags]:
    """The pieces (V,) at fault, by failure; `byte table`: wrong in no way that is known."""
    ours = byte_table(tokenizer)
    kinds = np.array([piece.kind for piece in tokenizer.pieces()])
    is_byte, silent = kinds == "byte", np.isin(kinds, ("control", "unknown", "unused"))
    extra = table.base_bytes - ours.base_bytes
    heavy_space = ours.leading_space & table.leading_space & (extra == 1)
    no_flag = ours.leading_space & ~table.leading_space & (extra != 1)
    found = {
        "B1": heavy_space,
        "B2": no_flag,
        "B3": is_byte & (extra != 0) & (table.base_bytes != 3),
        "B4": (silent & (extra != 0)) | (table.boundary != ours.boundary),
        "B6": is_byte & (table.base_bytes == 3),
        "B7": _marks(ours, tokenizer) & (extra == 3) & ~silent,
        "B18": np.full(len(kinds), _is_constant(table, ~silent)),
    }
    if found["B18"].any():
        return {name: flags if name == "B18" else flags & False for name, flags in found.items()}
    named = np.logical_or.reduce(list(found.values()))
    wrong = (extra != 0) | (table.leading_space != ours.leading_space)
    return {**found, "byte table": wrong & ~named}


def table_findings(table: ClaimedTable, tokenizer: Tokenizer, subject: str) -> Iterator[Finding]:
    """One finding a known failure, with the first pieces that show it."""
    ours = byte_table(tokenizer)
    for rule, flags in faults(table, tokenizer).items():
        count = int(flags.sum())
        if rule == "byte table" and not count:
            continue
        if not count:
            yield ruled(rule, "PASS", subject, f"none of {len(flags)} pieces")
            continue
        said = f"{count} of {len(flags)} pieces: {_shown(flags, table, ours, tokenizer)}"
        yield ruled(rule, "FAIL", subject, said)


def vocabulary_findings(tokenizer: Tokenizer, has_sidecar: bool) -> Iterator[Finding]:
    """Failures that lie in the vocabulary itself."""
    pieces = tokenizer.pieces()
    ordinary = [piece for piece in pieces if piece.kind in ("normal", "user_defined")]
    if ordinary and not any(piece.text == MARKER for piece in ordinary):
        ids = tokenizer.encode_ids("a 1").tolist()
        shown = " ".join(repr(pieces[i].text) for i in ids)
        said = f"U+2581 is no piece: 'a 1' becomes {shown}, 3 bytes for a space"
        yield ruled("B5", "FAIL", tokenizer.name, said)
    else:
        yield ruled("B5", "PASS", tokenizer.name, "a lone space is one piece, or a byte")
    if (marks := byte_table(tokenizer).markers) and not has_sidecar:
        said = f"{len(marks)} markers of a transform ({', '.join(map(repr, marks[:4]))}) and no "
        said += "sidecar: bytes of the transformed text are not those of the documents"
        yield ruled("B7", "FAIL", tokenizer.name, said)


def _marks(ours: ByteTable, tokenizer: Tokenizer) -> Flags:
    """Pieces of a transform's markers, whose bytes are not those of the text."""
    marked = [piece.text in ours.markers for piece in tokenizer.pieces()]
    return np.array(marked, np.bool_)


def _is_constant(table: ClaimedTable, ordinary: Flags) -> bool:
    counts = (table.base_bytes + table.leading_space)[ordinary]
    return len(counts) > 1 and bool((counts == counts[0]).all()) and counts[0] != 1.0


def _shown(flags: Flags, table: ClaimedTable, ours: ByteTable, tokenizer: Tokenizer) -> str:
    pieces = tokenizer.pieces()
    said = []
    for i in np.flatnonzero(flags)[:NAMED].tolist():
        claim = table.base_bytes[i] + table.leading_space[i]
        true = int(ours.base_bytes[i]) + int(ours.leading_space[i])
        what = f"counts {claim:g}, stands for {true}"
        if claim == true:
            what = f"is {'a' if table.boundary[i] else 'no'} boundary"
            if table.boundary[i] == ours.boundary[i]:
                what = f"counts {claim:g} behind BOS too, where it stands for {true - 1}"
        said.append(f"id {i} {pieces[i].text!r} {what}")
    return "; ".join(said)
