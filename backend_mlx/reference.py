"""The step in the reference scripts' form, for benchmarks alone: what it costs not to batch.

Newton-Schulz one matrix at a time, Adam and the average one tensor at a time, the optimizer not
compiled, attention by the framework's one function, and the host reads the loss of every step. The
model is else the project's, compiled as the recipe says. Written out here, so that a faster step
elsewhere leaves the yardstick as long as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import numpy as np
from mlx.core import array
from mlx.utils import tree_unflatten

from backend_mlx import block
from backend_mlx.distributed import Solo
from backend_mlx.feeder import MicroBatch
from backend_mlx.model import GPT
from backend_mlx.weights import load_weights, parameters
from core.arch.params import init_params, param_table
from core.arch.spec import ModelSpec
from core.train.newton_schulz import NORM_EPS, ROW_EPS, coefficients
from core.train.recipe import Optim, Recipe
from core.train.schedules import Knobs, rates

Arrays = dict[str, array]
DTYPES = {"bf16": mx.bfloat16, "fp32": mx.float32}
CLIP_EPS = 1e-6  # added to the norm, as torch's clip_grad_norm_ does


class ReferenceOptimizer:
    """Muon for matrices, Adam for the rest, one tensor after the other."""

    def __init__(self, spec: ModelSpec, optim: Optim) -> None:
        if optim.row_beta2 or optim.rate_lambda:
            raise ValueError("the reference form has no optim.row_beta2 and no optim.rate_lambda")
        self.optim = optim
        self.rows = [(row.rule, row.name) for row in param_table(spec)]
        self.table = coefficients(optim.ns_table, optim.ns_steps)

    def start(self, weights: Arrays) -> Arrays:
        """The state before the first step."""
        state = {f"weight/{name}": weight for name, weight in weights.items()}
        for rule, name in self.rows:
            for part in ("momentum",) if rule == "matrix" else ("adam_mean", "adam_square"):
                state[f"{part}/{name}"] = mx.zeros_like(weights[name])
        if self.optim.averages:
            state |= {f"ema/{n}": mx.array(weight) for n, weight in weights.items()}
        return state

    def update(self, state: Arrays, grads: Arrays, knobs: Knobs) -> None:
        """One step of every rule, then of the average."""
        dials = rates(self.optim, knobs)
        if self.optim.grad_clip_norm:
            grads = clipped(grads, self.optim.grad_clip_norm)
        for rule, name in self.rows:
            move = self._matrix if rule == "matrix" else self._other
            weight = state[f"weight/{name}"]
            kept_weight = weight * (1.0 - dials.get(f"{rule}_decay", 0.0))
            state[f"weight/{name}"] = kept_weight - move(state, name, grads[name], dials, rule)
        if self.optim.averages:
            kept = dials["ema_decay"]
            for _, name in self.rows:
                part = (1.0 - kept) * state[f"weight/{name}"]
                state[f"ema/{name}"] = kept * state[f"ema/{name}"] + part

    def _matrix(
        self, state: Arrays, name: str, grad: array, dials: dict[str, float], rule: str
    ) -> array:
        """What Muon takes off one matrix."""
        momentum = dials["momentum"] * state[f"momentum/{name}"] + grad
        state[f"momentum/{name}"] = momentum
        update = grad + dials["momentum"] * momentum
        if self.optim.row_norm == "l2":
            update /= mx.maximum(mx.linalg.norm(update, axis=1, keepdims=True), ROW_EPS)
        x = update / (mx.linalg.norm(update) + NORM_EPS)
        x = x.astype(DTYPES[self.optim.ns_precision])
        tall = x.shape[0] > x.shape[1]
        x = x.T if tall else x
        for a, b, c in self.table:
            gram = x @ x.T
            x = a * x + (b * gram + c * (gram @ gram)) @ x
        x = x.T if tall else x
        return dials[rule] * math.sqrt(max(1.0, x.shape[0] / x.shape[1])) * x.astype(grad.dtype)

    def _other(
        self, state: Arrays, name: str, grad: array, dials: dict[str, float], rule: str
    ) -> array:
        """What Adam takes off one tensor."""
        beta1, beta2 = self.optim.betas(rule)
        mean = beta1 * state[f"adam_mean/{name}"] + (1.0 - beta1) * grad
        square = beta2 * state[f"adam_square/{name}"] + (1.0 - beta2) * mx.square(grad)
        state |= {f"adam_mean/{name}": mean, f"adam_square/{name}": square}
        root = mx.sqrt(square) / math.sqrt(dials[f"{rule}_square_left"])
        return dials[rule] / dials[f"{rule}_mean_left"] * mean / (root + self.optim.adam_eps)


class ReferenceTrainer:
    """The same model from the same weights."""

    def __init__(self, recipe: Recipe, group: Solo) -> None:
        self.recipe = recipe
        self.group = group
        self.model = GPT(recipe.arch, recipe.precision)
        load_weights(self.model, init_params(recipe.arch, recipe.seed), recipe.arch)
        self.optimizer = ReferenceOptimizer(recipe.arch, recipe.optim)
        self.state = self.optimizer.start(parameters(self.model))
        self._sizes = recipe.data.phases(recipe.arch.seq_len)
        auto = group.device.type == mx.gpu
        compiles = {"auto": auto, "on": True, "off": False}[recipe.compile]
        self._nats_and_grads = mx.value_and_grad(self._nats)
        if compiles:
            self._nats_and_grads = mx.compile(self._nats_and_grads)

    def step(self, batches: list[MicroBatch], now: Knobs) -> float:
        """One optimizer step; the loss before it, in nats per token, for which the host waits."""
        if now.stage.qat:
            raise ValueError("the reference form has no quantization-aware training")
        tokens = self._sizes[now.stage.batch_phase].train_batch_tokens
        weights = {n: self.state[f"weight/{n}"] for _, n in self.optimizer.rows}
        total, grads = mx.zeros(()), {name: mx.zeros_like(w) for name, w in weights.items()}
        with plain_attention():
            for batch in batches:
                nats, more = self._nats_and_grads(weights, batch, now.stage.phase, tokens)
                total = total + nats
                grads = {name: grad + more[name] for name, grad in grads.items()}
                mx.eval(total, grads)
        self.optimizer.update(self.state, grads, now)
        mx.eval(self.state)
        return float(total)

    def _nats(self, weights: Arrays, batch: MicroBatch, phase: int, tokens: int) -> array:
        """The micro-batch's part of the loss. tokens: of the whole step."""
        self.model.update(tree_unflatten(list(weights.items())))
        x, y, cu_seqlens = batch
        z_loss = self.recipe.optim.z_loss
        nats = self.model.token_nats(x, y, phase, z_loss, cu_seqlens=cu_seqlens)
        return nats.sum(-1).sum() / tokens


@contextmanager
def plain_attention() -> Iterator[None]:
    """Blocks attend by one call of the framework's function, as the reference scripts do."""
    own, block.attend = block.attend, attend
    try:
        yield
    finally:
        block.attend = own


def attend(q: array, k: array, v: array, sees: array | None = None) -> array:
    """As backend_mlx.attend.attend."""
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    scale, mask = q.shape[-1] ** -0.5, "causal" if sees is None else sees[:, None]
    y = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    return y.swapaxes(1, 2)


def clipped(grads: Arrays, most: float) -> Arrays:
    """All gradients, their norm as one vector at most `most`; the host adds up the squares."""
    squares = (float(np.sum(np.square(np.array(grad)))) for grad in grads.values())
    scale = min(1.0, most / (math.sqrt(sum(squares)) + CLIP_EPS))
    return {name: grad * scale for name, grad in grads.items()}
