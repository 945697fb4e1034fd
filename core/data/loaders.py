"""The order of the data: where each row begins, as a pure function of its number and the seed."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from threading import Lock
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from core.arch.noise import random_bits, stream_of
from core.arch.spec import BOS
from core.data.shards import TokenStream

Loader = Literal["sequential", "shuffled", "coprime", "packed"]
Places = NDArray[np.int64]
Permute = Callable[[int, Places, int], Places]  # epoch, places and their number -> rows

FEISTEL_ROUNDS = 8
BLOCK_TOKENS = 1 << 20  # that a search for documents holds at a time


class Order(Protocol):
    """The rows of a stream without end: each has seq_len tokens and the one behind them."""

    stream: TokenStream
    seq_len: int

    def starts(self, first: int, count: int) -> Places:
        """Where rows first, first + 1, ... of the run begin in the stream, (count,)."""
        ...


def order_of(loader: Loader, stream: TokenStream, seq_len: int, seed: int) -> Order:
    """The rows of `stream` as this loader takes them.

    sequential: rows follow one another.
    shuffled: all rows of an epoch in an order of its own, from the seed.
    coprime: a first row and a stride without a common divisor with the number of rows, both from
    the seed and new in each epoch.
    packed: see Packed; every epoch is the same.

    The first three take tokens [r*T, r*T + T) and their targets for each r, once an epoch. What
    is left behind the last whole row, fewer than T targets, is in none of them.
    """
    if loader == "packed":
        return Packed(stream, seq_len)
    permutes: dict[Loader, Permute] = {
        "sequential": lambda epoch, places, count: places,
        "shuffled": partial(shuffled, seed),
        "coprime": partial(coprime, seed),
    }
    return Whole(stream, seq_len, permutes[loader])


class Whole:
    """Rows side by side, in each epoch permuted: nothing is held, a row costs the same anywhere."""

    def __init__(self, stream: TokenStream, seq_len: int, permute: Permute) -> None:
        self.stream, self.seq_len = stream, seq_len
        self._rows = whole_rows(stream, seq_len)
        self._permute = permute

    def starts(self, first: int, count: int) -> Places:
        epochs, places = np.divmod(np.arange(first, first + count, dtype=np.int64), self._rows)
        rows = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            rows[here] = self._permute(epoch, places[here], self._rows)
        return rows * self.seq_len


class Packed:
    """Rows that begin with documents, in the order of the data; nothing is lost.

    The first row begins at token 0. A row that begins at p holds tokens [p, p + T] with its last
    target; the next begins with the last document that begins in (p, p + T]: what was cut at the
    end of a row is begun again, whole. Without one, the document is longer than T and goes on at
    p + T. An epoch's last row is moved back until it ends with the data. So

    - every token but the first is a target at least once an epoch;
    - every document of at most T tokens lies whole in one row, behind its BOS;
    - a row without BOS at its front goes on with a longer document, or with a document that the
      data begins inside of, or it is the last one;
    - what precedes a cut is trained twice: a quarter more where documents are as long as rows.
      Two rows advance by more than T tokens, so an epoch has at most 2 * tokens / T + 1 rows.

    Where rows begin is found once, as far as they have been asked for, and held as 8 bytes a row;
    to go on in the middle of an epoch reads the tokens before it again.
    """

    def __init__(self, stream: TokenStream, seq_len: int) -> None:
        whole_rows(stream, seq_len)  # refuses too little data
        self.stream, self.seq_len = stream, seq_len
        self._coming = packed_starts(stream, seq_len)
        self._found = array("q")
        self._lock = Lock()  # a batch may be read ahead by another thread

    def starts(self, first: int, count: int) -> Places:
        with self._lock:
            missing = max(first + count - len(self._found), 0)
            self._found.extend(islice(self._coming, missing))  # fewer than missing: the data ends
            found: Places = np.frombuffer(self._found, np.int64)
            return found[np.arange(first, first + count, dtype=np.int64) % len(found)]


def packed_starts(stream: TokenStream, seq_len: int) -> Iterator[int]:
    """Where the rows of one epoch of Packed begin; they rise."""
    last = len(stream) - 1 - seq_len
    documents = document_starts(stream)
    coming, at = next(documents, len(stream)), 0
    while True:
        yield at
        if at == last:
            return
        begun, end = at, at + seq_len
        while coming <= end:
            begun, coming = coming, next(documents, len(stream))
        at = min(begun if begun > at else end, last)


def document_starts(stream: TokenStream) -> Iterator[int]:
    """Where each BOS stands, found a block at a time."""
    for i, block in enumerate(stream.blocks(BLOCK_TOKENS)):
        yield from (np.flatnonzero(block == BOS) + i * BLOCK_TOKENS).tolist()


def whole_rows(stream: TokenStream, seq_len: int) -> int:
    """Rows side by side that `stream` has; ValueError where it has none."""
    rows = (len(stream) - 1) // seq_len
    if rows < 1:
        raise ValueError(
            f"too little data: {len(stream)} tokens, but one row of arch.seq_len {seq_len} needs "
            f"{seq_len + 1}; add documents or shorten the rows"
        )
    return rows


def shuffled(seed: int, epoch: int, places: Places, count: int) -> Places:
    """A permutation of range(count), at these places alone.

    A Feistel network permutes the next power of two; what falls outside of the range goes through
    it again until inside (Black and Rogaway 2002): fewer than two passes on average.
    """
    keys = random_bits(seed, stream_of(f"shuffled {epoch}"), 2 * FEISTEL_ROUNDS)
    bits = max((count - 1).bit_length(), 2)
    found = _feistel(places.astype(np.uint64), bits, keys)
    while (outside := found >= count).any():
        found[outside] = _feistel(found[outside], bits, keys)
    return found.astype(np.int64)


def coprime(seed: int, epoch: int, places: Places, count: int) -> Places:
    """A permutation of range(count) at these places: start + place * stride, round and round."""
    start, stride = random_bits(seed, stream_of(f"coprime {epoch}"), 2).tolist()
    stride %= count
    while math.gcd(stride, count) != 1:  # count + 1 is coprime to count: this ends
        stride += 1
    # Python's integers: places times strides outgrow 64 bits where rows are short and many
    return np.array([(start + place * stride) % count for place in places.tolist()], np.int64)


def _feistel(x: NDArray[np.uint64], bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A permutation of range(2**bits): the halves change one another in turn.

    By multiply-shift hashes (Dietzfelbinger et al. 1997): the top bits of a * x + b, a odd.
    """
    low_bits, high_bits = np.uint64(bits // 2), np.uint64(bits - bits // 2)
    low, high = x & np.uint64((1 << bits // 2) - 1), x >> low_bits
    for i in range(0, len(keys), 4):
        a, b, c, d = keys[i : i + 4]
        high = high ^ (low * (a | np.uint64(1)) + b) >> np.uint64(64) - high_bits
        low = low ^ (high * (c | np.uint64(1)) + d) >> np.uint64(64) - low_bits
    return high << low_bits | low
