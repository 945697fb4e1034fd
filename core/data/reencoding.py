"""Whether tokens are what a tokenizer makes of their own text: the sign of shards without a name.

Of its own shards a tokenizer gives nearly every document back, of another's none.
"""

from __future__ import annotations

import numpy as np

from core.data.pieces import Tokenizer
from core.data.shards import Tokens, TokenStream, check_tokens

DOCUMENTS = 32  # that are looked at
READ_TOKENS = 1 << 18  # in which they are looked for
FEWEST = 4  # that say anything
LEAST = 0.75  # of them come back; measured on the task's tokenizers: 0.97 and more, of others 0.01


def reencoded(tokenizer: Tokenizer, tokens: TokenStream) -> tuple[int, int]:
    """Of so many documents at the beginning, how many come back token for token; and how many were
    looked at, which is none where no document ends. Documents with unknown text do not count.
    """
    block = tokens.slice(0, min(len(tokens), READ_TOKENS))
    check_tokens(block, tokenizer.vocab_size)
    whole = len(block) == len(tokens)
    found = [_same(tokenizer, document) for document in _documents(tokenizer, block, whole)]
    return sum(found), len(found)


def check_encoding(tokenizer: Tokenizer, tokens: TokenStream) -> str:
    """What was found, as evidence; ValueError where the shards are another tokenizer's."""
    same, count = reencoded(tokenizer, tokens)
    said = f"{same} of {count} documents come back token for token"
    if count >= FEWEST and same < LEAST * count:
        raise ValueError(
            f"the shards were not made with {tokenizer.name}: decoded and encoded again, {said}; "
            "choose the tokenizer they were made with, or tokenize the documents again"
        )
    return said


def _documents(tokenizer: Tokenizer, block: Tokens, whole: bool) -> list[Tokens]:
    """Without BOS; the last only where the data end with it."""
    parts = np.split(block, np.flatnonzero(block == tokenizer.bos_id))[1:]
    complete = parts if whole else parts[:-1]
    texts = [part[1:] for part in complete if len(part) > 1]
    return [ids for ids in texts if tokenizer.unk_id not in ids][:DOCUMENTS]


def _same(tokenizer: Tokenizer, document: Tokens) -> bool:
    return np.array_equal(tokenizer.encode_ids(tokenizer.decode(document)), document)
