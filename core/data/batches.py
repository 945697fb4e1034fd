"""Which tokens a step trains on: a pure function of the tokens before it, whatever the ranks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from core.data.ahead import Ahead
from core.data.loaders import Loader, Order, order_of
from core.data.shards import TokenStream, check_tokens

Batch = tuple[NDArray[np.int32], NDArray[np.int32]]


@dataclass(frozen=True, kw_only=True)
class BatchPhase:
    """From this progress of the run on, steps of so many tokens in rows of seq_len."""

    at: float
    train_batch_tokens: int
    seq_len: int


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the tokens are, in which order they come, and how many a step takes."""

    path: str = "data/datasets/fineweb10B_sp1024"
    tokenizer: str = "data/tokenizers/fineweb_1024_bpe.model"
    loader: Loader = "sequential"  # the order of the rows; shuffled and coprime by the run's seed
    train_batch_tokens: int = 524_288  # of one step, all ranks together; no phase has more
    batch_schedule: tuple[BatchPhase, ...] = ()  # none: all steps alike, of rows of arch.seq_len
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
        _check_schedule(self)

    def phases(self, seq_len: int) -> tuple[BatchPhase, ...]:
        """The schedule, or its one phase; ValueError where it does not fit arch.seq_len.

        The data comes in rows of arch.seq_len, and every step takes whole ones: a phase of shorter
        rows cuts each of them in equal parts. So the order knows nothing of the schedule, and a
        switch, whenever it comes, neither repeats nor leaves out a token.
        """
        whole = BatchPhase(at=0.0, train_batch_tokens=self.train_batch_tokens, seq_len=seq_len)
        for phase in self.batch_schedule or (whole,):
            _check_step(phase.train_batch_tokens, seq_len)
            if seq_len % phase.seq_len:
                raise ValueError(
                    f"data.batch_schedule: seq_len {phase.seq_len} must divide arch.seq_len "
                    f"{seq_len}, whose rows are cut in equal parts; "
                    f"try {_divisor(seq_len, phase.seq_len)}"
                )
        return self.batch_schedule or (whole,)

    def phase(self, progress: float) -> int:
        """Which phase of the batches is on at this progress."""
        return max(sum(phase.at <= progress for phase in self.batch_schedule) - 1, 0)


class Batches:
    """One rank's batches of a run, the next one read while this one is used."""

    def __init__(
        self,
        stream: TokenStream,
        data: Data,
        *,
        seq_len: int,
        vocab_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._order = order_of(data.loader, stream, seq_len, seed)
        self._phases = data.phases(seq_len)
        self._micro_batch = data.micro_batch
        self._read = partial(
            batch_at, self._order, vocab_size=vocab_size, rank=rank, world_size=world_size
        )
        self._begin(0, 0)

    def at(self, tokens_done: int, phase: int = 0) -> list[Batch]:
        """Micro-batches of the step behind so many tokens, in this phase.

        A forward takes micro_batch rows of arch.seq_len, or as many tokens in shorter rows.
        """
        size = self._phases[phase]
        if phase != self._phase or (tokens_done - self._from) % size.train_batch_tokens:
            self._begin(tokens_done, phase)
        x, y = self._ahead.take((tokens_done - self._from) // size.train_batch_tokens)
        return micro_batches(x, y, self._micro_batch * (self._order.seq_len // size.seq_len))

    def _begin(self, tokens_done: int, phase: int) -> None:
        """Count steps of one size from here: what is read ahead is the next of the same phase."""
        self._from, self._phase, size = tokens_done, phase, self._phases[phase]
        tokens = size.train_batch_tokens
        self._ahead = Ahead(
            lambda step: self._read(
                tokens_done + step * tokens, train_batch_tokens=tokens, seq_len=size.seq_len
            )
        )


def batch(
    stream: TokenStream,
    step: int,
    *,
    seq_len: int,
    train_batch_tokens: int,
    vocab_size: int,
    rank: int = 0,
    world_size: int = 1,
    loader: Loader = "sequential",
    seed: int = 0,
) -> Batch:
    """Inputs x and targets y of one rank at one step, each (B, T) int32, where all are alike.

    Step n takes the next train_batch_tokens / T rows of the loader's order, round and round.
    """
    return batch_at(
        order_of(loader, stream, seq_len, seed),
        step * train_batch_tokens,
        train_batch_tokens=train_batch_tokens,
        seq_len=seq_len,
        vocab_size=vocab_size,
        rank=rank,
        world_size=world_size,
    )


def batch_at(
    order: Order,
    tokens_done: int,
    *,
    train_batch_tokens: int,
    seq_len: int,
    vocab_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> Batch:
    """x and y of one rank, each (B, T) int32, for the step behind so many tokens of the run.

    The step takes the order's next rows, each cut into rows of seq_len, y one later than x; ranks
    take contiguous shares of them.
    """
    assert 0 <= rank < world_size, (rank, world_size)
    _check_step(train_batch_tokens, order.seq_len)
    assert tokens_done % order.seq_len == order.seq_len % seq_len == 0, (tokens_done, seq_len)
    starts = order.starts(tokens_done // order.seq_len, train_batch_tokens // order.seq_len)
    rows = (starts[:, None] + np.arange(0, order.seq_len, seq_len)).ravel()
    mine = np.array_split(rows, world_size)[rank]
    tokens = np.empty((len(mine), seq_len + 1), np.uint16)
    for i, start in enumerate(mine.tolist()):
        tokens[i] = order.stream.slice(start, start + seq_len + 1)
    check_tokens(tokens, vocab_size)
    return tokens[:, :-1].astype(np.int32), tokens[:, 1:].astype(np.int32)


def micro_batches(x: NDArray[np.int32], y: NDArray[np.int32], micro_batch: int) -> list[Batch]:
    """The rows in order, `micro_batch` at a time (0: all); the last may hold fewer."""
    rows = micro_batch or max(len(x), 1)
    return [(x[i : i + rows], y[i : i + rows]) for i in range(0, len(x), rows)]


def _check_step(train_batch_tokens: int, seq_len: int) -> None:
    rows, rest = divmod(train_batch_tokens, seq_len)
    if rest or rows < 1:
        raise ValueError(
            f"data.train_batch_tokens {train_batch_tokens} must be a multiple of "
            f"arch.seq_len {seq_len}; try {max(rows, 1) * seq_len}"
        )


def _divisor(whole: int, near: int) -> int:
    return min((abs(n - near), n) for n in range(1, whole + 1) if whole % n == 0)[1]


def _check_schedule(data: Data) -> None:
    """The first at 0, each later than the one before, none larger than train_batch_tokens."""
    starts = [phase.at for phase in data.batch_schedule]
    rises = starts == sorted(set(starts)) and all(0 <= at < 1 for at in starts)
    if starts and not (rises and starts[0] == 0):
        raise ValueError(
            f"data: batch_schedule begins at {starts}, expected 0 first, then rising, all below 1"
        )
    for phase in data.batch_schedule:
        if not 1 <= phase.seq_len <= phase.train_batch_tokens <= data.train_batch_tokens:
            raise ValueError(
                f"data: batch_schedule has {phase.train_batch_tokens} tokens in rows of "
                f"{phase.seq_len}; expected rows of 1 token or more, no longer than the step, and "
                f"no more tokens than train_batch_tokens {data.train_batch_tokens}"
            )
