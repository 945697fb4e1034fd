"""Ranks against one: two of a thread each, or one for each GPU; processes of their own, in turn."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from core.train.recipe import from_json, to_json
from core.train.schedules import knobs
from tools.backends import load
from tools.benching.blocks import Turns
from tools.benching.hardware import ROOT
from tools.benching.job import Job
from tools.benching.kernels import against
from tools.benching.tokens import random_shards
from tools.environment import variables
from tools.say import note

ON_CPU = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "GOLF_DEVICE": "cpu"}
LIMIT_S = 1800.0
SKIPPED = 2  # steps of a process that do not count: they compile and allocate
SAID = "seconds of a step: "
PYTHON = sys.executable
LAUNCHERS = {
    "torch": "{python} -m torch.distributed.run --standalone --nproc_per_node {ranks} -m",
    "mlx": "{mlx_launch} --backend ring -n {ranks} -- {python} -m",
}
ALONE, TOGETHER = "one rank", "ranks"


def measure(job: Job) -> dict[str, Any]:
    """Each block is a process, or a pair of them: one against itself, then one and two in turn."""
    recipe, backend, ranks, environ = job.recipe(), job.row.backend, 2, ON_CPU
    if job.row.needs == "cuda" and not job.tiny:
        ranks, environ = load(backend, "yardsticks").devices(), {}
    if ranks < 2:
        raise ValueError(f"{ranks} device: ranks want one each")
    launchers = {ALONE: [PYTHON, "-m"], TOGETHER: launcher(backend, ranks)}
    spent: dict[str, list[float]] = {name: [] for name in launchers}
    with TemporaryDirectory() as folder:
        path = Path(folder, "recipe.json")
        path.write_text(to_json(recipe), encoding="utf-8")
        rest = ["tools.benching.ranks", backend, str(path), str(job.rules.steps)]
        one, other = (block([*launchers[ALONE], *rest], environ) for _ in range(2))
        for number in range(job.rules.blocks):
            for name in launchers if number % 2 == 0 else reversed(launchers):
                spent[name].append(block([*launchers[name], *rest], environ))
                note(f"{name}: {1000 * spent[name][-1]:.0f} ms a step")
    turns = Turns(seconds=spent, itself=[one / other])
    return {
        "recipe": recipe.name,
        "precision": recipe.precision,
        "train_batch_tokens": recipe.data.train_batch_tokens,
        "ranks": ranks,
        "device": "cpu, one thread each" if environ else "cuda",
        **against(turns, TOGETHER, {}),
    }


def launcher(backend: str, ranks: int) -> list[str]:
    mlx_launch = Path(PYTHON).with_name("mlx.launch")
    words = LAUNCHERS[backend].split()
    return [word.format(python=PYTHON, mlx_launch=mlx_launch, ranks=ranks) for word in words]


def block(command: list[str], settings: dict[str, str]) -> float:
    """The median step of one start, in seconds; ValueError with its last words."""
    environ = {**variables(), **settings, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    said = [line.partition(SAID)[2] for line in done.stdout.splitlines() if SAID in line]
    if done.returncode or len(said) != 1:
        raise ValueError(f"exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    return float(said[0])


def rank(backend: str, path: Path, steps: int) -> None:
    """What each process does: so many steps behind those that do not count; the first says."""
    recipe = from_json(path.read_text(encoding="utf-8"), str(path))
    group = load(backend, "distributed").open_group()
    spent = []
    with random_shards(recipe) as stream:
        trainer = load(backend, "loop").Trainer(recipe, group)
        feeder = load(backend, "feeder").Feeder(stream, recipe, group)
        for step in range(SKIPPED + steps):
            started = time.perf_counter()
            batch = feeder.batch_at(step * recipe.data.train_batch_tokens)
            float(trainer.step(batch, knobs(recipe, step, 0.0)))
            spent.append(time.perf_counter() - started)
    if group.rank == 0:
        print(f"{SAID}{median(spent[SKIPPED:])}", flush=True)
    group.close()


def cells(fields: dict[str, Any]) -> dict[str, str]:
    low, high = fields["ratio_ranges"][ALONE]
    counts = "" if fields["counts"][ALONE] else ", within noise"
    return {
        "recipe": f"{fields['recipe']}, {fields['precision']}",
        "tokens a step": f"{fields['train_batch_tokens']:,}",
        "one rank ms": f"{fields['form_ms'][ALONE]:.0f}",
        "ranks": f"{fields['ranks']} ({fields['device']})",
        "ranks ms": f"{fields['form_ms'][TOGETHER]:.0f}",
        "ratio": f"{fields['ratios'][ALONE]:.2f} ({low:.2f} to {high:.2f}){counts}",
        "A to A": f"±{fields['noise']:.1%}",
    }


if __name__ == "__main__":
    rank(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
