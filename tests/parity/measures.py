"""What the rungs of the ladder measure, in one place: two numbers apart, or bits that differ."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.arch.params import Weights, init_params, param_table
from core.artifact.container import Artifact, identity, read, write
from core.artifact.container import weights as unpack
from core.artifact.quant import quantize
from core.data.batches import batch
from core.data.shards import TokenStream
from core.score.bpb import bits_per_byte
from core.train.recipe import Recipe
from core.train.schedules import knobs, stages
from tests.parity import oracle, oracle_rules
from tests.parity.cases import recipe_of, spec_of
from tests.parity.engines import (
    Run,
    batch_of,
    control,
    distance,
    engine,
    global_norm,
    mean_loss,
    relative,
    started,
    to_numpy,
)
from tests.parity.engines import perturbed as perturbed_weights

ROWS = 8  # sequences a batch
BYTES_PER_TOKEN = 2.4  # to speak of bits per byte where there is no text
GRADIENT_FLOOR = 1e-7  # of the global norm: below it a gradient is nothing
GIVEN = (1.0, -0.5, 2.0)  # the gradients of three updates, as multiples of the first batch's


def unequal_shapes(case: str, name: str) -> float:
    """Parameters of the model that are not the table's."""
    spec, backend = spec_of(case), engine(name)
    model = backend.model.GPT(spec, "fp32")
    found = {n: tuple(w.shape) for n, w in backend.weights.parameters(model).items()}
    table = {row.name: row.shape for row in param_table(spec)}
    return len(set(found.items()) ^ set(table.items()))


def unequal_first_weights(case: str, name: str) -> float:
    """Tensors that differ in any bit from core's first weights."""
    recipe = recipe_of(case)
    held, first = Run(name, recipe).weights(), init_params(recipe.arch, recipe.seed)
    return sum(held[key].tobytes() != weight.tobytes() for key, weight in first.items())


def unequal_batches(case: str, name: str) -> float:
    """Steps whose batch, put together from ranks and micro-batches, is not core's for one rank.

    Where all steps are alike; tests/core/test_batches.py has schedules of them.
    """
    recipe = recipe_of(case)
    recipe = replace(recipe, data=replace(recipe.data, batch_schedule=()))
    stream = TokenStream([batch_of(recipe.arch, 5 * ROWS)[0].astype(np.uint16).ravel()])
    sizes = {"seq_len": recipe.arch.seq_len, "vocab_size": recipe.arch.vocab_size}
    sizes["train_batch_tokens"] = recipe.data.train_batch_tokens
    wrong = 0
    for step in (0, 3, 11):
        expected = np.stack(batch(stream, step, **sizes))
        for world_size, micro_batch in ((1, 0), (1, 3), (2, 0), (3, 2), (8, 1)):
            found = fed_batch(name, recipe, stream, step, world_size, micro_batch)
            wrong += not np.array_equal(found, expected)
    return wrong


def fed_batch(
    name: str, recipe: Recipe, stream: TokenStream, step: int, world_size: int, micro_batch: int
) -> NDArray[np.int32]:
    """x and y as all ranks' feeders hand them over, in order: (2, rows, seq_len)."""
    recipe = replace(recipe, data=replace(recipe.data, micro_batch=micro_batch))
    modules = engine(name)
    parts = []
    for rank in range(world_size):
        group = modules.distributed.Solo()
        group.rank, group.world_size = rank, world_size
        given = modules.feeder.Feeder(stream, recipe, group).batch(step)
        parts += [(part.x, part.y) for part in given]
    columns = zip(*parts, strict=True)
    return np.stack([np.concatenate([to_numpy(part) for part in side]) for side in columns])


def loss_gap(case: str, name: str) -> float:
    """Nats, rows summed in float64."""
    recipe = recipe_of(case)
    weights, batch = perturbed_weights(recipe.arch), batch_of(recipe.arch, ROWS)
    run = Run(name, recipe, weights)
    return abs(mean_loss(run.nats(*batch)) - mean_loss(oracle.nats(weights, recipe.arch, *batch)))


