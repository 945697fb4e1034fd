"""Rung 3 for each verb and rung 5 for each rule alone: both engines against float64 numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from core.arch.noise import normal
from core.train.newton_schulz import coefficients
from tests.parity.engines import BOS, ENGINES, engine, relative, to_numpy

Array = NDArray[Any]
VERB = 2e-6  # relative, fp32 against float64
NEWTON_SCHULZ = 2e-5
UPDATE = 2e-6  # of Adam's change after ten steps
MUON_UPDATE = 1e-5

each_engine = pytest.mark.parametrize("name", ENGINES)


def drawn(stream: int, *shape: int, scale: float = 1.0) -> Array:
    return (scale * normal(3, stream, shape)).astype(np.float32)


def rms_norm(x: Array, eps: float) -> Array:
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    half = cos.shape[-1]
    out = x.copy()
    for i in range(half):
        a, b = x[..., i], x[..., i + half]
        c, s = cos[:, None, i], sin[:, None, i]
        out[..., i], out[..., i + half] = a * c + b * s, -a * s + b * c
    return out


def attend(q: Array, k: Array, v: Array) -> Array:
    batch, time, heads, dims = q.shape
    out = np.zeros_like(q)
    for b in range(batch):
        for h in range(heads):
            kv = h * k.shape[2] // heads
            for t in range(time):
                scores = k[b, : t + 1, kv] @ q[b, t, h] / np.sqrt(dims)
                share = np.exp(scores - scores.max())
                out[b, t, h] = share @ v[b, : t + 1, kv] / share.sum()
    return out


def cross_entropy(logits: Array, targets: Array) -> Array:
    top = logits.max(-1, keepdims=True)
    lse = np.log(np.exp(logits - top).sum(-1)) + top[..., 0]
    return lse - np.take_along_axis(logits, targets[..., None], -1)[..., 0]


def exclusive(y: Array, v: Array) -> Array:
    out = y.copy()
    for h in range(y.shape[2]):
        n = v[:, :, h * v.shape[2] // y.shape[2]]
        n = n / np.linalg.norm(n, axis=-1, keepdims=True)
        out[:, :, h] -= (y[:, :, h] * n).sum(-1, keepdims=True) * n
    return out


def gated(y: Array, logits: Array, scale: float, gain: float) -> Array:
    return y * gain / (1 + np.exp(-scale * logits[..., None]))


def before(x: Array, tokens: Array) -> Array:
    out = np.zeros_like(x)
    for b, t in zip(*np.nonzero(tokens != BOS), strict=True):
        out[b, t] = x[b, t - 1] if t else 0
    return out


def pair_buckets(tokens: Array, buckets: int) -> Array:
    out = np.full(tokens.shape, buckets - 1)
    for b, t in zip(*np.nonzero(tokens != BOS), strict=True):
        if t:
            pair = (36313 * int(tokens[b, t])) ^ (27191 * int(tokens[b, t - 1]))
            out[b, t] = pair % (buckets - 1)
    return out


def sees_of(tokens: Array, window: int, doc_mask: bool) -> Array:
    rows, time = tokens.shape
    out = np.zeros((rows if doc_mask else 1, time, time))
    for b, t, s in np.ndindex(*out.shape):
        near = s <= t and (not window or t - s < window)
        one = not doc_mask or not (tokens[b, s + 1 : t + 1] == BOS).any()
        out[b, t, s] = near and one
    return out


def poly5(logits: Array, kind: str, cap: float) -> Array:
    u = np.clip(8 * logits / (15 * cap), -1, 1)
    return cap * np.polyval([3, 0, -10, 0, 15, 0], u) / 8


X = drawn(1, 3, 7, 4, 8)
TOKENS = np.array([[1, 9, 9, 1, 5, 6, 7], [4, 1, 1, 8, 8, 2, 3], [60_000, 5, 6, 7, 1, 3, 65_535]])
TOKENS = TOKENS.astype(np.int32)
COS, SIN = np.cos(drawn(2, 7, 3)), np.sin(drawn(2, 7, 3))
LOGITS, TARGETS = drawn(4, 3, 7, 50, scale=8.0), np.arange(21).reshape(3, 7).astype(np.int32)

VERBS: dict[str, tuple[str, str, tuple[Any, ...], Any]] = {
    # row: (file, verb, arguments, float64 reference)
    "rms_norm": ("ops", "rms_norm", (X, 1e-6), rms_norm),
    "rms_norm of small values": ("ops", "rms_norm", (1e-3 * X, 1.1920929e-07), rms_norm),
    "rotate": ("ops", "rotate", (X, COS, SIN), rotate),
    "rotate nothing": ("ops", "rotate", (X, COS[:, :0], SIN[:, :0]), lambda x, c, s: x),
    "relu2": ("ops", "relu2", (X, 0.5), lambda x, slope: np.maximum(x, 0) ** 2),
    "leaky_relu2": ("ops", "leaky_relu2", (X, 0.3), lambda x, s: np.where(x > 0, x, s * x) ** 2),
    "relu": ("ops", "relu", (X, 0.5), lambda x, slope: np.maximum(x, 0)),
    "silu": ("ops", "silu", (X, 0.5), lambda x, slope: x / (1 + np.exp(-x))),
    "exclusive": ("ops", "exclusive", (X, X[:, :, :2] + 1), exclusive),
    "gated": ("ops", "gated", (X, X[..., 0], 0.5, 2.0), gated),
    "before": ("ops", "before", (X, TOKENS), before),
    "pair_buckets": ("ops", "pair_buckets", (TOKENS, 1000), pair_buckets),
    "sees_of, window": ("attend", "sees_of", (TOKENS, 3, False), sees_of),
    "sees_of, documents": ("attend", "sees_of", (TOKENS, 0, True), sees_of),
    "sees_of, both": ("attend", "sees_of", (TOKENS, 3, True), sees_of),
    "unit_rows": ("muon", "unit_rows", (X,), lambda x: x / np.linalg.norm(x, axis=-1)[..., None]),
    "poly5": ("ops", "softcap", (LOGITS, "poly5", 5.0), poly5),
    "softcap": ("ops", "softcap", (LOGITS, "tanh", 5.0), lambda z, k, cap: cap * np.tanh(z / cap)),
    "no softcap": ("ops", "softcap", (LOGITS, "tanh", 0.0), lambda z, kind, cap: z),
    "cross_entropy": ("ops", "cross_entropy", (LOGITS, TARGETS), cross_entropy),
    "attend": ("attend", "attend", (X, X[:, :, :2] + 1, X[:, :, 2:]), attend),
    "attend, own heads": ("attend", "attend", (X, X + 1, X - 1), attend),
    "project": ("linear", "project", (X, drawn(5, 6, 8)), lambda x, w: x @ w.T),
}


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("row", VERBS)
def test_verb(row: str, name: str) -> None:
    file, verb, arguments, reference = VERBS[row]
    backend = engine(name)
    put = [backend.array(a) if isinstance(a, np.ndarray) else a for a in arguments]
    wide = [
        a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype == np.float32 else a
        for a in arguments
    ]
    found = to_numpy(getattr(getattr(backend, file), verb)(*put)).astype(np.float64)
    expected = reference(*wide)
    assert found.shape == expected.shape
    assert relative(found, expected) <= VERB


def newton_schulz(grad: Array, steps: int) -> Array:
    x = grad / (np.linalg.norm(grad) + 1e-7)
    x = x.T if x.shape[0] > x.shape[1] else x
    for a, b, c in coefficients("quintic", steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if grad.shape[0] > grad.shape[1] else x


@each_engine
@pytest.mark.parametrize("shape", [(16, 16), (8, 24), (24, 8)])
def test_newton_schulz(name: str, shape: tuple[int, int]) -> None:
    backend = engine(name)
    bank = np.stack([drawn(6, *shape), drawn(7, *shape, scale=1e-4)])
    dtype = backend.optimizer.DTYPES["fp32"]
    table = coefficients("quintic", 5)
    found = to_numpy(backend.muon.newton_schulz(backend.array(bank), table, dtype))
    for one, grad in zip(found, bank, strict=True):
        expected = newton_schulz(grad.astype(np.float64), 5)
        assert relative(one, expected) <= NEWTON_SCHULZ
        singular = np.linalg.svd(expected, compute_uv=False)
        assert singular.min() > 0.3 and singular.max() < 1.2


@each_engine
def test_muon_is_heavy_ball_nesterov(name: str) -> None:
    backend = engine(name)
    shape, lr, beta = (2, 24, 8), 0.02, 0.9
    weight, momentum = drawn(8, *shape), np.zeros(shape, np.float32)
    expected, ball = weight.astype(np.float64), np.zeros(shape)
    found, held = backend.array(weight), backend.array(momentum)
    for step in range(3):
        grad = drawn(9 + step, *shape)
        found, held, _ = backend.muon.muon(
            found,
            backend.array(grad),
            held,
            lr=lr,
            beta=beta,
            table=coefficients("quintic", 5),
            dtype=backend.optimizer.DTYPES["fp32"],
        )
        ball = beta * ball + grad
        for bank in range(2):
            update = newton_schulz((grad + beta * ball)[bank], 5)
            expected[bank] -= lr * np.sqrt(3.0) * update
    assert relative(to_numpy(found) - weight, expected - weight) <= MUON_UPDATE
    assert relative(to_numpy(held), ball) <= VERB


@each_engine
def test_adam_is_torchs(name: str) -> None:
    backend = engine(name)
    settings = {"lr": 0.01, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8}
    weight = drawn(20, 6, 5, scale=0.01)  # small: the change is what is measured
    reference = torch.nn.Parameter(torch.tensor(weight, dtype=torch.float64))
    rule = torch.optim.Adam([reference], lr=0.01, betas=(0.9, 0.95), eps=1e-8)
    state = [backend.array(a) for a in (weight, np.zeros_like(weight), np.zeros_like(weight))]
    for step in range(1, 11):
        grad = drawn(20 + step, 6, 5, scale=10.0 ** -(step % 5 * 2))
        reference.grad = torch.tensor(grad, dtype=torch.float64)
        rule.step()
        found, mean, square = state
        state = list(
            backend.adam.adam(
                found,
                backend.array(grad),
                mean,
                square,
                mean_left=1.0 - 0.9**step,
                square_left=1.0 - 0.95**step,
                **settings,
            )
        )
    change = reference.detach().numpy() - weight
    assert relative(to_numpy(state[0]) - weight.astype(np.float64), change) <= UPDATE


@each_engine
def test_ema(name: str) -> None:
    backend, average, weight = engine(name), drawn(40, 5, 3), drawn(41, 5, 3)
    found = backend.ema.ema(backend.array(average), backend.array(weight), 0.75)
    expected = 0.75 * average.astype(np.float64) + 0.25 * weight
    assert relative(to_numpy(found), expected) <= VERB
