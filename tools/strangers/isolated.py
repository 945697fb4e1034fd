"""Runs a stranger's script in a process of its own, with limits, and says what held it.

Only for a user who asked for it (--run). Where the system lends no isolation of the network, that
is part of the answer: whoever reports on the script decides what such a run can prove.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.environment import variables

PASSED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LD_PRELOAD", "CUDA_VISIBLE_DEVICES")
PASSED_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY")
OUTPUT_BYTES = 64_000_000  # of the log that is read back
LIMITER = """
import os, resource, sys
files, memory = map(int, sys.argv[1:3])
resource.setrlimit(resource.RLIMIT_FSIZE, (files, files))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if memory:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
os.execvp(sys.argv[3], sys.argv[3:])
"""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a stranger's process may use."""

    seconds: float
    file_bytes: int = 4_000_000_000  # of any one file it writes
    memory_bytes: int = 0  # of address space; 0: no limit, as CUDA reserves more than there is


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How it ended; `output` is stdout and stderr as they came."""

    code: int
    output: str
    seconds: float
    timed_out: bool
    isolation: str


def run_isolated(
    command: Sequence[str], folder: Path, environ: Mapping[str, str], limits: Limits
) -> Outcome:
    """Run `command` in `folder` with only `environ` and what a program needs to start.

    It and all it starts are killed when the time is over. stdout and stderr go to a file in
    `folder`, so that no output fills the memory.
    """
    shell, isolation = network_shell()
    mine = variables()
    passed = {name: mine[name] for name in PASSED + PASSED_THREADS if name in mine}
    log = folder / "output.txt"
    started = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*shell, *_limited(limits), *command],
            cwd=folder,
            env={**passed, "HOME": str(folder), "TMPDIR": str(folder), **environ},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        timed_out = _wait(process, limits.seconds)
    with log.open("rb") as written:
        output = written.read(OUTPUT_BYTES).decode("utf-8", "replace")
    return Outcome(
        code=process.returncode,
        output=output,
        seconds=time.perf_counter() - started,
        timed_out=timed_out,
        isolation=f"a process of its own, {told(limits)}, {isolation}",
    )


def network_shell() -> tuple[list[str], str]:
    """The words before a command that take its network away, where the system has them."""
    unshare = shutil.which("unshare")
    if unshare and _works([unshare, "--user", "--net", "true"]):
        shell = [unshare, "--user", "--map-current-user", "--net"]
        if _works([*shell, "true"]):
            return shell, "no network, files of this user within reach"
    return [], "network and files of this user within reach"


def told(limits: Limits) -> str:
    """The limits in words."""
    memory = f", {limits.memory_bytes:,} bytes of memory" if limits.memory_bytes else ""
    return f"at most {limits.seconds:.0f} s, files up to {limits.file_bytes:,} bytes{memory}"


def python(script: Path) -> list[str]:
    """This interpreter, which has the frameworks, with nothing of this project on its path."""
    return [sys.executable, str(script)]


def _works(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _limited(limits: Limits) -> list[str]:
    """The words before a command that bound it from its first instruction on."""
    return [sys.executable, "-c", LIMITER, str(limits.file_bytes), str(limits.memory_bytes)]


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Until it ends, or until its time is over and it is killed with all it started."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    else:
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