def control_loss_gap(case: str) -> float:
    """torch in float64 from the oracle: they are the same function."""
    recipe = recipe_of(case)
    weights, batch = perturbed_weights(recipe.arch), batch_of(recipe.arch, ROWS)
    expected = mean_loss(oracle.nats(weights, recipe.arch, *batch))
    return abs(float64_gradients(case)[0] - expected)


def matrix_gradient_gap(case: str, name: str) -> float:
    """The worst relative distance among matrices and tables."""
    return worst_gradient(case, gradients_of(case, name), scalars=False)


def scalar_gradient_gap(case: str, name: str) -> float:
    """The worst among scales, gains and mixes: sums over whole heads and rows."""
    return worst_gradient(case, gradients_of(case, name), scalars=True)


def gradient_gap(case: str, name: str) -> float:
    """All gradients as one vector."""
    return distance(gradients_of(case, name), float64_gradients(case)[1])


def muon_update_gap(case: str, name: str) -> float:
    """Three updates from given gradients, relative to how far they moved: the rule alone."""
    return worst_update(case, name, matrices=True)


def adam_update_gap(case: str, name: str) -> float:
    """Three updates from given gradients, relative to how far they moved: the rule alone."""
    return worst_update(case, name, matrices=False)


def average_gap(case: str, name: str) -> float:
    """What is packed after three updates: the averages."""
    return distance(updated(case, name)[1], updated(case, "oracle")[1])


def one_step_gap(case: str, name: str) -> float:
    return steps_gap(case, name, 1)


def ten_steps_gap(case: str, name: str) -> float:
    return steps_gap(case, name, 10)


def fifty_steps_gap(case: str, name: str) -> float:
    return steps_gap(case, name, 50)


def two_hundred_steps_gap(case: str, name: str) -> float:
    return steps_gap(case, name, 200)


def unequal_payloads(case: str, name: str) -> float:
    """1 if the engine's export packs to another payload than core's own arrays."""
    recipe = recipe_of(case)
    weights = perturbed_weights(recipe.arch)
    run = Run(name, recipe, weights)
    return float(identity(packed(run.trainer.packs(), recipe)) != identity(packed(weights, recipe)))


def score_gap(case: str, name: str) -> float:
    """BPB of one artifact, from float64."""
    return abs(artifact_bpb(case, name, "fp32") - artifact_bpb(case, "float64", "fp32"))


def bf16_score_gap(case: str, name: str) -> float:
    """BPB of one artifact with products in bfloat16, from float64."""
    return abs(artifact_bpb(case, name, "cast") - artifact_bpb(case, "float64", "fp32"))


def autocast_gap(case: str, name: str) -> float:
    """Nats between the two bf16 forms; MLX has one."""
    bpb = [artifact_bpb(case, name, precision) for precision in ("autocast", "cast")]
    return abs(bpb[0] - bpb[1]) * BYTES_PER_TOKEN * float(np.log(2.0))


def micro_batch_gap(case: str, name: str) -> float:
    """Gradients of three uneven micro-batches, from those of the whole."""
    recipe = recipe_of(case)
    run = Run(name, recipe, perturbed_weights(recipe.arch))
    x, y = batch_of(recipe.arch, ROWS)
    whole = run.gradients(x, y)[1]
    parts = [run.put(x[rows], y[rows])[0] for rows in np.split(np.arange(ROWS), [1, 4])]
    return distance(run.named(run.trainer.gradients(parts, stages(recipe)[-1])[1]), whole)


@cache
def float64_gradients(case: str) -> tuple[float, Weights]:
    """Loss and gradients of the case's first batch: torch in float64."""
    recipe = recipe_of(case)
    x, y = batch_of(recipe.arch, ROWS)
    with control(recipe, perturbed_weights(recipe.arch)) as run:
        return mean_loss(run.nats(x, y)), run.gradients(x, y)[1]


