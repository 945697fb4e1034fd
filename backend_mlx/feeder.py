"""Feeder: the batches of core on the device, read ahead and cut into micro-batches."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx
import numpy as np
from mlx.core import array
from numpy.typing import NDArray

from backend_mlx.attend import packs
from backend_mlx.distributed import Solo
from core.data.batches import Batches
from core.data.packing import cu_seqlens
from core.data.shards import TokenStream
from core.train.recipe import Recipe

Rows = NDArray[np.int32]


class MicroBatch(NamedTuple):
    """What one forward of a step takes."""

    x: array  # int32 (B, T)
    y: array  # int32 (B, T), what follows each of x
    cu_seqlens: array | None = None  # int32 (N + 1,) of x's documents, where attention packs them


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

    def batch(self, step: int) -> list[MicroBatch]:
        """Micro-batches of a step, where all steps are alike: see batch_at."""
        return self.batch_at(step * self.recipe.data.train_batch_tokens)

    def batch_at(self, tokens_done: int, phase: int = 0) -> list[MicroBatch]:
        """Micro-batches of micro_batch rows; the last may be smaller.

        Of the step behind so many tokens of the run, in this phase of data.batch_schedule.
        """
        return [self._micro_batch(x, y) for x, y in self._batches.at(tokens_done, phase)]

    def _micro_batch(self, x: Rows, y: Rows) -> MicroBatch:
        lengths, device = None, self.group.device
        if self.recipe.arch.doc_mask and packs(device, self.recipe.precision):
            lengths = self.put(cu_seqlens(x))
        return MicroBatch(self.put(x), self.put(y), lengths)

    def put(self, rows: Rows) -> array:
        """On the device."""
        return mx.array(rows)
