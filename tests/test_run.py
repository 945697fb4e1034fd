"""Whole runs on both engines: files, log lines, one artifact, the clock, what is refused."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from core.arch.params import check_weights
from core.artifact.container import identity, read
from core.artifact.container import weights as unpack
from core.train.finish import Finished
from core.train.keeper import Keeper
from core.train.recipe import Recipe, from_json, with_changes
from core.train.run_folder import RunFolder, load_recipe, load_weights
from tests.conftest import Text
from tests.parity.engines import ENGINES
from tools.score import score_artifact
from tools.train import train

each_engine = pytest.mark.parametrize("name", ENGINES)

LINES = {
    "step": r"step:1/6 train_loss:\d+\.\d{4} train_time:\d+ms step_avg:\d+\.\d\dms ",
    "val": r"step:3/6 val_loss:\d+\.\d{4} val_bpb:\d+\.\d{4} train_time:\d+ms ",
    "size": r"Total submission size int8\+zlib: \d+ bytes\n",
    "final": r"final_int8_zlib_roundtrip_exact val_loss:\d+\.\d{8} val_bpb:\d+\.\d{8} ",
    "counted": r"final_.* tokens:\d+ bytes:\d+ bytes_raw:\d+ ",
    "verdict": r"\nfits: artifact_bytes:\d+ cap:16000000 margin:\d+\n$",
}


@pytest.fixture(scope="module")
def runs(text: Text, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One smoke run on each engine."""
    root = tmp_path_factory.mktemp("runs")
    done = {}
    for name in ENGINES:
        folder = RunFolder(root, name)
        done[name] = (folder, train(text.recipe(), name, folder, quiet=True))
    return done


@each_engine
def test_a_run_leaves_its_files(runs: dict[str, Any], name: str, text: Text) -> None:
    folder, finished = runs[name]
    files = {path.name for path in folder.path.iterdir()}
    assert files == {"recipe.json", "log.txt", "log.jsonl", "weights.safetensors", "model.bin"}
    assert load_recipe(folder.path) == text.recipe()
    saved = load_weights(folder.path)
    check_weights(saved, text.recipe().arch, "saved")
    assert all(np.array_equal(saved[n], w) for n, w in finished.weights.items())
    assert folder.model_path.read_bytes() == finished.model


@each_engine
@pytest.mark.parametrize("line", LINES)
def test_the_log_has_the_lines_that_people_grep(runs: dict[str, Any], name: str, line: str) -> None:
    log = (runs[name][0].path / "log.txt").read_text(encoding="utf-8")
    assert re.search(LINES[line], log), log


