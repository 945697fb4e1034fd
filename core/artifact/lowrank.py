"""Low rank: a sum of a few outer products that corrects a matrix, equal bits on every machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.artifact.grid import Array

MAX_CORRECTION = 1024  # outer products


@dataclass(frozen=True, eq=False)
class LowRank:
    """The sum over k of scale[k] * left[:, k] * right[k].

    Products of levels are whole numbers, exact in float32; they are multiplied and added in the
    order of k, each by itself, so no library's order of sums is in it.
    """

    left: NDArray[np.int8]  # (rows, K)
    right: NDArray[np.int8]  # (K, cols)
    scale: NDArray[np.float32]  # (K,), positive

    def __post_init__(self) -> None:
        rank = len(self.right)
        fits = self.left.ndim == self.right.ndim == 2 and self.left.shape[1] == rank
        shapes = f"{self.left.shape}, {self.right.shape} and {self.scale.shape}"
        _need(fits and self.scale.shape == (rank,), f"{shapes} are no outer products")
        _need(1 <= rank <= MAX_CORRECTION, f"{rank} outer products, expected 1 to {MAX_CORRECTION}")
        kinds = [array.dtype.name for array in (self.left, self.right, self.scale)]
        _need(kinds == ["int8", "int8", "float32"], f"{kinds} must be int8, int8 and float32")
        _need(bool(np.all((self.scale > 0) & np.isfinite(self.scale))), "a scale is no scale")

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.left), self.right.shape[1]

    def values(self) -> Array:
        """(rows, cols) float32."""
        left, right = self.left.astype(np.float32), self.right.astype(np.float32)
        total = np.zeros(self.shape, np.float32)
        for k, scale in enumerate(self.scale):
            total += np.multiply.outer(left[:, k], right[k]) * scale
        return total


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(f"low rank: {message}")
