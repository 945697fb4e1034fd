"""Shards block by block and document by document, in little memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.data.encode import NOTHING, Run
from core.data.pieces import Tokenizer
from core.data.shards import (
    HEADER_BYTES,
    Split,
    Tokens,
    check_tokens,
    open_shard,
    open_split,
    split_files,
)

RUN_TOKENS = 1 << 19
LONGEST_TOKENS = 1 << 26  # of one document


def shard_blocks(files: Sequence[Path], block_tokens: int) -> Iterator[Tokens]:
    """All tokens in order, one block mapped at a time: pages of a longer map count as memory."""
    for path in files:
        count = len(open_shard(path))
        for start in range(0, count, block_tokens):
            shape = (min(block_tokens, count - start),)
            yield np.array(np.memmap(path, "<u2", "r", HEADER_BYTES + 2 * start, shape))


def document_runs(
    folder: Path,
    split: Split,
    tokenizer: Tokenizer,
    read_before: int = 0,
    run_tokens: int | None = None,
) -> Iterator[Run]:
    """Documents as they lie in a split, as many together as `run_tokens` hold, at least one.

    Data that begins inside a document begins with the rest of it.
    """
    open_split(folder, split)  # for its sentences, before anything is read
    held, read_bytes = [NOTHING], read_before
    for block in shard_blocks(split_files(folder, split), run_tokens or RUN_TOKENS):
        check_tokens(block, tokenizer.vocab_size)
        read_bytes += block.nbytes
        starts = np.flatnonzero(block == tokenizer.bos_id)
        if starts.size:
            yield from _run([*held, block[: starts[-1]]], tokenizer.bos_id, read_bytes)
            held = [block[starts[-1] :]]
        else:
            held.append(block)
            _need_bos(sum(len(part) for part in held))
    yield from _run(held, tokenizer.bos_id, read_bytes)


def document_hashes(blocks: Iterable[Tokens], bos_id: int) -> Iterator[NDArray[np.uint64]]:
    """64 bits for each document (what its tokens are, BOS apart), in order, as each ends.

    A document without tokens gives 0. Memory holds one block, however long a document is.
    """
    digest, opened, empty = blake2b(digest_size=8), False, True
    for block in blocks:
        starts = np.flatnonzero(block == bos_id)
        found = []
        for i, part in enumerate(np.split(block, starts)):
            if i:  # a BOS: what was open ends here
                found += [0 if empty else int.from_bytes(digest.digest(), "little")] * opened
                digest, opened, empty = blake2b(digest_size=8), True, True
                part = part[1:]
            if part.size:
                digest.update(part.tobytes())
                opened, empty = True, False
        yield np.array(found, np.uint64)
    last = 0 if empty else int.from_bytes(digest.digest(), "little")
    yield np.array([last] * opened, np.uint64)


def _need_bos(tokens: int) -> None:
    if tokens > LONGEST_TOKENS:
        raise ValueError(
            f"{tokens} tokens in which no document begins; choose the tokenizer that the shards "
            "were made with"
        )


def _run(parts: list[Tokens], bos_id: int, read_bytes: int) -> Iterator[Run]:
    tokens = np.concatenate(parts)
    if tokens.size:
        documents = int((tokens == bos_id).sum()) + int(tokens[0] != bos_id)
        yield Run(tokens, documents, read_bytes)
