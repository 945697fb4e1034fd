"""Which targets a row of the batch scores: windows over the token stream, each target once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.data.shards import TokenStream

Rows = NDArray[np.int32]


@dataclass(frozen=True)
class Window:
    """Inputs start .. start+count-1 predict targets start+1 .. start+count."""

    start: int
    count: int


def chunked(num_tokens: int, seq_len: int) -> list[Window]:
    """Non-overlapping windows over all num_tokens - 1 targets; the last one may be short."""
    last = num_tokens - 1
    if last < 1:
        raise ValueError(f"{num_tokens} tokens hold no target: scoring needs at least two")
    return [Window(start, min(seq_len, last - start)) for start in range(0, last, seq_len)]


def batches(windows: list[Window], size: int) -> Iterator[list[Window]]:
    for first in range(0, len(windows), size):
        yield windows[first : first + size]


def fill(stream: TokenStream, group: list[Window], size: int, seq_len: int) -> tuple[Rows, Rows]:
    """x and y, int32 (size, seq_len), one window a row; unused places are zero.

    The shape never changes, so a compiled model meets one shape; what is right of a window's end
    cannot reach its targets through a causal model.
    """
    x, y = np.zeros((2, size, seq_len), np.int32)
    for row, window in enumerate(group):
        tokens = stream.slice(window.start, window.start + window.count + 1)
        x[row, : window.count], y[row, : window.count] = tokens[:-1], tokens[1:]
    return x, y
