"""Calibration: what each matrix is multiplied with and what its outputs are worth, by taps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.core import array

from backend_mlx.distributed import Solo
from backend_mlx.model import GPT
from core.train.calibration import HEAD, Draw, Moments


class Tap(nn.Module):
    """Stands in for a leaf and adds up x x^T of its inputs, fp32 (in, in), visit by visit."""

    def __init__(self, leaf: Any, moments: array) -> None:
        super().__init__()
        self.leaf = leaf
        self.moments = moments

    def __call__(self, x: array) -> array:
        self.moments = self.moments + gram(x)
        return self.leaf(x)


def gram(x: array) -> array:
    """x x^T summed over rows, fp32 (in, in), of x as products take it: where that is bf16, its
    products are exact, and fp32 is what they are added up in. x: (..., in)."""
    rows = x.reshape(-1, x.shape[-1]).astype(mx.float32)
    return rows.T @ rows


def moments(model: GPT, batches: Iterable[array], leaves: Iterable[str], group: Solo) -> Moments:
    """Mean of x x^T over the tokens of all ranks, float64 (in, in), of each leaf's inputs.

    batches: (B, T) each, of this rank. The blocks run in the order in which they are packed; what
    is visited more often adds up its visits.
    """
    taps = {leaf: _tap(model, leaf) for leaf in leaves}
    tokens = 0
    try:
        for batch in batches:
            mx.eval(model.logits(batch), [tap.moments for tap in taps.values()])
            tokens += batch.size
    finally:
        for leaf, tap in taps.items():
            _put(model, leaf, tap.leaf)
    held = {leaf: tap.moments for leaf, tap in taps.items()}
    held["tokens"] = mx.full((1,), float(tokens))
    summed = {leaf: np.array(total).astype(np.float64) for leaf, total in group.sum(held).items()}
    count = np.maximum(summed.pop("tokens"), 1)
    return {leaf: total / count for leaf, total in summed.items()}


class Shift(nn.Module):
    """Stands in for a leaf and adds zeros to its outputs, whose gradients are theirs."""

    def __init__(self, leaf: Any) -> None:
        super().__init__()
        self.leaf = leaf
        self.shifts: list[array] = []  # like the outputs of each visit; none: to be made
        self.visits = 0

    def __call__(self, x: array) -> array:
        y = self.leaf(x)
        if self.visits == len(self.shifts):
            self.shifts.append(mx.zeros_like(y))
        self.visits += 1
        return y + self.shifts[self.visits - 1]


def fisher(
    model: GPT, batches: Iterable[array], leaves: Iterable[str], group: Solo, draw: Draw
) -> Moments:
    """Mean squared gradient of each leaf's outputs over tokens and visits, float64 (out,).

    Of the nats of tokens that are drawn from the model itself, as the Fisher information asks.
    batches: (B, T) each, of this rank. draw: log-probabilities, float32 (B, T, V), to tokens.
    """
    taps = {leaf: _shift(model, leaf) for leaf in leaves}
    held: dict[str, array] = {}
    try:
        for batch in batches:
            found = _squares(model, batch, taps, draw)
            held = {key: held.get(key, 0.0) + square for key, square in found.items()}
            mx.eval(held)
    finally:
        for leaf, tap in taps.items():
            _put(model, leaf, tap.leaf)
    summed = {key: np.array(total).astype(np.float64) for key, total in group.sum(held).items()}
    count = np.maximum(summed.pop("tokens"), 1)
    return {leaf: total / count for leaf, total in summed.items()}


def _squares(model: GPT, batch: array, taps: dict[str, Shift], draw: Draw) -> dict[str, array]:
    """Squared gradients of one batch, summed over its tokens; a mean over visits."""
    for tap in taps.values():
        tap.shifts, tap.visits = [], 0
    logits = model.logits(batch).astype(mx.float32)
    log_probs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    drawn = mx.array(draw(np.array(log_probs)))

    def nats(shifts: dict[str, list[array]]) -> array:
        for leaf, tap in taps.items():
            tap.shifts, tap.visits = shifts[leaf], 0
        return model.token_nats(batch, drawn).sum()

    grads = mx.grad(nats)({leaf: tap.shifts for leaf, tap in taps.items()})
    found = {"tokens": mx.full((1,), float(batch.size))}
    for leaf in taps:
        squares = [grad.astype(mx.float32).square().sum((0, 1)) for grad in grads[leaf]]
        found[leaf] = mx.stack(squares).mean(0)
    return found


def _shift(model: GPT, leaf: str) -> Shift:
    """A shift, in the place of the leaf."""
    tap = Shift(getattr(*_place(model, leaf)))
    _put(model, leaf, tap.__call__ if leaf == HEAD else tap)
    return tap


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
