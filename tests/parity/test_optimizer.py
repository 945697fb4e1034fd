"""The optimizer compiled is the eager one, also bank by bank; no step of it waits for a device."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from core.arch.noise import normal
from core.train.recipes import RECIPES
from core.train.schedules import knobs
from tests.parity.cases import recipe_of
from tests.parity.engines import ENGINES, Run, batch_of, engine, perturbed, relative, to_numpy

SAME = (
    1e-5  # relative, of each array: fused sums round in another order, and orthogonalising grows it
)
SETTINGS: dict[str, dict[str, Any]] = {
    "all at once": {
        "grad_clip_norm": 0.05,
        "matrix_wd": 0.3,
        "embed_wd": 0.1,
        "scalar_wd": 0.1,
        "row_norm": "l2",
        "row_beta2": 0.9,
        "ema_decay": 0.9,
    },
    "the mean of snapshots": {"ema_decay": 0.0, "swa_every_steps": 2, "swa_below": 2.0},
}
SPEC = recipe_of("baseline").arch
STEPS, BAD = 6, 3  # in the bad one a gradient is not finite


class Parted:
    """One process that moves its banks as a rank of a group does."""

    def __init__(self, group: Any, parts: Any) -> None:
        self._group, self._parts = group, parts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)

    def parts(self, banks: list[Any]) -> list[Any]:
        """As the Group of the engine has them."""
        found: list[Any] = self._parts(self, banks)
        return found


def moved(name: str, setting: str, compiles: bool, parted: bool) -> dict[str, Any]:
    """All arrays behind a few steps along gradients that are drawn."""
    recipe = recipe_of("baseline")
    recipe = replace(recipe, optim=replace(recipe.optim, **SETTINGS[setting]))
    run = Run(name, recipe, perturbed(recipe.arch))
    parts, group = engine(name), run.trainer.group
    group = Parted(group, parts.distributed.Group.parts) if parted else group
    run.trainer.optimizer = parts.optimizer.Optimizer(recipe.arch, recipe.optim, group, compiles)
    run.restart()
    for step in range(STEPS):
        grads = {
            key: normal(step, number, weight.shape).astype(np.float32)
            for number, (key, weight) in enumerate(run.weights().items())
        }
        if step == BAD:
            grads["skip_weights"][0, 0] = np.inf
        run.apply(step, grads)
    held = parts.optimizer.arrays(run.trainer.state)
    return {key: to_numpy(value) for key, value in held.items()}


@pytest.mark.parametrize("name", ["mlx", pytest.param("torch", marks=pytest.mark.slow)])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("parted", [False, True])
def test_compiled_is_eager(name: str, setting: str, parted: bool) -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler: on a CPU neither engine can compile a step")
    expected, found = moved(name, setting, False, False), moved(name, setting, True, parted)
    assert {key.split("/")[0] for key in expected} >= {"weight", "momentum", "adam_mean", "ema"}
    assert expected.keys() == found.keys()
    for key, array in expected.items():
        assert relative(found[key], array, floor=1e-6) <= SAME, key


@pytest.mark.parametrize("name", ["torch", "mlx"])
def test_parts_are_the_whole(name: str) -> None:
    """Each bank is in one of them, so eager arithmetic is the same to the last bit."""
    whole, parts = (moved(name, "all at once", False, each) for each in (False, True))
    for key, array in whole.items():
        assert np.array_equal(parts[key], array), key


def test_a_part_is_a_graph_whatever_the_rates() -> None:
    """Of matrices of each shape, and of what is Adam's; no more than dynamo takes of a function."""
    torch = importlib.import_module("torch")
    shapes = len(engine("torch").optimizer.matrices(engine("torch").optimizer.banks(SPEC)))
    counter = importlib.import_module("torch._dynamo.testing").CompileCounter()
    plain = torch.compile
    torch._dynamo.reset()
    with patch.object(torch, "compile", lambda f, **options: plain(f, backend=counter, **options)):
        moved("torch", "all at once", True, True)
    assert counter.frame_count == shapes + 1 <= torch._dynamo.config.recompile_limit


@pytest.mark.parametrize("name", RECIPES)
def test_dynamo_takes_all_parts_of_a_record(name: str) -> None:
    """Behind its limit it would go on uncompiled, and say so in a warning alone."""
    optimizer = engine("torch").optimizer
    shapes = len(optimizer.matrices(optimizer.banks(RECIPES[name]().arch)))
    limit = importlib.import_module("torch._dynamo").config.recompile_limit
    assert shapes + 1 <= limit


def test_a_step_reads_nothing_from_the_device() -> None:
    """Neither .item() nor a branch on a tensor: the loss is read behind the next step."""
    recipe = recipe_of("baseline")
    run = Run("torch", recipe, perturbed(recipe.arch))
    batch = run.put(*batch_of(recipe.arch, 8))
    run.trainer.step(batch, dials := knobs(recipe, 0, 0.0))
    with seen() as calls:
        loss = run.trainer.step(batch, dials)
    assert len(calls) > 100 and not [c for c in calls if "_local_scalar_dense" in c]
    with seen() as calls:
        float(loss)
    assert [c for c in calls if "_local_scalar_dense" in c], "it is seen where it is read"


def test_a_number_on_its_way_is_waited_for_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not where it is told: with a stand-in for CUDA's events."""
    torch: Any = importlib.import_module("torch")
    said: list[str] = []

    class Event:
        def record(self) -> None:
            said.append("record")

        def synchronize(self) -> None:
            said.append("synchronize")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    late = engine("torch").distributed._Late(torch.tensor(2.5))
    assert said == ["record"]
    assert float(late) == 2.5 and said == ["record", "synchronize"]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("precision", ["autocast", "cast", "fp32"])
def test_weights_are_rounded_once_a_step(
    monkeypatch: pytest.MonkeyPatch, name: str, precision: Any
) -> None:
    """Products take bf16 where that is; the gradients are those of rounding in each micro-batch."""
    recipe = replace(recipe_of("baseline"), precision=precision)
    run = Run(name, recipe, perturbed(recipe.arch))
    batches = [*run.put(*batch_of(recipe.arch, 2)), *run.put(*batch_of(recipe.arch, 2, 1))]
    plain, kinds = run.engine.linear.project, set[str]()

    def project(x: Any, weight: Any) -> Any:
        kinds.add(str(weight.dtype).rpartition(".")[2])
        return plain(x, weight)

    monkeypatch.setattr(run.engine.linear, "project", project)
    loss, grads = run.trainer.gradients(batches)
    assert kinds == ({"float32"} if precision == "fp32" else {"bfloat16"})
    run.trainer._products = []
    other_loss, other = run.trainer.gradients(batches)
    assert kinds >= {"float32"} and float(loss) == float(other_loss)
    found, expected = run.named(grads), run.named(other)
    assert all(np.array_equal(found[key], grad) for key, grad in expected.items())


@contextmanager
def seen() -> Iterator[list[str]]:
    """The name of each operation of torch."""
    mode = importlib.import_module("torch.utils._python_dispatch").TorchDispatchMode
    calls: list[str] = []

    class Seen(mode):  # type: ignore[misc, valid-type]
        def __torch_dispatch__(
            self, op: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            calls.append(str(op))
            return op(*args, **(kwargs or {}))

    with Seen():
        yield calls
