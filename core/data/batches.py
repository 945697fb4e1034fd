"""Which tokens step n trains on: a pure function of the step, whatever the ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.data.shards import TokenStream, check_tokens

Batch = tuple[NDArray[np.int32], NDArray[np.int32]]


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the tokens are and how many a step takes."""

    path: str = "data/datasets/fineweb10B_sp1024"
    tokenizer: str = "data/tokenizers/fineweb_1024_bpe.model"
    train_batch_tokens: int = 524_288  # of one step, all ranks together
    micro_batch: int = 0  # sequences a forward on one rank; 0: all of the rank's rows at once

    def __post_init__(self) -> None:
        for name in ("path", "tokenizer"):
            if not getattr(self, name):
                raise ValueError(f"data: {name} is empty; expected a path")
        if self.train_batch_tokens < 1:
            raise ValueError(
                f"data: train_batch_tokens {self.train_batch_tokens} must be at least 1"
            )
        if self.micro_batch < 0:
            raise ValueError(f"data: micro_batch {self.micro_batch} must not be negative")


def batch(
    stream: TokenStream,
    step: int,
    *,
    seq_len: int,
    train_batch_tokens: int,
    vocab_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> Batch:
    """Inputs x and targets y of one rank at one step, each (B, T) int32.

    Row r of the data is tokens [r*T, r*T + T], y one later than x. Step n takes the next
    train_batch_tokens / T rows, round and round; ranks take contiguous shares of them.
    """
    assert 0 <= rank < world_size, (rank, world_size)
    rows = _step_rows(step, seq_len, train_batch_tokens) % _whole_rows(stream, seq_len)
    mine = np.array_split(rows, world_size)[rank]
    tokens = np.empty((len(mine), seq_len + 1), np.uint16)
    for i, row in enumerate(mine.tolist()):
        tokens[i] = stream.slice(row * seq_len, (row + 1) * seq_len + 1)
    check_tokens(tokens, vocab_size)
    return tokens[:, :-1].astype(np.int32), tokens[:, 1:].astype(np.int32)


def micro_batches(x: NDArray[np.int32], y: NDArray[np.int32], micro_batch: int) -> list[Batch]:
    """The rows in order, `micro_batch` at a time (0: all); the last may hold fewer."""
    rows = micro_batch or max(len(x), 1)
    return [(x[i : i + rows], y[i : i + rows]) for i in range(0, len(x), rows)]


def _step_rows(step: int, seq_len: int, train_batch_tokens: int) -> NDArray[np.int64]:
    rows, rest = divmod(train_batch_tokens, seq_len)
    if rest or rows < 1:
        raise ValueError(
            f"data.train_batch_tokens {train_batch_tokens} must be a multiple of "
            f"arch.seq_len {seq_len}; try {max(rows, 1) * seq_len}"
        )
    return step * rows + np.arange(rows, dtype=np.int64)


def _whole_rows(stream: TokenStream, seq_len: int) -> int:
    rows = (len(stream) - 1) // seq_len
    if rows < 1:
        raise ValueError(
            f"too little data: {len(stream)} tokens, but one row of arch.seq_len {seq_len} needs "
            f"{seq_len + 1}; add documents or shorten the rows"
        )
    return rows
