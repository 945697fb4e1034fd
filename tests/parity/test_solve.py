"""The solvers of both engines against core's: equal levels but for ties, and their artifacts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from core.arch.noise import normal
from core.arch.params import Weights, param_table
from core.artifact.container import Artifact, identity, weights_in, write
from core.artifact.gptq import Matrix, Steps, feedbacks, gptq, never_worse
from core.artifact.packed import dequantize
from core.artifact.quant import Quant
from core.artifact.solving import Calibration, solve, solve_tensors, solver_name
from core.artifact.sums import REFERENCE, Float, Rule, Solver, output_errors
from core.artifact.trellis import RUN, trellis_levels, trellis_values
from tests.core.test_container import TINY, perturbed
from tests.parity.engines import ENGINES, engine, to_numpy

CODES = 1e-4  # DESIGN, section 4: the part of the levels that may differ,
ERROR = 1e-3  # and by how much the outputs' error may
FACTOR = 1e-9  # of the largest: float64, the damping keeps H well away from singular
each_engine = pytest.mark.parametrize("name", ENGINES)


def solver_of(name: str) -> Any:
    parts = engine(name)
    return parts.solve.Solver(parts.distributed.Solo().device)


def hessian(seed: int, cols: int, dead: tuple[int, ...] = ()) -> Float:
    """Of correlated inputs, octaves apart; no input reaches the dead."""
    x = normal(seed, 0, (3 * cols, cols)) @ normal(seed, 1, (cols, cols)) / np.sqrt(cols)
    x *= np.exp2(normal(seed, 2, (1, cols)))
    x[:, list(dead)] = 0.0
    return x.T @ x


def matrices(
    shape: tuple[int, int], rule: Rule, dead: tuple[int, ...], group: int = 0, many: int = 3
) -> list[Matrix]:
    """Alike in shape and rule; by rows and columns, some weights beyond the last level."""
    rows, cols = shape
    hessians = {f"w{seed}": hessian(seed, cols, dead) for seed in range(many)}
    found = []
    for seed, known in enumerate(feedbacks(hessians).values()):
        places = rows * cols // group if group else rows
        row = (128 - 12 + np.rint(2 * normal(seed, 4, (places,)))).astype(np.uint8)
        col = (128 + np.rint(3 * normal(seed, 5, (cols,)))).astype(np.uint8)
        found.append(
            Matrix(
                weight=normal(seed, 3, shape).astype(np.float32),
                hessian=hessians[f"w{seed}"],
                known=known,
                steps=Steps(row=row, col=None if group else col, group=group, rule=rule),
            )
        )
    return found


CASES = {
    "one column": ((40, 1), Rule(last=31), ()),
    "an odd block": ((24, 43), Rule(last=31), ()),
    "clipped": ((24, 40), Rule(last=2), ()),
    "dead columns": ((24, 40), Rule(last=31), (0, 7, 39)),
    "wide levels": ((9, 24), Rule(last=32_767), ()),
    "groups": ((24, 40), Rule(last=31), (7,), 8),
    "groups, 8 states": ((70, 24), Rule(last=31, trellis=8, trellis_lambda=0.1), (), 6),
    "4 states": ((64, 40), Rule(last=31, trellis=4, trellis_lambda=0.1), ()),
    "8 states": ((64, 40), Rule(last=31, trellis=8, trellis_lambda=0.1), ()),
    "rows of two runs": ((300, 24), Rule(last=31, trellis=8, trellis_lambda=0.2), (3,)),
    "whole runs": ((512, 16), Rule(last=31, trellis=4), ()),
    "one row": ((1, 24), Rule(last=31, trellis=8), ()),
    "clipped, 8 states": ((70, 24), Rule(last=2, trellis=8, trellis_lambda=0.1), ()),
}


def lost(one: Matrix, levels: np.ndarray) -> float:
    values = levels.astype(np.float32)
    if one.steps.rule.trellis:
        values = trellis_values(values, one.steps.rule.trellis)
    wide = one.steps.wide(one.weight.shape)
    return float(output_errors(one.weight - values * wide, one.hessian).sum())


@each_engine
@pytest.mark.parametrize("case", CASES)
def test_levels_are_the_references(case: str, name: str) -> None:
    given, solver = matrices(*CASES[case]), solver_of(name)
    ours, theirs = gptq(given, solver), gptq(given)
    for one, found, wanted in zip(given, ours, theirs, strict=True):
        assert found.dtype == np.int16 and np.abs(found).max() <= one.steps.rule.last
        assert np.mean(found != wanted) <= CODES
        assert lost(one, found) == pytest.approx(lost(one, wanted), rel=ERROR)
        if not one.steps.rule.trellis:
            assert not found[:, one.known.dead].any()
    if not given[0].steps.rule.trellis:
        for found, wanted in zip(never_worse(given, solver), never_worse(given), strict=True):
            assert np.mean(found != wanted) <= CODES


@each_engine
@pytest.mark.parametrize("cols", [1, 7, 150])
def test_factors_and_errors_are_the_references(cols: int, name: str) -> None:
    solver, damped = solver_of(name), np.stack([hessian(s, cols) + np.eye(cols) for s in (1, 2)])
    ours, theirs = solver.factors(damped), REFERENCE.factors(damped)
    assert np.abs(ours - theirs).max() <= FACTOR * np.abs(theirs).max()
    assert np.array_equal(ours, np.triu(ours))
    error = normal(3, 0, (2, 5, cols))
    lost_by = solver.errors(error, damped)
    assert lost_by.dtype == np.float64
    assert np.allclose(lost_by, REFERENCE.errors(error, damped), rtol=1e-9)


@each_engine
def test_what_has_no_factor_is_named(name: str) -> None:
    bad = np.ones((5, 5)) * 9 - 8 * np.eye(5)
    with pytest.raises(ValueError, match="c_k: its Hessian is not one of sums of squares"):
        feedbacks({"c_q": hessian(1, 5), "c_k": bad}, solver_of(name))


@each_engine
@pytest.mark.parametrize("states", [4, 8])
@pytest.mark.parametrize("rows", [1, 2, 5, RUN - 1, RUN, RUN + 1, 700])
def test_every_run_has_its_best_path(rows: int, states: int, name: str) -> None:
    """Levels of another path than the reference's cost as much: sums in another order."""
    rule = Rule(last=5, trellis=states, trellis_lambda=0.1)
    wanted = np.stack([normal(seed, 0, (rows,)) * 2 for seed in range(4)])
    wanted[3] = np.rint(wanted[3])  # many ties
    ones = np.ones((4, rows, 1))
    found = solver_of(name).levels(wanted[..., None], ones[:, :1], ones, rule)
    for column, levels in zip(wanted, found[..., 0], strict=True):
        price = rule.price / max(float(np.mean(column**2)), 1 / 12)
        _, best = trellis_levels(column, states, rule.last, price)
        values = trellis_values(levels[:, None].astype(np.float32), states)[:, 0]
        ours, theirs = (float(np.sum((column - v) ** 2 + price * v**2)) for v in (values, best))
        assert ours == pytest.approx(theirs, rel=1e-6) and np.abs(levels).max() <= rule.last


