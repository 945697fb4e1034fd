"""Attention in spans of queries against the engine's own kernel: python -m tests.attention_speed.

Forward and backward of causal attention, each position to all before it, in rounds in turn.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from statistics import median
from typing import Any

ROUNDS = 7
SHAPES = ((32, 256, 4, 2, 64), (8, 1024, 4, 2, 64), (32, 256, 8, 4, 32))  # B, T, H, H_kv, D
Work = Callable[[], None]


def of_torch(shape: tuple[int, ...], dtype: str, compiles: bool) -> list[Work]:
    """Its SDPA, then attend."""
    torch: Any = importlib.import_module("torch")
    sdpa = torch.nn.functional.scaled_dot_product_attention
    attend = importlib.import_module("backend_torch.attend").attend
    torch.set_num_threads(1)
    torch.compiler.reset()
    batch, length, heads, kv_heads, dims = shape
    sizes, kind = (heads, kv_heads, kv_heads), getattr(torch, dtype)
    leaves = [torch.randn(batch, length, n, dims, dtype=kind, requires_grad=True) for n in sizes]
    weight = torch.randn(batch, length, heads, dims, dtype=kind)

    def kernel(q: Any, k: Any, v: Any) -> Any:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return sdpa(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)

    def work(form: Callable[..., Any]) -> Work:
        form = torch.compile(form, dynamic=False, fullgraph=True) if compiles else form
        return lambda: form(*leaves).backward(weight)

    return [work(kernel), work(attend)]


def of_mlx(shape: tuple[int, ...], dtype: str, compiles: bool) -> list[Work]:
    """Its SDPA, then attend."""
    mx: Any = importlib.import_module("mlx.core")
    module = importlib.import_module("backend_mlx.attend")
    batch, length, heads, kv_heads, dims = shape
    sizes, kind = (heads, kv_heads, kv_heads), getattr(mx, dtype)
    leaves = [mx.random.normal((batch, length, n, dims)).astype(kind) for n in sizes]
    weight = mx.random.normal((batch, length, heads, dims)).astype(kind)

    def kernel(q: Any, k: Any, v: Any) -> Any:
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
        return module._whole(q, k, v, None).swapaxes(1, 2)

    def work(form: Callable[..., Any]) -> Work:
        grad = mx.value_and_grad(lambda *x: (form(*x) * weight).sum(), (0, 1, 2))
        grad = mx.compile(grad) if compiles else grad
        return lambda: mx.eval(grad(*leaves))

    return [work(kernel), work(module.attend)]


def seconds(work: Work) -> float:
    """Of this process, whoever else is on the machine."""
    before = time.process_time()
    work()
    return time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=("torch", "mlx"), nargs="?", default="torch")
    parser.add_argument("--eager", action="store_true", help="not compiled")
    args = parser.parse_args()
    made = {"torch": of_torch, "mlx": of_mlx}[args.backend]
    print(f"{args.backend}, {'eager' if args.eager else 'compiled'}, CPU seconds of one thread")
    for shape in SHAPES:
        for dtype in ("float32", "bfloat16"):
            kernel, attend = made(shape, dtype, not args.eager)
            for work in (kernel, attend) * 2:
                work()
            ratios = [seconds(kernel) / seconds(attend) for _ in range(ROUNDS)]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"{shape} {dtype}: {median(ratios):.2f} times the kernel's speed ({spread})")


if __name__ == "__main__":
    main()
