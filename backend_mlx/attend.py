"""attend(q, k, v): causal attention through the best kernel at hand, and which one that is."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import mlx.core as mx
import numpy as np
from mlx.core import array

from core.arch.spec import BOS
from core.train.recipe import Precision, Recipe

UNSEEN = -1e30  # a score whose share is 0
LN2 = 0.693359375, math.log(2.0) - 0.693359375  # the first of few bits: n times it is exact


def attend(q: array, k: array, v: array, sees: array | None = None) -> array:
    """Causal softmax(q k^T / sqrt(D)) v. q: (B, T, H, D); k, v: (B, T, H_kv, D); out like q.

    Each key-value head serves H / H_kv query heads, in order, without being repeated. sees: (B or
    1, T, T), which positions each may look at, instead of all up to its own; with queries of the
    last L positions alone (B or 1, L, T).
    """
    kernel = _whole if mx.cuda.is_available() else _in_spans
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    return kernel(q, k, v, sees).swapaxes(1, 2)


def span(time: int) -> int:
    """Of how many queries, of so many, the keys up to the last are multiplied with: an eighth.

    So of the scores 9/16 are worked out, not all; below 64 products would be small.
    """
    return max(64, -(-time // 8))


def attend_documents(q: array, k: array, v: array, cu_seqlens: array, window: int) -> array:
    """attend, each position to its own document and at most `window` positions of it (0: to all).

    cu_seqlens: (N + 1,) of the documents in the rows (B, T), read one after another, as
    core.data.packing counts them.
    """
    flat = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
    return one_by_one(*flat, cu_seqlens, window, q.shape[1]).reshape(q.shape)


def one_by_one(q: array, k: array, v: array, cu_seqlens: array, window: int, longest: int) -> array:
    """Attention of each document by itself. q: (B T, H, D); k, v: (B T, H_kv, D); out like q.

    What a kernel for all of them would be held to; it reads their lengths on the host.
    """
    parts, lengths = [], cast(list[int], cu_seqlens.tolist())
    for begin, end in pairwise(lengths):
        assert end - begin <= longest
        if begin < end:
            one = q[None, begin:end], k[None, begin:end], v[None, begin:end]
            sees = sees_of(one[0][..., 0, 0], window, doc_mask=False)
            parts.append(attend(*one, sees))
    return mx.concatenate(parts, axis=1)[0]


def packs(device: mx.Device, precision: Precision) -> bool:
    """Whether documents are taken by their cumulative lengths here, rather than by a mask.

    MLX has no kernel for that, and a compiled function wants shapes that stay.
    """
    return False


def sees_of(tokens: array, window: int, doc_mask: bool) -> array | None:
    """(B or 1, T, T): positions up to its own, at most `window` of them, of its own document.

    A window of 0 has no end; None where that is plain causal attention. tokens: (B, T).
    """
    time = tokens.shape[1]
    if not doc_mask and not 0 < window < time:
        return None
    place = mx.arange(time)
    back = place[:, None] - place[None, :]
    sees = (back >= 0)[None]
    if window:
        sees = sees & (back < window)[None]
    if doc_mask:
        document = mx.cumsum(tokens == BOS, axis=1)
        sees = sees & (document[:, :, None] == document[:, None, :])
    return sees


def last_sees(sees: array | None, x: array, last: int) -> array:
    """(B or 1, last, T): what the last positions may look at. x: (B, T, C)."""
    if sees is not None:
        return sees[:, -last:]
    place = mx.arange(x.shape[1])
    return (place[None, :] <= place[-last:, None])[None]


def attention_choice(device: mx.Device, recipe: Recipe | None = None) -> str:
    """The kernel order that attention asks for on this device, and why; of this recipe's blocks."""
    how = "one kernel" if mx.cuda.is_available() else "spans of queries"
    return f"{how}({device.type.name})"


def _whole(q: array, k: array, v: array, sees: array | None) -> array:
    """attend by one kernel, heads before time: (B, H, T, D)."""
    scale, mask = q.shape[-1] ** -0.5, "causal" if sees is None else sees[:, None]
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)


def _in_spans(q: array, k: array, v: array, sees: array | None) -> array:
    """The same where the kernel has no backward of its own and would make all T x T scores."""
    (*_, time, _), (*_, keys, _), parts = q.shape, k.shape, []
    kernel = _products if mx.default_device() == mx.cpu else _whole
    for begin in range(0, time, span(time)):
        end = min(begin + span(time), time)
        seen = keys - time + end
        mask = None if sees is None else sees[:, begin:end, :seen]
        parts.append(kernel(q[:, :, begin:end], k[:, :, :seen], v[:, :, :seen], mask))
    return mx.concatenate(parts, axis=2)


def _products(q: array, k: array, v: array, sees: array | None) -> array:
    """The same by plain products, the queries that share a key as rows of one: for CPUs."""
    (rows, _, time, dims), (_, shared, keys, _) = q.shape, k.shape
    hidden = mx.array(np.triu(np.full((time, keys), UNSEEN, np.float32), 1 + keys - time))
    if sees is not None:
        hidden = mx.where(sees[:, None, None], 0.0, UNSEEN)
    q = (q * dims**-0.5).astype(v.dtype).reshape(rows, shared, -1, dims)
    scores = (q @ k.astype(v.dtype).swapaxes(-2, -1)).reshape(rows, shared, -1, time, keys)
    shares = _softmax(scores.astype(mx.float32) + hidden).astype(v.dtype)
    return (shares.reshape(rows, shared, -1, keys) @ v).reshape(rows, -1, time, dims)


def _softmax(x: array) -> array:
    """mx.softmax over the last axis, fp32."""
    power = _exp(x - mx.stop_gradient(mx.max(x, axis=-1, keepdims=True)))
    return power / mx.sum(power, axis=-1, keepdims=True)


def _exp(x: array) -> array:
    """e^x of finite x <= 0, fp32, to 2e-7: by products and sums, which compilers make vectors of,
    where MLX on x86 asks the C library number by number.

    e^x = 2^n e^r with n the nearest whole number to x / ln 2; e^r by its series; 2^n by its bits.
    The gradient is that of the last factor, which is 1.
    """
    held = mx.stop_gradient(x)
    n = mx.round(held * (1.0 / math.log(2.0)))
    r = (held - n * LN2[0]) - n * LN2[1]
    series = mx.full((), 1.0 / math.factorial(7))
    for power in range(6, -1, -1):
        series = series * r + 1.0 / math.factorial(power)
    bits = (mx.maximum(n, -126.0).astype(mx.int32) + 127) << 23
    return mx.where(n < -126.0, 0.0, series * bits.view(mx.float32)) * (1.0 + (x - held))
