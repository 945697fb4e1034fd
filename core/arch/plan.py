"""forward_plan: which block runs when, and where the U-Net skips are pushed and popped."""

from __future__ import annotations

from dataclasses import dataclass

from core.arch.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One pass through a block. Skips are a stack: the last one pushed is popped first."""

    block: int
    pop_skip: int | None = None  # before the block: x += skip_weights[pop_skip] * popped
    push_skip: bool = False  # after the block: push x


def forward_plan(spec: ModelSpec) -> tuple[Visit, ...]:
    """The visits of one forward pass, in order: the first half pushes, the second pops."""
    half, count = spec.num_layers // 2, num_skips(spec)
    visits = []
    for position in range(spec.num_layers):
        decoder = position - half
        pop_skip = decoder if 0 <= decoder < count else None
        push_skip = count > 0 and position < half
        visits.append(Visit(block=position, pop_skip=pop_skip, push_skip=push_skip))
    return tuple(visits)


def num_skips(spec: ModelSpec) -> int:
    """How many skip connections, and rows of `skip_weights`, the plan has."""
    return spec.num_layers // 2 if spec.skips == "unet" else 0
