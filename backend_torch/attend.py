"""attend(q, k, v): causal attention through the best kernel at hand, and which one that is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.arch.spec import BOS

KERNELS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def attend(q: Tensor, k: Tensor, v: Tensor, sees: Tensor | None = None) -> Tensor:
    """Causal softmax(q k^T / sqrt(D)) v. q: (B, T, H, D); k, v: (B, T, H_kv, D); out like q.

    Each key-value head serves H / H_kv query heads, in order, without being repeated. sees: (B or
    1, T, T), which positions each may look at, instead of all up to its own; with queries of the
    last L positions alone (B or 1, L, T).
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    shared = k.shape[1] != q.shape[1]
    mask = None if sees is None else sees[:, None]
    causal = mask is None
    if q.is_cuda:
        with sdpa_kernel(_cuda_order(q.device), set_priority=True):
            y = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=shared
            )
    else:
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=shared
        )
    return y.transpose(1, 2)


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


def attention_choice(device: torch.device) -> str:
    """The kernel order that `attend` asks for on this device, and why."""
    if device.type != "cuda":
        return f"sdpa({device.type})"
    first = _cuda_order(device)[0].name.lower()
    major, minor = torch.cuda.get_device_capability(device)
    return f"sdpa({first} first, compute capability {major}.{minor})"


@torch.compiler.assume_constant_result
def _cuda_order(device: torch.device) -> list[SDPBackend]:
    """cuDNN first on Hopper, where it is the faster one at head_dim 64; flash elsewhere."""
    if torch.cuda.get_device_capability(device)[0] == 9:
        return KERNELS
    return KERNELS[1:]
