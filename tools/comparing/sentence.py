"""The outcome of a comparison in words."""

from __future__ import annotations

from typing import Any


def outcome(fields: dict[str, Any]) -> str:
    """Who is better and by how much, and what each rule says of it, or why it cannot say."""
    return f"{_difference(fields)}; {_verdicts(fields)}"


def _difference(fields: dict[str, Any]) -> str:
    gain, p_value = -fields["difference_nats"], fields["p_value"]
    shown = "no p-value" if p_value is None else f"p = {p_value:.2g} one-sided"
    if fields["runs_a"] == fields["runs_b"]:
        return "A and B are the same runs, and equal"
    if not fields["difference_bpb"]:
        return f"A and B are equal to the last digit told ({shown})"
    side = "better" if fields["difference_bpb"] < 0 else "worse"
    return (
        f"A is {side} than B by {abs(fields['difference_bpb']):.5f} BPB, {abs(gain):.5f} nats per "
        f"token ({shown})"
    )


def _verdicts(fields: dict[str, Any]) -> str:
    if fields["p_value"] is None:
        return (
            "without a p-value neither the record rule nor plain progression can be told: "
            f"{_wanted(fields)}"
        )
    record = "meets" if fields["meets_record_rule"] else "does not meet"
    plain = "is" if fields["progression"]["holds"] else "is not"
    return (
        f"it {record} the record rule (0.005 nats shown at p < 0.01) and {plain} a plain "
        "progression (lower, p < 0.25)"
    )


def _wanted(fields: dict[str, Any]) -> str:
    """How many seeds would tell, as far as that can be known."""
    counts = {"A": fields["n_a"], "B": fields["n_b"]}
    few = [f"{2 - n} more of {side}" for side, n in counts.items() if n < 2]
    if not few:
        return "the runs of neither side differ, so look whether they are copies"
    said = f"run at least {' and '.join(few)} (two seeds a side; three make a submission)"
    needed = fields["seeds_needed"]
    each = needed["any_gain"]["each_side"]
    if each is None:
        return said
    return f"{said}; if gain and spread stay as seen, {each} a side find it at p < {needed['p']}"
