"""Linear: fp32 weight, product in the activations' dtype; the leaf that stand-ins replace."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from core.arch.spec import LinearKind

LEAST_SCALE = 1e-12


def project(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T in x's dtype. x: (..., in); weight: (out, in) fp32."""
    return F.linear(x, weight.to(x.dtype))


class Linear(nn.Module):
    """A matrix without bias."""

    def __init__(self, in_dims: int, out_dims: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_dims, in_dims))

    def forward(self, x: Tensor) -> Tensor:
        return project(x, self.weight)


class Ternary(Linear):
    """Weights of -s, 0 and s (after Ma et al. 2024), s of each group its mean magnitude."""

    def __init__(self, in_dims: int, out_dims: int, group: int) -> None:
        super().__init__(in_dims, out_dims)
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        return project(x, straight_through(self.weight, ternary(self.weight, self.group)))


class Binary(Ternary):
    """Weights of -s and s."""

    def forward(self, x: Tensor) -> Tensor:
        return project(x, straight_through(self.weight, binary(self.weight, self.group)))


def ternary(weight: Tensor, group: int) -> Tensor:
    """Each group of the row-major weights as s times -1, 0 or 1: round(w / s) held to +-1."""
    grouped = weight.reshape(-1, group)
    scale = torch.abs(grouped).mean(-1, keepdim=True)
    unit = grouped / torch.clamp(scale, min=LEAST_SCALE)
    levels = torch.clamp(torch.round(unit), -1, 1)
    return (scale * levels).reshape(weight.shape)


def binary(weight: Tensor, group: int) -> Tensor:
    """Each group of the row-major weights as s times its sign, that of zero being +."""
    grouped = weight.reshape(-1, group)
    scale = torch.abs(grouped).mean(-1, keepdim=True)
    return torch.where(grouped >= 0, scale, -scale).reshape(weight.shape)


def straight_through(weight: Tensor, used: Tensor) -> Tensor:
    """The value of `used`; the gradient goes to `weight` as it is."""
    return used.detach() + (weight - weight.detach())


LINEARS: dict[LinearKind, Callable[[int, int, int], Linear]] = {
    "dense": lambda in_dims, out_dims, group: Linear(in_dims, out_dims),
    "ternary": Ternary,
    "binary": Binary,
}
