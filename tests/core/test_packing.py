"""Where documents lie in packed rows."""

from __future__ import annotations

import numpy as np
import pytest

from core.arch.spec import BOS
from core.data.packing import MEAN_TOKENS, cu_seqlens


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (2, 600), (5, 257)])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
def test_every_document_and_every_row_begins_one(shape: tuple[int, int], share: float) -> None:
    rng = np.random.default_rng(1)
    tokens = np.where(rng.random(shape) < share, BOS, BOS + 3).astype(np.int32)
    rows = tokens.reshape(-1).tolist()
    starts = [at for at, token in enumerate(rows) if token == BOS or at % shape[1] == 0]
    found = cu_seqlens(tokens)
    assert found.dtype == np.int32 and found[: len(starts)].tolist() == starts
    assert set(found[len(starts) :].tolist()) == {tokens.size}, "the rest are empty"
    assert np.diff(found).max() <= shape[1]


def test_batches_of_one_shape_have_one_length() -> None:
    """But for documents shorter than most: then there is room for twice as many."""
    tokens = np.full((4, 1024), BOS + 1, np.int32)
    few = len(cu_seqlens(tokens))
    tokens[:, :: MEAN_TOKENS + 1] = BOS
    assert len(cu_seqlens(tokens)) == few == 4 + 4 * 1024 // MEAN_TOKENS + 1
    tokens = np.full((4, 1024), BOS + 1, np.int32)
    tokens[:, :: MEAN_TOKENS // 2 + 1] = BOS
    assert len(cu_seqlens(tokens)) == 2 * (few - 1) + 1
