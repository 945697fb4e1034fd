"""A group of runs against itself: how often each rule errs, and what few runs still tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from core.score.stats import (
    PROGRESSION_P,
    RECORD_P,
    Power,
    Tail,
    error_rates,
    least_gain,
    record_rule,
    sample,
    welch,
)
from tools.comparing.groups import Group

SPLIT_FROM = 4  # runs: half of them are two, the fewest with a spread
LEVELS = {"welch_p_0.01": RECORD_P, "welch_p_0.05": 0.05, "progression": PROGRESSION_P}


def against_itself(group: Group, tail: Tail, power_of: Power, power: float) -> dict[str, Any]:
    """Both halves of a group are the same thing: how often each rule says that one is better.

    `found` beside `nominal`: a rule at p < 0.01 should err in one of a hundred. Splits of few runs
    share most of their values, so the rate is a coarse one; below four runs there is none. The
    gain that as many runs a side would show needs two runs alone.
    """

    def at_level(alpha: float) -> Callable[[Sequence[float], Sequence[float]], bool]:
        def rule(a: Sequence[float], b: Sequence[float]) -> bool:
            test = welch(a, b)
            return test is not None and test.p_value(tail) < alpha

        return rule

    bpb = [run.score.val_bpb for run in group.runs]
    nats = [run.score.val_loss for run in group.runs]
    count, rates = error_rates(bpb, {name: at_level(p) for name, p in LEVELS.items()})
    _, of_record = error_rates(
        nats, {"record_rule": lambda a, b: bool(record_rule(a, b, tail).holds)}
    )
    found = rates | of_record
    nominal = {**LEVELS, "record_rule": RECORD_P}
    sd, runs = sample(bpb).sd, len(bpb)
    return {
        "runs": runs,
        "splits": count,
        "rules": {name: {"nominal": p, "found": found.get(name)} for name, p in nominal.items()},
        "sd_bpb": sd,
        "least_gain_bpb": least_gain(sd or 0.0, runs, RECORD_P, power, power_of),
        "least_gain_at": {"p": RECORD_P, "power": power, "runs_a_side": runs},
    }


def few_to_split(name: str, told: dict[str, Any]) -> list[str]:
    """Why there are no rates, and what would give them."""
    runs, gain = told["runs"], told["least_gain_bpb"]
    if runs >= SPLIT_FROM:
        return []
    said = (
        f"{name} against itself: {runs} runs cannot be cut into two halves that each have a "
        f"spread, so how often the rules err is not found, only nominal; it takes {SPLIT_FROM} "
        f"runs, {SPLIT_FROM - runs} more"
    )
    if gain is None:
        return [said]
    at = told["least_gain_at"]
    return [
        f"{said}. Their spread alone tells: {runs} runs a side would show a gain of {gain:.5f} BPB "
        f"at p < {at['p']} in {at['power']:.0%} of cases, and hardly a smaller one"
    ]
