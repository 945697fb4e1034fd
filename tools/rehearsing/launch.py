"""Starts a rehearsal's processes as the real run's are started; what they compile is kept."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from tools.environment import variables
from tools.say import UsageError, note

ROOT = Path(__file__).resolve().parents[2]
CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
COUNT_DEVICES = """
import torch
from backend_torch.distributed import Solo
print(torch.cuda.device_count() if Solo().device.type == "cuda" else 1)
"""
COUNTING_S = 180
TAIL = 12  # lines of what failed that are repeated


def devices(backend: str) -> int:
    """How many this machine has for one run; MLX has one, also where several processes share it."""
    if backend == "mlx":
        return 1
    done = subprocess.run(
        [sys.executable, "-c", COUNT_DEVICES],
        capture_output=True,
        text=True,
        env=environment({}),
        timeout=COUNTING_S,
        check=False,
    )
    if done.returncode:
        raise ValueError(f"torch does not load: {done.stderr.strip().splitlines()[-1:]}")
    return int(done.stdout.split()[-1])


def launcher(backend: str, nproc: int) -> list[str]:
    """What stands before `-m module`: this Python, or its engine's launcher of several."""
    if nproc == 1:
        return [sys.executable]
    if backend == "torch":
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return [*torchrun, "--nproc_per_node", str(nproc)]
    found = Path(sys.executable).with_name("mlx.launch")
    if not found.exists():
        raise UsageError(f"--nproc {nproc}: {found} is not there; pip install -e '.[mlx]'")
    return [str(found), "--backend", "ring", "-n", str(nproc), "--", sys.executable]


def caches(backend: str, chosen: Path | None, runs: Path) -> dict[str, str]:
    """The variables that say where compiled graphs are kept: --cache, the user's own, or beside
    the runs. MLX keeps none."""
    if backend != "torch":
        return {}
    held, folder = variables(), (chosen or runs / "compile-cache").absolute()
    return {
        name: str(folder / part) if chosen else held.get(name) or str(folder / part)
        for name, part in CACHES.items()
    }


def cached_files(cache: Mapping[str, str]) -> int:
    """How many files these folders hold."""
    return sum(path.is_file() for name in cache.values() for path in Path(name).rglob("*"))


def environment(cache: Mapping[str, str]) -> dict[str, str]:
    """The children's: this checkout's code, wherever they start."""
    held = variables()
    places = [str(ROOT), *filter(None, [held.get("PYTHONPATH", "")])]
    return {**held, **cache, "PYTHONPATH": ":".join(places)}


def start(command: list[str], cache: Mapping[str, str]) -> None:
    """Run to its end, its lines told on stderr; ValueError with its last ones where it fails."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(cache),
    )
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=TAIL)
    try:
        for line in process.stdout:
            note(line.rstrip())
            last.append(line.rstrip())
    finally:
        if process.poll() is None:
            process.terminate()
        code = process.wait()
    if code:
        raise ValueError(f"the rehearsal ended with exit code {code}: {' | '.join(last)[-600:]}")
