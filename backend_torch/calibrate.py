"""Calibration: the moments of each matrix's inputs, by taps that stand in for the matrices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from numpy.typing import NDArray
from torch import Tensor

from backend_torch.distributed import Solo
from backend_torch.model import GPT
from core.train.calibration import HEAD

Moments = dict[str, NDArray[np.float64]]


class Tap(nn.Module):
    """Stands in for a leaf and adds up x x^T of its inputs, fp32 (in, in), visit by visit."""

    def __init__(self, leaf: Any, moments: Tensor) -> None:
        super().__init__()
        self.leaf = leaf
        self.moments = moments

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).float()
        self.moments = self.moments + rows.mT @ rows
        return self.leaf(x)


@torch.no_grad()
def moments(model: GPT, batches: Iterable[Tensor], leaves: Iterable[str], group: Solo) -> Moments:
    """Mean of x x^T over the tokens of all ranks, float64 (in, in), of each leaf's inputs.

    batches: (B, T) each, of this rank. The blocks run in the order in which they are packed; what
    is visited more often adds up its visits.
    """
    taps = {leaf: _tap(model, leaf) for leaf in leaves}
    tokens = 0
    try:
        for batch in batches:
            model(batch)
            tokens += batch.numel()
    finally:
        for leaf, tap in taps.items():
            _put(model, leaf, tap.leaf)
    held = {leaf: tap.moments for leaf, tap in taps.items()}
    held["tokens"] = torch.full((1,), float(tokens), device=group.device)
    summed = {leaf: total.double().cpu().numpy() for leaf, total in group.sum(held).items()}
    count = np.maximum(summed.pop("tokens"), 1)
    return {leaf: total / count for leaf, total in summed.items()}


def _tap(model: GPT, leaf: str) -> Tap:
    """A tap, in the place of the leaf."""
    found = getattr(*_place(model, leaf))
    dims = model.spec.table_dim if leaf == HEAD else found.weight.shape[-1]
    tap = Tap(found, torch.zeros(dims, dims, device=model.tok_emb.weight.device))
    _put(model, leaf, tap.forward if leaf == HEAD else tap)
    return tap


def _put(model: GPT, leaf: str, thing: Any) -> None:
    setattr(*_place(model, leaf), thing)


def _place(model: GPT, leaf: str) -> tuple[Any, str]:
    """Whose attribute a leaf is, and its name there."""
    if leaf == HEAD:
        return model, "matched"
    owner: Any = model
    *path, name = leaf.split(".")
    for part in path:
        owner = owner[int(part)] if part.isdigit() else getattr(owner, part)
    return owner, name
