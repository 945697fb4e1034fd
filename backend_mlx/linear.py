"""Linear: fp32 weight, product in the activations' dtype; the leaf that stand-ins replace."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx.core import array

from core.arch.spec import LinearKind, ModelSpec
from core.arch.start import frozen_matrix

LEAST_SCALE = 1e-12


def project(x: array, weight: array) -> array:
    """x W^T in x's dtype. x: (..., in); weight: (out, in) fp32, or bf16 where products are."""
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

    def __init__(self, spec: ModelSpec, in_dims: int, out_dims: int) -> None:
        super().__init__(in_dims, out_dims)
        self.group = spec.linear_group

    def __call__(self, x: array) -> array:
        return project(x, straight_through(self.weight, ternary(self.weight, self.group)))


class Binary(Ternary):
    """Weights of -s and s."""

    def __call__(self, x: array) -> array:
        return project(x, straight_through(self.weight, binary(self.weight, self.group)))


class Random(nn.Module):
    """A matrix from the spec's seed, neither trained nor stored, and an adapter (Hu et al. 2021).

    y = x W^T + (x D^T) U^T, D of adapter_rank rows and U of as many columns; of rank 0: W alone.
    """

    _frozen: array

    def __init__(self, spec: ModelSpec, name: str, in_dims: int, out_dims: int) -> None:
        super().__init__()
        drawn = frozen_matrix(spec, name, (out_dims, in_dims))
        self._frozen = mx.array(drawn)
        self.rank = spec.adapter_rank
        if self.rank:
            self.down = Linear(in_dims, self.rank)
            self.up = Linear(self.rank, out_dims)

    def __call__(self, x: array) -> array:
        y = project(x, self._frozen)
        return y + self.up(self.down(x)) if self.rank else y


class Low(NamedTuple):
    """A matrix of low rank beside another: scale (x A^T) B^T, its own for each row of a batch."""

    down: array  # A, (B, r, in)
    up: array  # B, (B, out, r)
    scale: float


Side = dict[str, Low]  # of one visit by the names of what they stand beside, or of the head
Sides = list[Side]  # of each visit of the plan, then of the head


def beside(y: array, x: array, low: Low) -> array:
    """y, and what the adapter makes of x. x: (B, T, in); y: (B, T, out)."""
    return y + low.scale * (x @ low.down.astype(x.dtype).swapaxes(1, 2)) @ low.up.astype(
        x.dtype
    ).swapaxes(1, 2)


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


Make = Callable[[ModelSpec, str, int, int], nn.Module]  # of a matrix's name, columns and rows
LINEARS: dict[LinearKind, Make] = {
    "dense": lambda spec, name, in_dims, out_dims: Linear(in_dims, out_dims),
    "ternary": lambda spec, name, in_dims, out_dims: Ternary(spec, in_dims, out_dims),
    "binary": lambda spec, name, in_dims, out_dims: Binary(spec, in_dims, out_dims),
    "random": Random,
}
