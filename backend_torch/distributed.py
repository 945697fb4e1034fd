"""Solo | Group: the same methods for one process and for many, so the loop never asks which."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, SupportsFloat

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from core.arch.params import Rule

Bank = tuple[Rule, list[str]]  # a rule, and the parameters of one shape that it moves together
LONGEST_WAIT = timedelta(hours=24)  # of a rank for the others: one scores or packs alone


class Solo:
    """One process."""

    rank = 0
    world_size = 1

    def __init__(self) -> None:
        self.device = _device()
        self.steps_ahead = 1 if self.device.type == "cpu" else 2  # launched before one is done

    def sum(self, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each array added up over the ranks."""
        return arrays

    def own(self, names: list[str]) -> list[str]:
        """Those of a bank of matrices that this rank moves."""
        return names

    def parts(self, banks: list[Bank]) -> list[list[Bank]]:
        """What is moved at a time."""
        return [banks]

    def scatter(self, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of arrays of one shape this rank's own, each added up over the ranks."""
        return arrays

    def collect(self, arrays: dict[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
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

    def late(self, number: Tensor) -> SupportsFloat:
        """To be read when it is there, whatever the device has been given to do since."""
        return _Late(number) if number.is_cuda else number

    def close(self) -> None:
        """Leave the group."""

    def peak_bytes(self) -> int | None:
        """The most device memory that was held so far, where the framework counts it."""
        on_cuda = self.device.type == "cuda"
        return torch.cuda.max_memory_allocated(self.device) if on_cuda else None

    def device_name(self) -> str:
        """The maker's name of the device."""
        on_cuda = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if on_cuda else str(self.device)


class Group(Solo):
    """Several processes started by torchrun: NCCL on CUDA, gloo on CPU.

    What hosts agree on goes by gloo everywhere: so they need not wait for their devices.
    """

    def __init__(self) -> None:
        super().__init__()
        if self.device.type == "cuda":
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(self.device)
        else:  # gloo moves arrays of the CPU alone
            self.device, self.steps_ahead = torch.device("cpu"), 1
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo",
            timeout=LONGEST_WAIT,
            **_started_anew(),
        )
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()

    def sum(self, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each array added up over the ranks."""
        flat = torch.cat([array.flatten() for array in arrays.values()])
        dist.all_reduce(flat)
        parts = flat.split([array.numel() for array in arrays.values()])
        return {name: part.view_as(arrays[name]) for name, part in zip(arrays, parts, strict=True)}

    def own(self, names: list[str]) -> list[str]:
        """Those of a bank of matrices that this rank moves."""
        most = -(-len(names) // self.world_size)
        return names[self.rank * most :][:most]

    def parts(self, banks: list[Bank]) -> list[list[Bank]]:
        """What is moved at a time: matrices of one shape, while those before are on their way."""
        rest = [bank for bank in banks if bank[0] != "matrix"]
        return [*([bank] for bank in banks if bank[0] == "matrix"), rest]

    def scatter(self, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of arrays of one shape this rank's own, each added up over the ranks."""
        bank, own = self._bank(arrays)
        (getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor)(own, bank)
        return dict(zip(self.own([*arrays]), own, strict=False))

    def collect(self, arrays: dict[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
        """Sets out for arrays of one shape, each from its owner; to call it is to wait for them."""
        bank, own = self._bank(arrays)
        work = dist.all_gather([*bank.chunk(self.world_size)], own, async_op=True)

        def arrived() -> dict[str, Tensor]:
            work.wait()
            return dict(zip(arrays, bank, strict=False))

        return arrived

    def _bank(self, arrays: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """One array of them all, and of zeros, to as many for each rank; and a copy of its own."""
        rows = [*arrays.values()]
        bank = torch.stack(rows + [torch.zeros_like(rows[0])] * (-len(rows) % self.world_size))
        return bank, bank.chunk(self.world_size)[self.rank].clone()

    def max(self, *numbers: float) -> tuple[float, ...]:
        """The largest of each over the ranks: what all of them agree on."""
        held = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(held, op=dist.ReduceOp.MAX)
        return tuple(held.tolist())

    def gather(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """(world_size, ...): the rows of each rank, in order, on all of them."""
        held = torch.from_numpy(rows)
        parts = [torch.empty_like(held) for _ in range(self.world_size)]
        dist.all_gather(parts, held)
        return torch.stack(parts).numpy()

    def share(self, data: bytes) -> bytes:
        """The first rank's data on all of them."""
        (size,) = self.max(len(data))
        held = torch.frombuffer(bytearray(data.ljust(int(size))), dtype=torch.uint8)
        dist.broadcast(held, 0)
        return held.numpy().tobytes()

    def close(self) -> None:
        """Leave the group."""
        dist.destroy_process_group()


class _Late:
    """A number on its way to the host; float(tensor) would wait for all that is launched by now."""

    def __init__(self, number: Tensor) -> None:
        self._held, self._there = number.to("cpu", non_blocking=True), torch.cuda.Event()
        self._there.record()

    def __float__(self) -> float:
        self._there.synchronize()
        return float(self._held)


def open_group(deterministic: bool = False) -> Solo:
    """A Group where a launcher started several processes, else Solo.

    deterministic: with the same bits again from the same seed, by as many ranks of the same kind;
    an operation of torch that has no such form raises RuntimeError and says its name.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at its first product
        torch.use_deterministic_algorithms(True)
    return Group() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else Solo()


def _started_anew() -> dict[str, Any]:
    """How the ranks meet where torchrun starts them again: apart from the addresses of dead ranks,
    which its store still holds. Its count is all ranks' on one machine alone (docs/runbook.md).
    """
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if count == "0" or os.environ.get("LOCAL_WORLD_SIZE") != os.environ["WORLD_SIZE"]:
        return {}
    store, rank, world_size = next(dist.rendezvous("env://"))
    return {"store": dist.PrefixStore(count, store), "rank": rank, "world_size": world_size}


def _device() -> torch.device:
    """CUDA, then Metal, then the CPU; GOLF_DEVICE=cpu asks for the last."""
    if os.environ.get("GOLF_DEVICE") != "cpu":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        if torch.backends.mps.is_available():
            return torch.device("mps")
    return torch.device("cpu")
