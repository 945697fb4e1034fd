"""A run's inputs and outputs as torch sees them: Hessians for tests.quantizers, and a KL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

import backend_torch.linear
import backend_torch.model
from backend_torch.evaluate import Evaluator, open_evaluator
from core.arch.params import Weights
from core.data.shards import open_split
from core.train.recipe import Recipe

ROWS = 8  # of tokens at a time


def tokens_of(recipe: Recipe, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of tokens of the training split and of the validation split; counts of the first."""
    from pathlib import Path

    halves = []
    for split in ("train", "val"):
        stream = open_split(Path(recipe.data.path), split)
        rows = min(count, len(stream)) // recipe.arch.seq_len
        held = stream.slice(0, rows * recipe.arch.seq_len).astype(np.int32)
        halves.append(held.reshape(rows, recipe.arch.seq_len))
    stream = open_split(Path(recipe.data.path), "train")
    counts = np.bincount(stream.slice(0, len(stream)), minlength=recipe.arch.vocab_size)
    return halves[0], halves[1], counts.astype(np.float64)


def grams(
    recipe: Recipe, weights: Weights, tokens: np.ndarray, names: set[str]
) -> dict[str, np.ndarray]:
    """The sum of x x^T over the inputs of each of these matrices, all its visits."""
    evaluator = open_evaluator(weights, recipe.arch, "fp32")
    known = {id(one): name for name, one in evaluator.model.named_parameters() if name in names}
    found: dict[str, np.ndarray] = {}
    plain = backend_torch.linear.project

    def tapped(x: Tensor, weight: Tensor) -> Tensor:
        name = known.get(id(weight))
        if name is not None:
            flat = x.detach().reshape(-1, x.shape[-1]).double().cpu().numpy()
            found[name] = found.get(name, 0) + flat.T @ flat
        return plain(x, weight)

    modules: tuple[Any, ...] = (backend_torch.linear, backend_torch.model)
    try:
        for module in modules:
            module.project = tapped
        for rows in batches(tokens):
            evaluator.log_probs(rows, 1 if "tok_emb.weight" not in names else rows.shape[1])
    finally:
        for module in modules:
            module.project = plain
    assert found.keys() == names, names ^ found.keys()
    return found


def divergence_of(
    recipe: Recipe, weights: Weights, tokens: np.ndarray
) -> Callable[[Weights], float]:
    """What makes some weights others, and tells KL(as they were | as they are) in nats a token."""
    before = log_probs(open_evaluator(weights, recipe.arch, "fp32"), tokens)

    def divergence(found: Weights) -> float:
        model = open_evaluator({**weights, **found}, recipe.arch, "fp32")
        total = 0.0
        for old, new in zip(before, log_probs(model, tokens), strict=True):
            total += float(np.sum(np.exp(old, dtype=np.float64) * (old - new)))
        return total / tokens.size

    return divergence


def log_probs(evaluator: Evaluator, tokens: np.ndarray) -> list[np.ndarray]:
    return [evaluator.log_probs(rows, rows.shape[1]) for rows in batches(tokens)]


def batches(tokens: np.ndarray) -> list[np.ndarray]:
    return [tokens[at : at + ROWS] for at in range(0, len(tokens), ROWS)]
