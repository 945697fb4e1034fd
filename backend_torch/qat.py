"""Weights as packing will round them, for training: the gradient passes as if they were not."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from backend_torch.linear import straight_through
from core.artifact.grid import Grid

FP16_TINY = 2.0**-24
Arrays = dict[str, Tensor]


class Rounding(NamedTuple):
    """What the matrices are rounded by in one step of the run."""

    steps: Arrays  # (R, 1) of each
    keys: Tensor | None  # of the noise, one a matrix; none: to the nearest


def rounded(weights: Arrays, grids: dict[str, Grid], by: Rounding) -> Arrays:
    """The matrices (R, C) of the grids, straight through: to their nearest levels, or with keys off
    by up to half a step."""
    found = {}
    for index, (name, grid) in enumerate(grids.items()):
        weight, step = weights[name], by.steps[name]
        if by.keys is None:
            used = nearest(weight, step, grid.qmax)
        else:
            used = weight + step * dice(weight.shape, by.keys[index]).to(weight.dtype)
        found[name] = straight_through(weight, used)
    return found


@torch.no_grad()
def row_steps(weights: Arrays, grids: dict[str, Grid]) -> Arrays:
    """Of each matrix. Not to be compiled: a compiler may keep what fp16 rounds away."""
    return {name: row_step(weights[name], grid) for name, grid in grids.items()}


def row_step(weight: Tensor, grid: Grid) -> Tensor:
    """(R, 1): how far a row reaches, by its largest magnitude or its sigma, over qmax; an fp16
    number, as it is stored."""
    if grid.sigmas:
        reach = grid.sigmas * torch.sqrt(torch.mean(torch.square(weight), -1, keepdim=True))
    else:
        reach = torch.amax(torch.abs(weight), -1, keepdim=True)
    step = torch.clamp(reach / grid.qmax, min=grid.floor).to(torch.float16).to(weight.dtype)
    return torch.clamp(step, min=FP16_TINY)


@torch.no_grad()
def with_rate(grads: Arrays, weights: Arrays, steps: Arrays, price: float) -> Arrays:
    """Gradients, and those of `price` times the estimated bits a weight of the stepped matrices.

    A row with steps of s is taken for log2(2 e m / s) bits a weight, m being the mean of its
    sqrt(w^2 + s^2): the entropy of Laplace's distribution, smooth about 0. The steps are fixed.
    """
    part = price / (math.log(2.0) * sum(weights[name].numel() for name in steps))
    found = dict(grads)
    for name in [name for name in steps if name in grads]:
        weight, step = weights[name], steps[name]
        size = torch.sqrt(torch.square(weight) + torch.square(step))
        found[name] = grads[name] + part * weight / (size * torch.mean(size, -1, keepdim=True))
    return found


def nearest(weight: Tensor, step: Tensor, qmax: int) -> Tensor:
    """Whole steps, halves to the even one."""
    return step * torch.clamp(torch.round(weight / step), -qmax, qmax)


def dice(shape: tuple[int, ...], key: Tensor) -> Tensor:
    """Uniform in [-1/2, 1/2), fp32: a hash of the place and the key, the same on every engine."""
    count = shape[0] * shape[1]
    x = torch.arange(count, dtype=torch.int64, device=key.device) + key & 0xFFFFFFFF
    x = (x ^ (x >> 16)) * 0x21F0AAAD & 0xFFFFFFFF
    x = (x ^ (x >> 15)) * 0x735A2D97 & 0xFFFFFFFF
    x = x ^ (x >> 15)
    return ((x >> 8).to(torch.float32) * 2.0**-24 - 0.5).reshape(shape)


def put(keys: list[int], device: torch.device) -> Tensor:
    """(count,) on the device, of integers wide enough for the hash."""
    held = torch.tensor(keys, dtype=torch.int64)
    held = held.pin_memory() if device.type == "cuda" else held  # else the copy waits for the step
    return held.to(device, non_blocking=True)
