"""Solving: all weights of a model to levels, by what is known of their inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from core.arch.params import Param, Weights, check_weights, param_table
from core.arch.spec import ModelSpec
from core.arch.start import constant
from core.artifact.allocation import Worth, allocated
from core.artifact.gptq import (
    Feedback,
    Matrix,
    Steps,
    check_width,
    feedbacks,
    gptq,
    never_worse,
    no_feedback,
)
from core.artifact.grid import Array
from core.artifact.lqer import corrected
from core.artifact.packed import Levels, Packed, dequantize, matrix_shape
from core.artifact.quant import Quant, quantize, quantized, stored_format
from core.artifact.rounding import narrow
from core.artifact.sums import REFERENCE, Float, Rule, Solver, together


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """What was measured of a model, by the names of its weights; all of it may be missing.

    Hessians are sums of x x^T over the inputs x of a matrix, all visits of it; matrices that have
    one input may have one array. What follows from them is kept, so one object serves many solves.
    """

    hessians: Mapping[str, Float] = field(default_factory=dict)  # (C, C)
    fisher: Mapping[str, Float] = field(default_factory=dict)  # (R,) or (1,)
    counts: Mapping[str, Float] = field(default_factory=dict)  # (R,)
    _found: dict[int, Feedback] = field(default_factory=dict)

    def factor(self, cols: Mapping[str, int], solver: Solver = REFERENCE) -> None:
        """Works out the feedback of these matrices, of so many columns each, where it is not known
        yet; matrices that have one array have one."""
        anew = dict[int, tuple[str, Float]]()
        for name, width in cols.items():
            hessian = self.hessians.get(name)
            if hessian is not None:
                check_width(hessian, width, name)
                if id(hessian) not in self._found:
                    anew.setdefault(id(hessian), (name, hessian))
        found = feedbacks(dict(anew.values()), solver)
        self._found.update({key: found[name] for key, (name, _) in anew.items()})

    def worth(self, name: str, cols: int) -> Worth:
        self.factor({name: cols})
        hessian = self.hessians.get(name)
        return Worth(
            feedback=None if hessian is None else self._found[id(hessian)],
            diagonal=None if hessian is None else np.diag(hessian),
            fisher=self.fisher.get(name),
            counts=self.counts.get(name),
        )


NOTHING = Calibration()


def solve(
    weights: Weights,
    spec: ModelSpec,
    quant: Quant,
    known: Calibration,
    solver: Solver = REFERENCE,
) -> list[Packed]:
    """Every parameter of `spec`, stored as `quant` says, sorted by name.

    By quant.solver nearest it is quantize. By gptq a matrix with a Hessian has GPTQ's levels; one
    without has the nearest ones, or a trellis's. solver: where the sums are done.
    """
    check_weights(weights, spec, "solve")
    found = {packed.name: packed for packed in quantize(weights, spec, quant)}
    if quant.solver == "gptq":
        rows = [row for row in param_table(spec) if solvable(row, quant)]
        found |= {packed.name: packed for packed in solved(rows, weights, quant, known, solver)}
    every = [found[name] for name in sorted(found)]
    return corrected(param_table(spec), every, weights, quant, known.hessians)


def solve_tensors(
    weights: Weights, quant: Quant, known: Calibration, solver: Solver = REFERENCE
) -> list[Packed]:
    """Weights that no recipe tells anything of: matrices as quant.mlp has it, vectors as fp16."""
    rows = rows_of(weights)
    chosen = [row for row in rows if quant.solver == "gptq" and solvable(row, quant)]
    found = [
        quantized(row, np.asarray(weights[row.name], np.float32), quant)
        for row in rows
        if row not in chosen
    ]
    found += solved(chosen, weights, quant, known, solver)
    every = sorted(found, key=lambda packed: packed.name)
    return corrected(rows, every, weights, quant, known.hessians)


def rows_of(weights: Weights) -> list[Param]:
    """As of a table of parameters, sorted by name; all matrices have one role."""
    shapes = {name: np.shape(weights[name]) for name in sorted(weights)}
    return [Param(name, shape, constant(0.0), "matrix", "mlp") for name, shape in shapes.items()]


def solvable(row: Param, quant: Quant) -> bool:
    """Whether it has levels to choose: not fp16, nor what a model multiplies by as it is."""
    return stored_format(row, quant) not in ("fp16", "fp8", "ternary", "binary")


def unknown(rows: Iterable[Param], quant: Quant, known: Calibration) -> list[str]:
    """The matrices that gptq would solve and that have no Hessian."""
    return [row.name for row in rows if solvable(row, quant) and row.name not in known.hessians]


def solver_name(quant: Quant) -> str:
    """As a file's header tells it."""
    parts = ["rtn" if quant.solver == "nearest" else "gptq"]
    parts += [f"trellis{quant.trellis}"] * bool(quant.trellis)
    return "+".join(parts + [f"lqer{quant.lqer_rank}"] * bool(quant.lqer_rank))


