"""golf data get against a small Hub: what is asked, what arrives, what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub_constants
import pytest
from huggingface_hub import file_download, hf_hub_download

from core.data.export import tokenize
from core.data.shards import HEADER_BYTES
from tests.conftest import Text
from tests.tools.fake_hub import COMMIT, Hub, serving
from tests.tools.test_data import Capture, golf, golf_json
from tools.published.variants import Entry, Listing, Source, choose, entries_below

ROOT = Path(__file__).resolve().parents[2]
REPO = Source.repo_id
FOLDER = "datasets/fineweb10B_sp384"
MODEL = "tokenizers/fineweb_384_bpe.model"
VAL, SIDECAR = f"{FOLDER}/fineweb_val_000000.bin", f"{FOLDER}/fineweb_val_bytes_000000.bin"
OPTIONS = ("data", "get", "--variant", "sp384")


def train(number: int) -> str:
    return f"{FOLDER}/fineweb_train_{number:06d}.bin"


@pytest.fixture(scope="module")
def published(text: Text, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A repository as the task's: everything below datasets/."""
    shards = tmp_path_factory.mktemp("published") / "shards"
    tokenize(text.documents, text.tokenizer, shards, val_docs=6, shard_tokens=12_000)
    files = {f"{FOLDER}/{path.name}": path.read_bytes() for path in shards.glob("*.bin")}
    assert sum("train" in name for name in files) >= 4
    files[MODEL] = text.model.read_bytes()
    files["tokenizers/fineweb_384_bpe.vocab"] = b"<unk>\t0\n"
    files["docs_selected.jsonl"] = b'{"text": "one"}\n'
    files["manifest.json"] = json.dumps(
        {
            "tokenizers": [
                {
                    "name": "bpe384",
                    "model_path": MODEL,
                    "vocab_path": "tokenizers/fineweb_384_bpe.vocab",
                }
            ],
            "datasets": [
                {"name": "fineweb10B_sp384", "tokenizer_name": "bpe384", "vocab_size": 384},
                {"name": "fineweb10B_byte260", "tokenizer_name": "byte"},
            ],
        }
    ).encode()
    return {f"datasets/{name}": content for name, content in files.items()}


@pytest.fixture
def hub(
    published: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Hub]:
    """Serving, the way of this process to it, and an empty folder to work in."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    for name in ("MATCHED_FINEWEB_REPO_ID", "MATCHED_FINEWEB_REMOTE_ROOT_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    with serving(Hub(REPO, dict(published))) as served:
        url = served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(hub_constants, "ENDPOINT", served.endpoint)
        for module in (hub_constants, file_download):  # older versions have it in both
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", url, raising=False)
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(hub_constants, "DOWNLOAD_CHUNK_SIZE", 1000)
        yield served


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two attempts."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def arrived(out: Path = Path("data")) -> dict[str, bytes]:
    """All files below `out` but the record, as the repository names them."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "source.json"]
    return {f"datasets/{path.relative_to(out)}": path.read_bytes() for path in files}


def expected(hub: Hub, shards: int = 99) -> dict[str, bytes]:
    """What `--train-shards shards` is."""
    gone = [f"datasets/{train(number)}" for number in range(shards, 99)]
    return {n: c for n, c in hub.files.items() if n not in gone and "docs" not in n}


def test_a_plan_touches_nothing(capsys: Capture, hub: Hub) -> None:
    fields = golf_json(capsys, *OPTIONS, "--plan", "--train-shards", 2)
    sizes = {name: len(content) for name, content in expected(hub, 2).items()}
    assert fields["coming_files"] == len(sizes) == 7
    assert fields["coming_bytes"] == fields["fetch_bytes"] == sum(sizes.values())
    assert fields["commit"] == COMMIT and fields["here_files"] == 0
    assert (fields["val_shards"], fields["sidecars"]) == (1, 1)
    assert fields["seconds"] >= 0 and fields["free_bytes"] > 0
    assert fields["data_path"] == f"data/{FOLDER}"
    assert list(Path().iterdir()) == [] and hub.fetched() == []
    code, out, _ = golf(capsys, *OPTIONS, "--plan")
    assert code == 0 and "fetch_bytes " in out and "Traceback" not in out


