"""Nothing is lost on the way: checkpoints, kills, steps that go wrong, clipped gradients."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from core.artifact.container import identity, read
from core.train.finish import Finished
from core.train.keeper import Keeper, Stopped
from core.train.reader import Diverged
from core.train.recipe import Recipe, to_json
from core.train.run_folder import RunFolder, load_state
from core.train.schedules import STEERED
from tests.conftest import Text
from tests.parity.cases import recipe_of
from tests.parity.engines import ENGINES, Run, batch_of, distance, engine, global_norm, perturbed

ROOT = Path(__file__).resolve().parents[1]
each_engine = pytest.mark.parametrize("name", ENGINES)
KILLS = (1, 4, 6)  # steps after which the run is stopped


class Events:
    """All events of a run; `at` is called on each."""

    def __init__(self, at: Callable[[str, dict[str, Any]], None] | None = None) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.at = at

    def __call__(self, kind: str, **fields: Any) -> None:
        self.seen.append((kind, fields))
        if self.at is not None:
            self.at(kind, fields)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [fields for k, fields in self.seen if k == kind]


@each_engine
def test_decays_follow_the_bytes_also_behind_a_stop(text: Text, tmp_path: Path, name: str) -> None:
    """Each look multiplies them; a run that goes on has what the looks before made of them."""
    target = ("optim.matrix_wd=0.2", "optim.wd_target_bytes=80000", "score.val_every_steps=2")
    recipe, folder, events = text.recipe(*target), RunFolder(tmp_path, "a"), Events()
    folder.create(recipe)
    run(recipe, name, keeper_of(folder, recipe, every_steps=1), events)
    looks = [event["artifact_bytes"] for event in events.of("val")]
    wanted = np.prod([(size / 80_000) ** recipe.optim.wd_gain for size in looks])
    assert len(looks) == 2 and 1 / STEERED < wanted < STEERED and abs(wanted - 1) > 0.1
    kept = load_state(folder.path, recipe.arch)
    assert kept is not None and kept["wd_steer"] == pytest.approx(wanted)
    plain = text.recipe("optim.matrix_wd=0.2", "score.val_every_steps=2")
    still = run(plain, name, Keeper(None, time.perf_counter), Events()).weights
    weights = run(recipe, name, Keeper(None, time.perf_counter), Events()).weights
    assert distance(weights, still) > 1e-4, "the decay moved"
    again = RunFolder(tmp_path, "b")
    again.create(recipe)
    stopped_after(recipe, name, again, 3)
    went_on = run(recipe, name, keeper_of(again, recipe, every_steps=1), Events()).weights
    kept = load_state(again.path, recipe.arch)
    assert kept is not None and kept["wd_steer"] == pytest.approx(wanted)
    assert distance(went_on, weights) <= 1e-6


def run(recipe: Recipe, name: str, keeper: Keeper, events: Events) -> Finished:
    loop = importlib.import_module(f"backend_{name}.loop")
    finished = loop.train(recipe, 0, time.perf_counter, events, keeper)
    assert finished is not None
    return finished


def keeper_of(folder: RunFolder, recipe: Recipe, **when: Any) -> Keeper:
    snapshot = load_state(folder.path, recipe.arch)
    return Keeper(folder, time.perf_counter, snapshot=snapshot, **when)


def stopped_after(recipe: Recipe, name: str, folder: RunFolder, step: int) -> None:
    """Run on, and ask it to stop when it has told step number `step`."""
    keeper = keeper_of(folder, recipe)

    def ask(kind: str, fields: dict[str, Any]) -> None:
        if kind == "step" and fields["step"] == step:
            keeper.asked_to_stop = "SIGTERM"

    with pytest.raises(Stopped, match="SIGTERM"):
        run(recipe, name, keeper, Events(ask))


@each_engine
def test_a_run_stopped_three_times_ends_in_the_same_payload(
    text: Text, tmp_path: Path, name: str
) -> None:
    recipe = text.recipe("schedule.steps=9")
    folder = RunFolder(tmp_path, name)
    folder.create(recipe)
    for step in KILLS:
        stopped_after(recipe, name, folder, step)
    events = Events()
    resumed = run(recipe, name, keeper_of(folder, recipe), events)
    whole = run(recipe, name, Keeper(None, time.perf_counter), Events())
    assert identity(read(resumed.model)) == identity(read(whole.model))
    assert resumed.after == whole.after
    assert events.of("resumed")[0]["step"] >= KILLS[-1]
    assert [f["step"] for f in events.of("step")][-1] == 9


@each_engine
def test_a_run_of_many_stages_goes_on_where_it_was(text: Text, tmp_path: Path, name: str) -> None:
    """Longer steps and rows, an order, rounding and snapshots that begin on the way."""
    rows = '{"at": %s, "train_batch_tokens": %s, "seq_len": %s}'
    recipe = text.recipe(
        "schedule.steps=9",
        f"data.batch_schedule=[{rows % (0, 256, 32)}, {rows % (0.4, 512, 64)}]",
        *("data.loader=coprime", "arch.seq_len=64", "score.val_every_steps=4"),
        *("qat.form=noise", "qat.start=0.6", "quant.keep_below=512"),
        *("optim.ema_decay=0", "optim.swa_every_steps=2", "optim.swa_below=2"),
    )
    folder = RunFolder(tmp_path, name)
    folder.create(recipe)
    for step in KILLS:
        stopped_after(recipe, name, folder, step)
    events = Events()
    resumed = run(recipe, name, keeper_of(folder, recipe), events)
    whole = run(recipe, name, Keeper(None, time.perf_counter), events)
    assert identity(read(resumed.model)) == identity(read(whole.model))
    assert [f["tokens_done"] for f in events.of("step")[-9:]] == [
        *(256 * steps for steps in range(1, 5)),
        *(4 * 256 + 512 * steps for steps in range(1, 6)),
    ]
    (warmup, _), final = events.of("warmup"), events.of("artifact")[-1]
    assert [len(graphs) for graphs in warmup["passes_ms"]] == [3] * recipe.schedule.warmup_steps
    seen = events.of("val")[-1]["artifact_bytes"]
    assert abs(seen - final["artifact_bytes"]) < 0.02 * seen


@pytest.mark.parametrize(("first", "second"), [("torch", "mlx"), ("mlx", "torch")])
def test_a_checkpoint_of_one_engine_goes_on_with_the_other(
    text: Text, tmp_path: Path, first: str, second: str
) -> None:
    recipe = text.recipe("schedule.steps=8")
    folder = RunFolder(tmp_path, first)
    folder.create(recipe)
    stopped_after(recipe, first, folder, 4)
    resumed = run(recipe, second, keeper_of(folder, recipe), Events())
    whole = run(recipe, second, Keeper(None, time.perf_counter), Events())
    assert distance(resumed.weights, whole.weights) <= 5e-5
    assert abs(resumed.before.val_loss - whole.before.val_loss) <= 5e-5


@each_engine
def test_checkpoints_come_when_they_are_due(text: Text, tmp_path: Path, name: str) -> None:
    recipe = text.recipe("schedule.steps=6")
    folder = RunFolder(tmp_path, name)
    folder.create(recipe)
    events = Events()
    finished = run(recipe, name, keeper_of(folder, recipe, every_steps=3), events)
    assert [fields["step"] for fields in events.of("saved")] == [3, 6]
    state = load_state(folder.path, recipe.arch)
    assert state is not None and state["step"] == 6 and state["elapsed_s"] > 0
    for key, weight in finished.weights.items():  # the averages are packed, not the weights
        assert np.array_equal(state[f"ema/{key}"], weight)
        assert not np.array_equal(state[f"weight/{key}"], weight)
    assert not list(folder.path.glob("*.tmp"))


def test_a_keeper_by_the_clock() -> None:
    """Also that of a rank that does not write: else all would save behind every step."""
    times = iter([0.0, 4.0, 5.0, 5.5, 6.0, 10.5])
    keeper = Keeper(None, lambda: next(times), every_s=5.0).silent()
    assert [keeper.due(1), keeper.due(2)] == [False, True]
    assert not keeper.save(dict)
    assert [keeper.due(3), keeper.due(4)] == [False, True]


@each_engine
def test_time_spent_before_counts(text: Text, tmp_path: Path, name: str) -> None:
    recipe = text.recipe("schedule.steps=5", "schedule.budget_s=1000")
    folder = RunFolder(tmp_path, name)
    folder.create(recipe)
    stopped_after(recipe, name, folder, 2)
    state = load_state(folder.path, recipe.arch)
    assert state is not None
    snapshot = {**state, "elapsed_s": 900.0}
    events = Events()
    run(recipe, name, Keeper(None, time.perf_counter, snapshot=snapshot), events)
    assert all(fields["progress"] >= 0.9 for fields in events.of("step"))


def test_a_run_is_only_gone_on_with_as_it_was(text: Text, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "a")
    recipe = text.recipe()
    folder.create(recipe)
    folder.reopen(recipe)
    with pytest.raises(ValueError, match="holds a run of another recipe"):
        folder.reopen(text.recipe("seed=2"))
    assert load_state(folder.path, recipe.arch) is None
    folder.save_state({"step": np.array(1), "weight/x": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="weights do not fit the ModelSpec"):
        load_state(folder.path, recipe.arch)
    folder.state_path.write_bytes(b"\x00" * 40)
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_state(folder.path, recipe.arch)
    folder.save_model(b"x")
    with pytest.raises(ValueError, match="is finished"):
        folder.reopen(recipe)


def poisoned(name: str, steps: set[int]) -> Any:
    """The engine's Trainer with infinite gradients at these steps (counted from 0)."""
    trainer = engine(name).loop.Trainer
    gradients, count = trainer.gradients, iter(range(1000))

    def bad(self: Any, *batches_and_phase: Any) -> Any:
        loss, grads = gradients(self, *batches_and_phase)
        if next(count) - self.recipe.schedule.warmup_steps in steps:
            grads = {n: g * float("inf") for n, g in grads.items()}
        return loss, grads

    return patch.object(trainer, "gradients", bad)


