"""forward_plan: which blocks run when and how, and where the U-Net skips are pushed and popped."""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.arch.spec import ModelSpec, Routing

LANES: tuple[Routing, ...] = ("lanes", "lanes_in_turn")


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One pass through an attention and an MLP, mostly of one block; where they are of two, all but
    the MLP's own scale, norm and matrices goes by the attention's.

    Skips are a stack: the last one pushed is popped first.
    """

    attn: int  # the block whose attention it is
    mlp: int
    position: int  # in the order of the phase
    route: Routing = "serial"
    pop_skip: int | None = None  # before both: x takes the popped one by skip_weights' row
    push_skip: bool = False  # after both: push x
    opens_lanes: bool = False  # before both: the second lane starts as a copy of x
    closes_lanes: bool = False  # after both: x is the mean of both

    @property
    def in_lanes(self) -> bool:
        return self.route in LANES


def forward_plan(spec: ModelSpec, phase: int = -1) -> tuple[Visit, ...]:
    """The visits of one forward pass, in order: the first half pushes, the second pops."""
    order = spec.orders[phase]
    half, count = len(order) // 2, len(order) // 2 if spec.skips == "unet" else 0
    visits = []
    for position, pair in enumerate(order):
        decoder = position - half
        visits.append(
            Visit(
                attn=pair.attn,
                mlp=pair.mlp,
                position=position,
                route=spec.routing if pair.attn >= spec.routing_start else "serial",
                pop_skip=decoder if 0 <= decoder < count else None,
                push_skip=count > 0 and position < half,
            )
        )
    return tuple(_with_lanes(visits) if spec.routing in LANES else visits)


def num_skips(spec: ModelSpec) -> int:
    """How many skip connections, and rows of `skip_weights`, the longest plan has."""
    return longest(spec) // 2 if spec.skips == "unet" else 0


def longest(spec: ModelSpec) -> int:
    """Visits of the longest phase."""
    return max(len(order) for order in spec.orders)


def _with_lanes(visits: list[Visit]) -> list[Visit]:
    """Where the second lane begins and ends: around each stretch of visits in lanes."""
    done = []
    for i, visit in enumerate(visits):
        before, after = i > 0 and visits[i - 1].in_lanes, visits[i + 1 : i + 2]
        if visit.in_lanes and visit.push_skip:
            raise ValueError(
                f"arch: block {visit.attn} runs in lanes in the first half of the order, whose "
                "blocks push skips; raise routing_start or set skips=none"
            )
        opens = visit.in_lanes and not before
        closes = visit.in_lanes and not (after and after[0].in_lanes)
        done.append(replace(visit, opens_lanes=opens, closes_lanes=closes))
    return done
