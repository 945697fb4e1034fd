"""Feeder: the batches of core on the device, read ahead and cut into micro-batches."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend_torch.distributed import Solo
from core.data.ahead import Ahead
from core.data.batches import Batch, batch, micro_batches
from core.data.shards import TokenStream
from core.train.recipe import Recipe


class Feeder:
    """Gives this rank's share of any step's batch."""

    def __init__(self, stream: TokenStream, recipe: Recipe, group: Solo) -> None:
        self.stream = stream
        self.recipe = recipe
        self.group = group
        self._rows = Ahead(self._read)

    def batch(self, step: int) -> list[tuple[Tensor, Tensor]]:
        """Micro-batches (x, y), int32 (micro_batch, seq_len) each; the last may be smaller."""
        x, y = self._rows.take(step)
        parts = micro_batches(x, y, self.recipe.data.micro_batch)
        return [(self._put(a), self._put(b)) for a, b in parts]

    def _read(self, step: int) -> Batch:
        return batch(
            self.stream,
            step,
            seq_len=self.recipe.arch.seq_len,
            train_batch_tokens=self.recipe.data.train_batch_tokens,
            vocab_size=self.recipe.arch.vocab_size,
            rank=self.group.rank,
            world_size=self.group.world_size,
        )

    def _put(self, rows: NDArray[np.int32]) -> Tensor:
        tensor = torch.from_numpy(rows)
        if self.group.device.type == "cuda":
            tensor = tensor.pin_memory()  # the copy then runs beside the step before
        return tensor.to(self.group.device, non_blocking=True)
