"""golf bench: two forms of one step, timed in turn; the reference form is the same arithmetic."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.parity.cases import recipe_of
from tests.parity.engines import ENGINES, Run, batch_of, engine, perturbed
from tools.bench import bench, in_turn, table
from tools.main import main


@pytest.mark.parametrize("name", ENGINES)
def test_the_reference_form_is_the_same_step(name: str) -> None:
    recipe = recipe_of("baseline")
    weights = perturbed(recipe.arch)
    ours, reference = Run(name, recipe, weights), Run(name, recipe, weights)
    optimizer = engine(name).reference.ReferenceOptimizer(recipe.arch, recipe.optim)
    assert max(len(names) for _, names in optimizer.banks) == 1
    reference.trainer.optimizer = optimizer
    reference.restart()
    for step in range(3):
        batch = batch_of(recipe.arch, 8, step)
        ours.step(step, *batch)
        reference.step(step, *batch)
    expected = reference.weights()
    for key, weight in ours.weights().items():
        assert np.allclose(weight, expected[key], rtol=1e-5, atol=1e-6), key


@pytest.mark.parametrize("name", ENGINES)
def test_bench(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    fields = bench(recipe_of("baseline"), name, rounds=2)
    assert fields["rounds"] == 2 and fields["ratio"] > 0 and fields["loss_gap"] < 2e-3
    assert table(fields).count("\n") == 2
    words = ["bench", "smoke", "--backend", name, "--rounds", "1", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["backend"] == name


def test_neither_form_is_always_second() -> None:
    forms = {"a": 1, "b": 2}
    assert [name for step in range(2) for name, _ in in_turn(forms, step)] == ["b", "a", "a", "b"]
