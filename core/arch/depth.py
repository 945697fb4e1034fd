"""The depth program: whose attention and whose MLP each visit takes, phase by phase of the run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A visit to the attention of one block and the MLP of another."""

    attn: int
    mlp: int


@dataclass(frozen=True, kw_only=True)
class Phase:
    """From this progress of the run on, the blocks in this order; a number is both of one block."""

    at: float
    order: tuple[int | Pair, ...]

    def __post_init__(self) -> None:
        for visit in self.order:
            if isinstance(visit, Pair) and visit.attn == visit.mlp:
                raise ValueError(
                    f"arch: phase at {self.at}: attention and MLP of one block are its number: "
                    f"write {visit.attn}"
                )

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Every visit with both of its blocks."""
        return tuple(v if isinstance(v, Pair) else Pair(attn=v, mlp=v) for v in self.order)


Order = tuple[Pair, ...]


def attns(order: Order) -> frozenset[int]:
    """The blocks whose attention is in the order."""
    return frozenset(pair.attn for pair in order)


def mlps(order: Order) -> frozenset[int]:
    """The blocks whose MLP is in the order."""
    return frozenset(pair.mlp for pair in order)


def check_phases(phases: tuple[Phase, ...], num_layers: int) -> None:
    """The first at 0, each later than the one before, and nothing left untrained or unused."""
    starts = [phase.at for phase in phases]
    fits = not starts or (starts[0] == 0 and starts[-1] < 1 and starts == sorted(set(starts)))
    _need(fits, f"phases begin at {starts}, expected 0 first, then rising, all below 1")
    for phase in phases:
        named = attns(phase.pairs) | mlps(phase.pairs)
        outside = sorted(block for block in named if not 0 <= block < num_layers)
        _need(
            bool(phase.order) and not outside,
            f"phase at {phase.at}: blocks {outside or 'none'} in the order, expected some of "
            f"0 to {num_layers - 1}",
        )
    for phase in phases:
        _check_last(phase, phases[-1], num_layers)


def _check_last(phase: Phase, last: Phase, num_layers: int) -> None:
    """Every block is in the last order, and so is every attention and MLP of this one."""
    used = len(attns(last.pairs) | mlps(last.pairs))
    _need(
        used == num_layers,
        f"the last order has {used} blocks, expected all num_layers {num_layers}",
    )
    for what, of in (("attention", attns), ("MLP", mlps)):
        gone = sorted(of(phase.pairs) - of(last.pairs))
        _need(
            not gone,
            f"phase at {phase.at}: the last order has no {what} of blocks {gone}: what is trained "
            "must be in what is packed",
        )


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(f"arch: {message}")
