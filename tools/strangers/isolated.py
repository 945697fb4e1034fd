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
from tools.strangers.confined import landlock_version

PASSED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LD_PRELOAD", "CUDA_VISIBLE_DEVICES")
PASSED_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY")
OUTPUT_BYTES = 64_000_000  # of the log that is read back
LIMITER = Path(__file__).with_name("confined.py")
_PROC = Path("/proc")
POLL_S = 0.1  # between two looks at the memory
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a stranger's process may use."""

    seconds: float
    file_bytes: int = 4_000_000_000  # of any one file it writes
    memory_bytes: int = 0  # of address space; 0: no limit, as CUDA reserves more than there is
    resident_bytes: int = 0  # of memory, of it and all it starts, watched; 0: no limit
    confined: bool = False  # to write its folder and devices, to read these and what follows
    readable: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How it ended; `output` is stdout and stderr as they came."""

    code: int
    output: str
    seconds: float
    timed_out: bool
    isolation: str
    over_memory: bool = False


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
            [*shell, *_limited(limits, folder), *command],
            cwd=folder,
            env={**passed, "HOME": str(folder), "TMPDIR": str(folder), **environ},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        timed_out, over_memory = _wait(process, limits)
    with log.open("rb") as written:
        output = written.read(OUTPUT_BYTES).decode("utf-8", "replace")
    return Outcome(
        code=process.returncode,
        output=output,
        seconds=time.perf_counter() - started,
        timed_out=timed_out,
        over_memory=over_memory,
        isolation=f"a process of its own, {told(limits)}, {isolation}, {_files(limits)}",
    )


def network_shell() -> tuple[list[str], str]:
    """The words before a command that take its network away, where the system has them."""
    unshare = shutil.which("unshare")
    for more in (("--pid", "--fork", "--kill-child", "--mount-proc"), ()):
        shell = [str(unshare), "--user", "--map-current-user", "--net", *more]
        if unshare and _works([*shell, "true"]):
            return shell, "no network"
    return [], "the network within reach"


def _files(limits: Limits) -> str:
    """What holds it to its files, in words."""
    if not limits.confined:
        return "files of this user within reach"
    if version := landlock_version():
        return f"held by Landlock {version} to its own copy of the folder, to programs and its data"
    return "its Python watched for writing outside of its folder, files of this user within reach"


def told(limits: Limits) -> str:
    """The limits in words."""
    memory = f", {limits.memory_bytes:,} bytes of addresses" if limits.memory_bytes else ""
    if limits.resident_bytes:
        watched = "watched" if _PROC.is_dir() else "not watched: no /proc"
        memory += f", {limits.resident_bytes:,} bytes of memory ({watched})"
    return f"at most {limits.seconds:.0f} s, files up to {limits.file_bytes:,} bytes{memory}"


def python(script: Path) -> list[str]:
    """This interpreter, which has the frameworks, with nothing of this project on its path."""
    return [sys.executable, str(script)]


def _works(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _limited(limits: Limits, folder: Path) -> list[str]:
    """The words before a command that bound it from its first instruction on."""
    numbers = (limits.file_bytes, limits.memory_bytes, int(limits.confined))
    own = (sys.prefix, sys.base_prefix, sys.exec_prefix, str(LIMITER))
    libraries = variables().get("LD_LIBRARY_PATH", "").split(":")
    libraries += variables().get("LD_PRELOAD", "").replace(":", " ").split()
    places = [str(folder), *own, *(one for one in libraries if one), *limits.readable]
    return [sys.executable, "-P", str(LIMITER), *map(str, numbers), *places, "--"]


def _wait(process: subprocess.Popen[bytes], limits: Limits) -> tuple[bool, bool]:
    """Until it ends, or until its time is over or its memory too much, and then it is killed with
    all it started: which of the two it was.
    """
    ends = time.monotonic() + limits.seconds
    try:
        while (left := ends - time.monotonic()) > 0:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(left, POLL_S) if limits.resident_bytes else left)
                return False, False
            if limits.resident_bytes and resident_bytes(process.pid) > limits.resident_bytes:
                return False, True
        return True, False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def resident_bytes(root: int) -> int:
    """Memory of a process and of all below it; 0 where the system does not tell."""
    below: dict[int, list[int]] = {}
    pages: dict[int, int] = {}
    for path in _PROC.glob("[0-9]*/stat"):
        try:
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            pid = int(path.parent.name)
            below.setdefault(int(fields[1]), []).append(pid)
            pages[pid] = int(fields[21])
        except (OSError, ValueError, IndexError):  # it has just ended
            continue
    total, left, seen = 0, [root], set[int]()
    while left:
        pid = left.pop()
        if pid not in seen:
            seen.add(pid)
            total += pages.get(pid, 0)
            left += below.get(pid, [])
    return total * _PAGE_BYTES
