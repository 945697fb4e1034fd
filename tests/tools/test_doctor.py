"""golf doctor: what is there, what is missing, and the command that mends it - never a crash."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from tools import doctor
from tools.doctor import Check, examine
from tools.main import main

FACTS = {
    "torch": {"version": "2.9", "cuda": None, "attention": "sdpa(cpu)", "device": "cpu"},
    "mlx": {"version": "0.32", "metal": True, "attention": "mx.fast", "device": "gpu"},
}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine with these engines, without loading any."""

    def make(*engines: str) -> None:
        monkeypatch.setattr(doctor, "installed", lambda name: name in engines)
        monkeypatch.setattr(doctor, "probe", lambda name: FACTS[name])

    return make


def check(name: str, environ: dict[str, str] | None = None) -> Check:
    return next(found for found in examine(environ or {}) if found.name == name)


def test_all_is_reported(machine: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    machine("torch", "mlx")
    assert main(["doctor", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    names = " ".join(found["name"] for found in checks)
    assert names == "torch mlx python compressors compiler disk clock blas hub"
    assert all(set(found) == {"name", "status", "found", "mend"} for found in checks)
    assert main(["doctor"]) == 0
    assert "attention sdpa(cpu)" in capsys.readouterr().out


@pytest.mark.parametrize("engines", [(), ("torch",), ("mlx",)])
def test_a_missing_engine_fails_with_its_command(
    machine: Callable[..., None], capsys: pytest.CaptureFixture[str], engines: tuple[str, ...]
) -> None:
    machine(*engines)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    for name in ("torch", "mlx"):
        assert (f"pip install -e '.[{name}]'" in out) is (name not in engines)


def test_a_broken_engine_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda name: True)
    for code, told in (
        ("raise ImportError('libcudart.so.13: cannot open')", "ImportError: libcudart.so.13"),
        ("import os; os.abort()", "does not load"),
    ):
        monkeypatch.setitem(doctor.PROBES, "torch", code)
        found = doctor.engine("torch")
        assert found.status == "problem" and told in found.found and found.mend.startswith("pip")
    monkeypatch.setattr(doctor, "PROBE_S", 0.2)
    monkeypatch.setitem(doctor.PROBES, "torch", "import time; time.sleep(60)")
    assert "did not load in" in doctor.engine("torch").found


def test_a_cuda_build_without_a_device_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda name: True)
    monkeypatch.setattr(doctor, "probe", lambda name: FACTS["torch"] | {"cuda": "13.0"})
    assert doctor.engine("torch").status == "note" and "nvidia-smi" in doctor.engine("torch").mend


def absent(*names: str) -> Callable[[str], Any]:
    return lambda name: None if name in names else object()


CASES: list[tuple[str, str, Any, str, str]] = [
    # what is replaced by what, and then: check, status, its command
    ("find_spec", "compressors", absent("brotli"), "note", "pip install brotli"),
    ("find_spec", "compressors", absent("_lzma"), "problem", "liblzma-dev"),
    ("find_spec", "compressors", absent(), "ok", ""),
    ("unsupported", "python", lambda *_: "Python 3.9 found", "problem", "Python 3.9 found"),
    ("shutil.which", "compiler", lambda name: None, "note", "apt install g++"),
    ("shutil.disk_usage", "disk", lambda _: SimpleNamespace(free=3e9), "note", "free 17 GB"),
    (
        "time.get_clock_info",
        "clock",
        lambda _: SimpleNamespace(monotonic=True, resolution=0.02),
        "problem",
        "schedule.budget_s=0",
    ),
]


@pytest.mark.parametrize(("target", "name", "stand_in", "status", "mend"), CASES)
def test_each_problem_has_its_command(
    machine: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    name: str,
    stand_in: Any,
    status: str,
    mend: str,
) -> None:
    machine("torch")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr(f"tools.doctor.{target}", stand_in)
    found = check(name)
    assert found.status == status and mend in found.mend


def test_a_clock_that_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10_000, 0, -1))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    found = doctor.clock()
    monkeypatch.undo()
    assert found.status == "problem" and "goes back" in found.found


def test_the_shim_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, machine: Callable[..., None], tmp_path: Path
) -> None:
    machine("mlx")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("tools.blas_shim.shim", lambda: tmp_path / "shim.so")
    assert check("blas").status == "note" and "LD_PRELOAD=$(" in check("blas").mend
    assert check("blas", {"LD_PRELOAD": str(tmp_path / "shim.so")}).status == "ok"
    monkeypatch.setattr("tools.blas_shim.shim", lambda: None)
    assert "apt install gcc" in check("blas").mend
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert check("blas").status == "ok"


def test_the_hub_is_not_contacted_and_no_token_is_shown(machine: Callable[..., None]) -> None:
    machine()
    found = check("hub", {"HF_TOKEN": "hf_secret", "HF_HUB_OFFLINE": "1"})
    assert "hf_secret" not in str(found) and "HF_TOKEN=(set)" in found.found
    assert found.status == "note" and "unset HF_HUB_OFFLINE" in found.mend
    assert check("hub", {"HF_HUB_OFFLINE": "0"}).status == "ok"


class Answers(BaseHTTPRequestHandler):
    """A Hub that has the task's repository, and one that does not answer."""

    def do_GET(self) -> None:
        asked.append((self.path, self.headers.get("Authorization")))
        if "slow" in self.path:
            time.sleep(2.0)
        self.send_response(200 if "golf" in self.path else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silent."""


asked: list[tuple[str, str | None]] = []


def test_the_hub_is_asked_once_where_it_is_wanted(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("torch")
    asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=server.serve_forever, daemon=True).start()
    near = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_TOKEN": "hf_secret"}
    monkeypatch.setattr(doctor, "HUB_S", 0.5)
    found = examine(near, online=True)[-1]
    assert (found.name, found.status) == ("hub", "ok") and "HTTP 200 in" in found.found
    assert asked == [("/api/datasets/willdepueoai/parameter-golf", None)]
    assert "hf_secret" not in str(found)
    other = doctor.reached({**near, "MATCHED_FINEWEB_REPO_ID": "some/where"})
    assert other.status == "note" and "MATCHED_FINEWEB_REPO_ID" in other.mend
    slow = doctor.reached({**near, "MATCHED_FINEWEB_REPO_ID": "slow/golf"})
    assert slow.status == "note" and "timed out in 0." in slow.found
    server.shutdown()
    server.server_close()
    assert doctor.reached(near).status == "note", "nobody listens"
    assert len(asked) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "mlx"])
def test_the_engines_here_are_asked(name: str) -> None:
    if not doctor.installed(name):
        pytest.skip(f"{name} is not installed")
    facts = doctor.probe(name)
    assert {"version", "attention", "device"} <= set(facts), facts