@each_engine
def test_in_float32_errors_are_as_small(name: str) -> None:
    """As where the device has no float64: single levels on the edge move, and what follows."""
    given, solver = matrices((128, 192), Rule(last=31, trellis=4), (), 2), solver_of(name)
    module = engine(name).solve
    solver.dtype = (module.mx if name == "mlx" else module.torch).float32
    for one, found, wanted in zip(given, gptq(given, solver), gptq(given), strict=True):
        assert np.mean(found != wanted) <= 0.01
        assert lost(one, found) == pytest.approx(lost(one, wanted), rel=ERROR)


class Counted:
    """How many matrices the reference was asked to factor."""

    def __init__(self) -> None:
        self.factored = 0

    def factors(self, damped: Float) -> Float:
        self.factored += len(damped)
        return REFERENCE.factors(damped)

    levels = staticmethod(REFERENCE.levels)
    errors = staticmethod(REFERENCE.errors)


def test_one_gram_is_factored_once() -> None:
    shared, counted = hessian(1, 12), Counted()
    names = {"q": (16, 12), "k": (8, 12), "v": (8, 12), "o": (12, 12)}
    weights = {name: normal(1, 0, shape).astype(np.float32) for name, shape in names.items()}
    known = Calibration(hessians={**dict.fromkeys("qkv", shared), "o": hessian(2, 12)})
    solve_tensors(weights, Quant(solver="gptq", keep_below=0, steps="columns"), known, counted)
    assert counted.factored == 2


QUANT = Quant(keep_below=200, attn="int5", mlp="int5", embed="int6", solver="gptq")


def packed(solver: Solver, quant: Quant) -> tuple[Artifact, Weights]:
    matrices = [row for row in param_table(TINY) if len(row.shape) == 2]
    known = Calibration(hessians={row.name: hessian(7, row.shape[-1]) for row in matrices})
    weights = perturbed(TINY)
    tensors = solve(weights, TINY, quant, known, solver)
    return Artifact(TINY, tuple(tensors), solver_name(quant)), weights


@each_engine
@pytest.mark.parametrize(
    "quant",
    [QUANT, replace(QUANT, trellis=4), replace(QUANT, trellis=8, steps="columns")],
    ids=["plain", "4 states", "by column, 8 states"],
)
def test_an_artifact_of_an_engine_is_read_alike_by_both(name: str, quant: Quant) -> None:
    artifact, _ = packed(solver_of(name), quant)
    wanted, _ = packed(REFERENCE, quant)
    for one, two in zip(artifact.tensors, wanted.tensors, strict=True):
        assert (one.name, one.trellis) == (two.name, two.trellis)
        assert np.mean(one.values != two.values) <= CODES
    assert identity(artifact) == identity(wanted)  # so few levels: all of them are equal
    found = weights_in(write(artifact, "rans"), TINY)
    for other in ENGINES:
        parts = engine(other)
        model = parts.evaluate.open_evaluator(found, TINY, "fp32").model
        for tensor in artifact.tensors:
            held = to_numpy(parts.weights.parameters(model)[tensor.name])
            assert held.tobytes() == dequantize(tensor).tobytes(), tensor.name
