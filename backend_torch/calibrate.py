"""Calibration: what each matrix is multiplied with and what its outputs are worth, by taps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from backend_torch.distributed import Solo
from backend_torch.model import GPT
from core.train.calibration import HEAD, Draw, Moments


class Tap(nn.Module):
    """Stands in for a leaf and adds up x x^T of its inputs, fp32 (in, in), visit by visit."""

    def __init__(self, leaf: Any, moments: Tensor) -> None:
        super().__init__()
        self.leaf = leaf
        self.moments = moments

    def forward(self, x: Tensor) -> Tensor:
        self.moments = self.moments + gram(x)
        return self.leaf(x)


def gram(x: Tensor) -> Tensor:
    """x x^T summed over rows, fp32 (in, in), of x as products take it: where that is bf16, its
    products are exact, and fp32 is what they are added up in. x: (..., in)."""
    kind, rows = x.device.type, x.reshape(-1, x.shape[-1])
    rows = rows.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else rows
    with torch.autocast(kind, enabled=False):  # it would round the sums
        if rows.is_cuda and rows.dtype == torch.bfloat16:
            return torch.mm(rows.mT, rows, out_dtype=torch.float32)
        rows = rows.float()
        return rows.mT @ rows


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
            model.logits(batch)
            tokens += batch.numel()
    finally:
        for leaf, tap in taps.items():
            _put(model, leaf, tap.leaf)
    held = {leaf: tap.moments for leaf, tap in taps.items()}
    held["tokens"] = torch.full((1,), float(tokens), device=group.device)
    summed = {leaf: total.double().cpu().numpy() for leaf, total in group.sum(held).items()}
    count = np.maximum(summed.pop("tokens"), 1)
    return {leaf: total / count for leaf, total in summed.items()}


class Shift(nn.Module):
    """Stands in for a leaf and adds zeros to its outputs, whose gradients are theirs."""

    def __init__(self, leaf: Any) -> None:
        super().__init__()
        self.leaf = leaf
        self.shifts: list[Tensor] = []  # like the outputs of each visit; none: to be made
        self.visits = 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.leaf(x)
        if self.visits == len(self.shifts):
            self.shifts.append(torch.zeros_like(y))
        self.visits += 1
        return y + self.shifts[self.visits - 1]


def fisher(
    model: GPT, batches: Iterable[Tensor], leaves: Iterable[str], group: Solo, draw: Draw
) -> Moments:
    """Mean squared gradient of each leaf's outputs over tokens and visits, float64 (out,).

    Of the nats of tokens that are drawn from the model itself, as the Fisher information asks.
    batches: (B, T) each, of this rank. draw: log-probabilities, float32 (B, T, V), to tokens.
    """
    taps = {leaf: _shift(model, leaf) for leaf in leaves}
    held: dict[str, Tensor] = {}
    try:
        for batch in batches:
            found = _squares(model, batch, taps, draw)
            held = {key: held.get(key, 0.0) + square for key, square in found.items()}
    finally:
        for leaf, tap in taps.items():
            _put(model, leaf, tap.leaf)
    summed = {key: total.double().cpu().numpy() for key, total in group.sum(held).items()}
    count = np.maximum(summed.pop("tokens"), 1)
    return {leaf: total / count for leaf, total in summed.items()}


def _squares(model: GPT, batch: Tensor, taps: dict[str, Shift], draw: Draw) -> dict[str, Tensor]:
    """Squared gradients of one batch, summed over its tokens; a mean over visits."""
    for tap in taps.values():
        tap.shifts, tap.visits = [], 0
    with torch.no_grad():
        log_probs = torch.log_softmax(model.logits(batch).float(), -1)
    drawn = torch.from_numpy(draw(log_probs.cpu().numpy())).to(batch.device)
    for tap in taps.values():
        tap.visits = 0
        for shift in tap.shifts:
            shift.requires_grad_()
    shifts = [shift for tap in taps.values() for shift in tap.shifts]
    grads = iter(torch.autograd.grad(model.token_nats(batch, drawn).sum(), shifts))
    found = {"tokens": torch.full((1,), float(batch.numel()), device=batch.device)}
    for leaf, tap in taps.items():
        squares = [next(grads).float().square().sum((0, 1)) for _ in tap.shifts]
        found[leaf] = torch.stack(squares).mean(0)
    return found


def _shift(model: GPT, leaf: str) -> Shift:
    """A shift, in the place of the leaf."""
    tap = Shift(getattr(*_place(model, leaf)))
    _put(model, leaf, tap.forward if leaf == HEAD else tap)
    return tap


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
