"""Seconds of packing a record's matrices, by solver.

Gaussian weights of r1081's shapes and Hessians of inputs that are correlated; a layer's q, k and v
have one. The row is markdown, to paste into docs/compression.md. Seconds are the process's own
work where the device is the processor, of the clock elsewhere.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from core.arch.noise import normal
from core.arch.params import Weights, param_table
from core.artifact.container import Artifact, identity, write
from core.artifact.packed import matrix_shape
from core.artifact.quant import Quant
from core.artifact.solving import Calibration, solvable, solve_tensors
from core.artifact.sums import REFERENCE, Float, Rule, Solver, Whole
from core.train.calibration import SAME_INPUT
from core.train.recipes import named
from tools.backends import load
from tools.benching.job import Job

QUANT = Quant(mlp="int6", mlp_sigmas=12.85, solver="gptq", keep_below=0, codec="rans")
PARTS = ("factors", "columns", "trellis", "errors")
Seconds = Callable[[], float]


@dataclass(eq=False)
class Timed:
    """A solver, and what each of its sums takes."""

    solver: Solver
    now: Seconds
    spent: Counter[str] = field(default_factory=Counter)

    def factors(self, damped: Float) -> Float:
        with self._charged("factors"):
            return self.solver.factors(damped)

    def levels(self, weight: Float, factor: Float, step: Float, rule: Rule) -> Whole:
        with self._charged("trellis" if rule.trellis else "columns"):
            return self.solver.levels(weight, factor, step, rule)

    def errors(self, error: Float, hessian: Float) -> Float:
        with self._charged("errors"):
            return self.solver.errors(error, hessian)

    @contextmanager
    def _charged(self, name: str) -> Iterator[None]:
        before = self.now()
        yield
        self.spent[name] += self.now() - before  # type: ignore[assignment]


def problem(layers: int, rows: int = 0) -> tuple[Weights, Calibration]:
    """Gaussian weights; one Gram a width, its columns of other sizes in every layer.

    rows: of each matrix at most; 0: all of them.
    """
    recipe = named("r1081")
    grams, leaves = dict[int, Any](), dict[str, Any]()
    weights, hessians = Weights(), dict[str, Float]()
    for stream, row in enumerate(param_table(recipe.arch)):
        parts = row.name.split(".")
        if not solvable(row, recipe.quant) or (parts[0] == "blocks" and int(parts[1]) >= layers):
            continue
        shape = matrix_shape(row.shape)
        leaf = ".".join(SAME_INPUT.get(part, part) for part in parts)
        weights[row.name] = normal(1, stream, shape).astype(np.float32)[: rows or None]
        if shape[1] not in grams:
            grams[shape[1]] = gram(shape[1])
        if leaf not in leaves:
            size = np.exp2(0.5 * normal(3, stream, (shape[1],)))
            leaves[leaf] = grams[shape[1]] * size * size[:, None]
        hessians[row.name] = leaves[leaf]
    return weights, Calibration(hessians=hessians)


def gram(cols: int) -> Float:
    """Of twice as many inputs as columns, mixed, an octave apart."""
    x = normal(2, cols, (2 * cols, cols)) * np.exp2(normal(4, cols, (1, cols)))
    mixed = x @ (normal(5, cols, (cols, cols)) / np.sqrt(cols))
    found: Float = mixed.T @ mixed
    return found


def solver_named(name: str) -> tuple[Solver, str]:
    """And its device."""
    if name == "numpy":
        return REFERENCE, "cpu"
    device = load(name, "distributed").Solo().device
    return load(name, "solve").Solver(device), str(device)


def measure(job: Job) -> dict[str, Any]:
    """The backend's solver, `numpy` the reference. shape: layers, states of the trellis, rows."""
    layers, states, rows = job.shape
    return solved(job.row.backend, layers, states, rows)


def solved(name: str, layers: int, states: Any, rows: int = 0) -> dict[str, Any]:
    solver, device = solver_named(name)
    now = time.process_time if "cpu" in device else time.perf_counter
    weights, known = problem(layers, rows)
    timed = Timed(solver, now)
    before = now()
    tensors = solve_tensors(weights, replace(QUANT, trellis=states), known, timed)
    after = now()
    artifact = Artifact(None, tuple(tensors))
    write(artifact, QUANT.codec)
    return {
        "solver": f"{name} on {device}, {states} states",
        "weights": sum(weight.size for weight in weights.values()),
        **{f"{part}_s": float(timed.spent[part]) for part in PARTS},
        "solved_s": after - before,
        "written_s": now() - after,
        "identity": identity(artifact),
    }


def cells(fields: dict[str, Any]) -> dict[str, str]:
    return {
        "solver": fields["solver"],
        "weights": f"{fields['weights']:,}",
        **{part: f"{fields[f'{part}_s']:.1f}" for part in (*PARTS, "solved", "written")},
        "identity": fields["identity"][:8],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("solvers", nargs="*", default=["numpy", "torch", "mlx"])
    parser.add_argument("--layers", type=int, default=11, help="of r1081's, and its embedding")
    parser.add_argument("--states", type=int, default=8, choices=(0, 4, 8), help="of the trellis")
    args = parser.parse_args()
    for number, name in enumerate(args.solvers):
        found = cells(solved(name, args.layers, args.states))
        if not number:
            print(f"| {' | '.join(found)} |\n|---|{'--:|' * (len(found) - 1)}", flush=True)
        print(f"| {' | '.join(found.values())} |", flush=True)
