"""attend(q, k, v): causal attention through the best kernel at hand, and which one that is."""

from __future__ import annotations

from functools import cache
from inspect import signature
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.arch.spec import BOS
from core.train.recipe import Precision, Recipe

NEWER = {9: ("FA3", "FA4"), 10: ("FA4",)}  # by compute capability: flash kernels of other packages

try:
    from torch.nn.attention import varlen
except ImportError:  # torch 2.9
    varlen = None  # type: ignore[assignment]
KERNELS = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
VARLEN: Any = getattr(varlen, "varlen_attn", None)
TAKES = frozenset(signature(VARLEN).parameters) if VARLEN else frozenset[str]()


def attend(q: Tensor, k: Tensor, v: Tensor, sees: Tensor | None = None) -> Tensor:
    """Causal softmax(q k^T / sqrt(D)) v. q: (B, T, H, D); k, v: (B, T, H_kv, D); out like q.

    Each key-value head serves H / H_kv query heads, in order, without being repeated. sees: (B or
    1, T, T), which positions each may look at, instead of all up to its own; with queries of the
    last L positions alone (B or 1, L, T).
    """
    return _whole(q, k, v, sees) if q.is_cuda else _in_spans(q, k, v, sees)


def span(time: int) -> int:
    """Of how many queries, of so many, the keys up to the last are multiplied with: an eighth.

    So of the scores 9/16 are worked out, not all; below 64 products would be small.
    """
    return max(64, -(-time // 8))


def attend_documents(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, window: int) -> Tensor:
    """attend, each position to its own document and at most `window` positions of it (0: to all).

    cu_seqlens: (N + 1,) of the documents in the rows (B, T), read one after another, as
    core.data.packing counts them.
    """
    flat = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
    kernel = _varlen if q.is_cuda else one_by_one
    return kernel(*flat, cu_seqlens, window, q.shape[1]).reshape(q.shape)


def one_by_one(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, window: int, longest: int
) -> Tensor:
    """Attention of each document by itself. q: (B T, H, D); k, v: (B T, H_kv, D); out like q.

    What the kernel for all of them is held to; it reads their lengths on the host.
    """
    parts, lengths = [], cast(list[int], cu_seqlens.tolist())
    for begin, end in pairwise(lengths):
        assert end - begin <= longest
        if begin < end:
            one = q[None, begin:end], k[None, begin:end], v[None, begin:end]
            sees = sees_of(one[0][..., 0, 0], window, doc_mask=False)
            parts.append(attend(*one, sees))
    return torch.cat(parts, dim=1)[0]


def packs(device: torch.device, precision: Precision) -> bool:
    """Whether documents are taken by their cumulative lengths here, rather than by a mask.

    By varlen_attn, which has windows from torch 2.11 on; it takes no fp32.
    """
    return device.type == "cuda" and precision != "fp32" and "window_size" in TAKES


def sees_of(tokens: Tensor, window: int, doc_mask: bool) -> Tensor | None:
    """(B or 1, T, T): positions up to its own, at most `window` of them, of its own document.

    A window of 0 has no end; None where that is plain causal attention. tokens: (B, T).
    """
    time = tokens.shape[1]
    if not doc_mask and not 0 < window < time:
        return None
    place = torch.arange(time, device=tokens.device)
    back = place[:, None] - place[None, :]
    sees = (back >= 0)[None]
    if window:
        sees = sees & (back < window)[None]
    if doc_mask:
        document = torch.cumsum(tokens == BOS, dim=1)
        sees = sees & (document[:, :, None] == document[:, None, :])
    return sees


def last_sees(sees: Tensor | None, x: Tensor, last: int) -> Tensor:
    """(B or 1, last, T): what the last positions may look at. x: (B, T, C)."""
    if sees is not None:
        return sees[:, -last:]
    place = torch.arange(x.shape[1], device=x.device)
    return (place[None, :] <= place[-last:, None])[None]


def attention_choice(device: torch.device, recipe: Recipe | None = None) -> str:
    """The kernel order that attention asks for on this device, and why; of this recipe's blocks."""
    if device.type != "cuda":
        return f"spans of queries({device.type})"
    verb = "sdpa" if recipe is None else _verb(device, recipe)
    major, minor = torch.cuda.get_device_capability(device)
    first, why = _cuda_order(device)[0].name.lower(), f"compute capability {major}.{minor}"
    for name in NEWER.get(major, ()):
        if not _lacking(name):
            return f"{verb}({name} first, {why})"
        why += f"; no {name}: {_lacking(name)}"
    why += "; deterministic" if torch.are_deterministic_algorithms_enabled() else ""
    return f"{verb}({first} first, {why})"


def _verb(device: torch.device, recipe: Recipe) -> str:
    """What attends in training; sdpa where scoring takes rows whole beside it."""
    if recipe.arch.doc_mask and packs(device, recipe.precision):
        return "varlen_attn in training, else sdpa"
    return "sdpa"


def _whole(q: Tensor, k: Tensor, v: Tensor, sees: Tensor | None) -> Tensor:
    """attend by one kernel."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    mask, shared = None if sees is None else sees[:, None], k.shape[1] != q.shape[1]
    with sdpa_kernel(_cuda_order(q.device), set_priority=True):
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=shared
        )
    return y.transpose(1, 2)


def _in_spans(q: Tensor, k: Tensor, v: Tensor, sees: Tensor | None) -> Tensor:
    """attend by plain products, which on CPUs beat the kernel: its backward above all."""
    (_, time, _, dims), seen, parts = q.shape, k.shape[1] - q.shape[1], []
    q = (q * dims**-0.5).to(v.dtype).unflatten(2, (k.shape[2], -1))
    hidden = q.new_full((time, k.shape[1]), -torch.inf).triu(1 + seen)
    if sees is not None:
        hidden = torch.where(sees[:, None, None], 0.0, -torch.inf).to(v.dtype)
    for part, hides in zip(q.split(span(time), 1), hidden.split(span(time), -2), strict=True):
        seen += part.shape[1]
        scores = torch.einsum("bqkgd,bskd->bkgqs", part, k[:, :seen].to(v.dtype))
        shares = torch.softmax(scores + hides[..., :seen], -1)
        parts.append(torch.einsum("bkgqs,bskd->bqkgd", shares, v[:, :seen]))
    return torch.cat(parts, 1).flatten(2, 3)


def _varlen(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, window: int, longest: int
) -> Tensor:
    """one_by_one by one kernel, bf16. Nothing is read on the host."""
    shared = q.shape[1] // k.shape[1]
    options = {"enable_gqa": True} if shared > 1 and "enable_gqa" in TAKES else {}
    if shared > 1 and not options:
        k, v = (x.repeat_interleave(shared, dim=1) for x in (k, v))
    back = window - 1 if window else -1
    y: Tensor = VARLEN(
        *(x.bfloat16() for x in (q, k, v)),
        *(cu_seqlens, cu_seqlens, longest, longest),
        window_size=(back, 0),
        **options,
    )
    return y.to(v.dtype)


@torch.compiler.assume_constant_result
def _cuda_order(device: torch.device) -> list[SDPBackend]:
    """FlashAttention-3 or -4 first, where their package takes the place of torch's own, which is 2.

    Else cuDNN on Hopper, where it is the faster at head_dim 64, if order need not be kept; flash
    elsewhere. SDPA goes on to the next for what one does not take: fp32, masks, of which cuDNN
    alone takes those of shared keys. varlen_attn has the newer one as well.
    """
    major = torch.cuda.get_device_capability(device)[0]
    newer = any(not _lacking(name) for name in NEWER.get(major, ()))
    cudnn = major == 9 and not newer and not torch.are_deterministic_algorithms_enabled()
    return sorted(KERNELS, key=KERNELS[cudnn].__ne__)


@cache
def _lacking(name: str) -> str:
    """Why torch's flash kernel cannot be this one; else it is from here on, and nothing lacks."""
    try:
        from torch.nn.attention import activate_flash_attention_impl  # torch 2.11

        activate_flash_attention_impl(name)
    except Exception as error:  # a stranger's package: whatever ails it, torch's own is there
        return str(error) or type(error).__name__
    return ""
