"""The validation tokens read once: counts by the exact table, by a claimed one, by the sidecar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.data.pieces import Tokenizer
from core.data.runs import document_hashes, shard_blocks
from core.data.shards import Tokens, TokenStream, check_tokens, open_shard
from core.data.token_bytes import byte_table
from tools.auditing.claimed import ClaimedTable

BLOCK_TOKENS = 1 << 20


@dataclass
class Stream:
    """Sums over all targets; positions are counted from 0, as the shards hold the tokens."""

    tokens: int = 0
    documents: int = 0
    counted: int = 0  # bytes by the exact table
    claimed: float = 0.0  # by a claimed one
    parts: str = ""  # where the two part first
    raw: int | None = None  # by the sidecar
    marked: int = 0  # markers of a transform with bytes in the sidecar
    first_marked: int | None = None
    hashes: list[int] = field(default_factory=list)  # of the documents, in order


def read_stream(
    files: Sequence[Path],
    sidecar: Sequence[Path],
    tokenizer: Tokenizer,
    claim: ClaimedTable | None,
) -> Stream:
    """ValueError where the shards cannot be read or hold tokens of another vocabulary."""
    found, table = Stream(), byte_table(tokenizer)
    held: Tokens = np.empty(0, np.uint16)
    raw = TokenStream([open_shard(path) for path in sidecar]) if sidecar else None
    found.raw = 0 if raw is not None else None

    def watched() -> Iterator[Tokens]:
        nonlocal held
        for block in shard_blocks(files, BLOCK_TOKENS):
            check_tokens(block, tokenizer.vocab_size)
            run = np.concatenate([held, block])
            skipped = max(len(held) - 1, 0)
            counts = table.count_run(run)[skipped:]
            found.counted += int(counts.sum())
            if claim is not None:
                _compare(found, claim.count_run(run)[skipped:], counts, run[skipped:], tokenizer)
            if raw is not None:
                stop = min(found.tokens + len(block), len(raw))
                _weigh(found, raw.slice(min(found.tokens, stop), stop), run, len(held), tokenizer)
            found.tokens += len(block)
            found.documents += int((block == tokenizer.bos_id).sum())
            held = table.context(run)
            yield block

    for hashes in document_hashes(watched(), tokenizer.bos_id):
        found.hashes += hashes.tolist()
    return found


def hash_of(ids: Tokens) -> int:
    """What document_hashes says of a document of these tokens, BOS apart."""
    if not ids.size:
        return 0
    return int.from_bytes(blake2b(ids.tobytes(), digest_size=8).digest(), "little")


def _compare(
    found: Stream,
    claimed: NDArray[np.float64],
    counts: NDArray[np.int64],
    run: Tokens,
    tokenizer: Tokenizer,
) -> None:
    """`run`: the targets of a block, with the token before the first of them."""
    found.claimed += float(claimed.sum())
    wrong = np.flatnonzero(claimed != counts)
    if found.parts or not wrong.size:
        return
    at, known = int(wrong[0]), int(found.tokens > 0)  # of a later block the first is known
    position = found.tokens + at + 1 - known
    document = found.documents + int((run[known : at + 2] == tokenizer.bos_id).sum()) - 1
    piece = tokenizer.pieces()[int(run[at + 1])].text
    said = f"token {position} of validation (document {max(document, 0)}), {piece!r}: counts "
    found.parts = f"{said}{claimed[at]:g}, stands for {counts[at]}"


def _weigh(found: Stream, raw: Tokens, run: Tokens, ahead: int, tokenizer: Tokenizer) -> None:
    """The sidecar's bytes of a block; a marker has some only where the one before escapes it."""
    table = byte_table(tokenizer)
    assert found.raw is not None
    found.raw += int(raw.sum(dtype=np.int64))
    if not table.controls or len(raw) != len(run) - ahead:
        return
    before = np.concatenate([run[:1], run])[ahead : ahead + len(raw)]
    block = run[ahead:]
    marked = np.isin(block, table.controls) & (raw > 0) & (before != table.escape)
    found.marked += int(marked.sum())
    if found.first_marked is None and marked.any():
        found.first_marked = found.tokens + int(np.flatnonzero(marked)[0])
