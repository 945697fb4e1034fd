"""What benchmarks measure beside the step: products, attention, loss; peaks, threads, profiles."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.core import array

from backend_mlx.attend import attend
from backend_mlx.ops import cross_entropy, softcap
from core.arch.noise import normal
from core.train.recipe import Precision

Attention = Callable[[array, array, array], array]  # q, k, v as attend takes them
Loss = Callable[[array, array], array]  # logits (N, 1, V), targets (N, 1) -> nats
PRODUCTS = {"fp32": mx.float32, "autocast": mx.bfloat16, "cast": mx.bfloat16}
SAMPLE = 1 << 20  # numbers that are drawn; a larger array repeats them


def settle(value: Any) -> None:
    """Wait for the device."""
    mx.eval(value)
    mx.synchronize()


def versions() -> dict[str, str]:
    """Of the framework and of what it calls."""
    return {"mlx": version("mlx"), "metal": str(mx.metal.is_available())}


def threads() -> int | None:
    """That the framework's products take on the processor; None: its BLAS does not tell."""
    return None


def held_bytes(device: mx.Device) -> int | None:
    """Device memory that is held now, from where its peak is counted anew; None: not counted."""
    mx.reset_peak_memory()
    return int(mx.get_active_memory())


def devices() -> int:
    """How many there are of the kind that a run takes."""
    return 1


def release() -> None:
    """Give back the device memory that is held for what comes: a process beside this wants it."""
    gc.collect()
    mx.clear_cache()


def product(precision: Precision, size: int, device: mx.Device) -> Callable[[], array]:
    """A product of two square matrices in the dtype that a step of this precision takes."""
    left, right = (drawn((size, size), at, device).astype(PRODUCTS[precision]) for at in range(2))
    mx.eval(left, right)
    return partial(mx.matmul, left, right)


def attentions() -> dict[str, Attention]:
    """What `attend` picks, and the products and softmax written out; all causal."""
    return {"attend": attend, "math": _math}


def attention_step(
    form: Attention, shape: tuple[int, ...], precision: Precision, device: mx.Device
) -> Callable[[], array]:
    """Forward and backward of (B, H, H_kv, T, D); what is called gives q's gradient."""
    rows, heads, kv_heads, time, dims = shape
    sizes = [(rows, time, count, dims) for count in (heads, kv_heads, kv_heads)]
    q, k, v = (drawn(size, at, device).astype(PRODUCTS[precision]) for at, size in enumerate(sizes))
    along = drawn(sizes[0], 3, device).astype(PRODUCTS[precision])
    mx.eval(q, k, v, along)

    def step() -> array:
        _, grads = mx.vjp(form, [q, k, v], [along])
        mx.eval(grads)
        return grads[0]

    return step


def losses(cap: float) -> dict[str, Loss]:
    """Softcapped cross-entropy as the verbs say it, and the same compiled."""

    def plain(logits: array, targets: array) -> array:
        return cross_entropy(softcap(logits, "tanh", cap), targets)

    return {"verbs": plain, "compiled": mx.compile(plain)}


def loss_step(
    form: Loss, shape: tuple[int, ...], precision: Precision, device: mx.Device
) -> Callable[[], array]:
    """Forward and backward for (tokens, vocabulary); what is called gives the logits' gradient."""
    logits = drawn((shape[0], 1, shape[1]), 0, device).astype(PRODUCTS[precision])
    targets = (mx.arange(shape[0]) * 7919 % shape[1])[:, None]
    mx.eval(logits, targets)

    def step() -> array:
        return mx.grad(lambda held: form(held, targets).sum())(logits)

    return step


def drawn(shape: tuple[int, ...], stream: int, device: mx.Device) -> array:
    """Normal numbers, fp32: no device is timed on zeros."""
    sample = normal(0, stream, (min(SAMPLE, int(np.prod(shape))),)).astype(np.float32)
    return mx.array(np.resize(sample, shape))


def profiled(work: Callable[[], Any], folder: Path) -> str:
    """Do the work under the profiler: a Metal capture in `folder`; what lies there."""
    if not mx.metal.is_available():
        return "no profile: MLX captures on Metal alone, and this device is none"
    path = folder / "capture.gputrace"
    try:
        mx.metal.start_capture(str(path))
    except RuntimeError as error:
        return f"no profile: {error} (Metal captures where MTL_CAPTURE_ENABLED=1 is set)"
    try:
        work()
    finally:
        mx.metal.stop_capture()
    return f"{path} (for Xcode)"


def _math(q: array, k: array, v: array) -> array:
    time, shared = q.shape[1], q.shape[2] // k.shape[2]
    q, k, v = (x.swapaxes(1, 2) for x in (q, mx.repeat(k, shared, 2), mx.repeat(v, shared, 2)))
    scores = (q * q.shape[-1] ** -0.5) @ k.swapaxes(-2, -1)
    sees = mx.arange(time)[:, None] >= mx.arange(time)[None, :]
    held = mx.softmax(mx.where(sees, scores, -mx.inf).astype(mx.float32), axis=-1)
    return (held.astype(q.dtype) @ v).swapaxes(1, 2)
