"""What benchmarks measure beside the step: products, attention, loss; peaks, threads, profiles."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.profiler import profile

from backend_torch.attend import attend
from backend_torch.ops import cross_entropy, softcap
from core.arch.noise import normal
from core.train.recipe import Precision

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v as attend takes them
Loss = Callable[[Tensor, Tensor], Tensor]  # logits (N, 1, V), targets (N, 1) -> nats
PRODUCTS = {"fp32": torch.float32, "autocast": torch.bfloat16, "cast": torch.bfloat16}
BACKENDS = {
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
SAMPLE = 1 << 20  # numbers that are drawn; a larger array repeats them
TOP_ROWS = 30  # of a profile's table


def settle(value: Any) -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def versions() -> dict[str, str]:
    """Of the framework and of what it calls."""
    return {"torch": torch.__version__, "cuda": str(torch.version.cuda)}


def threads() -> int | None:
    """That the framework's products take on the processor."""
    return torch.get_num_threads()


def held_bytes(device: torch.device) -> int | None:
    """Device memory that is held now, from where its peak is counted anew; None: not counted."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def devices() -> int:
    """How many there are of the kind that a run takes."""
    return max(torch.cuda.device_count(), 1)


def release() -> None:
    """Give back the device memory that is held for what comes: a process beside this wants it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def product(precision: Precision, size: int, device: torch.device) -> Callable[[], Tensor]:
    """A product of two square matrices in the dtype that a step of this precision takes."""
    left, right = (drawn((size, size), at, device).to(PRODUCTS[precision]) for at in range(2))
    return partial(torch.matmul, left, right)


def attentions() -> dict[str, Attention]:
    """What `attend` picks, each backend of torch's attention, and FlexAttention; all causal."""
    found: dict[str, Attention] = {"attend": attend}
    found |= {name: partial(_sdpa, kernel) for name, kernel in BACKENDS.items()}
    return found | {"flex": _flex}


def attention_step(
    form: Attention, shape: tuple[int, ...], precision: Precision, device: torch.device
) -> Callable[[], Tensor]:
    """Forward and backward of (B, H, H_kv, T, D); what is called gives q's gradient."""
    rows, heads, kv_heads, time, dims = shape
    sizes = [(rows, time, count, dims) for count in (heads, kv_heads, kv_heads)]
    q, k, v = (
        drawn(size, at, device).to(PRODUCTS[precision]).requires_grad_()
        for at, size in enumerate(sizes)
    )
    along = drawn(sizes[0], 3, device).to(PRODUCTS[precision])

    def step() -> Tensor:
        return torch.autograd.grad(form(q, k, v), (q, k, v), along)[0]

    return step


def losses(cap: float) -> dict[str, Loss]:
    """Softcapped cross-entropy as the verbs say it, and the same compiled."""

    def plain(logits: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(softcap(logits, "tanh", cap), targets)

    return {"verbs": plain, "compiled": torch.compile(plain, dynamic=False)}


def loss_step(
    form: Loss, shape: tuple[int, ...], precision: Precision, device: torch.device
) -> Callable[[], Tensor]:
    """Forward and backward for (tokens, vocabulary); what is called gives the logits' gradient."""
    logits = drawn((shape[0], 1, shape[1]), 0, device).to(PRODUCTS[precision]).requires_grad_()
    targets = (torch.arange(shape[0], device=device) * 7919 % shape[1])[:, None]

    def step() -> Tensor:
        return torch.autograd.grad(form(logits, targets).sum(), logits)[0]

    return step


def drawn(shape: tuple[int, ...], stream: int, device: torch.device) -> Tensor:
    """Normal numbers, fp32: no device is timed on zeros."""
    sample = normal(0, stream, (min(SAMPLE, int(np.prod(shape))),)).astype(np.float32)
    return torch.from_numpy(np.resize(sample, shape)).to(device)


def profiled(work: Callable[[], Any], folder: Path) -> str:
    """Do the work under the profiler: a chrome trace and a table in `folder`; what lies there."""
    with profile() as found:  # of the processor, and of CUDA where there is one
        work()
    on_cuda = torch.cuda.is_available()
    by = f"self_{'cuda' if on_cuda else 'cpu'}_time_total"
    table = found.key_averages().table(sort_by=by, row_limit=TOP_ROWS)
    (folder / "top.txt").write_text(table, encoding="utf-8")
    found.export_chrome_trace(str(folder / "trace.json"))
    return f"{folder / 'trace.json'} (for chrome://tracing), {folder / 'top.txt'}"


def _sdpa(kernel: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    shared = k.shape[1] != q.shape[1]
    with sdpa_kernel(kernel):
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared)
    return y.transpose(1, 2)


def _flex(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Blocks above the diagonal are left out."""
    call, mask = _compiled_flex(q.shape[1], q.device)
    shared = k.shape[2] != q.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    y: Tensor = call(q, k, v, block_mask=mask, enable_gqa=shared)
    return y.transpose(1, 2)


@cache
def _compiled_flex(time: int, device: torch.device) -> tuple[Callable[..., Any], Any]:
    """FlexAttention, and its causal mask of this length."""
    mask = create_block_mask(_causal, None, None, time, time, device=str(device))
    return torch.compile(flex_attention, dynamic=False), mask


def _causal(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return query >= key
