"""The entropy coder: bytes by how large their rows and columns are; rans.py decodes them.

Static rANS (Duda 2013) over interleaved lanes (Giesen 2014). A matrix has one table, or tables by
the mean |level| of its rows, of its columns or of both: whatever makes it smallest. Matrices of
one stream share their tables where that is cheaper.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.artifact.quant import log_scale_from_float
from core.artifact.rans import LOW, lanes_of

Shapes = Sequence[tuple[int, int]]  # of matrices of bytes that follow each other
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

_TOTAL = 1 << 15
_BIN = 2  # of the eighths of an octave of a log scale: tables are a quarter apart
_LEAST_MEAN = 2.0**-6
_SHARE_BYTES = 1.75  # about what a frequency takes among the side data


@dataclass(frozen=True)
class Contexts:
    """A number for each row and, from 0 on, for each column; the sum tells a byte's table."""

    row: Ints
    col: Ints

    def each(self) -> Ints:
        sums: Ints = np.add.outer(self.row, self.col).ravel()
        return sums


def rans_encode(data: bytes, shapes: Shapes) -> bytes:
    """The stream that rans.py describes, of matrices of these shapes."""
    matrices = _split(data, shapes)
    chosen = [_choose(matrix) for matrix in matrices]
    least = min((int(contexts.row.min()) for contexts in chosen), default=0)
    chosen = [Contexts(contexts.row - least, contexts.col) for contexts in chosen]
    counts, starts = _shared(
        [_counts(c, matrix) for c, matrix in zip(chosen, matrices, strict=True)]
    )
    chosen = [Contexts(c.row + start, c.col) for c, start in zip(chosen, starts, strict=True)]
    shares = np.array([_shares(table) for table in counts], np.uint32).reshape(-1, 256)
    side = len(matrices).to_bytes(4, "little")
    side += np.array([matrix.shape for matrix in matrices], "<u4").tobytes()
    side += b"".join(_numbers(contexts) for contexts in chosen) + shares.astype("<u2").tobytes()
    packed = zlib.compress(side, 9)
    symbols = [_symbols(c, matrix) for c, matrix in zip(chosen, matrices, strict=True)]
    lanes = _lanes(np.concatenate([*symbols, np.empty(0, np.int64)]), shares)
    return len(packed).to_bytes(4, "little") + packed + lanes


def states_bytes(raw_bytes: int) -> int:
    """What the lanes' states take in a stream of so much."""
    return 4 * lanes_of(raw_bytes)


def _split(data: bytes, shapes: Shapes) -> list[Bytes]:
    matrices, at = list[Bytes](), 0
    for rows, cols in shapes:
        flat = np.frombuffer(data, np.uint8, rows * cols, at)
        at += rows * cols
        if flat.size:
            matrices.append(flat.reshape(rows, cols))
    assert at == len(data), (at, len(data))
    return matrices


def _choose(matrix: Bytes) -> Contexts:
    """The cheapest of one table, tables by rows, by columns, and by both."""
    size = np.abs(matrix.view(np.int8).astype(np.int16))
    whole, rows, cols = (_bins(size.mean(axis)) for axis in (None, 1, 0))
    choices = product((np.full_like(rows, whole), rows), (np.full_like(cols, whole), cols))
    found = [Contexts(row + col.min() - whole, col - col.min()) for row, col in choices]
    return min(found, key=lambda contexts: _cost(matrix, contexts))


def _bins(mean: Any) -> Ints:
    """Means of |level| as logarithms, in quarters of an octave."""
    at_least = np.maximum(mean, _LEAST_MEAN).astype(np.float32)
    return log_scale_from_float(at_least).astype(np.int64) // _BIN


def _cost(matrix: Bytes, contexts: Contexts) -> float:
    """Bytes of a matrix by itself: its tables, what they code, and the contexts."""
    first = Contexts(contexts.row - contexts.row.min(), contexts.col)
    return _coded_bytes(_counts(first, matrix)) + len(zlib.compress(_numbers(first), 9))


def _coded_bytes(counts: Ints) -> float:
    """The entropy of each table (tables, 256), and about what the tables take."""
    totals = np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape)
    seen = counts > 0
    bits = float(np.sum(counts[seen] * np.log2(totals[seen] / counts[seen])))
    return bits / 8 + _SHARE_BYTES * int(seen.sum())


def _shared(tables: list[Ints]) -> tuple[Ints, list[int]]:
    """Which matrices share their tables: all counts, and where each matrix's tables start.

    One after the other, a matrix joins the group in which it costs least, or makes its own.
    """
    width = max(map(len, tables), default=1)
    groups, starts = list[Ints](), list[int]()
    for counts in tables:
        used = np.flatnonzero(counts.any(axis=1))
        new = [] if (len(groups) + 1) * width > 256 else [np.zeros((width, 256), np.int64)]
        most = [
            _coded_bytes(group[used] + counts[used]) - _coded_bytes(group[used])
            for group in [*groups, *new]
        ]
        at = most.index(min(most))
        if at == len(groups):
            groups += new
        groups[at][used] += counts[used]
        starts.append(at * width)
    return np.concatenate([np.empty((0, 256), np.int64), *groups]), starts


def _numbers(contexts: Contexts) -> bytes:
    return np.concatenate((contexts.row, contexts.col)).astype(np.uint8).tobytes()


def _symbols(contexts: Contexts, matrix: Bytes) -> Ints:
    """Bytes with the numbers of their tables above them, row by row."""
    return contexts.each() << 8 | matrix.ravel()


def _counts(contexts: Contexts, matrix: Bytes) -> Ints:
    """How often each byte is met in each table: (tables, 256)."""
    tables = int(contexts.row.max() + contexts.col.max()) + 1
    counts = np.bincount(_symbols(contexts, matrix), minlength=256 * tables)
    return counts.reshape(tables, 256)


def _shares(counts: Ints) -> Ints:
    """Frequencies in parts of 2**15, none lost; even ones for a table that nothing uses."""
    total = int(counts.sum())
    if total == 0:
        return np.full(256, _TOTAL // 256)
    shares = np.maximum((counts * _TOTAL + total // 2) // total, counts > 0)
    shares[np.argmax(counts)] += _TOTAL - shares.sum()
    return shares


def _lanes(symbols: Ints, shares: NDArray[np.uint32]) -> bytes:
    """States and words. Steps go backwards, so that the decoder's go forwards."""
    start = (np.cumsum(shares, 1, np.uint32) - shares).ravel()
    share = shares.ravel()
    lanes, words = lanes_of(len(symbols)), list[bytes]()
    states = np.full(lanes, LOW, np.uint32)
    for at in reversed(range(0, len(symbols), lanes)):
        found = symbols[at : at + lanes]
        state, part = states[: len(found)], share[found]
        full = state >> 17 >= part
        words.append(state[full].astype("<u2").tobytes())
        state[full] >>= 16
        times, rest = np.divmod(state, part)
        state[:] = (times << 15) + rest + start[found]
    return states.astype("<u4").tobytes() + b"".join(reversed(words))
