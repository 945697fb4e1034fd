"""golf data get against a small Hub: what is asked, what arrives, what is refused."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import huggingface_hub.constants as hub_constants
import pytest
from huggingface_hub import hf_hub_download

from tests.tools.fake_hub import COMMIT, Hub
from tests.tools.published_data import (
    FOLDER,
    MODEL,
    OPTIONS,
    REPO,
    SIDECAR,
    arrived,
    expected,
    train,
)
from tests.tools.test_data import Capture, golf, golf_json


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
