"""What was trained survives: stops while scoring, failures of packing, damaged and other states."""

from __future__ import annotations

import importlib
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from core.arch.params import Weights, init_params
from core.artifact.container import identity, read
from core.artifact.solving import NOTHING
from core.score.bpb import Scored
from core.train.clock import BudgetClock
from core.train.corpus import data_identity, open_corpus
from core.train.events import silent
from core.train.finish import finish, pack
from core.train.keeper import Keeper, Lead, Stopped
from core.train.recipe import Recipe, to_json, with_changes
from core.train.recipes import named
from core.train.run_folder import RunFolder, load_recipe, load_weights, training_hash
from tests.conftest import Text
from tests.test_resume import Events, each_engine, keeper_of, run, stopped_after
from tools.main import main
from tools.recipes import settle
from tools.resume import unfinished

ROOT = Path(__file__).resolve().parents[1]
Capture = pytest.CaptureFixture[str]


def asks_in_batch(name: str, keeper: Keeper, number: int) -> Any:
    """SIGTERM arrives while the engine scores its batch of this number, from 0."""
    evaluator = importlib.import_module(f"backend_{name}.evaluate").Evaluator
    real, calls = evaluator.nats, iter(range(1000))

    def nats(self: Any, x: Any, y: Any) -> Any:
        if next(calls) == number:
            keeper.asked_to_stop = "SIGTERM"
        return real(self, x, y)

    return patch.object(evaluator, "nats", nats)


def batches_of_a_scoring(name: str, recipe: Recipe) -> int:
    evaluator = importlib.import_module(f"backend_{name}.evaluate").Evaluator
    with patch.object(evaluator, "nats", autospec=True, side_effect=evaluator.nats) as counted:
        run(
            with_changes(recipe, ["schedule.steps=1"]),
            name,
            Keeper(None, time.perf_counter),
            Events(),
        )
    return counted.call_count // 2


@each_engine
@pytest.mark.parametrize("where", ["in a validation", "in the last scoring", "behind packing"])
def test_a_stop_while_scoring_keeps_what_was_trained(
    text: Text, tmp_path: Path, name: str, where: str
) -> None:
    """The scoring ends behind its batch, the state is there, and going on gives the same bytes."""
    recipe = text.recipe("schedule.steps=4", "score.batch=16")
    count = batches_of_a_scoring(name, recipe)
    assert count > 2
    number = {"in a validation": 1, "in the last scoring": count + 1, "behind packing": 2 * count}
    folder, events = RunFolder(tmp_path, name), Events()
    folder.create(recipe)
    keeper = keeper_of(folder, recipe)
    with asks_in_batch(name, keeper, number[where]), pytest.raises(Stopped, match="SIGTERM"):
        run(recipe, name, keeper, events)
    assert events.of("saved")[-1]["step"] == (3 if where == "in a validation" else 4)
    assert folder.weights_path.exists() == (where != "in a validation")
    resumed = run(recipe, name, keeper_of(folder, recipe), Events())
    whole = run(recipe, name, Keeper(None, time.perf_counter), Events())
    assert identity(read(resumed.model)) == identity(read(whole.model))
    assert resumed.after == whole.after


@pytest.fixture
def words(text: Text, tmp_path: Path) -> list[str]:
    """A short run on the command line."""
    (tmp_path / "recipe.json").write_text(to_json(text.recipe("schedule.steps=4")))
    return ["train", str(tmp_path / "recipe.json"), "--backend", "torch", "--runs", str(tmp_path)]


