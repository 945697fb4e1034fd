"""The tensors of strangers' blobs, listed: compressions taken off, nothing looked up or built."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tools.strangers.bounded import Budget, OverBudget, method_of
from tools.strangers.foreign_formats import Tensor, reader_of

LIMIT_BYTES = 1 << 28  # of all that is unpacked
MAX_WRAPPERS = 4
_SHUFFLED = b"BSHF"


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A blob that is no artifact of this toolkit: `format` as in "torch zip in zlib"."""

    format: str
    model_bytes: int
    tensors: tuple[Tensor, ...]

    @property
    def parameters(self) -> int:
        """Elements of all tensors, scales included."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)


def foreign_tensors(data: bytes, subject: str) -> Foreign:
    """What a stranger's blob holds. Nothing in it is executed, looked up or built.

    Raises ValueError where it is of no known format, is corrupt, or unpacks to too much.
    """
    budget = Budget(LIMIT_BYTES)
    try:
        raw, around = _unwrapped(data, budget)
        reader = reader_of(raw)
        assert reader is not None
        kind, tensors = reader(raw, budget)
        listed = tuple(sorted(tensors, key=lambda tensor: tensor.name))
    except ValueError as error:
        raise ValueError(f"{subject}: {error}") from None
    name = " in ".join([kind, *reversed(around)])
    return Foreign(format=name, model_bytes=len(data), tensors=listed)


def _unwrapped(data: bytes, budget: Budget) -> tuple[bytes, list[str]]:
    """The content within compressions around each other, and their names, the outermost first."""
    around: list[str] = []
    raw = data
    while reader_of(raw) is None:
        if len(around) >= MAX_WRAPPERS:
            raise ValueError(f"packed more than {MAX_WRAPPERS} times")
        if raw.startswith(_SHUFFLED):
            raw = _unshuffled(raw, budget)
            around.append("byte shuffle")
            continue
        method, raw = _expanded(raw, budget)
        around.append(method)
    return raw, around


def _expanded(data: bytes, budget: Budget) -> tuple[str, bytes]:
    if (method := method_of(data)) is not None:
        return method, budget.expand(method, data)
    for method in ("brotli", "raw lzma"):  # they have no mark: what they give must be known
        try:
            raw = budget.expand(method, data)
        except OverBudget:
            raise
        except ValueError as error:
            if "pip install" in str(error):
                raise
            continue
        if reader_of(raw) or method_of(raw) or raw.startswith(_SHUFFLED):
            return method, raw
    raise ValueError(
        f"not an artifact, and no format that is known: it starts with {data[:8]!r}; expected a"
        " model.bin, torch.save, a pickle, npz, npy or safetensors, plain or compressed"
    )


def _unshuffled(data: bytes, budget: Budget) -> bytes:
    """Bytes put back between each other: "BSHF", a stride, then each stride-th byte in turn."""
    stride, body = (data[4] if len(data) > 4 else 0), np.frombuffer(data, np.uint8)[5:]
    if not stride:
        raise ValueError("a byte shuffle of stride 0")
    budget.spend(len(body))
    whole, at = np.empty(len(body), np.uint8), 0
    for phase in range(min(stride, len(body))):
        lane = whole[phase::stride]
        lane[:] = body[at : at + len(lane)]
        at += len(lane)
    return whole.tobytes()