@each_engine
def test_every_step_is_logged_with_its_progress(runs: dict[str, Any], name: str) -> None:
    log = (runs[name][0].path / "log.jsonl").read_text(encoding="utf-8")
    events = [json.loads(line) for line in log.splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    assert [s["step"] for s in steps] == [1, 2, 3, 4, 5, 6]
    assert [s["progress"] for s in steps] == [i / 6 for i in range(6)]
    phases = next(e for e in events if e["event"] == "phases")["phases_s"]
    assert set(phases) == {"warmup", "train", "save", "quantize", "compress", "score"}


@each_engine
def test_training_learns_and_packing_costs_little(runs: dict[str, Any], name: str) -> None:
    _, finished = runs[name]
    assert finished.before.val_loss < np.log(384) - 0.1
    assert abs(finished.after.val_bpb - finished.before.val_bpb) < 0.01
    assert finished.after.tokens == finished.before.tokens
    assert finished.ledger.model_bytes == len(finished.model)


def test_the_engines_train_the_same_model(runs: dict[str, Any]) -> None:
    """Six steps from the same first weights and batches: far closer than any two seeds."""
    (_, left), (_, right) = (runs[name] for name in ENGINES)
    assert abs(left.before.val_loss - right.before.val_loss) <= 5e-5


@each_engine
def test_one_artifact_scores_the_same_on_both(runs: dict[str, Any], name: str, text: Text) -> None:
    """Rung 8 on real text, and the score in the log is the score of the file."""
    folder, finished = runs[name]
    recipe, data = text.recipe(), folder.model_path.read_bytes()
    scores = {
        engine: score_artifact(data, recipe.data, recipe.score, engine, "fp32")
        for engine in ENGINES
    }
    bpb = [scores[engine]["val_bpb"] for engine in ENGINES]
    assert abs(bpb[0] - bpb[1]) <= 1e-6
    assert scores[name]["val_bpb"] == finished.after.val_bpb
    assert scores[name]["subset"] is None and scores[name]["modified"] == []


@each_engine
def test_bf16_scores_within_a_thousandth(runs: dict[str, Any], name: str, text: Text) -> None:
    """Rung 9 on real text."""
    folder, finished = runs[name]
    recipe, data = text.recipe(), folder.model_path.read_bytes()
    for precision in ("cast", "autocast"):
        scored = score_artifact(data, recipe.data, recipe.score, name, precision)
        assert 0 < abs(scored["val_bpb"] - finished.after.val_bpb) <= 1e-3


def test_the_artifact_is_the_averaged_weights(runs: dict[str, Any]) -> None:
    for folder, finished in runs.values():
        artifact = read(folder.model_path.read_bytes())
        assert len(identity(artifact)) == 64
        for name, weight in unpack(artifact).items():
            assert np.abs(weight - finished.weights[name]).max() <= np.abs(weight).max() / 100


@contextlib.contextmanager
def hand_clock(name: str) -> Iterator[Callable[[], float]]:
    """A clock that a step moves by 1, a warm-up step by 10 and a score by 100."""
    trainer = importlib.import_module(f"backend_{name}.loop").Trainer
    at = [0.0]

    def moved_by(method: str, seconds: float) -> Any:
        plain = getattr(trainer, method)

        def slow(self: Any, *arguments: Any) -> Any:
            before = at[0]
            done = plain(self, *arguments)
            at[0] = before + seconds
            return done

        return patch.object(trainer, method, slow)

    with moved_by("step", 1.0), moved_by("warm_up", 10.0), moved_by("score", 100.0):
        yield lambda: at[0]


@each_engine
def test_the_clock_stops_a_run_before_its_budget(text: Text, name: str) -> None:
    """MLX keeps one step in flight, and leaves room for it."""
    recipe = text.recipe("schedule.steps=100", "schedule.budget_s=7.5", "score.val_every_steps=0")
    with hand_clock(name) as now:
        recipe = with_changes(recipe, ["schedule.warmup_steps=0"])
        events, finished = run_with_clock(recipe, name, now)
    early = [fields for kind, fields in events if kind == "stopping_early"]
    steps = [fields for kind, fields in events if kind == "step"]
    assert len(early) == 1
    assert early[0]["step"] == len(steps) == {"torch": 7, "mlx": 6}[name]
    assert finished.phases_s["train"] == len(steps)
    assert steps[-1]["progress"] == pytest.approx((len(steps) - 1) / 7.5)


@each_engine
def test_a_first_step_longer_than_the_budget_is_not_begun(text: Text, name: str) -> None:
    """The warm-up has told how long it would take."""
    recipe = text.recipe("schedule.budget_s=7.5", "score.val_every_steps=0")
    with hand_clock(name) as now:
        events, _ = run_with_clock(recipe, name, now)
    assert [fields["step"] for kind, fields in events if kind == "stopping_early"] == [0]


@each_engine
def test_validation_and_warm_up_are_outside_the_budget(text: Text, name: str) -> None:
    recipe = text.recipe("schedule.budget_s=1000", "score.val_every_steps=1")
    with hand_clock(name) as now:
        events, finished = run_with_clock(recipe, name, now)
    assert [kind for kind, _ in events].count("val") == 5
    assert finished.phases_s["train"] == 6.0
    assert finished.phases_s["warmup"] == 20.0
    assert finished.phases_s["score"] == 700.0  # five, and before and after packing


def ticking() -> Callable[[], float]:
    ticks = iter(range(10_000))
    return lambda: float(next(ticks))


def run_with_clock(
    recipe: Recipe, name: str, now: Callable[[], float], keeper: Keeper | None = None
) -> tuple[list[tuple[str, dict[str, Any]]], Finished]:
    events: list[tuple[str, dict[str, Any]]] = []
    loop = importlib.import_module(f"backend_{name}.loop")

    def note(kind: str, **fields: Any) -> None:
        events.append((kind, fields))

    return events, loop.train(recipe, 0, now, note, keeper or Keeper(None, time.perf_counter))


@each_engine
def test_micro_batches_change_nothing(text: Text, name: str) -> None:
    losses = []
    for micro_batch in (0, 3):
        recipe = text.recipe(f"data.micro_batch={micro_batch}", "schedule.steps=3")
        _, finished = run_with_clock(recipe, name, ticking())
        losses.append(finished.before.val_loss)
    assert abs(losses[0] - losses[1]) <= 5e-6


@each_engine
def test_both_bf16_forms_train(text: Text, name: str) -> None:
    losses = []
    for precision in ("fp32", "cast", "autocast"):
        recipe = text.recipe(f"precision={precision}", "schedule.steps=3")
        _, finished = run_with_clock(recipe, name, ticking())
        losses.append(finished.before.val_loss)
    assert abs(losses[1] - losses[0]) <= 5e-3 and abs(losses[2] - losses[0]) <= 5e-3
    assert losses[1] != losses[0]


def test_a_run_is_not_overwritten(runs: dict[str, Any], text: Text) -> None:
    folder = runs["torch"][0]
    with pytest.raises(ValueError, match="already holds a run"):
        RunFolder(folder.path.parent, folder.path.name).create(text.recipe())


def test_damaged_runs_are_told(runs: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no recipe\.json"):
        load_recipe(tmp_path)
    with pytest.raises(ValueError, match=r"no weights\.safetensors"):
        load_weights(tmp_path)
    whole = (runs["torch"][0].path / "weights.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_weights(tmp_path)
    (tmp_path / "recipe.json").write_text("[1]")
    with pytest.raises(ValueError, match="expected an object"):
        load_recipe(tmp_path)
    assert from_json((runs["torch"][0].path / "recipe.json").read_text(), "x").name == "smoke"


@each_engine
def test_what_cannot_be_trained_is_told_before_it_starts(text: Text, name: str) -> None:
    for change, message in (
        ("arch.vocab_size=512", "has 384 pieces, the model a vocab_size of 512"),
        ("arch.seq_len=262144", "less than one sequence"),
        ("data.path=nowhere", "golf data tokenize"),
    ):
        changes = (
            [change] if "seq_len" not in change else [change, "data.train_batch_tokens=262144"]
        )
        with pytest.raises(ValueError, match=message):
            run_with_clock(text.recipe(*changes), name, ticking())
