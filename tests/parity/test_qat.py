"""Training with rounded weights: they are those that packing stores, and they are what is used."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from core.arch.params import Weights
from core.artifact.container import weights as unpack
from core.artifact.quant import Quant
from core.train.qat import Qat, rounded_grids
from core.train.recipe import Recipe
from core.train.schedules import PLAIN, stages
from tests.parity.cases import recipe_of, spec_of
from tests.parity.engines import ENGINES, Run, batch_of, distance, engine, perturbed, to_numpy
from tests.parity.measures import ROWS, packed


def recipe(form: str = "ste", **fields: object) -> Recipe:
    return recipe_of("baseline", qat=Qat(form=form), quant=Quant(keep_below=512, **fields))


def used_by(run: Run) -> Weights:
    """The matrices that the first step's loss is of."""
    trainer = run.trainer
    held = run.engine.weights.parameters(trainer.model)
    return run.named(run.engine.qat.rounded(held, trainer._grids, trainer._rounding(0)))


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("width", [8, 6, 2])
def test_rounded_weights_are_the_artifacts(name: str, width: int) -> None:
    """Every rounded matrix has the bits that packing and unpacking give it."""
    wanted = recipe(attn=f"int{width}", mlp="int5")
    grids = rounded_grids(wanted.arch, wanted.quant, wanted.qat)
    weights = perturbed(wanted.arch)
    stored = unpack(packed(weights, wanted))
    found = used_by(Run(name, wanted, weights))
    assert len(found) == len(grids) == 19
    for key, value in found.items():
        assert value.tobytes() == stored[key].tobytes(), key
        assert not np.array_equal(stored[key], weights[key]), key


