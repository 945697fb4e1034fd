"""The same seed twice gives the same weights, to the last bit: by one process and by two ranks."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.train.recipe import to_json
from core.train.run_folder import RunFolder, load_weights
from tests.conftest import Text
from tests.parity.engines import ENGINES, distance
from tests.test_many_ranks import EVERY_STATE, ROOT, launched
from tools.backends import load
from tools.train import train

each_engine = pytest.mark.parametrize("name", ENGINES)
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture
def torch() -> Iterator[Any]:
    """The framework, left as it was found."""
    found, held = importlib.import_module("torch"), os.environ.pop(WORKSPACE, None)
    assert not found.are_deterministic_algorithms_enabled()
    yield found
    found.use_deterministic_algorithms(False)
    os.environ.pop(WORKSPACE, None)
    os.environ.update({} if held is None else {WORKSPACE: held})


def test_the_mode_is_on_where_it_is_asked_for(torch: Any) -> None:
    group = load("torch", "distributed")
    group.open_group()
    assert not torch.are_deterministic_algorithms_enabled() and WORKSPACE not in os.environ
    group.open_group(deterministic=True)
    assert torch.are_deterministic_algorithms_enabled() and os.environ[WORKSPACE] == ":4096:8"


def test_a_workspace_that_was_chosen_stays(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":16:8")
    load("torch", "distributed").open_group(deterministic=True)
    assert os.environ[WORKSPACE] == ":16:8"


@each_engine
def test_one_process_twice(text: Text, tmp_path: Path, torch: Any, name: str) -> None:
    """A run of either engine asks for the mode itself; another seed is another model."""
    weights = []
    for run, seed in enumerate((1, 1, 2)):
        recipe = text.recipe("deterministic=true", "precision=cast", f"seed={seed}", *EVERY_STATE)
        folder = RunFolder(tmp_path, f"{run}")
        train(recipe, name, folder, quiet=True)
        weights.append(load_weights(folder.path))
    assert torch.are_deterministic_algorithms_enabled() == (name == "torch")
    assert distance(weights[1], weights[0]) == 0
    assert distance(weights[2], weights[0]) > 0.1


@pytest.mark.slow
@each_engine
def test_two_ranks_twice(text: Text, tmp_path: Path, name: str) -> None:
    recipe = text.recipe("deterministic=true", *EVERY_STATE)
    (tmp_path / "recipe.json").write_text(to_json(recipe))
    for run in ("first", "second"):
        launched(name, 2, tmp_path, ROOT / f"train_{name}.py", "--run-id", run)
    first, second = (load_weights(tmp_path / run) for run in ("first", "second"))
    assert distance(second, first) == 0
