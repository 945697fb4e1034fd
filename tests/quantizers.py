"""Bits a weight of the quantizers at equal output error on inputs that none of them has seen.

python -m tests.quantizers --help. The rows are markdown, to paste into docs/compression.md. Each
quantizer is run at several steps; what it saves is read off between its bits and those of SDClip
with GPTQ, where both lose the same. Bits are of the whole file, scales and header in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from core.arch.noise import normal
from core.artifact.container import Artifact, write
from core.artifact.gptq import output_errors
from core.artifact.quant import Quant, dequantize
from core.artifact.solving import Calibration, solve_tensors

Arrays = dict[str, np.ndarray]
BASE = Quant(mlp="int6", attn="int6", keep_below=0, codec="rans", solver="gptq", mlp_sigmas=12.85)
SCALES = (0.6, 0.8, 1.0, 1.3, 1.7)
RULES = {
    "SDClip, nearest": replace(BASE, solver="nearest"),
    "SDClip, GPTQ": BASE,
    "steps by column": replace(BASE, steps="columns"),
    "4 states": replace(BASE, trellis=4),
    "8 states": replace(BASE, trellis=8),
    "8 states, lambda 0": replace(BASE, trellis=8, trellis_lambda=0.0),
    "8 states, lambda .2": replace(BASE, trellis=8, trellis_lambda=0.2),
    "by column, 4 states": replace(BASE, steps="columns", trellis=4),
    "by column, 8 states": replace(BASE, steps="columns", trellis=8),
}
HEAD = ("quantizer", "bits a weight", "held-out error", "saves", "of the bits", "seconds")


@dataclass(frozen=True)
class Problem:
    """Matrices, and the Hessians of their inputs on two halves of a text."""

    weights: Arrays
    seen: Arrays
    unseen: Arrays
    counts: Arrays

    @property
    def size(self) -> int:
        return sum(weight.size for weight in self.weights.values())


def synthetic(rows: int, cols: int, matrices: int, spread: float) -> Problem:
    """Gaussian weights; inputs whose directions differ `spread` octaves in size, and so columns."""
    weights, halves = dict[str, np.ndarray](), (dict[str, np.ndarray](), dict[str, np.ndarray]())
    for index in range(matrices):
        name = f"gauss.{index}"
        weights[name] = normal(1, index, (rows, cols)).astype(np.float32)
        mix = normal(2, index, (cols, cols)) / np.sqrt(cols)
        directions = np.exp2(spread * normal(3, index, (cols, 1)))
        for half, seed in zip(halves, (4, 5), strict=True):
            x = normal(seed, index, (8 * cols, cols)) @ (directions * mix)
            x *= np.exp2(0.5 * normal(6, index, (1, cols)))
            half[name] = x.T @ x
    return Problem(weights, *halves, {})


def packed(problem: Problem, quant: Quant) -> tuple[float, float]:
    """Bits a weight, and the output error on unseen inputs as a part of the output."""
    known = Calibration(hessians=problem.seen, counts=problem.counts)
    tensors = solve_tensors(problem.weights, quant, known)
    bits = 8 * len(write(Artifact(None, tuple(tensors)), quant.codec)) / problem.size
    lost = whole = 0.0
    for tensor in tensors:
        weight = problem.weights[tensor.name].astype(np.float64)
        unseen = problem.unseen[tensor.name]
        scale = 1 / np.trace(unseen)
        lost += scale * float(output_errors(weight - dequantize(tensor), unseen).sum())
        whole += scale * float(output_errors(weight, unseen).sum())
    return bits, lost / whole


def saving(points: list[tuple[float, float]], by: list[tuple[float, float]]) -> float:
    """Bits that `by` saves against `points` at equal error, on the mean of where both have it."""
    curves = [np.array(sorted((np.log(error), bits) for bits, error in c)) for c in (points, by)]
    low = max(curve[0, 0] for curve in curves)
    high = min(curve[-1, 0] for curve in curves)
    at = np.linspace(low, high, 50)
    theirs, ours = (np.interp(at, curve[:, 0], curve[:, 1]) for curve in curves)
    return float(np.mean(theirs - ours))