def solved(
    rows: Sequence[Param], weights: Weights, quant: Quant, known: Calibration, solver: Solver
) -> list[Packed]:
    """Matrices by GPTQ, their steps as quant.steps says; with a trellis where they gain by it."""
    known.factor({row.name: matrix_shape(row.shape)[1] for row in rows}, solver)
    matrices = [_posed(row, _matrix(row, weights), quant, known) for row in rows]
    steps = [one.steps for one in matrices]
    plain = [replace(one, steps=replace(one.steps, rule=_plain(one))) for one in matrices]
    found = _packed(rows, steps, never_worse(plain, solver), 0)
    if not quant.trellis:
        return found
    levels = [narrow(one) for one in gptq(matrices, solver)]
    other = _packed(rows, steps, levels, quant.trellis)
    costs = zip(*(_costs(matrices, some, solver) for some in (found, other)), strict=True)
    return [
        pair[1] if cost[1] <= cost[0] else pair[0]
        for pair, cost in zip(zip(found, other, strict=True), costs, strict=True)
    ]


def _matrix(row: Param, weights: Weights) -> Array:
    return np.asarray(weights[row.name], np.float32).reshape(matrix_shape(row.shape))


def _posed(row: Param, weight: Array, quant: Quant, known: Calibration) -> Matrix:
    """Its steps chosen; of inputs that are not known all columns are worth the same."""
    cols, worth = weight.shape[1], known.worth(row.name, weight.shape[1])
    return Matrix(
        weight=weight,
        hessian=known.hessians.get(row.name, np.eye(cols)),
        known=worth.feedback or no_feedback(cols),
        steps=allocated(weight, quant.grid(row.role), quant, worth, row.name, quant.group(row)),
    )


def _plain(one: Matrix) -> Rule:
    return replace(one.steps.rule, trellis=0, trellis_lambda=0.0)


def _packed(
    rows: Sequence[Param], steps: Sequence[Steps], levels: Sequence[Levels], trellis: int
) -> list[Packed]:
    every = zip(rows, steps, levels, strict=True)
    return [
        Packed(row.name, row.shape, found.reshape(row.shape), by.row, by.col, trellis, by.group)
        for row, by, found in every
    ]


def _costs(matrices: Sequence[Matrix], packed: Sequence[Packed], solver: Solver) -> list[float]:
    """In bits, what each takes and what it would take to lose a given part of the output.

    A trellis has no level for zero: columns that are small beside their steps lose by it.
    """
    errors = [
        (one.weight - dequantize(found).reshape(one.weight.shape)).astype(np.float64)
        for one, found in zip(matrices, packed, strict=True)
    ]
    lost = together(solver.errors, errors, [one.hessian for one in matrices])
    return [_cost(*pair) for pair in zip(packed, lost, strict=True)]


def _cost(packed: Packed, lost: Float) -> float:
    counts = np.unique(packed.values, return_counts=True)[1] / packed.size
    return -float(counts @ np.log2(counts)) + 0.5 * math.log2(max(float(lost.sum()), 1e-300))