@each_engine
def test_a_bad_step_is_not_applied(name: str) -> None:
    recipe = recipe_of("baseline")
    run_ = Run(name, recipe, perturbed(recipe.arch))
    before = {k: np.array(v) for k, v in run_.trainer.snapshot().items()}
    grads = {n: np.zeros_like(w) for n, w in run_.weights().items()}
    grads["skip_weights"][0, 0] = np.nan
    run_.apply(0, grads)
    for key in run_.engine.optimizer.arrays(run_.trainer.state):
        assert np.array_equal(run_.trainer.snapshot()[key], before[key]), key


@each_engine
def test_two_bad_steps_are_told_and_passed_over(text: Text, name: str) -> None:
    events = Events()
    with poisoned(name, {2, 3}):
        finished = run(text.recipe(), name, Keeper(None, time.perf_counter), events)
    assert [f["step"] for f in events.of("bad_step")] == [3, 4]
    assert events.of("bad_step")[0]["first_row"] == 2 * 512 // 64
    assert [f["step"] for f in events.of("step")] == [1, 2, 5, 6]
    assert np.isfinite(finished.after.val_loss)


@each_engine
def test_three_bad_steps_in_a_row_end_the_run_with_its_last_good_state(
    text: Text, tmp_path: Path, name: str
) -> None:
    recipe = text.recipe("schedule.steps=20")
    folder = RunFolder(tmp_path, name)
    folder.create(recipe)
    with poisoned(name, set(range(4, 20))), pytest.raises(Diverged, match="3 steps in a row"):
        run(recipe, name, keeper_of(folder, recipe), Events())
    state = load_state(folder.path, recipe.arch)
    assert state is not None
    good = RunFolder(tmp_path, "good")
    good.create(recipe)
    run_steps(recipe, name, good)
    expected = load_state(good.path, recipe.arch)
    assert expected is not None
    for key, value in expected.items():
        if "/" in key:
            assert np.array_equal(value, state[key]), key


