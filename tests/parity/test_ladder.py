"""The ladder of sameness over one table of tiny architectures: rungs 0, 1, 3 to 8 and 10 steps.

Each engine is held to float64 (or to the exact bits of core), and its distance from the float64
control to ten times that of torch in float32: a wrong convention cannot hide behind a loose bound.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest

from core.arch.params import Weights, init_params, param_table
from core.arch.plan import forward_plan
from core.arch.spec import Activation
from core.artifact.container import Artifact, identity, read, write
from core.artifact.container import weights as unpack
from core.artifact.quant import quantize
from core.score.bpb import bits_per_byte
from tests.parity.cases import CASES, recipe_of, spec_of
from tests.parity.engines import (
    ENGINES,
    Run,
    batch_of,
    control,
    distance,
    engine,
    global_norm,
    mean_loss,
    relative,
    to_numpy,
)
from tests.parity.engines import perturbed as perturbed_weights

ROWS = 8
LOSS = 2e-6  # rung 3, nats
GRADIENT, SCALAR_GRADIENT = 2e-5, 5e-5  # rung 4, relative; q_gain sums over whole heads
GRADIENT_FLOOR = 1e-7  # of the global norm
MUON_STEP, ADAM_STEP = 1e-5, 1e-6  # rung 5, relative, of the new weights
STEPS_10 = 5e-5  # rung 6, relative, all weights
SCORE_BPB = 1e-6  # rung 8
CONTROL = 10.0  # times the distance of torch fp32 from torch fp64

case_and_engine = pytest.mark.parametrize(
    ("case", "name"), [(case, name) for case in CASES for name in ENGINES]
)
each_case = pytest.mark.parametrize("case", CASES)


@cache
def control_gradients(case: str) -> tuple[float, float, Weights]:
    """Loss, loss with rows summed in float64, gradients: torch in float64."""
    recipe = recipe_of(case)
    x, y = batch_of(recipe.arch, ROWS)
    with control(recipe, perturbed_weights(recipe.arch)) as run:
        loss, grads = run.gradients(x, y)
        return loss, mean_loss(run.nats(x, y)), grads


@cache
def control_steps(case: str, steps: int) -> Weights:
    recipe = recipe_of(case)
    with control(recipe, perturbed_weights(recipe.arch)) as run:
        return after_steps(run, steps)


@cache
def torch_steps(case: str, steps: int) -> Weights:
    recipe = recipe_of(case)
    return after_steps(Run("torch", recipe, perturbed_weights(recipe.arch)), steps)


def after_steps(run: Run, steps: int) -> Weights:
    for step in range(steps):
        run.step(step, *batch_of(run.recipe.arch, ROWS, step))
    return run.weights()


@case_and_engine
def test_rung_0_the_model_has_the_tables_parameters(case: str, name: str) -> None:
    spec, backend = spec_of(case), engine(name)
    model = backend.model.GPT(spec, "fp32")
    shapes = {n: tuple(w.shape) for n, w in backend.weights.parameters(model).items()}
    assert shapes == {row.name: row.shape for row in param_table(spec)}


@pytest.mark.parametrize("name", ENGINES)
def test_rung_0_registries_are_cores(name: str) -> None:
    assert set(engine(name).ops.ACTIVATIONS) == set(get_args(Activation))


@each_case
def test_rung_0_each_parameter_has_one_rule(case: str) -> None:
    spec = spec_of(case)
    for name in ENGINES:
        optimizer = engine(name).optimizer.Optimizer(spec, recipe_of(case).optim)
        banked = [row.name for rows in optimizer.banks.values() for row in rows]
        routed = banked + [row.name for row in optimizer.adam_rows]
        assert sorted(routed) == sorted(row.name for row in param_table(spec))


@case_and_engine
def test_rung_1_first_weights_are_cores_to_the_bit(case: str, name: str) -> None:
    recipe = recipe_of(case)
    held, first = Run(name, recipe).weights(), init_params(recipe.arch, recipe.seed)
    for key, weight in first.items():
        assert held[key].tobytes() == weight.tobytes(), key


@case_and_engine
def test_rung_3_loss(case: str, name: str) -> None:
    recipe = recipe_of(case)
    x, y = batch_of(recipe.arch, ROWS)
    run = Run(name, recipe, perturbed_weights(recipe.arch))
    loss, rows_loss, _ = control_gradients(case)
    assert abs(mean_loss(run.nats(x, y)) - rows_loss) <= LOSS
    assert abs(run.gradients(x, y)[0] - loss) <= 2 * LOSS  # summed in fp32, for the log


@case_and_engine
def test_rung_4_every_gradient(case: str, name: str) -> None:
    recipe = recipe_of(case)
    weights = perturbed_weights(recipe.arch)
    x, y = batch_of(recipe.arch, ROWS)
    _, _, expected = control_gradients(case)
    floor = GRADIENT_FLOOR * global_norm(expected)
    torch_gap = distance(Run("torch", recipe, weights).gradients(x, y)[1], expected)
    _, grads = Run(name, recipe, weights).gradients(x, y)
    assert grads.keys() == expected.keys()
    for row in param_table(recipe.arch):
        bound = SCALAR_GRADIENT if row.rule == "scalar" else GRADIENT
        assert np.linalg.norm(expected[row.name]) > 0, f"{row.name}: nothing is tested"
        assert relative(grads[row.name], expected[row.name], floor) <= bound, row.name
    assert distance(grads, expected) <= CONTROL * torch_gap


@case_and_engine
def test_rung_5_one_step_of_each_rule(case: str, name: str) -> None:
    recipe = recipe_of(case)
    before = perturbed_weights(recipe.arch)
    run = Run(name, recipe, before)
    after_steps(run, 1)
    expected, found = control_steps(case, 1), run.weights()
    for row in param_table(recipe.arch):
        bound = MUON_STEP if row.rule == "matrix" else ADAM_STEP
        assert not np.array_equal(found[row.name], before[row.name]), f"{row.name} did not move"
        assert relative(found[row.name], expected[row.name]) <= bound, row.name


@case_and_engine
def test_rung_6_ten_steps(case: str, name: str) -> None:
    recipe = recipe_of(case)
    run = Run(name, recipe, perturbed_weights(recipe.arch))
    gap = distance(after_steps(run, 10), control_steps(case, 10))
    assert gap <= STEPS_10
    assert gap <= CONTROL * distance(torch_steps(case, 10), control_steps(case, 10))


@each_case
def test_rung_7_one_artifact_from_every_engine(case: str) -> None:
    recipe = recipe_of(case)
    weights = perturbed_weights(recipe.arch)
    identities = {"numpy": payload_of(weights, recipe)}
    for name in ENGINES:
        run = Run(name, recipe, weights)
        exported = run.engine.weights.to_numpy(run.engine.optimizer.averaged(run.trainer.state))
        identities[name] = payload_of(exported, recipe)
    assert len(set(identities.values())) == 1, identities


def payload_of(weights: Weights, recipe: Any) -> str:
    tensors = tuple(quantize(weights, recipe.arch, recipe.quant))
    return identity(Artifact(recipe.arch, tensors))


@each_case
def test_rung_8_one_artifact_scores_the_same(case: str) -> None:
    recipe = recipe_of(case)
    tensors = tuple(quantize(perturbed_weights(recipe.arch), recipe.arch, recipe.quant))
    weights = unpack(read(write(Artifact(recipe.arch, tensors), "zlib")))
    x, y = batch_of(recipe.arch, ROWS)
    bpb = {}
    for name in ENGINES:
        evaluator = engine(name).evaluate.open_evaluator(weights, recipe.arch, "fp32")
        nats = evaluator.nats(x, y)
        assert nats.dtype == np.float32
        bpb[name] = bits_per_byte(float(nats.astype(np.float64).sum()), 2 * nats.size)
    assert abs(bpb["torch"] - bpb["mlx"]) <= SCORE_BPB, bpb


@case_and_engine
def test_averages_follow_the_weights(case: str, name: str) -> None:
    recipe = recipe_of(case)
    run = Run(name, recipe, perturbed_weights(recipe.arch))
    expected = {n: w.astype(np.float64) for n, w in run.weights().items()}
    for step in range(3):
        run.step(step, *batch_of(recipe.arch, ROWS, step))
        decay = recipe.optim.ema_decay
        expected = {
            n: decay * expected[n] + (1 - decay) * w.astype(np.float64)
            for n, w in run.weights().items()
        }
    assert distance(run.averaged(), {n: w.astype(np.float32) for n, w in expected.items()}) <= 1e-6


@pytest.mark.parametrize("name", ENGINES)
def test_warm_up_leaves_no_trace(name: str) -> None:
    recipe = recipe_of("baseline")
    run = Run(name, recipe)
    before = {k: to_numpy(v).tobytes() for k, v in run.trainer.state.items()}
    run.trainer.warm_up(run.put(*batch_of(recipe.arch, ROWS)))
    after = {k: to_numpy(v).tobytes() for k, v in run.trainer.state.items()}
    assert hash_of(before) == hash_of(after)
    x, y = batch_of(recipe.arch, ROWS)
    assert run.step(0, x, y) == Run(name, recipe).step(0, x, y)


def hash_of(state: dict[str, bytes]) -> str:
    return hashlib.sha256(b"".join(k.encode() + v for k, v in sorted(state.items()))).hexdigest()


def test_the_plan_pairs_every_skip() -> None:
    for case in CASES:
        depth = 0
        for visit in forward_plan(spec_of(case)):
            depth -= visit.pop_skip is not None
            assert depth >= 0
            depth += visit.push_skip
        assert depth == 0
