"""Which pieces of a sequence occur in another one, at any place: found by hashes, held in numpy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.unsignedinteger]
Hashes = NDArray[np.uint64]

BLOCK = 1 << 22
_MIX, _STEP = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)  # both odd
_MARK_BITS, _TO_MARK = 24, np.uint64(40)


class Pieces:
    """A sequence cut into pieces of `size` numbers, of which those too plain are left out.

    A run of 2 * size - 1 of its numbers holds a whole piece, wherever it begins.
    """

    def __init__(self, size: int, kinds: int) -> None:
        """size: a power of two. kinds: how many different numbers a piece has at least."""
        self.size, self._kinds = size, kinds
        self._hashes: list[Hashes] = []
        self._places: list[NDArray[np.int64]] = []
        self._ends = 0
        self._keys = np.zeros(0, np.uint64)
        self._marks = np.zeros(1 << _MARK_BITS, np.bool_)

    def add(self, block: Numbers) -> None:
        """The next numbers of the sequence; the end of a block that is no whole piece is lost."""
        whole = len(block) // self.size * self.size
        rows = np.sort(block[:whole].reshape(-1, self.size), axis=1)
        kept = np.flatnonzero((np.diff(rows.astype(np.int64)) > 0).sum(1) + 1 >= self._kinds)
        self._hashes.append(rolling(block[:whole], self.size)[:: self.size][kept])
        self._places.append(self._ends + kept * self.size)
        self._ends += len(block)

    def close(self) -> None:
        """Everything is added: what is sought is sorted."""
        hashes, places = np.concatenate(self._hashes), np.concatenate(self._places)
        self._keys, first = np.unique(hashes, return_index=True)
        self._at = places[first]
        self._marks[self._keys >> _TO_MARK] = True

    def found(self, held: Numbers) -> Iterator[tuple[int, int]]:
        """Every occurrence in `held`: where it begins there, and where the piece begins."""
        if not len(self._keys):
            return
        for begins in range(0, len(held), BLOCK):
            hashes = rolling(held[begins : begins + BLOCK + self.size - 1], self.size)
            likely = np.flatnonzero(self._marks[hashes >> _TO_MARK])
            keys = np.minimum(np.searchsorted(self._keys, hashes[likely]), len(self._keys) - 1)
            hits = self._keys[keys] == hashes[likely]
            places = zip(likely[hits].tolist(), self._at[keys[hits]].tolist(), strict=True)
            yield from ((begins + at, place) for at, place in places)


def rolling(numbers: Numbers, size: int) -> Hashes:
    """A hash of each `size` neighbours, a power of two of them, (N,) -> (N - size + 1,).

    The polynomial of the numbers modulo 2**64, each mixed; halves are joined by doubling.
    """
    if len(numbers) < size:
        return np.zeros(0, np.uint64)
    hashes = (numbers.astype(np.uint64) + np.uint64(1)) * _MIX
    hashes ^= hashes >> np.uint64(29)
    width, step = 1, _STEP
    while width < size:
        hashes = hashes[:-width] * step + hashes[width:]
        width, step = 2 * width, np.multiply(step, step)
    return hashes
