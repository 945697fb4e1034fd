"""Broken and hostile files, by the thousand: a result or a sentence; nothing runs or swells."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_SECONDS = 10.0
MAX_RESIDENT = 1 << 30
# what no file may bring about: each is an audit event of Python itself
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen")
FORBIDDEN += ("exec", "import", "pickle.find_class", "marshal.loads", "socket.connect", "ctypes")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A function of (bytes, subject), the seeds that are broken for it, and how often."""

    function: str  # module:name
    seeds: str  # function in tests.tools.hostile_seeds
    bombs: str
    files: int  # in the slow test
    refuses: bool = True  # what is no file of its kind; the others find something in everything


TARGETS = {
    "unpack": Target(
        function="tools.strangers.packed:unpack_script",
        seeds="scripts",
        bombs="script_bombs",
        files=5000,
    ),
    "inspect": Target(
        function="tools.strangers.foreign:foreign_tensors",
        seeds="blobs",
        bombs="blob_bombs",
        files=5000,
    ),
    "logs": Target(
        function="tests.tools.hostile_seeds:read_log",
        seeds="logs",
        bombs="log_bombs",
        files=5000,
        refuses=False,
    ),
    "check": Target(
        function="tests.tools.hostile_seeds:check_with",
        seeds="records",
        bombs="record_bombs",
        files=5000,
        refuses=False,
    ),
}
QUICK = 150  # files for each target in the quick test
BIG = (b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0" * 4, b"\xff" * 8, b"\x01\0\0\0")


def _flip(data: bytearray, dice: random.Random, _seeds: list[bytes]) -> None:
    for _ in range(dice.choice((1, 1, 2, 8))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _cut(data: bytearray, dice: random.Random, _seeds: list[bytes]) -> None:
    del data[dice.randrange(len(data)) :]


def _splice(data: bytearray, dice: random.Random, seeds: list[bytes]) -> None:
    other = dice.choice(seeds)
    at, start = dice.randrange(len(data)), dice.randrange(len(other))
    data[at:] = other[start:]


def _repeat(data: bytearray, dice: random.Random, _seeds: list[bytes]) -> None:
    at = dice.randrange(len(data))
    data[at:at] = data[at : at + dice.randrange(1, 64)] * dice.choice((1, 2, 100))


def _overwrite(data: bytearray, dice: random.Random, _seeds: list[bytes]) -> None:
    value, at = dice.choice(BIG), dice.randrange(len(data))
    data[at : at + len(value)] = value


MUTATIONS: tuple[Callable[[bytearray, random.Random, list[bytes]], None], ...] = (
    *(_flip, _flip, _flip, _cut, _splice, _repeat, _overwrite),
)


def mutated(seeds: list[bytes], count: int) -> Iterator[bytes]:
    """The same `count` files each time; one in eight is compressed after it was broken."""
    dice = random.Random(20240520)
    for at in range(count):
        data = bytearray(seeds[at % len(seeds)])
        for _ in range(dice.choice((1, 1, 2, 3))):
            if data:
                dice.choice(MUTATIONS)(data, dice, seeds)
        yield zlib.compress(bytes(data), 1) if dice.random() < 0.125 else bytes(data)


@dataclass(kw_only=True)
class Tally:
    """What a target did with its files."""

    results: int = 0
    refused: int = 0
    worst_s: float = 0.0
    resident_bytes: int = 0
    wrong: list[str] = field(default_factory=list)


def feed(function: Callable[[bytes, str], object], files: Iterator[bytes], tally: Tally) -> None:
    """Each file to the function; everything but a result or a sentence is wrong."""
    for at, data in enumerate(files):
        start = time.perf_counter()
        try:
            function(data, "stranger.bin")
            tally.results += 1
        except ValueError as error:
            tally.refused += 1
            if not 20 < len(str(error)) < 1000 or not str(error).startswith("stranger.bin: "):
                tally.wrong.append(f"file {at}: no sentence: {error!r:.200}")
        except BaseException as error:  # the point of the test
            tally.wrong.append(f"file {at}: {type(error).__name__}: {error!s:.200}")
        spent = time.perf_counter() - start
        tally.worst_s = max(tally.worst_s, spent)
        if spent > MAX_SECONDS:
            tally.wrong.append(f"file {at}: {spent:.1f} s")


def function_of(target: Target) -> Callable[[bytes, str], object]:
    module, name = target.function.split(":")
    __import__(module)
    found: Callable[[bytes, str], object] = getattr(sys.modules[module], name)
    return found


def work(name: str, folder: Path, count: int) -> Tally:
    """In a process of its own: seeds and bombs from files, what is forbidden listened for."""
    target, tally, told = TARGETS[name], Tally(), []
    function = function_of(target)
    seeds = [path.read_bytes() for path in sorted(folder.glob("seed*"))]
    bombs = [path.read_bytes() for path in sorted(folder.glob("bomb*"))]
    feed(function, iter(seeds), tally)  # what is imported on first use is imported now

    def listen(event: str, args: tuple[object, ...]) -> None:
        written = event == "open" and args[1] not in ("r", "rb", None)
        if event in FORBIDDEN or written:
            told.append(f"{event} {args!r:.200}")

    sys.addaudithook(listen)
    feed(function, mutated(seeds, count), tally)
    feed(function, iter(bombs), tally)
    tally.wrong += told[:20]
    tally.resident_bytes = peak_bytes()
    return tally


def peak_bytes() -> int:
    """The most memory this process had. Linux counts that of its parent into ru_maxrss."""
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return 1024 * int(found.group(1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def in_a_process(name: str, folder: Path, count: int, bombs: bool) -> Tally:
    """Seeds are written by this process, so that the other one loads no framework."""
    from tests.tools import hostile_seeds

    target, empty = TARGETS[name], folder / "empty"
    empty.mkdir()
    for at, data in enumerate(getattr(hostile_seeds, target.seeds)()):
        (folder / f"seed{at:03}").write_bytes(data)
    for at, data in enumerate(getattr(hostile_seeds, target.bombs)() if bombs else ()):
        (folder / f"bomb{at:03}").write_bytes(data)
    command = [sys.executable, "-m", "tests.tools.test_hostile", name, str(folder), str(count)]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=empty, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(empty.iterdir()) == [], "something was executed or written"
    return Tally(**json.loads(done.stdout))


def judge(tally: Tally, at_least: int, refuses: bool) -> None:
    assert tally.wrong == []
    assert tally.worst_s < MAX_SECONDS
    assert tally.resident_bytes < MAX_RESIDENT
    assert tally.results + tally.refused >= at_least
    assert tally.results > at_least // 50
    assert tally.refused > at_least // 20 or not refuses  # both ways are walked


@pytest.mark.parametrize("name", TARGETS)
def test_a_handful_of_broken_files(name: str, tmp_path: Path) -> None:
    judge(in_a_process(name, tmp_path, QUICK, bombs=False), QUICK, TARGETS[name].refuses)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_thousands_of_broken_files_and_bombs(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    judge(in_a_process(name, tmp_path, target.files, bombs=True), target.files, target.refuses)


def test_what_is_executed_would_be_heard(tmp_path: Path) -> None:
    """The listener itself: a target that runs what it is given does not pass."""
    (tmp_path / "seed000").write_bytes(b"1 + 1" * 40)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tests.tools.test_hostile as t\n"
        "import pathlib, types\n"
        't.function_of = lambda _: lambda data, subject: exec(b\'open("canary", "w")\')\n'
        "print(len(t.work('unpack', pathlib.Path(sys.argv[2]), 3).wrong))"
    )
    command = [sys.executable, "-c", code, str(ROOT), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 6


if __name__ == "__main__":
    print(json.dumps(asdict(work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))))
