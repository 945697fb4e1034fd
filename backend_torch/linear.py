"""Linear: fp32 weight, product in the activations' dtype; the leaf that stand-ins replace."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


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
