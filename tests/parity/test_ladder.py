"""The ladder of sameness, rung by rung, over the table of tiny architectures."""

from __future__ import annotations

import hashlib
import importlib
import shutil
from dataclasses import replace
from typing import get_args
from unittest.mock import patch

import numpy as np
import pytest

from core.arch.params import param_table
from core.arch.spec import Activation
from core.train.recipe import Recipe, Schedule
from core.train.schedules import Stage, knobs, stages
from tests.conftest import Text
from tests.parity import oracle_rules
from tests.parity.cases import CASES, QATS, recipe_of, spec_of
from tests.parity.engines import ENGINES, Rows, Run, batch_of, distance, engine, perturbed, to_numpy
from tests.parity.measures import ROWS, control_loss_gap, float64_gradients, weights_after
from tests.parity.rungs import CONTROL, RUNGS, Rung
from tests.parity.trajectory import LOSS_GAP, compare

LONG = ("baseline",)  # trajectories beyond ten steps


def rows() -> list[object]:
    """One test a rung, case and engine; the long rungs are slow and few."""
    found = []
    for rung in RUNGS:
        for case in LONG if rung.slow else CASES:
            for name in ENGINES:
                marks = [pytest.mark.slow] if rung.slow else []
                title = f"{rung.number}-{rung.measure.__name__}-{case}-{name}"
                found.append(pytest.param(rung, case, name, id=title, marks=marks))
    return found


@pytest.mark.parametrize(("rung", "case", "name"), rows())
def test_rung(rung: Rung, case: str, name: str) -> None:
    measured = rung.measure(case, name)
    assert measured <= rung.bound, rung.statement
    if rung.control is not None:
        assert measured <= CONTROL * rung.control(case), f"{rung.statement}: beyond rounding"


@pytest.mark.parametrize("case", CASES)
def test_the_control_is_the_definition(case: str) -> None:
    """torch in float64 and plain numpy, written apart, are one function."""
    assert control_loss_gap(case) <= 1e-7  # the rotary table is float32 in the engines


@pytest.mark.parametrize("case", CASES)
def test_every_gradient_and_every_step_is_tested(case: str) -> None:
    """A gradient of zero, or a parameter that stays, would pass any bound."""
    _, grads = float64_gradients(case)
    before, after = perturbed(spec_of(case)), weights_after(case, "float64", 1)
    for name in before:
        assert np.linalg.norm(grads[name]) > 0, name
        assert not np.array_equal(before[name], after[name]), name


@pytest.mark.parametrize("name", ENGINES)
def test_registries_are_cores(name: str) -> None:
    assert set(engine(name).ops.ACTIVATIONS) == set(get_args(Activation))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ENGINES)
def test_each_parameter_has_one_rule(case: str, name: str) -> None:
    spec = spec_of(case)
    parts = engine(name)
    optimizer = parts.optimizer.Optimizer(spec, recipe_of(case).optim, parts.distributed.Solo())
    routed = {(name, rule) for rule, names in optimizer.banks for name in names}
    assert routed == {(row.name, row.rule) for row in param_table(spec)}
    assert sum(len(names) for _, names in optimizer.banks) == len(routed)


@pytest.mark.parametrize("name", ENGINES)
def test_averages_follow_the_weights(name: str) -> None:
    recipe = recipe_of("baseline")
    run, decay = Run(name, recipe, perturbed(recipe.arch)), recipe.optim.ema_decay
    expected = {n: w.astype(np.float64) for n, w in run.weights().items()}
    for step in range(3):
        run.step(step, *batch_of(recipe.arch, ROWS, step))
        for key, weight in run.weights().items():
            expected[key] = decay * expected[key] + (1 - decay) * weight.astype(np.float64)
    found = run.averaged()
    assert distance(found, {n: w.astype(np.float32) for n, w in expected.items()}) <= 1e-6
    assert distance(found, run.weights()) > 1e-4


@pytest.mark.parametrize("name", ENGINES)
def test_warm_up_leaves_no_trace(name: str) -> None:
    recipe = recipe_of("baseline")
    run, batch = Run(name, recipe), batch_of(recipe.arch, ROWS)
    before = digest(run)
    run.trainer.warm_up(run.put(*batch))
    assert digest(run) == before
    assert run.step(0, *batch) == Run(name, recipe).step(0, *batch)


