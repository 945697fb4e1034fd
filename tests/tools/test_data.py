"""golf data and golf tokenizer: documents to shards, and what shards hold, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Text
from tools.main import main


def golf(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def source(text: Text, tmp_path: Path) -> Path:
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps({"text": d}) + "\n" for d in text.documents))
    return path


def test_the_bytes_do_not_depend_on_the_workers(
    capsys: pytest.CaptureFixture[str], text: Text, source: Path, tmp_path: Path
) -> None:
    for workers in (1, 2):
        words = ("--tokenizer", text.model, "--val-docs", 6, "--workers", workers)
        assert (
            golf(capsys, "data", "tokenize", source, *words, "--out", tmp_path / f"{workers}")[0]
            == 0
        )
    one, two = (tmp_path / name for name in ("1", "2"))
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in two.iterdir()) and "manifest.json" in names
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


def test_verify_passes_what_was_exported_and_names_what_was_changed(
    capsys: pytest.CaptureFixture[str], text: Text, source: Path, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    words = ("--tokenizer", text.model)
    golf(capsys, "data", "tokenize", source, *words, "--val-docs", 6, "--out", shards)
    code, out, _ = golf(capsys, "data", "verify", shards, *words, "--json")
    findings = json.loads(out)["findings"]
    assert code == 0 and {finding["status"] for finding in findings} == {"PASS"}
    assert {"rule", "status", "subject", "evidence", "source"} <= set(findings[0])
    path = shards / "fineweb_val_000000.bin"
    data = bytearray(path.read_bytes())
    data[-2:] = b"\x05\x00"
    path.write_bytes(data)
    code, out, _ = golf(capsys, "data", "verify", shards, *words, "--json")
    failed = [f["rule"] for f in json.loads(out)["findings"] if f["status"] == "FAIL"]
    assert code == 1 and "hash" in failed


def test_verify_finds_a_document_on_both_sides(
    capsys: pytest.CaptureFixture[str], text: Text, tmp_path: Path
) -> None:
    source = tmp_path / "twice.jsonl"
    documents = [*text.documents[:3], *text.documents]
    source.write_text("".join(json.dumps({"text": d}) + "\n" for d in documents))
    words = ("--tokenizer", text.model)
    golf(capsys, "data", "tokenize", source, *words, "--val-docs", 3, "--out", tmp_path / "s")
    code, out, _ = golf(capsys, "data", "verify", tmp_path / "s", *words, "--json")
    failed = {f["rule"] for f in json.loads(out)["findings"] if f["status"] == "FAIL"}
    assert code == 1 and "overlap" in failed


def test_shards_become_shards_of_another_tokenizer(
    capsys: pytest.CaptureFixture[str], text: Text, source: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.model"
    assert golf(capsys, "tokenizer", "train", source, "--vocab-size", 400, "--out", other)[0] == 0
    words = ("--from-shards", text.shards, "--old-tokenizer", text.model, "--tokenizer", other)
    code, out, _ = golf(capsys, "data", "tokenize", *words, "--out", tmp_path / "again", "--json")
    manifest = json.loads(out)
    assert code == 0 and manifest["splits"]["val"]["documents"] == 6
    assert "decoded" in json.dumps(manifest)
    assert not list((tmp_path / "again").glob("*_bytes_*"))
    code, out, _ = golf(capsys, "data", "info", tmp_path / "again", "--tokenizer", other, "--json")
    decoded = [text.tokenizer.decode(text.tokenizer.encode(d)[0]) for d in text.documents[:6]]
    assert json.loads(out)["val"]["bytes_reference"] == sum(len(d.encode()) for d in decoded)
    assert json.loads(out)["val"]["bytes_raw"] is None


def test_inspect_and_compare(capsys: pytest.CaptureFixture[str], text: Text, source: Path) -> None:
    code, out, _ = golf(capsys, "tokenizer", "inspect", text.model, source, "--json")
    fields = json.loads(out)
    assert code == 0 and fields["vocab_size"] == 384 and fields["byte_table_exact"] is True
    assert fields["text"]["bytes"] == sum(len(d.encode()) for d in text.documents)
    code, out, _ = golf(
        capsys, "tokenizer", "compare", text.model, "420", "--text", source, "--json"
    )
    assert code == 0 and "420" in out and text.model.stem in out


def test_all_documents_in_validation_is_said(
    capsys: pytest.CaptureFixture[str], text: Text, source: Path, tmp_path: Path
) -> None:
    words = ("--tokenizer", text.model, "--out", tmp_path / "s")
    code, _, err = golf(capsys, "data", "tokenize", source, *words)
    assert code == 0 and "lower --val-docs" in err


WRONG = [
    (["data", "tokenize", "--tokenizer", "m", "--out", "o"], 2, "nothing to tokenize"),
    (
        ["data", "tokenize", "a", "--from-shards", "b", "--tokenizer", "m", "--out", "o"],
        2,
        "one of",
    ),
    (
        ["data", "tokenize", "--from-shards", "b", "--tokenizer", "m", "--out", "o"],
        2,
        "go together",
    ),
    (["data", "verify", "nowhere", "--tokenizer", "none.model"], 1, "golf tokenizer train"),
    (["tokenizer", "inspect", "none.model"], 1, "golf tokenizer train"),
]


@pytest.mark.parametrize(("words", "code", "sentence"), WRONG)
def test_what_a_user_can_get_wrong(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, sentence: str
) -> None:
    found, _, err = golf(capsys, *words)
    assert (found, sentence in err) == (code, True), err


def test_info_refuses_another_tokenizer(
    capsys: pytest.CaptureFixture[str], text: Text, source: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.model"
    golf(capsys, "tokenizer", "train", source, "--vocab-size", 400, "--out", other)
    code, _, err = golf(capsys, "data", "info", text.shards, "--tokenizer", other)
    assert code == 1 and "wrong tokenizer for the shards" in err