def test_it_arrives_as_published(
    capsys: Capture, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_user")
    code, out, err = golf(capsys, *OPTIONS, 2)
    assert code == 0, err
    assert out.splitlines() == [
        f"data.path=data/{FOLDER}",
        f"data.tokenizer=data/{MODEL}",
        "arch.vocab_size=384",
    ]
    assert "7 to come" in err and "free" in err and "assumed" in err
    assert arrived() == expected(hub, 2)
    record = json.loads(Path("data/source.json").read_text())
    assert (record["source"]["repo_id"], record["commit"]) == (REPO, COMMIT)
    for name, held in record["files"].items():
        assert held["sha256"] == sha256(hub.files[f"datasets/{name}"]).hexdigest()
    assert hub.trusted == {"api", "datasets"}  # not the host of the large files
    words = ("data", "verify", f"data/{FOLDER}", "--tokenizer", f"data/{MODEL}")
    assert golf(capsys, *words)[0] == 0


def test_hashes_are_compared_the_next_time(
    capsys: Capture, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.published.fetched.MEASURED_BYTES", 1)
    golf_json(capsys, *OPTIONS, "--train-shards", 2)
    assert golf_json(capsys, *OPTIONS, "--plan")["speed"] == "measured last time"
    hub.asked.clear()
    fields = golf_json(capsys, *OPTIONS, "--train-shards", 3)
    assert (fields["here_files"], fields["coming_files"]) == (7, 1)
    assert hub.fetched() == [train(2)]
    hub.asked.clear()
    damaged, shortened = Path("data", train(1)), Path("data", VAL)
    content = bytearray(damaged.read_bytes())
    content[HEADER_BYTES + 5] ^= 1
    damaged.write_bytes(content)
    shortened.write_bytes(shortened.read_bytes()[:-2])
    fields = golf_json(capsys, *OPTIONS, "--train-shards", 1)  # training reads all that is there
    assert sorted(hub.fetched()) == [train(1), VAL]
    assert arrived() == expected(hub, 3)


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


def test_a_shard_that_is_published_broken(capsys: Capture, hub: Hub) -> None:
    hub.files[f"datasets/{train(0)}"] = hub.files[f"datasets/{train(0)}"][:-2]
    code, _, err = golf(capsys, *OPTIONS)
    assert code == 1 and f"{train(0)}: it is what the repository holds, yet truncated" in err
    assert not Path("data", train(0)).exists()
    hub.files[f"datasets/{train(0)}"] = b"<html>no</html>"
    code, _, err = golf(capsys, *OPTIONS, "--out", "other")
    assert code == 1 and "yet not a shard; expected 20240520" in err


def test_a_sidecar_of_other_tokens(capsys: Capture, hub: Hub) -> None:
    hub.files[f"datasets/{SIDECAR}"] = hub.files[f"datasets/{train(0)}"]
    code, out, err = golf(capsys, *OPTIONS)
    assert code == 1 and out == "" and "the byte sidecar counts 12000 tokens" in err


def test_a_missing_variant_lists_what_there_is(capsys: Capture, hub: Hub) -> None:
    code, out, err = golf(capsys, "data", "get", "--variant", "byte260")
    shards = sum("train" in name for name in hub.files)
    assert code == 1 and out == ""
    assert f"{REPO} has no variant 'byte260'; it has sp384 ({shards} train shards)" in err
    assert "manifest.json also names byte260, without files" in err and "--variant" in err
    assert list(Path().iterdir()) == []


def test_another_repository_has_a_folder_of_its_own(
    capsys: Capture, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    golf_json(capsys, *OPTIONS, 1)
    hub.repo_id = "someone/other"
    hub.files = {n.replace("datasets/", "export/", 1): c for n, c in hub.files.items()}
    monkeypatch.setenv("MATCHED_FINEWEB_REPO_ID", "someone/other")
    monkeypatch.setenv("MATCHED_FINEWEB_REMOTE_ROOT_PREFIX", "/export/")
    fields = golf_json(capsys, *OPTIONS, 2)
    assert fields["data_path"] == f"data/someone--other--export/{FOLDER}"
    assert Path(fields["data_path"], "fineweb_train_000001.bin").exists()
    assert not Path("data", train(1)).exists()
    code, _, err = golf(capsys, *OPTIONS, "--out", "data")
    assert code == 1 and f"data is of {REPO} (folder 'datasets'), not of someone/other" in err
    code, _, err = golf(capsys, *OPTIONS, "--repo-id", REPO, "--remote-root", "datasets")
    assert code == 1 and "no such dataset repository, or it is private (HTTP 404)" in err


def test_the_top_of_a_repository_without_a_manifest(capsys: Capture, hub: Hub) -> None:
    hub.files = {
        name.removeprefix("datasets/"): content
        for name, content in hub.files.items()
        if not name.endswith("manifest.json")
    }
    fields = golf_json(capsys, *OPTIONS, 1, "--remote-root", "", "--out", "top")
    assert fields["tokenizer"] == f"top/{MODEL}" and fields["vocab_size"] is None
    assert Path("top", VAL).exists()


def test_files_of_another_hand(capsys: Capture, hub: Hub) -> None:
    """What is as published is taken over; anything else is neither used nor touched."""
    for name, content in expected(hub, 2).items():
        path = Path("data", name.removeprefix("datasets/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    golf_json(capsys, *OPTIONS, 2)
    assert hub.fetched() == []
    for name, content, why in [
        (train(2), hub.files[f"datasets/{train(2)}"][:-1] + b"\xff", "its hash is"),
        (train(2), b"short", "5 bytes, "),
        (f"{FOLDER}/fineweb_train_000077.bin", b"x", "not published there"),
    ]:
        Path("data", name).write_bytes(content)
        for words in ((2,), (3,)):
            code, out, err = golf(capsys, *OPTIONS, *words)
            assert code == 1 and out == "", name
            assert f"data/{name} ({why}" in err and "move it away" in err
        assert Path("data", name).read_bytes() == content and hub.fetched() == []
        Path("data", name).unlink()


def test_data_that_is_replaced_and_a_manifest_that_is_renewed(capsys: Capture, hub: Hub) -> None:
    golf_json(capsys, *OPTIONS, 2)
    manifest = json.loads(hub.files["datasets/manifest.json"])
    hub.files["datasets/manifest.json"] = json.dumps({**manifest, "more": 1}).encode()
    golf_json(capsys, *OPTIONS, 2)
    assert arrived() == expected(hub, 2)
    hub.files[f"datasets/{VAL}"] = hub.files[f"datasets/{train(0)}"]
    code, _, err = golf(capsys, *OPTIONS, 2)
    assert code == 1 and f"{REPO} has replaced {VAL} since data was fetched" in err
    assert f"--revision {COMMIT}" in err


def test_there_must_be_room(capsys: Capture, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = sum(map(len, expected(hub, 3).values()))
    short = len(hub.files[f"datasets/{train(0)}"]) + 1  # two shards must go
    usage = type("Usage", (), {"free": sizes - short})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    for words in (("--plan",), ()):
        code, _, err = golf(capsys, *OPTIONS, 3, *words)
        assert code == 1 and f"{sizes:,} bytes are to come, {sizes - short:,} are free" in err
        assert "--train-shards 1 would fit" in err
    assert hub.fetched() == [] and list(Path().iterdir()) == []
    assert golf(capsys, *OPTIONS, 1)[0] == 0


def test_documents(capsys: Capture, hub: Hub) -> None:
    golf_json(capsys, *OPTIONS, 0, "--with-docs")
    assert Path("data/docs_selected.jsonl").exists() and not Path("data", train(0)).exists()
    del hub.files["datasets/docs_selected.jsonl"]
    code, _, err = golf(capsys, *OPTIONS, 0, "--with-docs", "--out", "other")
    assert code == 1 and "has no docs_selected.jsonl; leave --with-docs away" in err


def test_the_hubs_cache_is_used_and_not_harmed(
    capsys: Capture, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in expected(hub, 1):
        hf_hub_download(REPO, name, repo_type="dataset", revision="main")
    cache = {path: path.read_bytes() for path in (tmp_path / "cache").rglob("blobs/*")}
    hub.asked.clear()
    plan = golf_json(capsys, *OPTIONS, 2, "--plan")
    assert plan["cached_files"] == 6 and plan["fetch_bytes"] == len(
        hub.files[f"datasets/{train(1)}"]
    )
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    fields = golf_json(capsys, *OPTIONS)  # what is known without the network
    assert fields["train_shards"] == 1 and fields["commit"] == COMMIT
    assert arrived() == expected(hub, 1)
    assert any(Path("data", train(0)).samefile(blob) for blob in cache)  # no second copy
    code, _, err = golf(capsys, *OPTIONS, 2)
    assert code == 1 and "2 train shards wanted, 1 are known without the network" in err
    assert hub.asked == []
    damaged = next(path for path, c in cache.items() if c == hub.files[f"datasets/{train(0)}"])
    damaged.unlink()
    damaged.write_bytes(cache[damaged][:-1] + b"\xff")
    code, _, err = golf(capsys, *OPTIONS, "--out", "other")
    assert code == 1 and "HF_HUB_OFFLINE is set, and the Hub's cache does not hold it" in err
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    golf_json(capsys, *OPTIONS, 1, "--out", "other")
    assert arrived(Path("other")) == expected(hub, 1)
    del cache[damaged]
    assert all(path.read_bytes() == content for path, content in cache.items())


def test_offline_with_nothing(capsys: Capture, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    code, _, err = golf(capsys, *OPTIONS)
    assert code == 1 and "HF_HUB_OFFLINE is set, and nothing of" in err and hub.asked == []


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


USAGE = [
    ("-1", 2, "-1 train shards must not be negative"),
    ("1 --train-shards 2", 2, "name one of them"),
    ("--workers 0", 2, "--workers 0 must be at least 1"),
    ("--repo-id alone", 2, "expected OWNER/NAME"),
    ("--remote-root ../up", 2, "expected a folder of the repository"),
    ("--remote-root nowhere", 1, "no folder 'nowhere' at main"),
    ("--revision gone", 1, "no revision 'gone'"),
    ("--train-shards 99", 1, "99 train shards wanted"),
]


@pytest.mark.parametrize(("line", "code", "sentence"), USAGE)
def test_what_a_user_can_get_wrong(
    capsys: Capture, hub: Hub, line: str, code: int, sentence: str
) -> None:
    found, out, err = golf(capsys, *OPTIONS, *line.split())
    assert (found, sentence in err) == (code, True), err
    assert out == "" and "Traceback" not in err and list(Path().iterdir()) == []


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


def wait_for(holds: Any, seconds: float = 30.0) -> None:
    end_s = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end_s
        threading.Event().wait(0.01)


OID = "0" * 64


def listing(*paths: str) -> Listing:
    source = Source()
    rows = [(f"datasets/{path}", 2000, OID) for path in paths]
    return Listing(source=source, commit=COMMIT, entries=entries_below(source, rows))


def test_sidecars_are_no_validation_shards() -> None:
    choice = choose(listing(VAL, SIDECAR, train(0)), {}, "sp384")
    assert [entry.path for entry in choice.val] == [VAL]
    assert [entry.path for entry in choice.sidecars] == [SIDECAR]
    with pytest.raises(ValueError, match="no variant 'sp384', and no shards"):
        choose(listing(SIDECAR), {}, "sp384")
    with pytest.raises(ValueError, match="has no validation shards"):
        choose(listing(train(0), SIDECAR), {}, "sp384")


def test_a_number_that_is_missing() -> None:
    with pytest.raises(ValueError, match="fineweb_train_000001.bin is missing"):
        choose(listing(VAL, train(0), train(2)), {}, "sp384")


def test_names_of_variants_and_tokenizers() -> None:
    """Free names; a tokenizer only by the manifest or, for spN, by its usual name."""
    folder = "datasets/fineweb10B_sp384_caps_v1"
    there = listing(f"{folder}/fineweb_val_000000.bin", MODEL, "tokenizers/caps.model")
    for name in ("sp384_caps_v1", "fineweb10B_sp384_caps_v1"):
        choice = choose(there, {}, name)
        assert choice.folder == folder and choice.tokenizer is None
        assert f"published are tokenizers/caps.model, {MODEL}" in choice.notes[0]
    manifest = {
        "datasets": [7, {"name": "fineweb10B_sp384_caps_v1", "tokenizer_name": "caps"}],
        "tokenizers": [{"name": 1}, {"name": "caps", "path": "tokenizers/caps.model"}],
    }
    assert choose(there, manifest, "sp384_caps_v1").tokenizer == "tokenizers/caps.model"


@pytest.mark.parametrize(
    "path", ["datasets/../x.bin", "elsewhere/x.bin", "datasets//x.bin", "datasets/a\\b"]
)
def test_no_listed_path_leads_out(path: str) -> None:
    with pytest.raises(ValueError, match="no path below"):
        entries_below(Source(), [(path, 1, OID)])
    assert entries_below(Source(), [("datasets/x", 1, OID)]) == {
        "x": Entry(path="x", size_bytes=1, oid=OID)
    }
