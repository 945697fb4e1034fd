"""Solo | Group: the same methods for one process and for many, so the loop never asks which."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import SupportsFloat

import mlx.core as mx
import numpy as np
from mlx.core import array
from numpy.typing import NDArray

from core.arch.params import Rule

Bank = tuple[Rule, list[str]]  # a rule, and the parameters of one shape that it moves together


class Solo:
    """One process."""

    rank = 0
    world_size = 1

    def __init__(self) -> None:
        self.device = _device()
        self.steps_ahead = 2  # evaluation is asynchronous: launched before one is done

    def sum(self, arrays: dict[str, array]) -> dict[str, array]:
        """Each array added up over the ranks."""
        return arrays

    def own(self, names: list[str]) -> list[str]:
        """Those of a bank of matrices that this rank moves."""
        return names

    def parts(self, banks: list[Bank]) -> list[list[Bank]]:
        """What is moved at a time."""
        return [banks]

    def scatter(self, arrays: dict[str, array]) -> dict[str, array]:
        """Of arrays of one shape this rank's own, each added up over the ranks."""
        return arrays

    def collect(self, arrays: dict[str, array]) -> Callable[[], dict[str, array]]:
        """Sets out for arrays of one shape, each from its owner; to call it is to wait for them.

        Nothing comes where all are one's own.
        """
        return dict

    def max(self, *numbers: float) -> tuple[float, ...]:
        """The largest of each over the ranks: what all of them agree on."""
        return numbers

    def gather(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """(world_size, ...): the rows of each rank, in order, on all of them."""
        return rows[None]

    def share(self, data: bytes) -> bytes:
        """The first rank's data on all of them."""
        return data

    def late(self, number: array) -> SupportsFloat:
        """To be read when it is there, whatever the device has been given to do since."""
        return number

    def close(self) -> None:
        """Leave the group."""

    def peak_bytes(self) -> int | None:
        """The most device memory that was held so far, where the framework counts it."""
        return int(mx.get_peak_memory())

    def device_name(self) -> str:
        """The maker's name of the device."""
        return str(mx.device_info().get("device_name", self.device))


class Group(Solo):
    """Several processes started by mlx.launch."""

    def __init__(self) -> None:
        super().__init__()
        self._group = mx.distributed.init()
        self.rank = self._group.rank()
        self.world_size = self._group.size()

    def sum(self, arrays: dict[str, array]) -> dict[str, array]:
        """Each array added up over the ranks."""
        flat = mx.concatenate([array.flatten() for array in arrays.values()])
        flat = self._sent(mx.distributed.all_sum, flat)
        ends = np.cumsum([array.size for array in arrays.values()])[:-1].tolist()
        pairs = zip(arrays, flat.split(ends), strict=True)
        return {name: part.reshape(arrays[name].shape) for name, part in pairs}

    def own(self, names: list[str]) -> list[str]:
        """Those of a bank of matrices that this rank moves."""
        most = -(-len(names) // self.world_size)
        return names[self.rank * most :][:most]

    def parts(self, banks: list[Bank]) -> list[list[Bank]]:
        """What is moved at a time: matrices of one shape, while those before are on their way."""
        rest = [bank for bank in banks if bank[0] != "matrix"]
        return [*([bank] for bank in banks if bank[0] == "matrix"), rest]

    def scatter(self, arrays: dict[str, array]) -> dict[str, array]:
        """Of arrays of one shape this rank's own, each added up over the ranks.

        All of them are: MLX scatters a sum on NCCL alone.
        """
        bank = self._sent(mx.distributed.all_sum, mx.stack([*arrays.values()]))
        own = self.own([*arrays])
        return {name: row for name, row in zip(arrays, bank, strict=True) if name in own}

    def collect(self, arrays: dict[str, array]) -> Callable[[], dict[str, array]]:
        """Sets out for arrays of one shape, each from its owner; to call it is to wait for them."""
        rows = [*arrays.values()]
        rows += [mx.zeros_like(rows[0])] * (-len(rows) % self.world_size)
        own = mx.stack(rows).split(self.world_size)[self.rank]
        bank = self._sent(mx.distributed.all_gather, own)
        return lambda: dict(zip(arrays, bank, strict=False))

    def _sent(self, send: Callable[..., array], given: array) -> array:
        """Waited for: all ranks send in one order, and one whose partner is gone hears of it."""
        sent = send(given, group=self._group)
        mx.eval(sent)
        return sent

    def max(self, *numbers: float) -> tuple[float, ...]:
        """The largest of each over the ranks: what all of them agree on."""
        held = mx.distributed.all_max(mx.array(numbers, mx.float32), group=self._group)
        return tuple(float(held[index]) for index in range(len(numbers)))

    def gather(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """(world_size, ...): the rows of each rank, in order, on all of them."""
        parts = mx.distributed.all_gather(mx.array(rows)[None], group=self._group)
        return np.array(parts)

    def share(self, data: bytes) -> bytes:
        """The first rank's data on all of them."""
        own = np.frombuffer(data if self.rank == 0 else b"", np.uint8)
        size = int(mx.distributed.all_sum(mx.array(own.size), group=self._group))
        held = mx.array(own) if self.rank == 0 else mx.zeros(size, mx.uint8)
        return np.array(mx.distributed.all_sum(held, group=self._group)).tobytes()

    def close(self) -> None:
        """Leave the group."""


def open_group(deterministic: bool = False) -> Solo:
    """A Group where a launcher started several processes, else Solo.

    deterministic: asks nothing of MLX, whose CPU gives the same bits again by itself and which has
    no switch for other devices. For a single process mlx.launch names a list of hosts that is
    empty, which MLX cannot read.
    """
    hosts = os.environ.get("MLX_HOSTFILE")
    if hosts and not Path(hosts).read_text(encoding="utf-8").strip():
        return Solo()
    return Group() if mx.distributed.init().size() > 1 else Solo()


def _device() -> mx.Device:
    """Metal, then the CPU; GOLF_DEVICE=cpu asks for the last.

    On Metal the model may wire what the system recommends at most, and an eighth of it is kept as
    cache between steps: the rest of unified memory is other programs'.
    """
    if os.environ.get("GOLF_DEVICE") == "cpu":
        mx.set_default_device(mx.cpu)
    elif mx.metal.is_available():
        recommended = int(mx.device_info()["max_recommended_working_set_size"])
        mx.set_wired_limit(recommended)
        mx.set_cache_limit(recommended // 8)
    return mx.default_device()
