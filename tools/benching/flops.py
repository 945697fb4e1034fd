"""FLOPs of a token by the stated formula, and the most that a device does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.arch.params import flops_per_token, param_table
from core.arch.plan import forward_plan
from core.arch.spec import ModelSpec
from tools.costs import peak_flops

TRIES = 8  # products, of which the fastest counts


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Forward and backward of one token; the look-up is free and nothing is recomputed."""

    visits: int  # of blocks, recurrence counting each pass
    block_weights: int  # of one block's matrices
    head_weights: int
    width: int  # of the residual stream
    context: float  # positions that one looks at on average
    other: int = 0  # of what is neither block nor head: a factored table, random weights

    @property
    def per_token(self) -> int:
        products = 6 * (self.visits * self.block_weights + self.head_weights)
        return round(products + 12 * self.width * self.context * self.visits) + self.other

    @property
    def terms(self) -> str:
        """The formula with its numbers."""
        other = f" + {self.other:,}" if self.other else ""
        return (
            f"6 x ({self.visits} x {self.block_weights:,} + {self.head_weights:,}) + "
            f"12 x {self.width} x {self.context:g} x {self.visits}{other} = {self.per_token:,}"
        )


def flops_of(spec: ModelSpec, phase: int = -1, context: float = 0.0) -> Flops:
    """Of one phase of the plan; a context of 0 is that of dense causal rows."""
    rows = [r for r in param_table(spec) if r.rule == "matrix" and r.name.startswith("blocks.0.")]

    def counted(phase: int, context: float, other: int) -> Flops:
        return Flops(
            visits=len(forward_plan(spec, phase)),
            block_weights=sum(row.size for row in rows),
            head_weights=spec.vocab_size * spec.table_dim,
            width=spec.model_dim,
            context=context,
            other=other,
        )

    dense = (spec.seq_len + 1) / 2
    other = flops_per_token(spec) - counted(-1, dense, 0).per_token
    return counted(phase, context or dense, other)


@dataclass(frozen=True, kw_only=True)
class Peak:
    """FLOP/s of a device at most, and who says so."""

    flops: float
    source: str


def peak_of(
    device_name: str,
    given: float | None,
    product: Callable[[], Any],
    size: int,
    settle: Any,
    now: Callable[[], float] = time.perf_counter,
) -> Peak:
    """What is given, else known by the name, else what a square product of `size` reaches."""
    if given:
        return Peak(flops=given, source="given")
    if known := peak_flops(device_name):
        return Peak(flops=known, source=f"dense bf16 of {device_name}")
    settle(product())
    best_s = float("inf")
    for _ in range(TRIES):
        started = now()
        settle(product())
        best_s = min(best_s, now() - started)
    return Peak(flops=2 * size**3 / best_s, source=f"measured: a product of {size} x {size}")
