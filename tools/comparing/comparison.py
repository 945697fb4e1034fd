"""What is said of two groups of runs: every number of `golf compare`, and nothing printed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from core.score.stats import (
    PROGRESSION_P,
    RECORD_NATS,
    RECORD_P,
    Power,
    Tail,
    at,
    pair_up,
    paired,
    progression,
    record_rule,
    sample,
    seeds_needed,
    welch,
)
from tools.comparing.groups import Curve, Group, Run, oddities

SAME_TOKENS = 1e-3  # relative difference of bytes per token up to which nats are comparable


def compare(a: Group, b: Group, tail: Tail, power_of: Power, power: float) -> dict[str, Any]:
    """Everything that is said of two groups, as the fields of a report."""
    bpb_a, bpb_b = _bpb(a.runs), _bpb(b.runs)
    nats_a, nats_b, of_tokens = _nats(a, b)
    test = welch(bpb_a, bpb_b)
    notes = [*a.notes, *b.notes, *oddities([a, b]), *of_tokens]
    if test is None:
        few = min(len(bpb_a), len(bpb_b)) < 2
        why = "it takes two runs a side" if few else "the runs of neither side differ"
        notes.append(f"no p-value: {why}")
    return {
        "candidate": "A",
        **_summary("a", a, bpb_a, nats_a),
        **_summary("b", b, bpb_b, nats_b),
        "difference_bpb": sample(bpb_a).mean - sample(bpb_b).mean,
        "difference_nats": sample(nats_a).mean - sample(nats_b).mean,
        "p_value": None if test is None else test.p_value(tail),
        "t": None if test is None else test.t,
        "freedom": None if test is None else test.freedom,
        **_rules(bpb_a, bpb_b, nats_a, nats_b, tail),
        "paired": _paired(a, b, nats_a, nats_b, tail),
        "seeds_needed": _needed(nats_a, nats_b, power, power_of),
        "equal_steps": _equal("step", a, b, Run.by_step, tail),
        "equal_seconds": _equal("seconds", a, b, Run.by_seconds, tail),
        "left_out": [*a.left_out, *b.left_out],
        "notes": notes,
    }


def _rules(
    bpb_a: list[float], bpb_b: list[float], nats_a: list[float], nats_b: list[float], tail: Tail
) -> dict[str, Any]:
    """The README's rule and plain progression, side by side."""
    record, plain = record_rule(nats_a, nats_b, tail), progression(bpb_a, bpb_b, tail)
    return {
        "meets_record_rule": record.holds,
        "record_rule": {
            "gain_nats_wanted": RECORD_NATS,
            "p_wanted": RECORD_P,
            "p_value": record.p_value,
            "holds": record.holds,
        },
        "progression": {
            "p_wanted": PROGRESSION_P,
            "p_value": plain.p_value,
            "lower": sample(bpb_a).mean < sample(bpb_b).mean,
            "holds": plain.holds,
        },
    }


def _bpb(runs: Sequence[Run]) -> list[float]:
    return [run.score.val_bpb for run in runs]


def _nats(a: Group, b: Group) -> tuple[list[float], list[float], list[str]]:
    """Nats per token of both sides; by B's tokens where the tokenizers differ."""
    ours, theirs = (sample([r.bytes_per_token for r in group.runs]).mean for group in (a, b))
    nats_a, nats_b = ([run.score.val_loss for run in group.runs] for group in (a, b))
    if abs(ours / theirs - 1.0) <= SAME_TOKENS:
        return nats_a, nats_b, []
    per_bpb = math.log(2.0) * theirs
    said = (
        f"A has {ours:.4f} bytes a token, B {theirs:.4f}: losses per token of two tokenizers are "
        "not comparable, so nats are those of A's BPB in tokens of B"
    )
    return [bpb * per_bpb for bpb in _bpb(a.runs)], nats_b, [said]


