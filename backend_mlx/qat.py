"""Weights as packing will round them, for training: the gradient passes as if they were not."""

from __future__ import annotations

import math
from typing import NamedTuple

import mlx.core as mx
from mlx.core import array

from backend_mlx.linear import straight_through
from core.artifact.grid import Grid

FP16_TINY = 2.0**-24
Arrays = dict[str, array]


class Rounding(NamedTuple):
    """What the matrices are rounded by in one step of the run."""

    steps: Arrays  # (R, 1) of each
    keys: array | None  # of the noise, one a matrix; none: to the nearest


def rounded(weights: Arrays, grids: dict[str, Grid], by: Rounding) -> Arrays:
    """The matrices (R, C) of the grids, straight through: to their nearest levels, or with keys off
    by up to half a step."""
    found = {}
    for index, (name, grid) in enumerate(grids.items()):
        weight, step = weights[name], by.steps[name]
        if by.keys is None:
            used = nearest(weight, step, grid.qmax)
        else:
            used = weight + step * dice(weight.shape, by.keys[index]).astype(weight.dtype)
        found[name] = straight_through(weight, used)
    return found


def row_steps(weights: Arrays, grids: dict[str, Grid]) -> Arrays:
    """Of each matrix. Not to be compiled: a compiler may keep what fp16 rounds away."""
    return {name: row_step(weights[name], grid) for name, grid in grids.items()}


def row_step(weight: array, grid: Grid) -> array:
    """(R, 1): how far a row reaches, by its largest magnitude or its sigma, over qmax; an fp16
    number, as it is stored."""
    if grid.sigmas:
        reach = grid.sigmas * mx.sqrt(mx.mean(mx.square(weight), -1, keepdims=True))
    else:
        reach = mx.max(mx.abs(weight), -1, keepdims=True)
    step = mx.maximum(reach / grid.qmax, grid.floor).astype(mx.float16).astype(weight.dtype)
    return mx.maximum(step, FP16_TINY)


def with_rate(grads: Arrays, weights: Arrays, steps: Arrays, price: float) -> Arrays:
    """Gradients, and those of `price` times the estimated bits a weight of the stepped matrices.

    A row with steps of s is taken for log2(2 e m / s) bits a weight, m being the mean of its
    sqrt(w^2 + s^2): the entropy of Laplace's distribution, smooth about 0. The steps are fixed.
    """
    part = price / (math.log(2.0) * sum(weights[name].size for name in steps))
    found = dict(grads)
    for name in [name for name in steps if name in grads]:
        weight, step = weights[name], steps[name]
        size = mx.sqrt(mx.square(weight) + mx.square(step))
        found[name] = grads[name] + part * weight / (size * mx.mean(size, -1, keepdims=True))
    return found


def nearest(weight: array, step: array, qmax: int) -> array:
    """Whole steps, halves to the even one."""
    return step * mx.clip(mx.round(weight / step), -qmax, qmax)


def dice(shape: tuple[int, ...], key: array) -> array:
    """Uniform in [-1/2, 1/2), fp32: a hash of the place and the key, the same on every engine."""
    count = shape[0] * shape[1]
    x = mx.arange(count, dtype=mx.uint32) + key
    x = (x ^ (x >> 16)) * 0x21F0AAAD
    x = (x ^ (x >> 15)) * 0x735A2D97
    x = x ^ (x >> 15)
    return ((x >> 8).astype(mx.float32) * 2.0**-24 - 0.5).reshape(shape)


def put(keys: list[int], device: mx.Device) -> array:
    """(count,) of integers wide enough for the hash; `device` is MLX's own."""
    return mx.array(keys, dtype=mx.uint32)
