"""A stranger's process: its limits hold, its output is read back, nothing of it stays behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tools.strangers import isolated
from tools.strangers.confined import landlock_version
from tools.strangers.isolated import Limits, Outcome, network_shell, python, run_isolated


def run(folder: Path, code: str, limits: Limits | None = None, **environ: str) -> Outcome:
    script = folder / "script.py"
    script.write_text(code)
    return run_isolated(python(script), folder, environ, limits or Limits(seconds=60))


def test_what_it_says_and_how_it_ends(tmp_path: Path) -> None:
    code = "import os, sys\nprint(os.environ['ITERATIONS'], os.getcwd())\nsys.exit(3)"
    done = run(tmp_path, code, ITERATIONS="20")
    assert (done.code, done.timed_out) == (3, False)
    assert done.output.split() == ["20", str(tmp_path)]
    assert "at most 60 s" in done.isolation


def test_its_environment_is_only_what_it_was_given(tmp_path: Path, monkeypatch: object) -> None:
    os.environ["A_SECRET_OF_MINE"] = "token"
    try:
        done = run(tmp_path, "import os\nprint(sorted(os.environ), os.environ['HOME'])")
    finally:
        del os.environ["A_SECRET_OF_MINE"]
    assert "A_SECRET_OF_MINE" not in done.output and str(tmp_path) in done.output


def test_its_time_is_bounded_with_all_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = 'import time, pathlib; time.sleep(4); pathlib.Path(\"late\").touch()'\n"
        "subprocess.Popen([sys.executable, '-c', child])\n"
        "time.sleep(60)"
    )
    done = run(tmp_path, code, Limits(seconds=2))
    assert done.timed_out and done.code != 0 and done.seconds < 20
    time.sleep(3)
    assert not (tmp_path / "late").exists(), "a process that it started lived on"


def test_files_and_memory_are_bounded(tmp_path: Path) -> None:
    big = run(
        tmp_path, "open('big', 'wb').write(bytes(200_000))", Limits(seconds=60, file_bytes=100_000)
    )
    assert big.code != 0 and (tmp_path / "big").stat().st_size <= 100_000
    limits = Limits(seconds=60, memory_bytes=1_000_000_000)
    assert "MemoryError" in run(tmp_path, "bytes(2_000_000_000)", limits).output


def test_memory_is_watched_with_all_it_started(tmp_path: Path) -> None:
    if not Path("/proc/self/stat").is_file():
        pytest.skip("this system does not tell the memory of processes")
    child = "import time; x = bytearray(b'x' * 300_000_000); time.sleep(60)"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])"
    limits = Limits(seconds=60, resident_bytes=200_000_000)
    done = run(tmp_path, code, limits)
    assert done.over_memory and not done.timed_out and done.seconds < 40
    assert "200,000,000 bytes of memory (watched)" in done.isolation
    assert not run(tmp_path, "print(1)", limits).over_memory


TOUCHES = """
import os, sys
def attempt(name, call):
    try:
        call()
        print(name, "done")
    except OSError as error:
        print(name, type(error).__name__)
attempt("inside", lambda: open("x", "w").write("1"))
attempt("null", lambda: open(os.devnull, "w").write("1"))
attempt("given", lambda: open(sys.argv[1]).read())
attempt("written", lambda: open(sys.argv[2], "w"))
attempt("read", lambda: open(sys.argv[3]).read())
"""


@pytest.mark.parametrize("landlock", [True, False])
def test_files_outside_are_out_of_reach(
    landlock: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if landlock and not landlock_version():
        pytest.skip("this kernel has no Landlock")
    given, secret, folder = tmp_path / "given", tmp_path / "secret", tmp_path / "folder"
    given.write_text("data")
    secret.write_text("secret")
    folder.mkdir()
    (folder / "script.py").write_text(TOUCHES)
    if not landlock:  # as on a system without: the same file, which asks for another call
        other = tmp_path / "confined.py"
        other.write_text(isolated.LIMITER.read_text().replace("= 444,", "= -1,"))
        monkeypatch.setattr(isolated, "LIMITER", other)
        monkeypatch.setattr(isolated, "landlock_version", lambda: 0)
    words = [*python(Path("script.py")), str(given), str(tmp_path / "new"), str(secret)]
    limits = Limits(seconds=60, confined=True, readable=(str(given),))
    done = run_isolated(words, folder, {}, limits)
    told = dict(line.split() for line in done.output.splitlines())
    refused = "PermissionError" if landlock else "done"  # reading is no more than watched
    assert told == {
        "inside": "done",
        "null": "done",
        "given": "done",
        "written": "PermissionError",
        "read": refused,
    }
    assert not (tmp_path / "new").exists()
    assert ("held by Landlock" if landlock else "Python watched") in done.isolation


def test_the_network_is_gone_where_the_answer_says_so(tmp_path: Path) -> None:
    shell, told = network_shell()
    if not shell:
        pytest.skip("this system lends no network namespace to its users")
    code = (
        "import socket\nserver = socket.socket()\n"
        "try:\n    socket.create_connection(('192.0.2.1', 80), 3)\n"
        "except OSError as error:\n    print(error)"
    )
    assert "no network" in told
    assert "unreachable" in run(tmp_path, code).output
