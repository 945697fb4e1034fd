"""A scored validation split: core decides what is scored, a backend gives the nats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.data.batches import Data
from core.data.export import check_manifest, read_manifest
from core.data.shards import TokenStream, open_sidecar, open_split
from core.data.token_bytes import ByteTable, byte_table, check_decoding, check_table
from core.data.tokenizer import SentencePieceTokenizer, open_tokenizer
from core.score.bpb import Ints, Scored, Tally
from core.score.windows import Rows, Window, batches, chunked, fill

NatsOf = Callable[[Rows, Rows], NDArray[np.float32]]  # (B, T) inputs, targets -> (B, T) nats


@dataclass(frozen=True, kw_only=True)
class Score:
    """The recipe's score section."""

    batch: int = 64  # windows a forward pass
    val_every_steps: int = 1000  # 0: only at the end
    limit_tokens: int = 0  # score only the first so many targets, labelled a subset; 0: all

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"score.batch {self.batch} must be at least 1")
        for name in ("val_every_steps", "limit_tokens"):
            if getattr(self, name) < 0:
                raise ValueError(f"score.{name} {getattr(self, name)} must not be negative")


@dataclass(frozen=True)
class Validation:
    """The validation tokens with what their bytes are, checked to belong together."""

    stream: TokenStream
    sidecar: TokenStream | None  # original bytes of each token
    table: ByteTable
    subset: dict[str, int] | None  # None: the whole split


def open_validation(data: Data, vocab_size: int, limit_tokens: int = 0) -> Validation:
    """Open the split and refuse a byte count that the tokenizer's own decoding contradicts."""
    folder, tokenizer = Path(data.path), open_tokenizer(data.tokenizer)
    require_vocabulary(tokenizer, vocab_size)
    manifest = read_manifest(folder)
    if manifest is not None:
        check_manifest(manifest, tokenizer)
    stream, sidecar = open_split(folder, "val"), open_sidecar(folder)
    if sidecar is not None and len(sidecar) != len(stream):
        raise ValueError(
            f"{folder}: the sidecar holds {len(sidecar)} counts for {len(stream)} tokens"
        )
    subset = None
    if 0 < limit_tokens < len(stream) - 1:
        subset = {"first_targets": limit_tokens, "of_targets": len(stream) - 1}
    table = byte_table(tokenizer)
    check_table(table, tokenizer, sidecar=sidecar is not None)
    read = stream if subset is None else TokenStream([stream.slice(0, limit_tokens + 1)])
    check_decoding(table, tokenizer, read)
    return Validation(stream, sidecar, table, subset)


def require_vocabulary(tokenizer: SentencePieceTokenizer, vocab_size: int) -> None:
    if tokenizer.vocab_size != vocab_size:
        raise ValueError(
            f"tokenizer {tokenizer.name} has {tokenizer.vocab_size} pieces, the model a "
            f"vocab_size of {vocab_size}; set arch.vocab_size or choose the other tokenizer"
        )


def scored_tokens(stream: TokenStream, subset: dict[str, int] | None) -> int:
    """How many tokens scoring reads: all, or a subset's targets and the one before them."""
    return len(stream) if subset is None else subset["first_targets"] + 1


def score(
    nats_of: NatsOf,
    validation: Validation,
    seq_len: int,
    batch: int,
    progress: Callable[[int, int], None] | None = None,
) -> Scored:
    """Score every target once over non-overlapping windows of seq_len; progress(done, of)."""
    num_tokens = scored_tokens(validation.stream, validation.subset)
    tally = Tally(num_tokens, validation.sidecar is not None)
    done = 0
    for group in batches(chunked(num_tokens, seq_len), batch):
        x, y = fill(validation.stream, group, batch, seq_len)
        nats = nats_of(x, y)
        for row, window in enumerate(group):
            counts, raw = _bytes(validation, window)
            tally.add(window.start + 1, nats[row, : window.count], counts, raw)
            done += window.count
        if progress is not None:
            progress(done, num_tokens - 1)
    return tally.result()


def _bytes(validation: Validation, window: Window) -> tuple[Ints, Ints | None]:
    """What the window's targets count by the reference tables, and of the original text.

    Where the text was transformed before it was encoded only the sidecar knows either.
    """
    first, stop = window.start + 1, window.start + window.count + 1
    raw = None
    if validation.sidecar is not None:
        raw = validation.sidecar.slice(first, stop).astype(np.int64)
    if validation.table.needs_sidecar:
        assert raw is not None
        return raw, raw
    tokens = validation.stream.slice(window.start, stop)
    return validation.table.count(tokens[:-1], tokens[1:]), raw