@cache
def gradients_of(case: str, name: str) -> Weights:
    recipe = recipe_of(case)
    run = Run(name, recipe, perturbed_weights(recipe.arch))
    return run.gradients(*batch_of(recipe.arch, ROWS))[1]


def worst_gradient(case: str, grads: Weights, scalars: bool) -> float:
    expected = float64_gradients(case)[1]
    assert grads.keys() == expected.keys()
    floor = GRADIENT_FLOOR * global_norm(expected)
    rows = [r for r in param_table(spec_of(case)) if (r.rule == "scalar") == scalars]
    return max(relative(grads[r.name], expected[r.name], floor) for r in rows)


def steps_gap(case: str, name: str, steps: int) -> float:
    """All weights after so many steps of the same batches, from float64."""
    return distance(weights_after(case, name, steps), weights_after(case, "float64", steps))


def worst_update(case: str, name: str, matrices: bool) -> float:
    """Relative to the move, beyond what storing the weight in fp32 three times rounds away."""
    (found, _), (expected, _) = updated(case, name), updated(case, "oracle")
    before, worst = perturbed_weights(spec_of(case)), 0.0
    for row in param_table(spec_of(case)):
        if (row.rule == "matrix") == matrices:
            target = expected[row.name]
            stored = len(GIVEN) * 2.0**-24 * float(np.linalg.norm(target))
            gap = float(np.linalg.norm(found[row.name] - target)) - stored
            worst = max(worst, gap / float(np.linalg.norm(target - before[row.name])))
    return worst


@cache
def updated(case: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights and averages after three updates, given the control's gradients."""
    recipe, grads = recipe_of(case), float64_gradients(case)[1]
    weights = perturbed_weights(recipe.arch)
    given = [{n: (g * scale).astype(np.float32) for n, g in grads.items()} for scale in GIVEN]
    if name == "oracle":
        rules = oracle_rules.Updates(recipe, weights)
        for step, scaled in enumerate(given):
            now = knobs(recipe, step, 0.0)
            rules.step(clipped(scaled, recipe.optim.grad_clip_norm), now.lr_mul, now.wd_mul)
        return rules.weights, rules.average
    run = Run(name, recipe, weights)
    for step, scaled in enumerate(given):
        run.apply(step, scaled)
    return run.weights(), run.averaged()


def clipped(grads: Weights, most: float) -> Weights:
    """Gradients whose norm as one vector is at most `most`; 0: as they are."""
    norm = float(np.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in grads.values())))
    scale = min(most / (norm + 1e-6), 1.0) if most else 1.0
    return {name: grad * scale for name, grad in grads.items()}


@cache
def weights_after(case: str, name: str, steps: int) -> Weights:
    recipe = recipe_of(case)
    with started(recipe, name, perturbed_weights(recipe.arch)) as run:
        for step in range(steps):
            run.step(step, *batch_of(run.recipe.arch, ROWS, step))
        return run.weights()


def packed(weights: Weights, recipe: Recipe) -> Artifact:
    return Artifact(recipe.arch, tuple(quantize(weights, recipe.arch, recipe.quant)))


@cache
def artifact_bpb(case: str, name: str, precision: str) -> float:
    """The case's weights packed, written, read back and scored."""
    recipe = recipe_of(case)
    file = write(packed(perturbed_weights(recipe.arch), recipe), "zlib")
    weights = unpack(read(file))
    x, y = batch_of(recipe.arch, ROWS)
    if name == "float64":
        with control(recipe, weights) as run:
            nats = run.nats(x, y)
    else:
        nats = engine(name).evaluate.open_evaluator(weights, recipe.arch, precision).nats(x, y)
    return bits_per_byte(float(nats.astype(np.float64).sum()), round(BYTES_PER_TOKEN * nats.size))
