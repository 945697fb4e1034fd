"""Qat: training against the rounding that packing will do - which weights, to what, from when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.arch.noise import random_bits, stream_of
from core.arch.params import param_table
from core.arch.spec import ModelSpec
from core.artifact.quant import Quant, stored_format

ROLES = ("embed", "head", "attn", "mlp")


@dataclass(frozen=True, kw_only=True)
class Qat:
    """Quantization-aware training. The forward pass sees rounded weights, the gradient passes.

    ste: each weight is the nearest of 2**bits - 1 multiples of its row's step (Bengio et al.
    2013). noise: each weight is off by up to half a step, anew in every step of the run.
    """

    form: Literal["none", "ste", "noise"] = "none"
    start: float = 0.0  # the progress from which on
    embed: int = 8  # bits of this role's matrices; 0: as they are
    head: int = 8
    attn: int = 8
    mlp: int = 8

    def __post_init__(self) -> None:
        if not 0.0 <= self.start < 1.0:
            raise ValueError(f"qat: start {self.start} must be in [0, 1)")
        for role in ROLES:
            bits = getattr(self, role)
            if bits != 0 and not 2 <= bits <= 8:
                raise ValueError(f"qat: {role} {bits} must be 2 to 8 bits, or 0")

    def on(self, progress: float) -> bool:
        return self.form != "none" and progress >= self.start


def rounded_levels(spec: ModelSpec, quant: Quant, qat: Qat) -> dict[str, int]:
    """The largest level, 2**(bits - 1) - 1, of each matrix that is rounded: where `quant` keeps
    floats, so does training."""
    levels = {}
    for row in param_table(spec):
        bits = getattr(qat, row.role) if row.role in ROLES else 0
        if bits and stored_format(row, quant) != "fp16":
            levels[row.name] = 2 ** (bits - 1) - 1
    return levels


def noise_keys(seed: int, step: int, count: int) -> NDArray[np.uint32]:
    """What the noise of so many matrices is drawn from in this step, on every rank, (count,)."""
    bits = random_bits(seed, stream_of(f"qat noise {step}"), count)
    return (bits >> np.uint64(32)).astype(np.uint32)
