"""The rungs of the ladder: what is compared, and how far apart it may be.

Each engine is held to float64 or to the exact bits of core. Beside gradients and steps stands the
control, torch in float32 against torch in float64: what rounding alone costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.parity.measures import (
    adam_update_gap,
    autocast_gap,
    average_gap,
    bf16_score_gap,
    fifty_steps_gap,
    gradient_gap,
    loss_gap,
    matrix_gradient_gap,
    micro_batch_gap,
    muon_update_gap,
    one_step_gap,
    scalar_gradient_gap,
    score_gap,
    steps_gap,
    ten_steps_gap,
    two_hundred_steps_gap,
    unequal_batches,
    unequal_first_weights,
    unequal_payloads,
    unequal_shapes,
)

CONTROL = 10.0  # times the control's distance


@dataclass(frozen=True)
class Rung:
    """measure(case, engine) is at most `bound`, and at most CONTROL times control(case)."""

    number: str
    statement: str
    bound: float
    measure: Callable[[str, str], float]
    control: Callable[[str], float] | None = None
    slow: bool = False


RUNGS: tuple[Rung, ...] = (
    Rung("0", "parameters: names and shapes of the table", 0, unequal_shapes),
    Rung("1", "first weights, bits", 0, unequal_first_weights),
    Rung("2", "batches, whatever ranks and micro-batches", 0, unequal_batches),
    Rung("3", "loss of one batch, nats", 2e-6, loss_gap),
    Rung("4", "each gradient of a matrix", 2e-5, matrix_gradient_gap),
    Rung("4", "each gradient of a scalar parameter", 5e-5, scalar_gradient_gap),
    Rung("4", "all gradients", 1e-5, gradient_gap, lambda case: gradient_gap(case, "torch")),
    Rung("5", "Muon alone, each update beyond its fp32 storage", 1e-5, muon_update_gap),
    Rung("5", "Adam alone, each update beyond its fp32 storage", 1e-6, adam_update_gap),
    Rung("5", "the averages that are packed", 1e-6, average_gap),
    Rung("6", "1 step, all weights", 2e-5, one_step_gap, lambda c: steps_gap(c, "torch", 1)),
    Rung("6", "10 steps, all weights", 5e-5, ten_steps_gap, lambda c: steps_gap(c, "torch", 10)),
    Rung(
        "6",
        "50 steps, all weights",
        2e-4,
        fifty_steps_gap,
        lambda c: steps_gap(c, "torch", 50),
        slow=True,
    ),
    Rung(
        "6",
        "200 steps, all weights",
        5e-4,
        two_hundred_steps_gap,
        lambda c: steps_gap(c, "torch", 200),
        slow=True,
    ),
    Rung("7", "one payload from numpy and the engine", 0, unequal_payloads),
    Rung("8", "one artifact, BPB, fp32", 1e-6, score_gap),
    Rung("9", "one artifact, BPB, bf16", 1e-3, bf16_score_gap),
    Rung("9", "autocast and cast, nats", 1e-3, autocast_gap),
    Rung("10", "micro-batches, all gradients", 2e-6, micro_batch_gap),
)
