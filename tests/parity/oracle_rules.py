"""What training does, written a third time in plain numpy float64: the loss and the update.

As oracle.py, it shares no line with the engines.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from core.arch.params import Weights, param_table
from core.train.qat import noise_keys
from core.train.recipe import Recipe
from tests.parity.engines import Rows
from tests.parity.oracle import Array, log_sum, logits_of, nats

QUINTIC = [(3.4445, -4.7750, 2.0315)] * 9
POLAR = [  # singular values of a random matrix come out within 0.86 to 1.14: see test_verbs
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
]


def stirred(weights: Weights, recipe: Recipe) -> Weights:
    """What the first step's loss is of: the matrices that are packed as integers, rounded."""
    qat, found = recipe.qat, dict(weights)
    if qat.form == "none":
        return found
    rows = [row for row in param_table(recipe.arch) if row.role in qat.roles]
    rows = [row for row in rows if len(row.shape) == 2 and row.size >= recipe.quant.keep_below]
    for row, key in zip(rows, noise_keys(recipe.seed, 0, len(rows)).tolist(), strict=True):
        bits = int(getattr(recipe.quant, row.role).removeprefix("int"))
        sigmas = getattr(recipe.quant, f"{row.role}_sigmas")
        most, weight = 2 ** (bits - 1) - 1, weights[row.name]
        reach = abs(weight).max(1, keepdims=True)
        if sigmas:
            reach = sigmas * np.sqrt((weight.astype(np.float64) ** 2).mean(1, keepdims=True))
        step = (reach / most).astype(np.float16).astype(np.float64)
        if qat.form == "ste":
            moved = np.clip(np.rint(weight / step), -most, most) * step
        else:
            off = [mixed((place + key) % 2**32) / 2**32 for place in range(row.size)]
            moved = weight + step * (np.floor(np.reshape(off, row.shape) * 2**24) / 2**24 - 0.5)
        found[row.name] = moved
    return found


def mixed(x: int) -> int:
    """A hash of 32 bits."""
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        x = (x ^ x >> shift) * factor % 2**32
    return x ^ x >> 15


def loss(weights: Weights, recipe: Recipe, x: Rows, y: Rows, phase: int) -> float:
    """What a step goes down along."""
    weights = stirred(weights, recipe)
    whole = log_sum(logits_of(weights, recipe.arch, x, phase))
    each = nats(weights, recipe.arch, x, y, phase) + recipe.optim.z_loss * whole**2
    return float(each.mean())


def orthogonal(grad: Array, steps: int, table: str) -> Array:
    x = grad / (np.sqrt((grad * grad).sum()) + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for a, b, c in {"quintic": QUINTIC, "polar": POLAR}[table][:steps]:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Updates:
    """The rules over the table, one parameter at a time; the first call is step 1."""

    def __init__(self, recipe: Recipe, weights: Weights) -> None:
        self.recipe = recipe
        self.weights = {name: w.astype(np.float64) for name, w in weights.items()}
        self.average = dict(self.weights)
        self.held: dict[str, list[Any]] = {name: [0.0, 0.0] for name in weights}
        self.snapshots: list[dict[str, Array]] = []
        self.count = 0

    def step(self, grads: Weights, lr_mul: float, taper: float = 1.0) -> None:
        optim, count = self.recipe.optim, self.count + 1
        rising = min(self.count / max(optim.momentum_warmup_steps, 1), 1.0)
        beta = optim.momentum_start + rising * (optim.momentum - optim.momentum_start)
        rates = {"matrix": optim.matrix_lr, "embed": optim.embed_lr}
        rates |= {"head": optim.head_lr, "scalar": optim.scalar_lr}
        decays = {"matrix": optim.matrix_wd, "embed": optim.embed_wd}
        decays |= {"head": optim.head_wd, "scalar": optim.scalar_wd}
        own = {"embed": optim.embed_betas, "head": optim.head_betas, "scalar": optim.scalar_betas}
        for row in param_table(self.recipe.arch):
            grad, held = grads[row.name].astype(np.float64), self.held[row.name]
            rate = lr_mul * rates[row.rule]
            if row.rule == "matrix":
                held[0] = beta * held[0] + grad
                move = grad + beta * held[0]
                if optim.row_norm == "l2":
                    move = move / np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-7)
                move = orthogonal(move, optim.ns_steps, optim.ns_table)
                if optim.row_beta2:
                    part = (move**2).mean(1, keepdims=True)
                    held[1] = optim.row_beta2 * held[1] + (1 - optim.row_beta2) * part
                    even = move / (np.sqrt(held[1]) + 1e-7)
                    move = even * np.linalg.norm(move) / np.linalg.norm(even)
                kept = 1 - rate * decays["matrix"] * taper
                rate *= max(1.0, row.shape[0] / row.shape[1]) ** 0.5
            else:
                beta1, beta2 = own[row.rule] or (optim.beta1, optim.beta2)
                held[0] = beta1 * held[0] + (1 - beta1) * grad
                held[1] = beta2 * held[1] + (1 - beta2) * grad * grad
                mean = held[0] / (1 - beta1**count)
                move = mean / (np.sqrt(held[1] / (1 - beta2**count)) + optim.adam_eps)
                kept = 1 - rate * decays[row.rule] * taper
            self.weights[row.name] = kept * self.weights[row.name] - rate * move
        self.snapshots.append(dict(self.weights))
        for name, weight in self.weights.items():
            taken = [held[name] for held in self.snapshots[:: optim.swa_every_steps or 1]]
            decay = optim.ema_decay
            moved = decay * self.average[name] + (1 - decay) * weight
            self.average[name] = np.mean(taken, 0) if optim.swa_every_steps else moved
        self.count = count
