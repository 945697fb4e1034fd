"""Compare A, a candidate's runs, with B, the record's: nats and BPB, p-values, rules, seeds needed.

A and B are each a log, a run folder, a folder of either, a pattern, or several with commas. A
negative difference says that A is better.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np

from core.score.stats import Pair, Power, Tail
from tools.comparing.comparison import compare
from tools.comparing.groups import Group, load_group
from tools.comparing.itself import against_itself, few_to_split
from tools.comparing.sentence import outcome
from tools.say import UsageError, note, print_fields, print_json

QUANTILES = 48  # of a sample variance, where powers are averaged: enough for 0.01
PLACES = "a log, a run folder, a folder of them, a pattern, or several separated by commas"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help=f"the candidate: {PLACES}")
    parser.add_argument("b", metavar="B", help="the record, in the same ways; A again: see --null")
    parser.add_argument(
        "--power", type=float, default=0.8, help="chance of success for `seeds_needed` (0.8)"
    )
    parser.add_argument(
        "--null",
        action="store_true",
        help="each group against itself, split in all ways: how often the rules err",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if not 0.0 < args.power < 1.0:
        raise UsageError(f"--power {args.power:g} must be between 0 and 1")
    a, b = load_group("A", args.a), load_group("B", args.b)
    itself = a.paths == b.paths
    if shared := a.paths & b.paths if not itself else set():
        raise UsageError(f"{min(shared)} is in A and in B; a run can be on one side only")
    tail, power_of = distributions()
    fields = compare(a, b, tail, power_of, args.power)
    if itself or args.null:
        groups = [a] if itself else [a, b]
        fields["null"] = {g.name: against_itself(g, tail, power_of, args.power) for g in groups}
        for group in groups:
            fields["notes"] += few_to_split(group.name, fields["null"][group.name])
    if args.json:
        print_json(fields)
    else:
        _print(fields, a, b)
    return 0


def distributions() -> tuple[Tail, Power]:
    """What is asked of Student's t and of chi squared, by scipy."""
    try:
        from scipy import stats
    except ImportError:
        raise ImportError("golf compare needs scipy: pip install 'golf[tools]'") from None

    def tail(t: float, freedom: float) -> float:
        return float(stats.t.sf(t, freedom))

    def power_of(gain: float, sds: Pair, ns: tuple[int, int], alpha: float) -> float:
        """Welch's power by its definition: the gain that a pair of sample variances asks for, and
        how often it is seen, averaged over the quantiles of both variances.
        """
        if sds == (0.0, 0.0):
            return float(gain > 0.0)
        grid = (np.arange(QUANTILES) + 0.5) / QUANTILES
        true_a, true_b = (sd**2 / n for sd, n in zip(sds, ns, strict=True))
        seen_a = true_a * stats.chi2.ppf(grid, ns[0] - 1) / (ns[0] - 1)
        seen_b = true_b * stats.chi2.ppf(grid, ns[1] - 1)[:, None] / (ns[1] - 1)
        total = seen_a + seen_b
        freedom = total**2 / (seen_a**2 / (ns[0] - 1) + seen_b**2 / (ns[1] - 1))
        asked = stats.t.isf(alpha, freedom) * np.sqrt(total)
        return float(stats.norm.cdf((gain - asked) / math.sqrt(true_a + true_b)).mean())

    return tail, power_of


def _print(fields: dict[str, Any], a: Group, b: Group) -> None:
    print(f"{'':<3}{'seed':>8}{'val_loss':>13}{'val_bpb':>13}{'steps':>8}{'ms/step':>9}  log")
    for group in (a, b):
        for run in group.runs:
            log, score = run.log, run.score
            speed = "" if log.step_avg_ms is None else f"{log.step_avg_ms:.1f}"
            print(
                f"{group.name:<3}{_said(log.seed):>8}{score.val_loss:>13.8f}{score.val_bpb:>13.8f}"
                f"{_said(log.last_step):>8}{speed:>9}  {log.path}"
            )
    print()
    told = {
        k: v for k, v in fields.items() if not k.startswith(("runs_", "seeds_a", "seeds_b", "cand"))
    }
    for name in ("mean_a", "sd_a", "mean_b", "sd_b"):
        told[f"{name[:-2]}_bpb{name[-2:]}"] = told.pop(name)
    notes = [*told.pop("left_out"), *told.pop("notes")]
    print_fields(told)
    print(f"\n{outcome(fields)}")
    for said in notes:
        note(said)


def _said(value: int | None) -> str:
    return "" if value is None else str(value)