def digest(run: Run) -> str:
    held = run.engine.optimizer.arrays(run.trainer.state)
    state = sorted((key, to_numpy(value).tobytes()) for key, value in held.items())
    return hashlib.sha256(b"".join(key.encode() + value for key, value in state)).hexdigest()


@pytest.mark.parametrize("name", ["mlx", pytest.param("torch", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", ["baseline", "untied"])
def test_compiled_steps_are_the_eager_ones(name: str, case: str) -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler: on a CPU neither engine can compile a step")
    weights = perturbed(spec_of(case))
    eager, compiled = (Run(name, recipe_of(case, compile=how), weights) for how in ("off", "on"))
    for step in range(3):
        x, y = batch_of(eager.recipe.arch, ROWS, step)
        assert abs(eager.step(step, x, y) - compiled.step(step, x, y)) <= 1e-5
    assert distance(compiled.weights(), eager.weights()) <= 5e-6


@pytest.mark.slow
def test_two_hundred_steps_of_real_text_end_in_the_same_loss(text: Text) -> None:
    changes = ["schedule.steps=200", "data.train_batch_tokens=1024"]
    changes += [f"optim.{rate}_lr=0.01" for rate in ("matrix", "embed", "scalar")]
    measured = compare(text.recipe(*changes))
    assert measured["loss: mlx - torch"] <= LOSS_GAP
    for what in ("loss", "weights"):
        rounding = max(measured[f"{what}: torch - float64"], 1e-7)
        assert measured[f"{what}: mlx - float64"] <= CONTROL * rounding


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(
    ("case", "phase"),
    [
        *((case, -1) for case in ("z_loss", "batch_schedule", *QATS)),
        *(("looped", p) for p in range(3)),
    ],
)
def test_the_loss_that_is_trained_on(case: str, phase: int, name: str) -> None:
    recipe, batch = recipe_of(case), batch_of(spec_of(case), ROWS)
    weights = perturbed(recipe.arch)
    run = Run(name, recipe, weights)
    stage = replace(stages(recipe)[-1], phase=phase)
    found, _ = run.trainer.gradients(run.put(*batch), stage)
    assert abs(float(found) - oracle_rules.loss(weights, recipe, *batch, phase)) <= 2e-6


GRAPHS = {"baseline": 1, "looped": 3, "qat": 2, "batch_schedule": 2}
GRAPHS |= {"partial_tying": 2, "visit_scale": 3, "random": 1}


@pytest.mark.parametrize(("case", "graphs"), GRAPHS.items())
def test_a_moving_schedule_compiles_nothing_anew(case: str, graphs: int) -> None:
    """For fifty steps a graph of the model for each of its stages, and one of the optimizer."""
    torch = importlib.import_module("torch")
    counter = importlib.import_module("torch._dynamo.testing").CompileCounter()
    plain = torch.compile
    schedule = Schedule(steps=50, budget_s=0.0, warmdown=0.5, warmdown_unit="frac")
    recipe = recipe_of(case, compile="on", schedule=schedule)
    recipe = replace(recipe, qat=replace(recipe.qat, start=0.5))
    torch._dynamo.reset()
    with patch.object(torch, "compile", lambda f, **options: plain(f, backend=counter, **options)):
        run = Run("torch", recipe, perturbed(recipe.arch))
    assert len(stages(recipe)) == graphs
    for stage in stages(recipe):
        run.trainer.warm_up(run.put(*rows_of(recipe, stage, 0)), stage)
    assert counter.frame_count == graphs + 1
    moved = set()
    for step in range(50):
        k = knobs(recipe, step, 0.0)
        run.step(step, *rows_of(recipe, k.stage, step))
        moved.add((k.lr_mul, k.momentum, k.stage))
    assert len(moved) > 25 and len({now[2] for now in moved}) == graphs
    assert counter.frame_count == graphs + 1


def rows_of(recipe: Recipe, stage: Stage, seed: int) -> tuple[Rows, Rows]:
    """A batch in the shape of a stage."""
    size = recipe.data.phases(recipe.arch.seq_len)[stage.batch_phase]
    x, y = batch_of(recipe.arch, ROWS, seed)
    rows = size.train_batch_tokens // size.seq_len
    return x[:rows, : size.seq_len], y[:rows, : size.seq_len]