def run_steps(recipe: Recipe, name: str, folder: RunFolder) -> None:
    """The four good steps alone, saved."""
    keeper = keeper_of(folder, recipe, every_steps=4)

    def ask(kind: str, fields: dict[str, Any]) -> None:
        if kind == "saved":
            raise Stopped

    with pytest.raises(Stopped):
        run(recipe, name, keeper, Events(ask))


@each_engine
def test_gradients_are_clipped_as_one_vector(name: str) -> None:
    """Adam does not see a common scale, so the momentum of Muon is looked at."""
    clip = 0.01
    recipe = recipe_of("baseline")
    clipped = replace(recipe, optim=replace(recipe.optim, grad_clip_norm=clip))
    x, y = batch_of(recipe.arch, 8)
    weights = perturbed(recipe.arch)
    plain, small = Run(name, recipe, weights), Run(name, clipped, weights)
    norm = global_norm(plain.gradients(x, y)[1])
    assert norm > clip
    plain.step(0, x, y)
    small.step(0, x, y)
    for key, value in plain.trainer.snapshot().items():
        if key.startswith("momentum/"):
            expected = np.array(value) * (clip / (norm + 1e-6))
            found = np.array(small.trainer.snapshot()[key])
            assert np.allclose(found, expected, rtol=2e-5, atol=1e-12), key


