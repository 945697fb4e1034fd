"""Shards to train on where no data is: tokens that can be learned, documents among them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.arch.noise import stream_of, uniform
from core.arch.spec import BOS
from core.data.shards import ShardWriter, TokenStream, open_split
from core.train.recipe import Recipe

STEPS = 4  # that the shards hold; then they begin again
DOCUMENT_TOKENS = 811  # the mean length of a document of the task's validation text


@contextmanager
def random_shards(recipe: Recipe) -> Iterator[TokenStream]:
    """Memory-mapped, as in a run: what is fed is read from files."""
    count = STEPS * recipe.data.train_batch_tokens + 1
    with TemporaryDirectory() as folder:
        with ShardWriter(Path(folder), "fineweb_train") as writer:
            writer.write(tokens(recipe, count))
        yield open_split(Path(folder), "train")


def tokens(recipe: Recipe, count: int) -> NDArray[np.uint16]:
    """Skewed ids, of which half follow from the one before; so a loss falls as in a run."""
    vocab = recipe.arch.vocab_size
    skewed, follows, begins = (
        uniform(recipe.seed, stream_of(f"bench {part}"), (count,)) for part in range(3)
    )
    free = (skewed**3 * vocab).astype(np.int64)
    before = np.roll(free, 1)
    found = np.where(follows < 0.5, (31 * before + 7) % vocab, free)
    found[begins < 1 / DOCUMENT_TOKENS] = BOS
    return found.astype(np.uint16)


def mean_context(rows: NDArray[Any]) -> float:
    """Positions that one looks at on average, its own among them, if documents are apart.

    Of whole rows (B, T): a document of l tokens, cut where its row ends, has l (l + 1) / 2 pairs.
    """
    begins = rows == BOS
    begins[:, 0] = True
    lengths = np.diff(np.append(np.flatnonzero(begins), rows.size)).astype(np.float64)
    return float((lengths * (lengths + 1) / 2).sum() / lengths.sum())
