"""Cold start: seconds from a new process to its first step, with an empty cache of compiled code.

Every stage of the recipe is compiled before that, as in a run. Then the same with the cache that
the first process left.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from core.train.recipe import from_json, to_json
from core.train.schedules import knobs, stages
from tools.backends import load
from tools.benching.hardware import ROOT
from tools.benching.job import Job
from tools.benching.tokens import random_shards
from tools.environment import variables

CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


def measure(job: Job) -> dict[str, Any]:
    recipe = job.recipe()
    with TemporaryDirectory() as folder:
        path = Path(folder, "recipe.json")
        path.write_text(to_json(recipe), encoding="utf-8")
        caches = {name: str(Path(folder, name.lower())) for name in CACHES}
        found = [started(job.row.backend, path, caches) for _ in range(2)]
    return {
        "recipe": recipe.name,
        "compile": recipe.compile,
        "stages": len(stages(recipe)),
        "cold_s": found[0],
        "warm_s": found[1],
    }


def started(backend: str, recipe: Path, caches: dict[str, str]) -> float:
    """Seconds of a process that ends with the first step; ValueError with its last words."""
    command = [sys.executable, "-m", "tools.benching.cold", backend, str(recipe)]
    environ, before = {**variables(), **caches}, time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ValueError(f"exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    return time.perf_counter() - before


def first_step(backend: str, path: Path) -> float:
    """The loss of a step behind the warm-up of all stages."""
    recipe = from_json(path.read_text(encoding="utf-8"), str(path))
    group = load(backend, "distributed").Solo()
    with random_shards(recipe) as stream:
        trainer = load(backend, "loop").Trainer(recipe, group)
        feeder = load(backend, "feeder").Feeder(stream, recipe, group)
        for stage in stages(recipe):
            trainer.warm_up(feeder.batch_at(0, stage.batch_phase), stage)
        return float(trainer.step(feeder.batch_at(0), knobs(recipe, 0, 0.0)))


def cells(fields: dict[str, Any]) -> dict[str, str]:
    return {
        "recipe": f"{fields['recipe']}, compile {fields['compile']}",
        "stages": str(fields["stages"]),
        "cold s": f"{fields['cold_s']:.1f}",
        "with its cache s": f"{fields['warm_s']:.1f}",
    }


if __name__ == "__main__":
    first_step(sys.argv[1], Path(sys.argv[2]))
