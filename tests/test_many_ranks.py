"""Rung 10: ranks and micro-batches change nothing but memory, through the real launchers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.arch.noise import normal
from core.arch.params import init_params
from core.data.batches import Data
from core.train.clock import BudgetClock
from core.train.finish import pack
from core.train.keeper import Keeper
from core.train.recipe import to_json
from core.train.run_folder import RunFolder, load_state, load_weights
from tests.conftest import Text
from tests.parity.engines import distance
from tools.backends import load
from tools.scoring_job import score_artifact
from tools.train import train

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = 2e-5  # relative, after six steps
STATE = 1e-4  # momentum and row squares too: as far apart as the gradients of other weights

PYTHON = sys.executable
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORT = 32_400 + 20 * WORKER  # rings of tests side by side must not meet
LAUNCHERS = {
    "torch": f"{PYTHON} -m torch.distributed.run --standalone --nproc_per_node",
    "mlx": f"{Path(PYTHON).with_name('mlx.launch')} --backend ring --starting-port {PORT} -n",
}
BEFORE_SCRIPT = {"torch": [], "mlx": ["--", PYTHON]}


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", LAUNCHERS)
def test_ranks_change_nothing(text: Text, tmp_path: Path, name: str, ranks: int) -> None:
    steered = ("optim.matrix_wd=0.2", "optim.wd_target_bytes=30000")
    recipe = text.recipe("data.micro_batch=2", *steered, *EVERY_STATE)
    (tmp_path / "recipe.json").write_text(to_json(recipe))
    words = ("--run-id", "many", "--checkpoint-steps", "6")
    done = launched(name, ranks, tmp_path, ROOT / f"train_{name}.py", *words)
    assert done.stdout.count("world_size:") == 1, "only rank 0 prints"
    assert f"world_size:{ranks}" in done.stdout
    assert waits_are_outside_the_budget(tmp_path / "many")
    alone = RunFolder(tmp_path, "alone")
    train(recipe, name, alone, quiet=True, keeper=Keeper(alone, time.perf_counter, every_steps=6))
    assert distance(load_weights(tmp_path / "many"), load_weights(alone.path)) <= WEIGHTS
    states = [load_state(tmp_path / run, recipe.arch) or {} for run in ("many", "alone")]
    many, one = ({k: a for k, a in state.items() if "/" in k} for state in states)
    assert {key.split("/")[0] for key in one} >= {"weight", "momentum", "row_square", "ema"}
    assert many.keys() == one.keys()
    for key, array in one.items():
        assert distance({key: many[key]}, {key: array}) <= STATE, key


EVERY_STATE = ("optim.row_beta2=0.9", "optim.ema_decay=0.9", "optim.grad_clip_norm=0.5")


def launched(
    name: str, ranks: int, where: Path, script: Path, *words: str, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """A script on where/recipe.json by so many ranks, that ends with this code."""
    launcher = [*LAUNCHERS[name].split(), str(ranks), *BEFORE_SCRIPT[name]]
    if not Path(launcher[0]).exists():
        pytest.skip(f"{launcher[0]} is not installed")
    command = [*launcher, str(script), str(where / "recipe.json"), "--runs", str(where), *words]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=where,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        timeout=300,
        check=False,
    )
    assert name == "mlx" or (done.returncode == 0) == (code == 0), done.stderr
    return done


STOPS_AT_THREE = """
import sys
from core.train.keeper import Keeper
from tools.train import script
def due(self, step):
    self.asked_to_stop = "SIGTERM" if step == 3 else ""
    return step == 3
