"""Feeder: the batches of core on the device, read ahead and cut into micro-batches."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from mlx.core import array
from numpy.typing import NDArray

from backend_mlx.distributed import Solo
from core.data.batches import Batches
from core.data.shards import TokenStream
from core.train.recipe import Recipe


class Feeder:
    """Gives this rank's share of any step's batch."""

    def __init__(self, stream: TokenStream, recipe: Recipe, group: Solo) -> None:
        self.recipe = recipe
        self.group = group
        self._batches = Batches(
            stream,
            recipe.data,
            seq_len=recipe.arch.seq_len,
            vocab_size=recipe.arch.vocab_size,
            seed=recipe.seed,
            rank=group.rank,
            world_size=group.world_size,
        )

    def batch(self, step: int) -> list[tuple[array, array]]:
        """Micro-batches of a step, where all steps are alike: see batch_at."""
        return self.batch_at(step * self.recipe.data.train_batch_tokens)

    def batch_at(self, tokens_done: int, phase: int = 0) -> list[tuple[array, array]]:
        """Micro-batches (x, y), int32 (micro_batch, T) each; the last may be smaller.

        Of the step behind so many tokens of the run, in this phase of data.batch_schedule.
        """
        return [(self._put(x), self._put(y)) for x, y in self._batches.at(tokens_done, phase)]

    def _put(self, rows: NDArray[np.int32]) -> array:
        return mx.array(rows)
