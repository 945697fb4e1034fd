"""Solving: all weights of a model to levels, by what is known of their inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from core.arch.params import Param, Weights, check_weights, param_table
from core.arch.spec import ModelSpec
from core.arch.start import constant
from core.artifact.allocation import Worth, allocated
from core.artifact.gptq import Feedback, feedback, gptq, never_worse, no_feedback, output_errors
from core.artifact.grid import Array
from core.artifact.quant import (
    Packed,
    Quant,
    dequantize,
    matrix_shape,
    narrow,
    quantize,
    quantize_rows,
    stored_format,
    to_fp16,
)

Float = NDArray[np.float64]


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

    def worth(self, name: str, cols: int) -> Worth:
        hessian, known = self.hessians.get(name), None
        if hessian is not None:
            known = self._found.get(id(hessian))
            if known is None or len(known.order) != cols:
                known = self._found[id(hessian)] = feedback(hessian, cols, name)
        return Worth(
            feedback=known,
            diagonal=None if hessian is None else np.diag(hessian),
            fisher=self.fisher.get(name),
            counts=self.counts.get(name),
        )


NOTHING = Calibration()


def solve(weights: Weights, spec: ModelSpec, quant: Quant, known: Calibration) -> list[Packed]:
    """Every parameter of `spec`, stored as `quant` says, sorted by name.

    By solver nearest it is quantize. By gptq a matrix with a Hessian has GPTQ's levels; one
    without has the nearest ones, or a trellis's.
    """
    check_weights(weights, spec, "solve")
    nearest = {packed.name: packed for packed in quantize(weights, spec, quant)}
    table = {row.name: row for row in param_table(spec)}
    if quant.solver == "gptq":
        for name, row in table.items():
            if solvable(row, quant):
                nearest[name] = solved(row, np.asarray(weights[name], np.float32), quant, known)
    return [nearest[name] for name in sorted(nearest)]


def solve_tensors(weights: Weights, quant: Quant, known: Calibration) -> list[Packed]:
    """Weights that no recipe tells anything of: matrices as quant.mlp has it, vectors as fp16."""
    return [
        solved(row, np.asarray(weights[row.name], np.float32), quant, known)
        if solvable(row, quant)
        else Packed(row.name, row.shape, to_fp16(np.asarray(weights[row.name]), row.name))
        for row in rows_of(weights)
    ]


def rows_of(weights: Weights) -> list[Param]:
    """As of a table of parameters, sorted by name; all matrices have one role."""
    shapes = {name: np.shape(weights[name]) for name in sorted(weights)}
    return [Param(name, shape, constant(0.0), "matrix", "mlp") for name, shape in shapes.items()]


def solvable(row: Param, quant: Quant) -> bool:
    """Whether it has levels to choose: not fp16, nor what a model multiplies by as it is."""
    return stored_format(row, quant) not in ("fp16", "ternary", "binary")


def unknown(rows: Iterable[Param], quant: Quant, known: Calibration) -> list[str]:
    """The matrices that gptq would solve and that have no Hessian."""
    return [row.name for row in rows if solvable(row, quant) and row.name not in known.hessians]


def solver_name(quant: Quant) -> str:
    """As a file's header tells it."""
    if quant.solver == "nearest":
        return "rtn"
    return f"gptq+trellis{quant.trellis}" if quant.trellis else "gptq"


def solved(row: Param, weight: Array, quant: Quant, known: Calibration) -> Packed:
    """One matrix by GPTQ, its steps as quant.steps says; with a trellis where it gains by it."""
    matrix, name = weight.reshape(matrix_shape(row.shape)), row.name
    if quant.solver == "nearest":
        levels, scale = quantize_rows(matrix, quant.grid(row.role), name)
        return Packed(name, row.shape, levels.reshape(row.shape), scale)
    worth, grid = known.worth(name, matrix.shape[1]), quant.grid(row.role)
    steps = allocated(matrix, grid, quant, worth, name)
    hessian = known.hessians.get(name, np.eye(matrix.shape[1]))
    inputs = worth.feedback or no_feedback(matrix.shape[1])
    plain = replace(steps, trellis=0)
    levels = never_worse(matrix, hessian, inputs, plain)
    found = Packed(name, row.shape, levels.reshape(row.shape), steps.row, steps.col)
    if not steps.trellis:
        return found
    levels = narrow(gptq(matrix, inputs, steps))
    other = replace(found, values=levels.reshape(row.shape), trellis=steps.trellis)
    return min((other, found), key=lambda packed: _cost(matrix, packed, hessian))


def _cost(weight: Array, packed: Packed, hessian: Float) -> float:
    """In bits, what it takes and what it would take to lose a given part of the output.

    A trellis has no level for zero: columns that are small beside their steps lose by it.
    """
    error = weight - dequantize(packed).reshape(weight.shape)
    counts = np.unique(packed.values, return_counts=True)[1] / packed.size
    lost = float(output_errors(error, hessian).sum())
    return -float(counts @ np.log2(counts)) + 0.5 * math.log2(max(lost, 1e-300))
