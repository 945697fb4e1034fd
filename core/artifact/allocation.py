"""Allocation: how wide the steps of a matrix are, by row and by column.

An output is off by the sum of (error / freedom)^2 over the columns of GPTQ, times what the row's
output is worth. At many levels the bits go furthest where every weight adds equally to that: steps
proportional to the column's freedom, and to one over the root of the row's worth. SDClip makes
them proportional to the row's sigma instead, whatever a row or a column does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.artifact.gptq import Feedback, Steps
from core.artifact.grid import MOST, Array, Grid
from core.artifact.quant import Quant
from core.artifact.rounding import FP16_TINY, row_scales, to_fp16
from core.artifact.scales import Scales, log_scale_from_float, scale_values
from core.artifact.sums import Rule

Float = NDArray[np.float64]

WEIGHTED = 0.175  # of a row's size; more makes levels that compress worse
TILT = -0.25  # a token met 16 times as often has steps half as wide
LEAST_WORTH = 2.0**-16  # of a row, of the mean of the rows: its steps end somewhere


@dataclass(frozen=True, eq=False, kw_only=True)
class Worth:
    """What is known of a matrix (R, C) beside its numbers; none: nothing is."""

    feedback: Feedback | None = None  # of its inputs
    diagonal: Float | None = None  # (C,): of its Hessian
    fisher: Float | None = None  # (R,) or (1,): mean squared gradient of its outputs
    counts: Float | None = None  # (R,): how often each row's token is met


def allocated(
    weight: Array, grid: Grid, quant: Quant, known: Worth, name: str, group: int = 0
) -> Steps:
    """The steps of a matrix by quant.steps.

    rows: those of the grid; of each `group` of so many weights, where that is not 0.
    tensor: one for all rows, by the grid's rule over all of them.
    weighted: times 1 + WEIGHTED (size - 1), a row's size being its mean |weight|, weighted by the
    Hessian's diagonal, over that of all rows (record of 2026-04-06).
    columns: times each column's freedom, over their geometric mean.
    fisher: quant.step_scale times the freedom over the root of the row's Fisher weight, the same
    constant for every matrix.
    In the last two, rows that are tokens, and counted, have steps times (count + 1)^TILT over the
    geometric mean of these.
    Raises ValueError where what the rule asks for is not known.
    """
    if group:
        row = row_scales(weight.reshape(-1, group), grid, name)
        return replace(steps_of(quant, row, None, grid.last), group=group)
    if quant.steps in ("rows", "tensor", "weighted"):
        return steps_of(quant, _plain(weight, grid, quant, known, name), None, grid.last)
    rows = _rows(weight, grid, quant, known, name)
    cols = _columns(known.feedback, quant.steps == "fisher", name)
    if known.counts is not None:
        rows = rows * tilt(known.counts, len(rows), name)
    row, col = (log_scale_from_float(p.astype(np.float32)) for p in _balanced(rows, cols))
    return steps_of(quant, row, col, MOST)


def steps_of(quant: Quant, row: Scales, col: NDArray[np.uint8] | None, last: int) -> Steps:
    """With the trellis of the recipe."""
    rule = Rule(last=last, trellis=quant.trellis, trellis_lambda=quant.trellis_lambda)
    return Steps(row=row, col=col, rule=rule)


def _plain(weight: Array, grid: Grid, quant: Quant, known: Worth, name: str) -> Scales:
    """(R,) without a column's part."""
    if quant.steps == "tensor":
        return row_scales(weight.reshape(1, -1), grid, name).repeat(len(weight))
    step = row_scales(weight, grid, name)
    if quant.steps == "rows":
        return step
    if known.diagonal is None:
        raise ValueError(f"{name}: quant.steps weighted needs its Hessian, which is not given")
    size = np.abs(weight.astype(np.float64)) @ known.diagonal
    mean = size.mean() or 1.0
    wide = scale_values(step).astype(np.float64) * (1 + WEIGHTED * (size / mean - 1))
    if grid.log_scales:
        return log_scale_from_float(wide.astype(np.float32))
    return np.maximum(to_fp16(wide.astype(np.float32), name), FP16_TINY)


def tilt(counts: Float, rows: int, name: str) -> Float:
    """(R,): (count + 1)^TILT of each row, over the geometric mean of these."""
    if counts.shape != (rows,) or not np.all(np.isfinite(counts) & (counts >= 0)):
        raise ValueError(f"{name}: {rows} rows need as many counts of tokens, 0 or more")
    logs = TILT * np.log(counts + 1.0)
    tilted: Float = np.exp(logs - logs.mean())
    return tilted


def gain_bits(parts: Float) -> float:
    """Half the log2 of arithmetic over geometric mean of positive numbers: what equal shares save.

    Of 1 / freedom^2 it is the bits a weight that steps by column save at equal error; of what rows
    are worth times their variance, those that steps by row save against SDClip.
    """
    held = parts[np.isfinite(parts) & (parts > 0)]
    if not held.size:
        return 0.0
    return 0.5 * float(np.log2(held.mean()) - np.log2(held).mean())


def anisotropy(weight: Array, known: Worth) -> dict[str, float]:
    """The gains, in bits a weight, that are there for the taking; what is not known gives none."""
    found = {}
    if known.feedback is not None:
        free = known.feedback.freedom[~known.feedback.dead]
        found["columns_bits"] = gain_bits(1 / np.square(free))
    if known.fisher is not None:
        variance = np.mean(np.square(weight.astype(np.float64)), axis=1)
        fisher = np.broadcast_to(known.fisher, variance.shape)
        found["fisher_bits"] = gain_bits(np.asarray(fisher))
        found["rows_bits"] = gain_bits(fisher * variance)
    if known.counts is not None:
        found["tokens_bits"] = gain_bits((known.counts + 1.0) ** (-2 * TILT))
    return found


def _rows(weight: Array, grid: Grid, quant: Quant, known: Worth, name: str) -> Float:
    """(R,), before they are rounded."""
    if quant.steps != "fisher":
        return scale_values(row_scales(weight, grid, name)).astype(np.float64)
    if known.fisher is None or known.fisher.shape not in ((1,), (len(weight),)):
        raise ValueError(f"{name}: quant.steps fisher needs a Fisher weight of all or of each row")
    if not np.all(np.isfinite(known.fisher) & (known.fisher >= 0)) or not known.fisher.any():
        raise ValueError(f"{name}: its Fisher weights are not finite, negative, or all zero")
    worth = np.maximum(known.fisher, LEAST_WORTH * known.fisher.mean())
    return np.broadcast_to(quant.step_scale / np.sqrt(worth), (len(weight),))


def _columns(feedback: Feedback | None, absolute: bool, name: str) -> Float:
    """(C,): freedoms, over their geometric mean unless they are to be compared with others'."""
    if feedback is None:
        raise ValueError(f"{name}: quant.steps by column need its Hessian, which is not given")
    free, dead = feedback.freedom, feedback.dead
    if dead.all():
        return np.ones(len(free))
    least, mean = free[~dead].min(), math.exp(np.log(free[~dead]).mean())
    held: Float = np.where(dead, least, free) / (1.0 if absolute else mean)
    return held


def _balanced(rows: Float, cols: Float) -> tuple[Float, Float]:
    """Octaves moved from one to the other, so that both lie about the middle of a log scale."""
    middles = [0.5 * float(np.log2(part.min()) + np.log2(part.max())) for part in (rows, cols)]
    octaves = round((middles[1] - middles[0]) / 2)
    return np.ldexp(rows, octaves), np.ldexp(cols, -octaves)