def _summary(side: str, group: Group, bpb: list[float], nats: list[float]) -> dict[str, Any]:
    of_bpb, of_nats = sample(bpb), sample(nats)
    speeds = [run.log.step_avg_ms for run in group.runs if run.log.step_avg_ms is not None]
    return {
        f"runs_{side}": [run.log.path for run in group.runs],
        f"seeds_{side}": [run.log.seed for run in group.runs],
        f"n_{side}": of_bpb.n,
        f"mean_{side}": of_bpb.mean,
        f"sd_{side}": of_bpb.sd,
        f"mean_nats_{side}": of_nats.mean,
        f"sd_nats_{side}": of_nats.sd,
        f"step_ms_{side}": sample(speeds).mean if speeds else None,
    }


def _paired(
    a: Group, b: Group, nats_a: list[float], nats_b: list[float], tail: Tail
) -> dict[str, Any] | None:
    """The runs whose seeds match, by their differences; None for fewer than two."""
    seeds_a, seeds_b = ([run.log.seed for run in group.runs] for group in (a, b))
    nats = pair_up(_with(seeds_a, nats_a), _with(seeds_b, nats_b))
    bpb = pair_up(_with(seeds_a, _bpb(a.runs)), _with(seeds_b, _bpb(b.runs)))
    if len(nats) < 2:
        return None
    gains = [other - one for one, other in bpb.values()]
    gains_nats = [other - one for one, other in nats.values()]
    test, of_record = paired(gains), paired(gains_nats, RECORD_NATS)
    return {
        "seeds": sorted(nats),
        "difference_bpb": 0.0 - sample(gains).mean,
        "difference_nats": 0.0 - sample(gains_nats).mean,
        "sd_bpb": sample(gains).sd,
        "p_value": None if test is None else test.p_value(tail),
        "p_value_record": None if of_record is None else of_record.p_value(tail),
    }


def _with(seeds: Sequence[int | None], values: Sequence[float]) -> list[tuple[int | None, float]]:
    return list(zip(seeds, values, strict=True))


def _needed(
    nats_a: list[float], nats_b: list[float], power: float, power_of: Power
) -> dict[str, Any]:
    """Runs for `power` at p < 0.01, if the gain and the spreads are those seen; a side of one run
    is taken to spread as the other.
    """
    one, other = sample(nats_a), sample(nats_b)
    found: dict[str, Any] = {"power": power, "p": RECORD_P}
    sds = (one.sd or other.sd, other.sd or one.sd)
    for name, margin in {"any_gain": 0.0, "record_rule": RECORD_NATS}.items():
        each = alone = None
        if sds[0] is not None and sds[1] is not None:
            ask = (other.mean - one.mean - margin, (sds[0], sds[1]), RECORD_P, power, power_of)
            each = seeds_needed(*ask)
            alone = seeds_needed(*ask, runs_b=other.n) if other.n > 1 else None
        found[name] = {
            "each_side": each,
            "more_a": None if each is None else max(0, each - one.n),
            "more_b": None if each is None else max(0, each - other.n),
            "more_a_alone": None if alone is None else max(0, alone - one.n),
        }
    return found


def _equal(
    unit: str, a: Group, b: Group, curve_of: Callable[[Run], Curve], tail: Tail
) -> dict[str, Any] | None:
    """Scores on the way, before quantization, as far as all runs had gone: at the last step that
    all of them validated at, else on the line between validations. None without an overlap.
    """
    curves = [[curve_of(run) for run in group.runs] for group in (a, b)]
    flat = [curve for side in curves for curve in side]
    if not all(flat):
        return None
    shared = set.intersection(*({x for x, _ in curve} for curve in flat))
    where = min(curve[-1][0] for curve in flat)
    if unit == "step" and shared:
        where = max(shared)
    read = [[at(curve, where) for curve in side] for side in curves]
    ours, theirs = ([y for y in side if y is not None] for side in read)
    if len(ours) + len(theirs) < len(flat):
        return None
    test = welch(ours, theirs)
    return {
        unit: where,
        "mean_bpb_a": sample(ours).mean,
        "mean_bpb_b": sample(theirs).mean,
        "difference_bpb": sample(ours).mean - sample(theirs).mean,
        "p_value": None if test is None else test.p_value(tail),
        "interpolated": where not in shared,
    }
