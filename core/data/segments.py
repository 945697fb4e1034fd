"""A token stream in pieces that hold whole documents, as far as memory allows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from core.data.shards import Tokens, TokenStream, check_tokens

LONGEST_BLOCKS = 4  # of one document, before it is cut


def segments(
    stream: TokenStream, bos_id: int, anchors: NDArray[np.bool_], block_tokens: int
) -> Iterator[tuple[Tokens, bool]]:
    """(tokens, is the last one): each begins with a document's BOS and ends with a document.

    A longer document is cut behind a token of `anchors` (V,), which the next segment repeats as
    its first. Data that begins inside a document begins with its first such token.
    """
    heads = anchors.copy()
    heads[bos_id] = True
    held = np.empty(0, np.uint16)
    for block in stream.blocks(block_tokens):
        check_tokens(block, len(anchors))
        held = np.concatenate([held, block]) if held.size else _from_first(block, heads)
        cut = _last(held == bos_id)
        if cut == 0 and len(held) >= LONGEST_BLOCKS * block_tokens:
            cut = _last(anchors[held])
            if cut == 0:
                raise ValueError(
                    f"{len(held)} tokens without BOS or text, as no tokenizer writes them; "
                    "make the shards again with `golf data tokenize`"
                )
            yield held[: cut + 1], False
        elif cut:
            yield held[:cut], False
        held = held[cut:]
    if held.size:
        yield held, True


def _from_first(tokens: Tokens, heads: NDArray[np.bool_]) -> Tokens:
    at = np.flatnonzero(heads[tokens])
    return tokens[at[0] :] if at.size else tokens[:0]


def _last(where: NDArray[np.bool_]) -> int:
    """The last true index, or 0."""
    at = np.flatnonzero(where)
    return int(at[-1]) if at.size else 0
