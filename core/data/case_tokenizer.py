"""Case-transformed text in front of another tokenizer, whose vocabulary has the four controls."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.data.case import CONTROLS, TRANSFORM, decode_case, encode_case, original_ends
from core.data.pieces import Ids, Piece, Tokenizer


class CaseTokenizer(Tokenizer):
    """Its bytes are those of the text itself: a control has none, a letter under one has its own.

    Only a byte sidecar tells them for sure: whether U+E001 to U+E004 are controls depends on the
    ones before.
    """

    transform = TRANSFORM

    def __init__(self, inner: Tokenizer) -> None:
        _check(inner)
        self.inner = inner
        self.name, self.model, self.sha256 = inner.name, inner.model, inner.sha256
        self.vocab_size, self.bos_id, self.unk_id = inner.vocab_size, inner.bos_id, inner.unk_id

    def encode(self, text: str) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        encoded = encode_case(text)
        ids, counts = self.inner.encode(encoded)
        return ids, np.diff(original_ends(encoded, np.cumsum(counts)), prepend=0)

    def encode_ids(self, text: str) -> NDArray[np.uint16]:
        return self.inner.encode_ids(encode_case(text))

    def decode(self, ids: Ids) -> str:
        return decode_case(self.inner.decode(ids))

    def pieces(self) -> list[Piece]:
        return self.inner.pieces()

    def __reduce__(self) -> tuple[Any, ...]:
        return CaseTokenizer, (self.inner,)


def has_controls(tokenizer: Tokenizer) -> bool:
    """All four are symbols of their own: nobody has them but for transformed text."""
    symbols = {piece.text for piece in tokenizer.pieces() if piece.kind == "user_defined"}
    return symbols.issuperset(CONTROLS)


def _check(inner: Tokenizer) -> None:
    if not has_controls(inner):
        raise ValueError(
            f"{inner.name}: U+E001 to U+E004 are no symbols of it, so it cannot hold transformed "
            "text; make one that can with `golf tokenizer train --case`"
        )
    mixed = [p.text for p in inner.pieces() if len(p.text) > 1 and set(p.text) & set(CONTROLS)]
    if mixed:
        raise ValueError(
            f"{inner.name}: {len(mixed)} pieces join a control of the case transform to other text "
            f"(the first: {mixed[0]!r}), so their bytes are not their own; train it anew"
        )