@pytest.mark.parametrize("how", ["off", pytest.param("on", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ENGINES)
def test_the_loss_is_that_of_the_stored_weights(name: str, how: str) -> None:
    """Eager and compiled: a rounding that compilation folds away would leave the plain loss."""
    if how == "on" and shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler: on a CPU neither engine can compile a step")
    wanted = replace(recipe(attn="int2", mlp="int2"), compile=how)
    weights = perturbed(wanted.arch)
    run, batch = Run(name, wanted, weights), batch_of(wanted.arch, ROWS)
    used = used_by(run)
    other = Run(name, wanted, {**weights, **used})
    plain, rounded = (
        float(r.trainer.gradients(r.put(*batch), s)[0])
        for r, s in ((run, PLAIN), (run, stages(wanted)[-1]))
    )
    expected = float(other.trainer.gradients(other.put(*batch), PLAIN)[0])
    assert abs(rounded - expected) <= 2e-6
    assert abs(rounded - plain) > 1e-3


def bits_of(weights: Weights, steps: Weights) -> float:
    """log2(2 e m / s) of each row, the mean over all weights that have steps, float64."""
    total, count = 0.0, 0
    for key, step in steps.items():
        size = np.sqrt(weights[key] ** 2 + step.astype(np.float64) ** 2)
        bits = np.log2(2 * np.e * size.mean(1, keepdims=True) / step)
        total, count = total + bits.sum() * size.shape[1], count + size.size
    return float(total / count)


@pytest.mark.parametrize("name", ENGINES)
def test_the_rate_term_is_the_gradient_of_the_bits(name: str) -> None:
    """Against differences of the estimate; the loss that is told does not have it in it."""
    wanted = recipe(attn="int6", mlp="int4")
    wanted = replace(wanted, qat=replace(wanted.qat, form="none"))
    dear = replace(wanted, optim=replace(wanted.optim, rate_lambda=3.0))
    weights, batch = perturbed(wanted.arch), batch_of(wanted.arch, ROWS)
    (loss, grads), (same, found) = (
        Run(name, each, weights).gradients(*batch) for each in (wanted, dear)
    )
    assert loss == same
    run = Run(name, wanted, weights)
    grids = rounded_grids(wanted.arch, wanted.quant, Qat())
    held = {key: run.array(weights[key]) for key in grids}
    steps = {key: to_numpy(s) for key, s in run.engine.qat.row_steps(held, grids).items()}
    exact = {key: weights[key].astype(np.float64) for key in grids}
    for key in list(grids)[::5]:
        for at in ((0, 0), (1, 2)):
            moved = []
            for by in (1e-6, -1e-6):
                other = {**exact, key: exact[key].copy()}
                other[key][at] += by
                moved.append(3.0 * bits_of(other, steps))
            truth = (moved[0] - moved[1]) / 2e-6
            assert found[key][at] - grads[key][at] == pytest.approx(truth, rel=2e-2, abs=2e-6)
    assert all(np.array_equal(found[key], grads[key]) for key in grads.keys() - grids.keys())


@pytest.mark.parametrize("name", ENGINES)
def test_the_gradient_passes_as_it_is(name: str) -> None:
    """That of the rounded weights, at the rounded weights, moves the weights themselves."""
    wanted = recipe(attn="int3")
    run, batch = Run(name, wanted, perturbed(wanted.arch)), batch_of(wanted.arch, ROWS)
    used = used_by(run)
    other = Run(name, recipe("none"), {**run.weights(), **used})
    assert distance(run.gradients(*batch)[1], other.gradients(*batch)[1]) <= 1e-5
    before = run.weights()
    run.step(0, *batch)
    moved = run.weights()
    assert all(not np.array_equal(moved[key], before[key]) for key in used)


@pytest.mark.parametrize("name", ENGINES)
def test_noise_is_new_in_every_step_and_within_half_a_step(name: str) -> None:
    wanted = recipe("noise", attn="int3")
    run, batch = Run(name, wanted, perturbed(wanted.arch)), batch_of(wanted.arch, ROWS)
    put, stage = run.put(*batch), stages(wanted)[-1]
    losses = [float(run.trainer.gradients(put, stage, step)[0]) for step in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    qat, keys = engine(name).qat, run.trainer._rounding(7).keys
    drawn = to_numpy(qat.dice((200, 300), keys[0]))
    assert drawn.min() >= -0.5 and drawn.max() < 0.5
    assert abs(drawn.mean()) < 0.005 and abs(drawn.var() - 1 / 12) < 0.001
    assert len(np.unique(drawn)) > 59_000
    again = to_numpy(qat.dice((200, 300), keys[1]))
    assert abs(np.corrcoef(drawn.ravel(), again.ravel())[0, 1]) < 0.02


def test_the_noise_of_both_engines_is_one() -> None:
    wanted = recipe("noise")
    drawn = []
    for name in ENGINES:
        run = Run(name, wanted)
        drawn.append(to_numpy(engine(name).qat.dice((33, 65), run.trainer._rounding(3).keys[2])))
    assert drawn[0].tobytes() == drawn[1].tobytes()


def test_what_is_kept_in_floats_is_not_rounded() -> None:
    wanted = recipe(embed="fp16", mlp="int4")
    grids = rounded_grids(wanted.arch, wanted.quant, wanted.qat)
    assert "tok_emb.weight" not in grids and {g.qmax for g in grids.values()} == {127, 7}
    assert rounded_grids(wanted.arch, replace(wanted.quant, keep_below=10**6), wanted.qat) == {}
    assert "lm_head.weight" in rounded_grids(spec_of("untied"), wanted.quant, wanted.qat)
    some = rounded_grids(wanted.arch, wanted.quant, Qat(form="ste", roles=("mlp",)))
    assert set(some) == {name for name in grids if ".mlp." in name}


def test_a_qat_section_that_does_not_add_up() -> None:
    with pytest.raises(ValueError, match="qat: start 1.0 must be"):
        Qat(form="ste", start=1.0)
    with pytest.raises(ValueError, match="qat: attn has steps by quantile 0.99, which training"):
        recipe(attn_quantile=0.99)
