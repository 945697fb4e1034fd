"""Muon (Jordan et al. 2024): momentum, orthogonalised; pure functions over banks of matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from core.train.newton_schulz import NORM_EPS, ROW_EPS, Table


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


def unit_rows(grad: Tensor) -> Tensor:
    """Each row divided by its L2 norm (MuonEq-R). grad: (K, rows, cols)."""
    norm = torch.sqrt(torch.sum(torch.square(grad), dim=-1, keepdim=True))
    return grad / torch.clamp(norm, min=ROW_EPS)


def even_rows(update: Tensor, square: Tensor, beta2: float) -> tuple[Tensor, Tensor]:
    """Each row over the root of its running mean square, the whole as long as before (NorMuon).

    update: (K, rows, cols); square: (K, rows, 1), which comes back brought up to date.
    """
    square = beta2 * square + (1.0 - beta2) * torch.mean(torch.square(update), dim=-1, keepdim=True)
    even = update / (torch.sqrt(square) + ROW_EPS)
    whole = torch.sum(torch.square(update), dim=(-2, -1), keepdim=True)
    left = torch.sum(torch.square(even), dim=(-2, -1), keepdim=True)
    return even * torch.sqrt(whole / (left + ROW_EPS)), square


def muon(
    weight: Tensor,
    grad: Tensor,
    momentum: Tensor,
    square: Tensor | None = None,
    *,
    lr: Tensor | float,
    decay: Tensor | float | None = None,
    beta: Tensor | float,
    table: Table,
    dtype: torch.dtype,
    row_norm: str = "none",
    row_beta2: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One step of a bank (K, rows, cols): new weight, momentum, and mean squares of rows.

    Heavy-ball Nesterov (momentum <- beta momentum + grad; step along grad + beta momentum), and
    rows / cols above 1 scale the step by its root. decay: the part of the weight that is taken.
    """
    momentum = beta * momentum + grad
    update = grad + beta * momentum
    if row_norm == "l2":
        update = unit_rows(update)
    update = newton_schulz(update, table, dtype)
    if square is not None:
        update, square = even_rows(update, square, row_beta2)
    move = (lr * max(1.0, weight.shape[-2] / weight.shape[-1]) ** 0.5) * update
    move = move if decay is None else move + decay * weight
    return weight - move, momentum, square
