"""Packing: where the documents lie that share the rows of a batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.arch.spec import BOS

MEAN_TOKENS = 256  # of a document, for which there is room; for shorter ones it is doubled


def cu_seqlens(tokens: NDArray[np.int32]) -> NDArray[np.int32]:
    """Cumulative lengths of the documents in the rows (B, T), read one after another: (N + 1,).

    Each BOS begins a document, and so does each row. The first number is 0; those behind the last
    document are B T, so that batches of one shape have one N for all but the shortest documents.
    """
    begins = tokens == BOS
    begins[:, :1] = True
    starts = np.flatnonzero(begins)
    rows, places = len(tokens), tokens.size
    room = rows + -(-places // MEAN_TOKENS)
    while room < len(starts):
        room *= 2
    lengths = np.full(room + 1, places, np.int32)
    lengths[: len(starts)] = starts
    return lengths
