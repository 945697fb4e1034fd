"""Calibration: the moments of each matrix's inputs, by taps that stand in for the matrices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.core import array
from numpy.typing import NDArray

from backend_mlx.distributed import Solo
from backend_mlx.model import GPT
from core.train.calibration import HEAD

Moments = dict[str, NDArray[np.float64]]


class Tap(nn.Module):
    """Stands in for a leaf and adds up x x^T of its inputs, fp32 (in, in), visit by visit."""

    def __init__(self, leaf: Any, moments: array) -> None:
        super().__init__()
        self.leaf = leaf
        self.moments = moments

    def __call__(self, x: array) -> array:
        rows = x.reshape(-1, x.shape[-1]).astype(mx.float32)
        self.moments = self.moments + rows.T @ rows
        return self.leaf(x)


def moments(model: GPT, batches: Iterable[array], leaves: Iterable[str], group: Solo) -> Moments:
    """Mean of x x^T over the tokens of all ranks, float64 (in, in), of each leaf's inputs.

    batches: (B, T) each, of this rank. The blocks run in the order in which they are packed; what
    is visited more often adds up its visits.
    """
    taps = {leaf: _tap(model, leaf) for leaf in leaves}
    tokens = 0
    try:
        for batch in batches:
            mx.eval(model(batch), [tap.moments for tap in taps.values()])
            tokens += batch.size
    finally:
        for leaf, tap in taps.items():
            _put(model, leaf, tap.leaf)
    held = {leaf: tap.moments for leaf, tap in taps.items()}
    held["tokens"] = mx.full((1,), float(tokens))
    summed = {leaf: np.array(total).astype(np.float64) for leaf, total in group.sum(held).items()}
    count = np.maximum(summed.pop("tokens"), 1)
    return {leaf: total / count for leaf, total in summed.items()}


def _tap(model: GPT, leaf: str) -> Tap:
    """A tap, in the place of the leaf."""
    found = getattr(*_place(model, leaf))
    dims = model.spec.table_dim if leaf == HEAD else found.weight.shape[-1]
    tap = Tap(found, mx.zeros((dims, dims)))
    _put(model, leaf, tap.__call__ if leaf == HEAD else tap)
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
