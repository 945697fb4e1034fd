"""The model and its update written a third time, in plain numpy float64, from the definitions.

It shares no line with the engines: an error made alike on both sides does not pass it. Names and
layouts are those of param_table; the formulas stand in techniques' papers and in DESIGN's words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.arch.params import Weights, param_table
from core.arch.spec import ModelSpec
from core.train.recipe import Recipe
from tests.parity.engines import Rows

Array = NDArray[np.float64]
QUINTIC = (3.4445, -4.7750, 2.0315)


def norm(x: Array, eps: float) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def turned(x: Array, base: float, dims: int) -> Array:
    """x: (B, T, H, D). The halves of the first `dims` dims are the two axes of each plane."""
    out = x.copy()
    for i in range(dims // 2):
        angle = np.arange(x.shape[1]) * base ** (-2.0 * i / dims)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        a, b = x[..., i], x[..., i + dims // 2]
        out[..., i], out[..., i + dims // 2] = a * cos + b * sin, b * cos - a * sin
    return out


def attention(w: dict[str, Array], at: str, x: Array, spec: ModelSpec) -> Array:
    rows, time, _ = x.shape
    heads, shared, dims = spec.num_heads, spec.num_heads // spec.num_kv_heads, spec.head_dim
    rope = dims if spec.rope_dims is None else spec.rope_dims
    q = (x @ w[f"{at}.c_q.weight"].T).reshape(rows, time, heads, dims)
    k = (x @ w[f"{at}.c_k.weight"].T).reshape(rows, time, spec.num_kv_heads, dims)
    v = (x @ w[f"{at}.c_v.weight"].T).reshape(rows, time, spec.num_kv_heads, dims)
    q = turned(norm(q, spec.norm_eps), spec.rope_base, rope) * w[f"{at}.q_gain"][:, None]
    k = turned(norm(k, spec.norm_eps), spec.rope_base, rope)
    k, v = np.repeat(k, shared, axis=2), np.repeat(v, shared, axis=2)
    scores = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(dims)
    scores = np.where(np.tri(time, dtype=bool), scores, -np.inf)
    share = np.exp(scores - scores.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    y = np.einsum("bhts,bshd->bthd", share, v).reshape(rows, time, -1)
    return y @ w[f"{at}.proj.weight"].T


def mlp(w: dict[str, Array], at: str, x: Array, spec: ModelSpec) -> Array:
    hidden = x @ w[f"{at}.fc.weight"].T
    slope = {"relu2": 0.0, "leaky_relu2": spec.leaky_slope}[spec.activation]
    return np.where(hidden > 0, hidden, slope * hidden) ** 2 @ w[f"{at}.proj.weight"].T


def nats(weights: Weights, spec: ModelSpec, x: Rows, y: Rows) -> Array:
    """Nats of each target, (B, T)."""
    w = {name: weight.astype(np.float64) for name, weight in weights.items()}
    layers, half = spec.num_layers, spec.num_layers // 2
    stream = first = norm(w["tok_emb.weight"][x], spec.norm_eps)
    kept: list[Array] = []
    for layer in range(layers):
        at = f"blocks.{layer}"
        if spec.skips == "unet" and half <= layer < 2 * half:
            stream = stream + w["skip_weights"][layer - half] * kept.pop()
        stream = w[f"{at}.resid_mix"][0] * stream + w[f"{at}.resid_mix"][1] * first
        inside = attention(w, f"{at}.attn", norm(stream, spec.norm_eps), spec)
        stream = stream + w[f"{at}.attn_scale"] * inside
        inside = mlp(w, f"{at}.mlp", norm(stream, spec.norm_eps), spec)
        stream = stream + w[f"{at}.mlp_scale"] * inside
        if spec.skips == "unet" and layer < half:
            kept.append(stream)
    head = w["tok_emb.weight"] if spec.tie_embeddings else w["lm_head.weight"]
    logits = norm(stream, spec.norm_eps) @ head.T
    if spec.logit_softcap:
        logits = spec.logit_softcap * np.tanh(logits / spec.logit_softcap)
    top = logits.max(-1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(-1)) + top[..., 0]
    return total - np.take_along_axis(logits, y[..., None].astype(np.int64), -1)[..., 0]


def orthogonal(grad: Array, steps: int) -> Array:
    x = grad / (np.sqrt((grad * grad).sum()) + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    a, b, c = QUINTIC
    for _ in range(steps):
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
        self.count = 0

    def step(self, grads: Weights, lr_mul: float) -> None:
        optim, count = self.recipe.optim, self.count + 1
        rising = min(self.count / max(optim.momentum_warmup_steps, 1), 1.0)
        beta = optim.momentum_start + rising * (optim.momentum - optim.momentum_start)
        rates = {"matrix": optim.matrix_lr, "embed": optim.embed_lr}
        rates |= {"head": optim.head_lr, "scalar": optim.scalar_lr}
        for row in param_table(self.recipe.arch):
            grad, held = grads[row.name].astype(np.float64), self.held[row.name]
            rate = lr_mul * rates[row.rule]
            if row.rule == "matrix":
                held[0] = beta * held[0] + grad
                move = orthogonal(grad + beta * held[0], optim.ns_steps)
                rate *= max(1.0, row.shape[0] / row.shape[1]) ** 0.5
            else:
                held[0] = optim.beta1 * held[0] + (1 - optim.beta1) * grad
                held[1] = optim.beta2 * held[1] + (1 - optim.beta2) * grad * grad
                mean = held[0] / (1 - optim.beta1**count)
                move = mean / (np.sqrt(held[1] / (1 - optim.beta2**count)) + optim.adam_eps)
            self.weights[row.name] = self.weights[row.name] - rate * move
        decay = optim.ema_decay
        for name, weight in self.weights.items():
            self.average[name] = decay * self.average[name] + (1 - decay) * weight
        self.count = count
