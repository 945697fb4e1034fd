"""Grid: the levels that a row may take, and the rule of how far they reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

FP16_MAX = 65_504.0
MOST = 32_767  # the outermost level that a file holds
_FIXED_BITS = 19  # squares of so many bits, 2**24 of them, fit int64


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Levels -qmax to qmax, qmax = 2**(bits - 1) - 1; a row's step is its reach / qmax.

    The reach is the row's largest |weight|; or `sigmas` times its sigma (SDClip: record of
    2026-04-05); or the |weight| that a part `quantile` of the row does not exceed. What lies
    beyond is clipped. With 10 sigmas or more nothing is: k then only sets the step, k / qmax
    sigmas wide in every row, and a larger k gives coarser levels in fewer bytes.
    `times` makes every step so much wider; the levels are fewer or more then, the reach stays.
    """

    bits: int = 8
    sigmas: float = 0.0  # 0: not by sigma
    quantile: float = 1.0  # 1: not by quantile
    floor: float = 0.0  # least step
    times: float = 1.0
    log_scales: bool = False  # steps are stored as log scales, else in fp16

    def __post_init__(self) -> None:
        _need(2 <= self.bits <= 8, f"{self.bits} bits must be 2 to 8")
        _need(0 <= self.sigmas < math.inf, f"sigmas {self.sigmas} must be at least 0 and finite")
        _need(0 < self.quantile <= 1, f"quantile {self.quantile} must be over 0, to 1")
        one = self.sigmas == 0 or self.quantile == 1
        _need(one, f"sigmas {self.sigmas} and quantile {self.quantile}: choose one of them")
        _need(0 <= self.floor <= FP16_MAX, f"scale_floor {self.floor} must be 0 to {FP16_MAX:.0f}")
        fits = 0 < self.times < math.inf
        _need(fits, f"step_scale {self.times} must be positive and finite")
        _need(self.last <= MOST, f"step_scale {self.times}: {self.last} levels exceed {MOST}")

    @property
    def qmax(self) -> int:
        return int(2 ** (self.bits - 1) - 1)

    @property
    def last(self) -> int:
        """The outermost level: qmax, where `times` does not move it."""
        return max(1, round(self.qmax / self.times))

    def reach(self, weight: Array) -> NDArray[Any]:
        """Finite (R, C) to (R,), in float32 or, by sigma, float64; 0 for zeros only.

        No sum whose order and no quantile whose interpolation could differ between machines.
        """
        if self.sigmas:
            return self.sigmas * sigma(weight)
        size = np.abs(weight)
        peak: Array = np.max(size, axis=1)
        if self.quantile == 1:
            return peak
        last = math.ceil(self.quantile * size.shape[1]) - 1
        within: Array = np.partition(size, last, axis=1)[:, last]
        return np.where(within > 0, within, peak)


def sigma(weight: Array) -> NDArray[np.float64]:
    """Finite (R, C) to (R,): root mean square about zero, as the levels lie about zero.

    Equal bits on every machine: weights are rounded to 19 bits below the row's largest, and the
    sum of their squares is one of integers, exact in any order.
    """
    fixed, shift = _fixed(weight)
    squares = np.sum(fixed * fixed, axis=1)
    root: NDArray[np.float64] = np.ldexp(np.sqrt(squares / weight.shape[1]), -shift)
    return root


def mean_size(weight: Array) -> NDArray[np.float64]:
    """Finite (R, C) to (R,): mean |weight|, of the same rounded weights."""
    fixed, shift = _fixed(weight)
    mean: NDArray[np.float64] = np.ldexp(np.sum(np.abs(fixed), axis=1) / weight.shape[1], -shift)
    return mean


def _fixed(weight: Array) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Integers (R, C), and the power of two (R,) that each row was multiplied by."""
    _, exponent = np.frexp(np.max(np.abs(weight), axis=1).astype(np.float64))
    shift = _FIXED_BITS - exponent
    fixed = np.rint(np.ldexp(weight.astype(np.float64), shift[:, None])).astype(np.int64)
    return fixed, shift


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(f"quant: {message}")
