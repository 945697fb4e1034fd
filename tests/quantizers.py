"""Bits a weight of the quantizers at equal loss, on inputs that none of them has seen.

python -m tests.quantizers --help. The rows are markdown, to paste into docs/compression.md. Each
quantizer is run at several steps; what it saves is read off between its bits and those of SDClip
with GPTQ, where both lose the same. Bits are of the whole file, scales and header in it. A run's
Hessians are taken from its own text: the solver's from training tokens, the error's from others.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.arch.noise import normal
from core.arch.params import Weights, param_table
from core.artifact.allocation import anisotropy
from core.artifact.container import Artifact, write
from core.artifact.packed import dequantize, matrix_shape
from core.artifact.quant import Quant
from core.artifact.solving import Calibration, solve_tensors
from core.artifact.sums import output_errors
from core.train.run_folder import load_recipe, load_weights

Curve = list[tuple[float, float]]  # bits a weight, loss
BASE = Quant(mlp="int6", mlp_sigmas=12.85, keep_below=0, codec="rans", solver="gptq")
SCALES = (0.7, 1.0, 1.4)
RULES = {
    "SDClip, nearest": replace(BASE, solver="nearest"),
    "SDClip, GPTQ": BASE,
    "4 states, lambda .1": replace(BASE, trellis=4),
    "8 states, lambda 0": replace(BASE, trellis=8, trellis_lambda=0.0),
    "8 states, lambda .1": replace(BASE, trellis=8),
    "8 states, lambda .2": replace(BASE, trellis=8, trellis_lambda=0.2),
    "LQER, rank 4 of 3": replace(BASE, lqer_rank=4),
    "LQER, rank 4 of all": replace(BASE, lqer_rank=4, lqer_matrices=1000),
    "LQER, rank 4 of all, 3 bits": replace(BASE, lqer_rank=4, lqer_bits=3, lqer_matrices=1000),
    "LQER, rank 16 of all": replace(BASE, lqer_rank=16, lqer_matrices=1000),
    "by column, LQER, rank 4": replace(BASE, steps="columns", lqer_rank=4, lqer_matrices=1000),
    "by column": replace(BASE, steps="columns"),
    "by column, 4 states": replace(BASE, steps="columns", trellis=4),
    "by column, 8 states": replace(BASE, steps="columns", trellis=8),
}
FIRST = "SDClip, GPTQ"
HEAD = ("quantizer", "bits", "error", "saves, error", "of bits", "KL", "saves, KL", "of bits", "s")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Matrices, what is known of them, the Hessians of other inputs, and the model's divergence."""

    weights: Weights
    known: Calibration
    unseen: dict[str, np.ndarray]
    divergence: Callable[[Weights], float] | None = None
    packed: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(weight.size for weight in self.weights.values())


def synthetic(rows: int, cols: int, matrices: int, spread: float) -> Problem:
    """Gaussian weights; inputs whose directions differ by `spread` octaves, and columns by half."""
    weights, halves = Weights(), (dict[str, np.ndarray](), dict[str, np.ndarray]())
    for index in range(matrices):
        name = f"gauss.{index}"
        weights[name] = normal(1, index, (rows, cols)).astype(np.float32)
        mix = normal(2, index, (cols, cols)) / np.sqrt(cols)
        mix *= np.exp2(spread * normal(3, index, (cols, 1)))
        for half, seed in zip(halves, (4, 5), strict=True):
            x = normal(seed, index, (8 * cols, cols)) @ mix
            x *= np.exp2(0.5 * normal(6, index, (1, cols)))
            half[name] = x.T @ x
    return Problem(weights=weights, known=Calibration(hessians=halves[0]), unseen=halves[1])


def trained(folder: Path, roles: set[str], tokens: int) -> Problem:
    """A run's matrices of these roles, the others as they are; torch is asked for the inputs."""
    from tests.tapped import divergence_of, grams, tokens_of

    recipe, weights = load_recipe(folder), load_weights(folder)
    seen, other, counts = tokens_of(recipe, tokens)
    rows = [row for row in param_table(recipe.arch) if row.role in roles and len(row.shape) > 1]
    held = {row.name: np.asarray(weights[row.name], np.float32) for row in rows}
    halves = [grams(recipe, weights, half, set(held)) for half in (seen, other)]
    known = Calibration(
        hessians=halves[0], counts={name: counts for name in held if name == "tok_emb.weight"}
    )
    divergence = divergence_of(recipe, weights, other)
    return Problem(weights=held, known=known, unseen=halves[1], divergence=divergence)


