"""golf data get when connections break, files are not as listed, or a process is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import huggingface_hub.constants as hub_constants
import pytest

from tests.tools.fake_hub import Hub
from tests.tools.published_data import (
    MODEL,
    OPTIONS,
    REPO,
    VAL,
    arrived,
    expected,
    train,
    wait_for,
)
from tests.tools.test_data import Capture, golf, golf_json

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_cut_midway_is_gone_on_with(
    capsys: Capture, hub: Hub, no_waiting: None, reset: bool
) -> None:
    hub.cuts = {f"datasets/{train(0)}": [5000, 3000], f"datasets/{VAL}": [4500]}
    hub.reset = reset
    golf_json(capsys, *OPTIONS)
    assert arrived() == expected(hub)
    if not reset:  # a reset may take with it what was on the way
        ranges = [
            span for _, path, span in hub.asked if path.endswith(train(0)) and "large" in path
        ]
        assert ranges == ["", "bytes=5000-", "bytes=8000-"]


def test_another_start_goes_on_where_the_last_one_ended(
    capsys: Capture, hub: Hub, no_waiting: None
) -> None:
    name = f"datasets/{train(3)}"
    hub.cuts = {name: [7000] + [0] * 40}
    code, out, err = golf(capsys, *OPTIONS)
    assert code == 1 and out == "" and "Traceback" not in err
    assert f"{train(3)}: no answer from" in err
    assert f"7,000 of {len(hub.files[name]):,} bytes are kept, and the same command" in err
    assert not Path("data", train(3)).exists()
    hub.cuts.clear()
    hub.asked.clear()
    Path("data/.partial/of_another_state.part").touch()
    golf_json(capsys, *OPTIONS)
    spans = {span for _, path, span in hub.asked if path == f"/large/{name}"}
    assert spans == {"bytes=7000-"} and arrived() == expected(hub)


def test_a_file_that_has_become_shorter_than_what_is_kept(
    capsys: Capture, hub: Hub, no_waiting: None
) -> None:
    name = f"datasets/{train(3)}"
    hub.cuts = {name: [7000] + [0] * 40}
    assert golf(capsys, *OPTIONS)[0] == 1
    hub.cuts.clear()
    hub.served = {name: hub.files[name][:6000]}
    code, _, err = golf(capsys, *OPTIONS)
    assert code == 1 and "answered HTTP 416" in err and "7,000 of" in err
    hub.served.clear()
    golf_json(capsys, *OPTIONS)
    assert arrived() == expected(hub)


@pytest.mark.parametrize("name", [train(1), MODEL, "manifest.json"])
@pytest.mark.parametrize("fault", ["truncated", "swapped"])
def test_what_is_not_as_listed_never_gets_its_name(
    capsys: Capture, hub: Hub, name: str, fault: str
) -> None:
    content = hub.files[f"datasets/{name}"]
    swapped = content[:-2] + bytes(byte ^ 1 for byte in content[-2:])
    hub.served = {f"datasets/{name}": content[:-2] if fault == "truncated" else swapped}
    code, out, err = golf(capsys, *OPTIONS)
    assert code == 1 and out == "" and "Traceback" not in err
    assert f"{name}: what arrived is not the file that is listed" in err
    found = f"{len(content) - 2:,} bytes, {len(content):,} expected"
    assert (found if fault == "truncated" else "its hash is") in err
    assert not Path("data", name).exists()
    assert set(arrived()) <= set(expected(hub)) | {
        n for n in arrived() if n.startswith("datasets/.partial/")
    }
    hub.served.clear()
    golf_json(capsys, *OPTIONS)
    assert arrived() == expected(hub)


def test_a_hub_that_is_not_there(
    capsys: Capture, hub: Hub, monkeypatch: pytest.MonkeyPatch, no_waiting: None
) -> None:
    hub.statuses = {f"datasets/{VAL}": [500, 503]}  # passes
    golf_json(capsys, *OPTIONS, 1)
    hub.statuses = {f"datasets/{train(1)}": [403]}
    code, _, err = golf(capsys, *OPTIONS, 2)
    assert code == 1 and "answered HTTP 403" in err
    monkeypatch.setattr(hub_constants, "ENDPOINT", "http://127.0.0.1:9")
    code, _, err = golf(capsys, *OPTIONS)
    assert code == 1 and "no answer from http://127.0.0.1:9" in err and "HF_ENDPOINT" in err


def test_two_at_once(capsys: Capture, hub: Hub) -> None:
    hub.cuts, hub.hold = {f"datasets/{VAL}": [4000]}, threading.Event()
    codes: list[int] = []
    from tools.main import main

    first = threading.Thread(target=lambda: codes.append(main([*OPTIONS, "--json"])))
    first.start()
    wait_for(lambda: VAL in hub.fetched())
    code, _, err = golf(capsys, *OPTIONS)
    assert code == 1 and "data: another process fetches into it" in err
    hub.hold.set()
    first.join()
    assert codes == [0] and arrived() == expected(hub)


def start(environ: dict[str, str], *words: str) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    command = [sys.executable, "-m", "tools", *OPTIONS, "--out", str(Path.cwd() / "out"), *words]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # What runs in the background of a shell is born deaf to Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def test_the_hubs_variables_and_ctrl_c(hub: Hub, tmp_path: Path) -> None:
    environ = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    hub.cuts, hub.hold = {f"datasets/{train(0)}": [9000]}, threading.Event()
    process = start(environ)
    wait_for(lambda: train(0) in hub.fetched())
    process.send_signal(signal.SIGINT)
    hub.hold.wait(0.2)
    hub.hold.set()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == "" and "Traceback" not in err, err
    assert "what has come is kept in" in err and not Path("out", train(0)).exists()
    process = start(environ, "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["repo_id"] == REPO and arrived(Path("out")) == expected(hub)
    hub.asked.clear()
    process = start({**environ, "HF_HUB_OFFLINE": "1"})
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0 and hub.asked == [], err
