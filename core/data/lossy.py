"""Tokenizers that lose text for good: what they are scored on is easier than the documents."""

from __future__ import annotations

import unicodedata
from functools import cache

from core.data.pieces import Tokenizer

BLOCKS = ((0x21, 0x250), (0x370, 0x530))  # Latin, Greek, Cyrillic: all with two cases
SHOWN = 5


def why_lossy(tokenizer: Tokenizer) -> str:
    """What the tokenizer loses; nothing for one that keeps all but the spelling of characters.

    Blanks and compatibility forms, which the task's own tokenizers make one of, do not count:
    letters that come back as others do, and text without byte pieces, which does not come back.
    """
    present = {piece.text for piece in tokenizer.pieces() if piece.kind == "byte"}
    absent = 256 - len(present)
    if absent:
        return f"no byte fallback: {absent} of 256 byte pieces are missing"
    folded = folded_letters(tokenizer)
    if folded:
        shown = ", ".join(f"{a!r} -> {_back(tokenizer, a)!r}" for a in folded[:SHOWN])
        return f"{len(folded)} characters come back as others: {shown}"
    return ""


def require_text(tokenizer: Tokenizer, allow_lossy: bool) -> str:
    """What the tokenizer loses, if anything; ValueError unless that is allowed."""
    why = why_lossy(tokenizer)
    if why and not allow_lossy:
        raise ValueError(
            f"{tokenizer.name} is lossy: {why}. Bits per byte of a text with less in it compare "
            "with no others; choose another tokenizer, or have it scored and every number called "
            "lossy (`golf score --allow-lossy`, or score.allow_lossy=true in a recipe)"
        )
    return why


def folded_letters(tokenizer: Tokenizer) -> list[str]:
    """Those that come back as others."""
    return [letter for letter in _letters() if _back(tokenizer, letter) != letter]


@cache
def _letters() -> tuple[str, ...]:
    """Characters that are their own compatibility form, and not blank."""
    found = (chr(code) for first, stop in BLOCKS for code in range(first, stop))
    return tuple(
        letter
        for letter in found
        if unicodedata.normalize("NFKC", letter) == letter
        and unicodedata.category(letter)[0] in "LNPS"
    )


def _back(tokenizer: Tokenizer, letter: str) -> str:
    return tokenizer.decode(tokenizer.encode_ids(letter))
