"""golf data get into folders where something is: its own, another source's, another hand's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.data.shards import HEADER_BYTES
from tests.tools.fake_hub import COMMIT, Hub
from tests.tools.published_data import (
    FOLDER,
    MODEL,
    OPTIONS,
    REPO,
    VAL,
    arrived,
    expected,
    train,
)
from tests.tools.test_data import Capture, golf, golf_json
from tools.published.origin import own_folder
from tools.published.variants import Source


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


def test_two_roots_of_one_repository_have_two_folders(
    capsys: Capture, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repo_id = "me/other"
    below = {n.removeprefix("datasets/"): c for n, c in hub.files.items()}
    hub.files = {**hub.files, **below}
    monkeypatch.setenv("MATCHED_FINEWEB_REPO_ID", "me/other")
    first = golf_json(capsys, *OPTIONS, 1)
    monkeypatch.setenv("MATCHED_FINEWEB_REMOTE_ROOT_PREFIX", "")
    second = golf_json(capsys, "data", "get", "--variant", "sp384", 1)
    assert (first["out"], second["out"]) == ("data/me--other", "data/me--other--.")
    assert Path(first["data_path"]).exists() and Path(second["data_path"]).exists()


def test_the_advice_for_a_folder_that_is_taken_is_another_folder(capsys: Capture, hub: Hub) -> None:
    hub.files |= {n.replace("datasets/", "more/", 1): c for n, c in hub.files.items()}
    source = Source(remote_root="more")
    own = own_folder(source)
    assert golf(capsys, *OPTIONS, 0, "--out", own)[0] == 0
    code, _, err = golf(capsys, *OPTIONS, 0, "--remote-root", "more")
    advice = str(own) + "-2"
    assert code == 1 and err.rstrip().endswith(f"choose another --out, as {advice}")
    assert golf(capsys, *OPTIONS, 0, "--remote-root", "more", "--out", advice)[0] == 0


NAMES = ["o/r", "o--r/x", "o/r--x", "o/r-", "o-/r", "o/-r"]
ROOTS = ["datasets", "", "x", "r/x", "r--x", "x-", "-x", "x%2D", "r", "top", "-2"]


def test_no_two_sources_share_a_folder() -> None:
    sources = [Source(repo_id=name, remote_root=root) for name in NAMES for root in ROOTS]
    assert len({own_folder(source) for source in sources}) == len(sources)


def test_fewer_shards_than_are_there(capsys: Capture, hub: Hub) -> None:
    golf_json(capsys, *OPTIONS, "--train-shards", 3)
    for words in ((), ("--plan",)):
        code, out, err = golf(capsys, *OPTIONS, "--train-shards", 2, *words, "--json")
        fields = json.loads(out)
        assert (fields["train_shards"], fields["train_shards_read"]) == (2, 3) and code == 0
        assert f"data/{FOLDER} holds 3 train shards, 2 were asked for" in err
        assert "training reads all that are there: move fineweb_train_000002.bin away" in err
    assert arrived() == expected(hub, 3)
    Path("data", train(2)).rename("elsewhere.bin")
    code, out, err = golf(capsys, *OPTIONS, "--train-shards", 2, "--json")
    assert json.loads(out)["train_shards_read"] == 2 and "were asked for" not in err


def test_a_file_that_was_changed_here_is_named_before_it_is_replaced(
    capsys: Capture, hub: Hub
) -> None:
    golf_json(capsys, *OPTIONS, 2)
    manifest = json.loads(hub.files["datasets/manifest.json"])
    hub.files["datasets/manifest.json"] = json.dumps({**manifest, "more": 1}).encode()
    assert golf_json(capsys, *OPTIONS, 2)["replaced"] == []  # renewed where it is published
    for name in (MODEL, VAL):
        content = Path("data", name).read_bytes()
        Path("data", name).write_bytes(content + b"mine" if name == MODEL else content[:-1] + b"x")
    code, out, err = golf(capsys, *OPTIONS, 2, "--json")
    assert code == 0 and set(json.loads(out)["replaced"]) == {MODEL, VAL}
    said = next(line for line in err.splitlines() if "no longer" in line)
    assert f"data/{MODEL}" in said and f"data/{VAL}" in said
    assert arrived() == expected(hub, 2)
