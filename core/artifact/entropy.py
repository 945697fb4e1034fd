"""The entropy coder: bytes by how large their rows and columns are; rans.py decodes them.

Static rANS (Duda 2013) over interleaved lanes (Giesen 2014). A matrix has one table, or tables by
the mean |level| of its rows, of its columns or of both: whatever makes it smallest. Matrices of
one stream share their tables where that is cheaper.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.artifact.rans import LOW, lanes_of
from core.artifact.scales import log_scale_from_float

Shapes = Sequence[tuple[int, int]]  # of matrices of bytes that follow each other
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

_TOTAL = 1 << 15
_BIN = 2  # of the eighths of an octave of a log scale: tables are a quarter apart
_LEAST_MEAN = 2.0**-6
_SHARE_BYTES = 1.75  # about what a frequency takes among the side data


@dataclass(frozen=True, eq=False)
class Part:
    """A matrix of bytes, and a number for each row and column: their sum tells a byte's table."""

    matrix: Bytes
    row: Ints
    col: Ints  # from 0 on

    def moved(self, by: int) -> Part:
        """With other tables, so many further on."""
        return replace(self, row=self.row + by)

    def symbols(self) -> Ints:
        """Bytes with the numbers of their tables above them, row by row."""
        return (np.add.outer(self.row, self.col) << 8 | self.matrix).ravel()

    def counts(self) -> Ints:
        """How often each byte is met in each table: (tables, 256)."""
        tables = int(self.row.max() + self.col.max()) + 1
        return np.bincount(self.symbols(), minlength=256 * tables).reshape(tables, 256)

    def numbers(self) -> bytes:
        return np.concatenate((self.row, self.col)).astype(np.uint8).tobytes()


def rans_encode(data: bytes, shapes: Shapes) -> bytes:
    """The stream that rans.py describes, of matrices of these shapes."""
    parts = [_cheapest(matrix) for matrix in _split(data, shapes)]
    least = min((int(part.row.min()) for part in parts), default=0)
    parts = [part.moved(-least) for part in parts]
    counts, starts = _shared([part.counts() for part in parts])
    parts = [part.moved(start) for part, start in zip(parts, starts, strict=True)]
    shares = np.array([_shares(table) for table in counts], np.uint32).reshape(-1, 256)
    side = len(parts).to_bytes(4, "little")
    side += np.array([part.matrix.shape for part in parts], "<u4").tobytes()
    side += b"".join(part.numbers() for part in parts) + shares.astype("<u2").tobytes()
    packed = zlib.compress(side, 9)
    symbols = [part.symbols().astype(np.uint16) for part in parts]
    lanes = _lanes(np.concatenate([np.empty(0, np.uint16), *symbols]), shares)
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


def _cheapest(matrix: Bytes) -> Part:
    """With one table, tables by rows, by columns, or by both."""
    size = np.abs(matrix.view(np.int8).astype(np.int16))
    whole, rows, cols = (_bins(size.mean(axis)) for axis in (None, 1, 0))
    choices = product((np.full_like(rows, whole), rows), (np.full_like(cols, whole), cols))
    parts = [Part(matrix, row + col.min() - whole, col - col.min()) for row, col in choices]
    return min(parts, key=_cost)


def _bins(mean: Any) -> Ints:
    """Means of |level| as logarithms, in quarters of an octave."""
    at_least = np.maximum(mean, _LEAST_MEAN).astype(np.float32)
    return log_scale_from_float(at_least).astype(np.int64) // _BIN


def _cost(part: Part) -> float:
    """Bytes of a matrix by itself: its tables, what they code, and the numbers."""
    first = part.moved(-int(part.row.min()))
    return _coded_bytes(first.counts()) + len(zlib.compress(first.numbers(), 9))


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


def _shares(counts: Ints) -> Ints:
    """Frequencies in parts of 2**15, none lost; even ones for a table that nothing uses."""
    total = int(counts.sum())
    if total == 0:
        return np.full(256, _TOTAL // 256)
    shares = np.maximum((counts * _TOTAL + total // 2) // total, counts > 0)
    shares[np.argmax(counts)] += _TOTAL - shares.sum()
    return shares


def _lanes(symbols: NDArray[np.uint16], shares: NDArray[np.uint32]) -> bytes:
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
