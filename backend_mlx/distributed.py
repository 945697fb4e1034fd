"""Solo | Group: the same methods for one process and for many, so the loop never asks which."""

from __future__ import annotations

import mlx.core as mx
from mlx.core import array


class Solo:
    """One process."""

    rank = 0
    world_size = 1

    def __init__(self) -> None:
        self.device = mx.default_device()

    def sum(self, arrays: dict[str, array]) -> dict[str, array]:
        """Each array added up over the ranks."""
        return arrays

    def max(self, number: float) -> float:
        """The largest over the ranks: what all of them agree on."""
        return number

    def close(self) -> None:
        """Leave the group."""


class Group(Solo):
    """Several processes started by mlx.launch."""

    def __init__(self) -> None:
        super().__init__()
        self._group = mx.distributed.init()
        self.rank = self._group.rank()
        self.world_size = self._group.size()

    def sum(self, arrays: dict[str, array]) -> dict[str, array]:
        """Each array added up over the ranks."""
        return {name: mx.distributed.all_sum(a, group=self._group) for name, a in arrays.items()}

    def max(self, number: float) -> float:
        """The largest over the ranks: what all of them agree on."""
        held = mx.array([number], mx.float32)
        return float(mx.distributed.all_gather(held, group=self._group).max())

    def close(self) -> None:
        """Leave the group."""


def open_group() -> Solo:
    """A Group where a launcher started several processes, else Solo."""
    return Group() if mx.distributed.init().size() > 1 else Solo()
