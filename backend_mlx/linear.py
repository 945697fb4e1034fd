"""Linear: fp32 weight, product in the activations' dtype; the leaf that stand-ins replace."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
from mlx.core import array

from core.arch.spec import LinearKind

LEAST_SCALE = 1e-12


def project(x: array, weight: array) -> array:
    """x W^T in x's dtype. x: (..., in); weight: (out, in) fp32."""
    return x @ weight.astype(x.dtype).T


class Linear(nn.Module):
    """A matrix without bias."""

    def __init__(self, in_dims: int, out_dims: int) -> None:
        super().__init__()
        self.weight = mx.zeros((out_dims, in_dims))

    def __call__(self, x: array) -> array:
        return project(x, self.weight)


class Ternary(Linear):
    """Weights of -s, 0 and s (after Ma et al. 2024), s of each group its mean magnitude."""

    def __init__(self, in_dims: int, out_dims: int, group: int) -> None:
        super().__init__(in_dims, out_dims)
        self.group = group

    def __call__(self, x: array) -> array:
        return project(x, straight_through(self.weight, ternary(self.weight, self.group)))


class Binary(Ternary):
    """Weights of -s and s."""

    def __call__(self, x: array) -> array:
        return project(x, straight_through(self.weight, binary(self.weight, self.group)))


def ternary(weight: array, group: int) -> array:
    """Each group of the row-major weights as s times -1, 0 or 1: round(w / s) held to +-1."""
    grouped = weight.reshape(-1, group)
    scale = mx.abs(grouped).mean(-1, keepdims=True)
    unit = grouped / mx.maximum(scale, LEAST_SCALE)
    levels = mx.clip(mx.round(unit), -1, 1)
    return (scale * levels).reshape(weight.shape)


def binary(weight: array, group: int) -> array:
    """Each group of the row-major weights as s times its sign, that of zero being +."""
    grouped = weight.reshape(-1, group)
    scale = mx.abs(grouped).mean(-1, keepdims=True)
    return mx.where(grouped >= 0, scale, -scale).reshape(weight.shape)


def straight_through(weight: array, used: array) -> array:
    """The value of `used`; the gradient goes to `weight` as it is."""
    return mx.stop_gradient(used) + (weight - mx.stop_gradient(weight))


LINEARS: dict[LinearKind, Callable[[int, int, int], Linear]] = {
    "dense": lambda in_dims, out_dims, group: Linear(in_dims, out_dims),
    "ternary": Ternary,
    "binary": Binary,
}