def point(problem: Problem, quant: Quant) -> tuple[float, float, float]:
    """Bits a weight; the part of the outputs' squares that is lost on unseen inputs; the KL."""
    tensors = solve_tensors(problem.weights, quant, problem.known)
    bits = 8 * len(write(Artifact(None, tuple(tensors)), quant.codec)) / problem.size
    parts, found = list[float](), Weights()
    for tensor in tensors:
        shape = matrix_shape(tensor.shape)
        weight = problem.weights[tensor.name].astype(np.float64).reshape(shape)
        found[tensor.name] = dequantize(tensor)
        unseen = problem.unseen[tensor.name]
        error = weight - found[tensor.name].reshape(shape)
        parts.append(
            float(output_errors(error, unseen).sum() / output_errors(weight, unseen).sum())
        )
    kl = problem.divergence(found) if problem.divergence else float("nan")
    return bits, float(np.mean(parts)), kl


def saving(points: Curve, by: Curve) -> tuple[str, str]:
    """Bits that `by` saves at equal loss, on the mean of where both have it; as a part of them.

    Where no loss is common to both, what their nearest ends are apart: more is saved, or lost.
    """
    both = (points, by)
    curves = [np.array(sorted((np.log(loss), bits) for bits, loss in curve)) for curve in both]
    low = max(curve[0, 0] for curve in curves)
    high = min(curve[-1, 0] for curve in curves)
    at = np.linspace(low, high, 50)
    theirs, ours = (np.interp(at, curve[:, 0], curve[:, 1]) for curve in curves)
    saved, part = float(np.mean(theirs - ours)), float(np.mean(1 - ours / theirs))
    sign = "" if low <= high else "> " if saved > 0 else "< "
    return f"{sign}{saved:.3f}", f"{sign}{100 * part:.1f} %"


def rows(problem: Problem, names: list[str]) -> None:
    """Prints one line a quantizer, its bits and losses at a step scale of 1."""
    first: list[tuple[float, float, float]] = []
    for name in [FIRST, *(name for name in names if name != FIRST)]:
        start_s = time.process_time()
        found = [point(problem, replace(RULES[name], step_scale=scale)) for scale in SCALES]
        seconds = (time.process_time() - start_s) / len(SCALES)
        first = first or found
        middle = found[SCALES.index(1.0)]
        cells = [name, f"{middle[0]:.3f}", f"{middle[1]:.5f}"]
        for loss in (1, 2):
            if np.isnan(middle[loss]):
                cells += ["", "", ""][: 1 + loss]
                continue
            cells += [f"{middle[2]:.5f}"] * (loss == 2)
            curves = [[(p[0], p[loss]) for p in curve] for curve in (first, found)]
            cells += saving(curves[0], curves[1])
        print(f"| {' | '.join([*cells, f'{seconds:.1f}'])} |", flush=True)


def why(problem: Problem) -> None:
    """Prints what steps by column may save, of each kind of matrix."""
    found: dict[str, list[float]] = {}
    for name, weight in problem.weights.items():
        rows_, cols = matrix_shape(weight.shape)
        offers = anisotropy(weight.reshape(rows_, cols), problem.known.worth(name, cols))
        kind = ".".join(part for part in name.split(".") if not part.isdigit())
        found.setdefault(kind, []).append(offers["columns_bits"])
    for kind, bits in sorted(found.items()):
        print(f"| {kind} | {' '.join(f'{one:.3f}' for one in bits)} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_folder", type=Path, nargs="?", metavar="RUN", help="a trained model")
    parser.add_argument("--size", type=int, default=512, help="of the Gaussian matrix; 0: none")
    parser.add_argument("--tokens", type=int, default=16_384, help="of each half of a run's text")
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    parser.add_argument("--embedding", action="store_true", help="of the run, in its blocks' place")
    args = parser.parse_args()
    problem = None
    if args.run_folder:
        roles = {"embed"} if args.embedding else {"attn", "mlp"}
        problem = trained(args.run_folder, roles, args.tokens)
        why(problem)
    elif args.size:
        problem = synthetic(args.size, args.size, 1, 1.0)
    if problem:
        print(f"\n| {' | '.join(HEAD)} |\n|---|{'--:|' * (len(HEAD) - 1)}", flush=True)
        rows(problem, args.rules)
    return 0


if __name__ == "__main__":
    sys.exit(main())
