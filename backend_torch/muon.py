"""Muon (Jordan et al. 2024): momentum, orthogonalised; pure functions over banks of matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from core.train.newton_schulz import NORM_EPS, Table


def newton_schulz(grad: Tensor, table: Table, dtype: torch.dtype) -> Tensor:
    """The nearest semi-orthogonal matrices, about. grad: (K, rows, cols); a table row a step.

    X <- aX + (bA + cA^2)X with A = X X^T, on the side where A is smaller; out in fp32 at least.
    """
    norm = torch.sqrt(torch.sum(torch.square(grad), dim=(-2, -1), keepdim=True))
    x = (grad / (norm + NORM_EPS)).to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for a, b, c in table:
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.mT if tall else x).to(grad.dtype)


def muon(
    weight: Tensor,
    grad: Tensor,
    momentum: Tensor,
    *,
    lr: Tensor | float,
    beta: Tensor | float,
    table: Table,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """One step of a bank (K, rows, cols): new weight, new momentum.

    Heavy-ball Nesterov (momentum <- beta momentum + grad; step along grad + beta momentum), and
    rows / cols above 1 scale the step by its root.
    """
    momentum = beta * momentum + grad
    update = newton_schulz(grad + beta * momentum, table, dtype)
    scale = max(1.0, weight.shape[-2] / weight.shape[-1]) ** 0.5
    return weight - (lr * scale) * update, momentum