def test_a_quantizer_that_fails_leaves_state_and_weights(
    words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    assert main([*words, "optim.matrix_lr=1e30", "--run-id", "a"]) == 1
    assert "overflows" in capsys.readouterr().err
    files = {path.name for path in (tmp_path / "a").iterdir()}
    assert {"checkpoint.safetensors", "weights.safetensors"} < files and "model.bin" not in files
    assert load_weights(tmp_path / "a")


def test_a_finished_run_keeps_only_the_checkpoint_that_was_asked_for(
    words: list[str], tmp_path: Path
) -> None:
    assert main([*words, "--run-id", "a"]) == 0
    assert main([*words, "--run-id", "b", "--checkpoint-steps", "3"]) == 0
    assert [(tmp_path / n / "checkpoint.safetensors").exists() for n in "ab"] == [False, True]


class Pair:
    """A group of two ranks by turns: what this rank says, and what the other says."""

    def __init__(self, rank: int, others: list[tuple[float, float]]) -> None:
        self.rank, self.others, self.said = rank, iter(others), list[tuple[float, ...]]()

    def max(self, *numbers: float) -> tuple[float, ...]:
        self.said.append(numbers)
        return tuple(map(max, zip(numbers, next(self.others), strict=True)))


@pytest.mark.parametrize(
    ("words", "times"),
    [((), 2), (("score.protocol=docs", "score.adapt=lora"), 3)],
    ids=["plain", "adapting"],
)
def test_every_rank_scores_and_the_first_alone_has_a_result(
    text: Text, words: tuple[str, ...], times: int
) -> None:
    """Two of three ranks once wrote the same model.bin at the same time."""
    recipe = text.recipe(*words)
    weights, scored = init_params(recipe.arch, 1), Scored(nats=2.0, tokens=1, bytes=1, bytes_raw=1)
    _, model = pack(weights, recipe, BudgetClock(time.perf_counter))

    class Together(Pair):
        def __init__(self, rank: int) -> None:
            super().__init__(rank, [(0, 0) if rank == 0 else (0, 1)] * 9)

        def share(self, _data: bytes) -> bytes:
            return model

    for rank in range(3):
        scorings: list[Weights] = []

        def score_of(subject: Weights, *_: object, seen: list[Weights] = scorings) -> Scored:
            seen.append(subject)
            return scored

        lead = Lead(Together(rank), Keeper(None, time.perf_counter))
        clock, validation = BudgetClock(time.perf_counter), open_corpus(recipe).validation
        end = finish(recipe, weights, NOTHING, validation, score_of, 1, clock, silent, lead)
        assert len(scorings) == times, "before packing, after it, and with what is learned"
        assert (end is None) == (rank > 0)


def test_ranks_agree_between_the_parts_of_one_ranks_work() -> None:
    """Each call of one rank meets one of the other: none is left waiting."""
    keeper = Keeper(None, time.perf_counter)

    def work(ask: Any) -> str:
        for _ in range(3):
            ask()
        return "done"

    assert Lead(Pair(0, [(0, 0)] * 4), keeper).alone(work) == "done"
    assert Lead(Pair(1, [(0, 0)] * 3 + [(0, 1)]), keeper).alone(work) is None
    asked = Pair(0, [(0, 0), (1, 0)])
    with pytest.raises(Stopped):
        Lead(asked, keeper).alone(work)
    assert len(asked.said) == 2
    with pytest.raises(Stopped):
        Lead(Pair(1, [(0, 0), (1, 0)]), keeper).alone(work)
    failing = Pair(0, [(0, 0)])
    with pytest.raises(ZeroDivisionError):
        Lead(failing, keeper).alone(lambda ask: 1 / 0)
    assert failing.said == [(0.0, 2.0)]
    with pytest.raises(ValueError, match="the first rank failed"):
        Lead(Pair(1, [(0, 0), (0, 2)]), keeper).alone(work)


def test_a_run_without_a_checkpoint_begins_again_in_its_folder(
    words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    RunFolder(tmp_path, "a").create(load_recipe(tmp_path))
    (tmp_path / "a" / "log.txt").write_text("before\n")
    assert main([*words, "--run-id", "a"]) == 1
    assert "already holds a run" in capsys.readouterr().err
    assert main([*words, "--run-id", "a", "--resume", "auto", "seed=3"]) == 1
    assert "holds a run of another recipe: seed is 1337, here 3" in capsys.readouterr().err
    assert main([*words, "--run-id", "a", "--resume", "auto"]) == 0
    assert "no checkpoint: it begins again at step 0" in capsys.readouterr().err
    log = (tmp_path / "a" / "log.txt").read_text()
    assert log.startswith("before\n") and "resumed: step:0/4" in log and "step:4/4" in log


def test_only_a_runs_own_number_follows_its_name(text: Text, tmp_path: Path) -> None:
    recipe = text.recipe()
    for run_id in ("exp-b", "exp-2b", "exp2", "my-exp"):
        RunFolder(tmp_path, run_id).create(recipe)
    assert unfinished(tmp_path, "exp") is None and unfinished(tmp_path / "none", "exp") is None
    RunFolder(tmp_path, "exp-12").create(recipe)
    assert unfinished(tmp_path, "exp") == "exp-12"


SAME_TRAINING = (
    *(
        "name=x",
        "compile=on",
        "deterministic=true",
        "data.path=elsewhere",
        "data.tokenizer=other",
        "data.micro_batch=3",
    ),
    *("score.batch=3", "score.subset=first-1m", "score.val_every_steps=0"),
    "schedule.log_every_steps=7",
)


def test_what_changes_no_number_of_training_does_not_hinder(text: Text, tmp_path: Path) -> None:
    recipe, folder = text.recipe(), RunFolder(tmp_path, "a")
    folder.create(recipe)
    for change in SAME_TRAINING:
        other = with_changes(recipe, [change])
        folder.reopen(other)
        assert load_recipe(folder.path) == other
    for change in ("seed=2", "data.train_batch_tokens=1024", "schedule.steps=9", "precision=cast"):
        with pytest.raises(ValueError, match="of another recipe"):
            folder.reopen(with_changes(recipe, [change]))


def test_an_old_command_goes_on_with_the_other_engine(tmp_path: Path) -> None:
    """The MLX script's own defaults are of scoring and memory alone."""
    torch, mlx = (settle([], name, {"ITERATIONS": "9"}).recipe for name in ("torch", "mlx"))
    assert torch != mlx and training_hash(torch) == training_hash(mlx)
    RunFolder(tmp_path, "baseline-01234567-torch").create(torch)
    RunFolder(tmp_path, "mine").create(torch)
    RunFolder(tmp_path, "baseline-01234568-torch").create(named("baseline"))
    assert unfinished(tmp_path, "baseline-89abcdef-mlx", mlx) == "baseline-01234567-torch"
    assert unfinished(tmp_path, "asked-for") is None


def test_other_data_is_refused(text: Text, tmp_path: Path) -> None:
    recipe, folder = text.recipe(), RunFolder(tmp_path, "a")
    folder.create(recipe)
    stopped_after(recipe, "torch", folder, 2)
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in text.shards.glob("*.bin"):
        (bare / path.name).write_bytes(path.read_bytes())
    other = text.recipe(f"data.path={bare}")
    with pytest.raises(
        ValueError, match="other data: training shards and validation shards differ"
    ):
        run(other, "torch", keeper_of(folder, other), Events())
    model = tmp_path / "renamed.model"
    model.write_bytes(text.model.read_bytes())
    moved = text.recipe(f"data.tokenizer={model}")
    run(moved, "torch", keeper_of(folder, moved), Events())


def test_the_identity_of_data_without_a_manifest(text: Text, tmp_path: Path) -> None:
    for path in text.shards.glob("*.bin"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    data = text.recipe(f"data.path={tmp_path}").data
    before = data_identity(data)
    train = next(tmp_path.glob("fineweb_train_*.bin"))
    for at in (1024, -2):
        changed = bytearray(train.read_bytes())
        changed[at] ^= 1
        train.write_bytes(changed)
        after = data_identity(data)
        assert [name for name in before if before[name] != after[name]] == ["training shards"]
        before = after


@each_engine
def test_a_damaged_checkpoint_is_told_in_a_sentence(text: Text, tmp_path: Path, name: str) -> None:
    recipe, folder = text.recipe(), RunFolder(tmp_path, "a")
    folder.create(recipe)
    stopped_after(recipe, name, folder, 2)
    whole = load_file(folder.state_path)
    key = next(key for key in whole if key.startswith("momentum/"))
    for wrong, message in (
        ({k: v for k, v in whole.items() if k != key}, f"missing ['{key}'], unknown none"),
        ({**whole, key: whole[key][:1]}, f"{key} has shape"),
        ({**whole, "adam/x": whole[key]}, "unknown ['adam/x']"),
        ({**whole, "step": np.zeros(2, np.int64)}, "step has shape (2,), expected ()"),
    ):
        save_file(wrong, folder.state_path)
        with pytest.raises(ValueError) as error:
            run(recipe, name, keeper_of(folder, recipe), Events())
        assert message in str(error.value) and "checkpoint.safetensors" in str(error.value)


def test_the_other_ranks_wait_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = importlib.import_module("backend_torch.distributed")
    asked: dict[str, Any] = {}
    monkeypatch.setattr(
        distributed.dist, "init_process_group", lambda *_, **options: asked.update(options)
    )
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 2)
    distributed.Group()
    assert asked["timeout"] >= timedelta(hours=6)
