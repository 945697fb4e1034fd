"""A rank is killed: torchrun starts all of them anew, and they end where nobody would have died."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.artifact.container import identity, read
from core.train.keeper import Keeper, Lead
from core.train.recipe import to_json
from core.train.run_folder import load_weights
from tests.conftest import Text
from tests.test_stops import Pair
from tools.backends import load

ROOT = Path(__file__).resolve().parents[1]
TELLS_ITS_PID = """
import os, sys
from pathlib import Path
from tools.environment import leave
from tools.train import script
Path("pid" + os.environ["RANK"]).write_text(str(os.getpid()))
leave(script("torch"))
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
KEEPS = ["--resume", "auto", "--checkpoint-steps", "10"]
SAVED = "saved: step:10/"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_costs_no_bit(text: Text, tmp_path: Path, rank: int) -> None:
    """SIGKILL leaves no time to save: the last checkpoint of --checkpoint-steps is gone on from."""
    recipe = text.recipe("schedule.steps=300", "score.val_every_steps=0")
    (tmp_path / "recipe.json").write_text(to_json(recipe))
    (tmp_path / "train.py").write_text(TELLS_ITS_PID)
    told = []
    for line in trained(tmp_path, "killed"):
        if SAVED in line and SAVED not in "".join(told):
            os.kill(int((tmp_path / f"pid{rank}").read_text()), signal.SIGKILL)
        told.append(line)
    said = "".join(told)
    survivor = "rank 1: " if rank == 0 else ""  # the first one needs no name
    assert f"golf: {survivor}the engine failed, or a rank that it waited for" in said, said
    assert "Traceback" not in said, said
    log = (tmp_path / "runs" / "killed" / "log.txt").read_text()
    assert log.count("resumed: step:") == 1 and log.count("recipe:") >= 2, "".join(told)
    assert "resumed: step:0/" not in log and "bad_step" not in log
    assert list(trained(tmp_path, "undisturbed"))
    killed, undisturbed = (tmp_path / "runs" / name for name in ("killed", "undisturbed"))
    found, wanted = load_weights(killed), load_weights(undisturbed)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    payloads = [identity(read((run / "model.bin").read_bytes())) for run in (killed, undisturbed)]
    assert payloads[0] == payloads[1]


def trained(folder: Path, run_id: str) -> Iterator[str]:
    """What two ranks print under torchrun, which may start them twice."""
    words = ["train.py", "recipe.json", "--runs", "runs", "--run-id", run_id, *KEEPS]
    process = subprocess.Popen(
        [*TORCHRUN, "--standalone", "--nproc_per_node=2", "--max-restarts=1", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=environment(),
    )
    assert process.stdout is not None
    yield from process.stdout
    assert process.wait(timeout=60) == 0


@pytest.mark.slow
def test_a_rank_killed_on_one_of_two_machines_costs_no_bit(text: Text, tmp_path: Path) -> None:
    """Two launchers that meet at one address, each with a rank, as docs/runbook.md starts them."""
    recipe = text.recipe("schedule.steps=300", "score.val_every_steps=0")
    (tmp_path / "recipe.json").write_text(to_json(recipe))
    (tmp_path / "train.py").write_text(TELLS_ITS_PID)
    where = ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{free_port()}", "--rdzv-id=golf"]
    words = ["train.py", "recipe.json", "--runs", "runs", "--run-id", "killed", *KEEPS]
    command = [*TORCHRUN, "--nnodes=2", "--nproc_per_node=1", *where, "--max-restarts=2", *words]
    apart = {**environment(), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    outputs = [(tmp_path / name).open("w+") for name in ("first", "second")]
    machines = [
        subprocess.Popen(command, stdout=out, stderr=out, cwd=tmp_path, env=apart)
        for out in outputs
    ]
    wait_for(SAVED, [tmp_path / name for name in ("first", "second")])
    os.kill(int((tmp_path / "pid1").read_text()), signal.SIGKILL)
    codes = [machine.wait(timeout=200) for machine in machines]
    told = "".join((tmp_path / name).read_text() for name in ("first", "second"))
    assert codes == [0, 0], told
    assert told.count("resumed: step:") == 1, told
    assert list(trained(tmp_path, "undisturbed"))
    found, wanted = (load_weights(tmp_path / "runs" / n) for n in ("killed", "undisturbed"))
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def wait_for(line: str, files: list[Path], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not any(line in file.read_text() for file in files):
        assert time.monotonic() < end, "".join(file.read_text() for file in files)
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("localhost", 0))
        return int(held.getsockname()[1])


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


ENVIRONMENTS = {  # a launcher's variables, and the prefix of what is written into its store
    "the first start": ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, None),
    "the same, counted": (
        {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RESTART_COUNT": "0"},
        None,
    ),
    "the third": (
        {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RESTART_COUNT": "2"},
        "2",
    ),
    "of several machines, which count apart": (
        {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RESTART_COUNT": "2"},
        None,
    ),
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_ranks_started_anew_meet_apart_from_the_dead(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ, prefix = ENVIRONMENTS[name]
    distributed = load("torch", "distributed")
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(distributed.dist, "rendezvous", lambda _: iter([("store", 1, 2)]))
    monkeypatch.setattr(distributed.dist, "PrefixStore", lambda prefix, store: (prefix, store))
    expected: dict[str, Any] = {"store": (prefix, "store"), "rank": 1, "world_size": 2}
    assert distributed._started_anew() == ({} if prefix is None else expected)


def keeper_at(step: int | None) -> Keeper:
    snapshot = None if step is None else {"step": step}
    return Keeper(None, lambda: 0.0, snapshot=snapshot, resumes=True)


def test_ranks_go_on_from_one_checkpoint_or_not_at_all() -> None:
    """A machine that does not see the others' disk would train other weights without a word."""
    Lead(Pair(0, [(7, -7)]), keeper_at(7))
    Lead(Pair(0, [(-1, 1)]), keeper_at(None))
    with pytest.raises(ValueError, match="found no checkpoint, the others' are of step -1 to 7"):
        Lead(Pair(1, [(7, -7)]), keeper_at(None))
    with pytest.raises(ValueError, match="found one of step 7, the others' are of step -1 to 7"):
        Lead(Pair(0, [(-1, 1)]), keeper_at(7))
    never_asked = Pair(0, [])
    Lead(never_asked, Keeper(None, lambda: 0.0))
    assert never_asked.said == []