Keeper.due = due
sys.exit(script("{name}"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHERS)
def test_what_ranks_began_any_number_goes_on_with(text: Text, tmp_path: Path, name: str) -> None:
    """Two to the same bits as if they had not stopped; one process of either engine to rung 6."""
    recipe = text.recipe("score.val_every_steps=0", *EVERY_STATE)
    (tmp_path / "recipe.json").write_text(to_json(recipe))
    (tmp_path / "stops.py").write_text(STOPS_AT_THREE.format(name=name))
    script = ROOT / f"train_{name}.py"
    launched(name, 2, tmp_path, script, "--run-id", "whole")
    launched(name, 2, tmp_path, tmp_path / "stops.py", "--run-id", "two", code=143)
    state = load_state(tmp_path / "two", recipe.arch)
    assert state is not None and state["step"] == 3
    for engine in LAUNCHERS:
        shutil.copytree(tmp_path / "two", tmp_path / engine)
        folder = RunFolder(tmp_path, engine)
        keeper = Keeper(folder, time.perf_counter, snapshot=state, goes_on=True)
        train(recipe, engine, folder, quiet=True, keeper=keeper)
    launched(name, 2, tmp_path, script, "--run-id", "two", "--resume", "auto")
    weights = {run: load_weights(tmp_path / run) for run in ("whole", "two", *LAUNCHERS)}
    assert distance(weights["two"], weights["whole"]) == 0
    for engine in LAUNCHERS:
        assert distance(weights[engine], weights["whole"]) <= WEIGHTS, engine


DEALS = """
import importlib, sys
import numpy as np
from tests.parity.engines import engine, to_numpy
parts = engine("{name}")
group = parts.distributed.open_group()
ranks, rank = group.world_size, group.rank
for count in range(1, 8):
    names = [str(n) for n in range(count)]
    def bank(rank):
        return {{n: np.full((2, 3), 10.0 * int(n) + rank + 1, np.float32) for n in names}}
    own = group.own(names)
    told = group.gather(np.array([float(n in own) for n in names], np.float32))
    assert (told.sum(0) == 1).all(), f"of {{names}} each has one owner: {{told}}"
    put = {{n: parts.array(a) for n, a in bank(rank).items()}}
    found = group.scatter(put)
    assert list(found) == own
    for n in own:
        assert (to_numpy(found[n]) == sum(bank(r)[n] for r in range(ranks))).all()
    arriving = [group.collect(put), group.collect({{n: a + 1 for n, a in put.items()}})]
    for more, arrived in enumerate(arriving):
        for n, a in arrived().items():
            owner = int(told[:, int(n)].argmax())
            assert (to_numpy(a) == bank(owner)[n] + more).all(), (n, a)
assert group.gather(np.ones(1, np.float32)).sum() == ranks
print("dealt on", rank)
group.close()
"""


@pytest.mark.parametrize("name", LAUNCHERS)
def test_banks_are_dealt_also_where_they_are_smaller_than_the_ranks_are_many(
    tmp_path: Path, name: str
) -> None:
    """Each matrix has one owner, who gets its sum and whose array all get."""
    (tmp_path / "deals.py").write_text(DEALS.format(name=name))
    done = launched(name, 3, tmp_path, tmp_path / "deals.py")
    assert sorted(re.findall(r"dealt on (\d)", done.stdout)) == ["0", "1", "2"], done.stderr


def waits_are_outside_the_budget(folder: Path) -> bool:
    """While rank 0 scores and saves the others wait, but not on the clock of the budget."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    told_s = next(e["train_ms"] / 1000 for e in events if e["event"] == "stop")
    phases_s = next(e for e in events if e["event"] == "phases")["phases_s"]
    assert phases_s["score"] > 0
    return told_s <= phases_s["train"] + 0.5 * phases_s["score"]


ONE_WITHOUT_DATA = """
import os, sys
from pathlib import Path
from tools.train import script
if os.environ.get("RANK", os.environ.get("MLX_RANK")) == "1":
    Path("elsewhere").mkdir()
    os.chdir("elsewhere")
sys.exit(script("{name}"))
"""


@pytest.mark.parametrize("name", LAUNCHERS)
def test_what_went_wrong_with_one_rank_is_said_and_ends_all(
    text: Text, tmp_path: Path, name: str
) -> None:
    """mlx.launch returns 0 all the same: there is no model."""
    (tmp_path / "data").symlink_to(text.shards)
    (tmp_path / "recipe.json").write_text(to_json(text.recipe()))
    (tmp_path / "train.py").write_text(ONE_WITHOUT_DATA.format(name=name))
    launcher = [*LAUNCHERS[name].split(), "2", *BEFORE_SCRIPT[name]]
    if not Path(launcher[0]).exists():
        pytest.skip(f"{launcher[0]} is not installed")
    words = ["train.py", f"{tmp_path}/recipe.json", "data.path=data", "--run-id", "many"]
    done = subprocess.run(
        [*launcher, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        timeout=120,
        check=False,
    )
    assert "golf: rank 1: no val data" in done.stderr, done.stderr
    assert done.returncode != 0 or name == "mlx"
    assert not (tmp_path / "runs" / "many" / "model.bin").exists()


@pytest.mark.parametrize("protocol", ["chunked", "strided-docs"])
@pytest.mark.parametrize("name", LAUNCHERS)
def test_ranks_score_to_the_same_bits(text: Text, tmp_path: Path, name: str, protocol: str) -> None:
    """golf score by one process and by two: one line of output, one number."""
    alone, together = scored(text, tmp_path, name, protocol)
    assert alone == together


LEARNS = {
    "lora": ("strided-docs", "lora.lr=0.003", "lora.rank=4", "lora.docs_batch=3"),
    "phased": ("docs", "phased.prefix_docs=4", "lora.docs_batch=2", "sgd.lr=0.02"),
    "sgd": ("sliding", "sgd.chunk_tokens=256", "sgd.lr=0.02"),
}


@pytest.mark.parametrize(
    "adapt", ["lora", *(pytest.param(one, marks=pytest.mark.slow) for one in ("phased", "sgd"))]
)
@pytest.mark.parametrize("name", LAUNCHERS)
def test_ranks_learn_the_same(text: Text, tmp_path: Path, name: str, adapt: str) -> None:
    """Rows of another number are rounded in another way: as near as any two batches."""
    protocol, *numbers = LEARNS[adapt]
    words = ["--adapt", adapt, "--limit-tokens", "1500"]
    words += [word for number in numbers for word in ("--adapt-set", number)]
    alone, together = scored(text, tmp_path, name, protocol, *words)
    assert abs(alone["val_bpb"] - together["val_bpb"]) <= 1e-6
    assert (alone["tokens"], alone["bytes"]) == (together["tokens"], together["bytes"])


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_ranks_of_a_run_share_its_adaptation(text: Text, tmp_path: Path, name: str) -> None:
    """Its last line is what one process says of its model."""
    words = ("score.protocol=strided-docs", "score.stride=16", "score.limit_tokens=1500")
    adapts = ("score.adapt=lora", "score.lora.rank=4", "score.lora.docs_batch=3")
    recipe = text.recipe("precision=fp32", *words, *adapts)
    (tmp_path / "recipe.json").write_text(to_json(recipe))
    launcher = [*LAUNCHERS[name].split(), "2", *BEFORE_SCRIPT[name]]
    if not Path(launcher[0]).exists():
        pytest.skip(f"{launcher[0]} is not installed")
    run = [ROOT / f"train_{name}.py", tmp_path / "recipe.json", "--runs", tmp_path]
    done = subprocess.run(
        [*launcher, *map(str, run), "--run-id", "many"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [said] = re.findall(r"final_\S+_exact val_loss:\S+ val_bpb:(\S+)", done.stdout)
    model = (tmp_path / "many" / "model.bin").read_bytes()
    where = Data(path=str(text.shards), tokenizer=str(text.model))
    alone = score_artifact(model, where, recipe.score, name, "fp32")
    assert abs(float(said) - alone["val_bpb"]) <= 1e-6
    assert alone["protocol"]["adapt"]["name"] == "lora"


def scored(
    text: Text, tmp_path: Path, name: str, protocol: str, *more: str
) -> list[dict[str, Any]]:
    """What golf score says by one process and by two, its seconds apart."""
    recipe = text.recipe()
    artifact = tmp_path / "model.bin"
    weights = {
        key: (w + 0.05 * normal(7, index, w.shape)).astype(np.float32)
        for index, (key, w) in enumerate(init_params(recipe.arch, 1).items())
    }
    artifact.write_bytes(pack(weights, recipe, BudgetClock(lambda: 0.0))[1])
    launcher = [*LAUNCHERS[name].split(), "2", *BEFORE_SCRIPT[name]]
    if not Path(launcher[0]).exists():
        pytest.skip(f"{launcher[0]} is not installed")
    words = ["-m", "tools", "score", str(artifact), "--data", str(text.shards)]
    words += ["--tokenizer", str(text.model), "--backend", name, "--protocol", protocol]
    words += ["--stride", "16", "--batch", "16", "--json", *more]
    found = []
    for command in ([PYTHON], launcher):
        done = subprocess.run(
            [*command, *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        found.append({key: value for key, value in said.items() if key != "seconds"})
    assert list(tmp_path.iterdir()) == [artifact]
    return found


def test_a_launcher_of_one_process_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mlx.launch -n 1 writes a list of hosts without a host."""
    (tmp_path / "hosts").write_text("\n")
    monkeypatch.setenv("MLX_HOSTFILE", str(tmp_path / "hosts"))
    monkeypatch.setenv("MLX_RANK", "0")
    assert load("mlx", "distributed").open_group().world_size == 1


SLOW_SCORING = """
import os, sys, time
from pathlib import Path
from backend_{name}.evaluate import Evaluator
from tools.train import script
real = Evaluator.nats
def slow(self, x, y):
    time.sleep(0.2)
    return real(self, x, y)
Evaluator.nats = slow
rank = os.environ.get("RANK", os.environ.get("MLX_RANK"))
Path("pid" + rank).write_text(str(os.getpid()))
sys.exit(script("{name}"))
"""


@pytest.mark.parametrize("name", LAUNCHERS)
@pytest.mark.parametrize(("line", "step"), [("step:3/6 train_loss", 3), ("stopped: step:6", 6)])
def test_a_stop_while_one_rank_scores_ends_all(
    text: Text, tmp_path: Path, name: str, line: str, step: int
) -> None:
    """The rank that waits is asked, in a validation and behind training: none waits for ever."""
    recipe = text.recipe()
    (tmp_path / "recipe.json").write_text(to_json(recipe))
    (tmp_path / "train.py").write_text(SLOW_SCORING.format(name=name))
    launcher = [*LAUNCHERS[name].split(), "2", *BEFORE_SCRIPT[name]]
    if not Path(launcher[0]).exists():
        pytest.skip(f"{launcher[0]} is not installed")
    words = ["train.py", "recipe.json", "--runs", str(tmp_path), "--run-id", "many"]
    process = subprocess.Popen(
        [*launcher, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    told = ""
    for read in process.stdout:
        told += read
        if line in read:
            time.sleep(0.5)
            os.kill(int((tmp_path / "pid1").read_text()), signal.SIGTERM)
            break
    told += process.communicate(timeout=60)[0]
    state = load_state(tmp_path / "many", recipe.arch)
    assert state is not None and state["step"] == step, told
    assert "final_int8" not in told and "RuntimeError" not in told, told