@pytest.mark.slow
@each_engine
def test_a_process_that_is_killed_goes_on(text: Text, tmp_path: Path, name: str) -> None:
    """SIGTERM, then SIGINT, then to the end: the payload of a run that nobody stopped."""
    recipe = text.recipe("schedule.steps=400", "score.val_every_steps=0")
    (tmp_path / "recipe.json").write_text(to_json(recipe))
    command = [sys.executable, str(ROOT / f"train_{name}.py"), str(tmp_path / "recipe.json")]
    command += ["--runs", str(tmp_path), "--run-id", "killed", "--resume", "auto"]
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
        assert process.stdout is not None
        for line in process.stdout:
            if re.match(r"step:\d+/400 train_loss", line):
                process.send_signal(number)
                break
        process.communicate(timeout=120)
        assert process.returncode == code
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    assert "resumed: step:" in done.stdout
    whole = run(recipe, name, Keeper(None, time.perf_counter), Events())
    found = read((tmp_path / "killed" / "model.bin").read_bytes())
    assert identity(found) == identity(read(whole.model))


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@each_engine
def test_a_run_is_watched_in_chunks_and_scored_as_its_recipe_says(text: Text, name: str) -> None:
    changes = ["score.protocol=sliding", "score.stride=16", "quant.lqer_rank=4", "score.adapt=sgd"]
    changes += ["score.sgd.chunk_tokens=256"]
    events = Events()
    recipe = text.recipe(*changes, "schedule.steps=4", "score.val_every_steps=3")
    finished = run(recipe, name, Keeper(None, time.perf_counter), events)
    (seen,), scored = events.of("val"), events.of("scored")
    plain = "sliding, stride 16"
    said = [fields["protocol"] for fields in scored]
    assert seen["protocol"] is None and said == [plain, plain, f"{plain}, adapted by sgd"]
    assert [fields["label"].split("_")[0] for fields in scored] == ["pre", "quantized", "final"]
    assert {fields["tokens"] for fields in scored} == {seen["tokens"]}
    assert finished.after.val_bpb == scored[2]["val_bpb"] != scored[1]["val_bpb"]
    held = read(finished.model)
    assert held.solver.endswith("lqer4") and any(t.low_rank is not None for t in held.tensors)
