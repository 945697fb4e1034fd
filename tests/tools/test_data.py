"""golf data and golf tokenizer, as a user runs them: fields, exit codes, sentences, progress."""

from __future__ import annotations

import json
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import tools.data
import tools.tokenizer
from core.arch.params import flops_per_token
from core.data.unfinished import unfinished_folder
from core.train.recipes import baseline
from tests.conftest import Text
from tools.main import main
from tools.tokenizer import relative_speed

Capture = pytest.CaptureFixture[str]


def golf(capsys: Capture, *words: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def golf_json(capsys: Capture, *words: object) -> dict[str, Any]:
    code, out, err = golf(capsys, *words, "--json")
    assert code == 0, err
    fields: dict[str, Any] = json.loads(out)
    return fields


@pytest.fixture(scope="module")
def source(text: Text, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "docs.jsonl"
    path.write_text("".join(json.dumps({"text": d}) + "\n" for d in text.documents))
    return path


@pytest.fixture(scope="module")
def larger(text: Text, source: Path) -> Path:
    """A second tokenizer, of 512 pieces."""
    model = source.with_name("larger.model")
    assert (
        main(["tokenizer", "train", str(source), "--vocab-size", "512", "--out", str(model)]) == 0
    )
    return model


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_tokenize_writes_the_same_with_any_number_of_workers(
    capsys: Capture, text: Text, source: Path, tmp_path: Path
) -> None:
    for workers in (1, 2):
        words = ("--tokenizer", text.model, "--val-docs", 6, "--workers", workers)
        out = tmp_path / str(workers)
        manifest = golf_json(capsys, "data", "tokenize", source, *words, "--out", out)
        assert manifest["splits"]["val"]["documents"] == 6
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(text.shards)


def test_an_interrupted_tokenize_says_how_to_go_on(
    capsys: Capture, text: Text, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.data.documents import read_blocks

    monkeypatch.setattr("core.data.export.read_blocks", partial(read_blocks, block_bytes=2000))
    monkeypatch.setattr("core.data.unfinished.SAVE_BYTES", 10_000)
    broken = tmp_path / "docs.jsonl"
    broken.write_text(source.read_text() + "not json\n")
    words = ("data", "tokenize", broken, "--tokenizer", text.model, "--val-docs", 6)
    words += ("--workers", 1, "--out", tmp_path / "out")
    code, _, err = golf(capsys, *words)
    left = unfinished_folder(tmp_path / "out")
    assert code == 1 and "docs.jsonl:61: expected one JSON object" in err
    assert f"{left}; the same command goes on" in err and left.is_dir()
    broken.write_text(source.read_text())
    assert golf(capsys, *words)[0] == 0
    assert contents(tmp_path / "out") == contents(text.shards)


def test_from_shards(
    capsys: Capture, text: Text, source: Path, larger: Path, tmp_path: Path
) -> None:
    words = ("--from-shards", text.shards, "--old-tokenizer", text.model, "--workers", 1)
    words += ("--tokenizer", larger, "--out", tmp_path / "out")
    manifest = golf_json(capsys, "data", "tokenize", *words)
    assert manifest["text"] == "decoded text"
    splits = manifest["splits"]
    assert (splits["val"]["documents"], splits["train"]["documents"]) == (6, 54)
    info = golf_json(capsys, "data", "info", tmp_path / "out", "--tokenizer", larger)
    assert info["val"]["bytes_raw"] is None
    assert golf(capsys, "data", "verify", tmp_path / "out", "--tokenizer", larger)[0] == 0


def test_verify(capsys: Capture, text: Text, larger: Path) -> None:
    words = ("data", "verify", text.shards, "--tokenizer")
    findings = golf_json(capsys, *words, text.model)["findings"]
    assert {f["status"] for f in findings} == {"PASS"}
    assert set(findings[0]) == {"rule", "status", "subject", "evidence", "source"}
    code, out, _ = golf(capsys, *words, larger, "--json")
    failed = [f for f in json.loads(out)["findings"] if f["status"] == "FAIL"]
    assert code == 1 and "tokenizer" in {f["rule"] for f in failed}
    code, out, _ = golf(capsys, *words, larger)
    assert code == 1 and "FAIL       tokenizer" in out
    assert out.splitlines()[-1].endswith("UNDECIDED")


def test_train_says_what_it_trained_on(
    capsys: Capture, text: Text, source: Path, tmp_path: Path
) -> None:
    sizes = [len(d.encode()) for d in text.documents]
    cases: list[tuple[list[object], int]] = [
        ([], 60),
        (["--train-docs", 20], 20),
        (["--max-bytes", sum(sizes[:31])], 31),
        (["--max-bytes", 0], 60),
    ]
    for bounds, documents in cases:
        words = ("--vocab-size", 384, "--out", tmp_path / "x.model", *bounds)
        code, out, err = golf(capsys, "tokenizer", "train", source, *words)
        assert code == 0 and f"documents   {documents}\n" in out
        assert f"bytes       {sum(sizes[:documents]):,}\n" in out
        assert ("the rest is left out" in err) == (documents < 60)


def test_inspect(capsys: Capture, text: Text, source: Path) -> None:
    words = ("tokenizer", "inspect", "--model-dim", 256, text.model)
    alone = golf_json(capsys, *words)
    assert alone["vocab_size"] == 384 and alone["kinds"]["byte"] == 256
    assert alone["embedding_bytes"] == 384 * 256 + 2 * 384
    assert alone["byte_table_exact"] is True and alone["byte_table_problem"] is None
    found = golf_json(capsys, *words, source)["text"]
    assert found["documents"] == 60
    assert found["bytes"] == sum(len(d.encode()) for d in text.documents)
    assert found["bytes_per_token"] == round(found["bytes"] / found["tokens"], 4)
    lost = [d for d in text.documents if text.tokenizer.decode(text.tokenizer.encode_ids(d)) != d]
    assert found["lost_documents"] == len(lost) and found["lossless"] == (not lost)
    assert found["unused"] == len(found["unused_pieces"])
    code, out, _ = golf(capsys, *words, source)
    assert code == 0 and "byte_table_exact    True" in out and "[text]" in out


def test_a_larger_vocabulary_is_slower() -> None:
    """By the baseline's FLOPs: 8,192 pieces add 7,168 x 512 weights to the head, 6 FLOPs each."""
    flops = flops_per_token(baseline().arch)
    assert relative_speed(1024) == 1.0
    assert relative_speed(8192) == pytest.approx(flops / (flops + 6 * 7168 * 512))


def test_compare(capsys: Capture, text: Text, source: Path, larger: Path, tmp_path: Path) -> None:
    words = ("tokenizer", "compare", 384, text.model, larger, "--text", source, "--model-dim", 256)
    fields = golf_json(capsys, *words, "--tokens-per-s", 1000, "--keep", tmp_path)
    trained, given, more = fields["tokenizers"]
    assert [row["vocab_size"] for row in fields["tokenizers"]] == [384, 384, 512]
    assert more["bytes_per_token"] > given["bytes_per_token"] >= trained["bytes_per_token"] - 0.1
    assert more["tokens_per_document"] < given["tokens_per_document"]
    for row in fields["tokenizers"]:
        assert row["tokens_seen"] == round(600_000 * relative_speed(row["vocab_size"]))
        seen = row["tokens_seen"] * row["bytes_per_token"]
        assert row["bytes_seen"] == pytest.approx(seen, rel=1e-4)
        assert row["embedding_frac"] == round(row["embedding_bytes"] / 16_000_000, 4)
        assert row["byte_table_exact"]
    assert "1,000 tokens/s with 1,024 pieces; with others" in fields["assumed"]["speed"]
    measured = golf_json(capsys, "tokenizer", "inspect", tmp_path / "bpe_384.model", source)
    assert measured["name"] == trained["name"] == "bpe_384"
    code, out, err = golf(capsys, *words)
    assert code == 0 and "12,000,000 tokens/s" in err and "baseline's" in err
    assert out.splitlines()[0].split()[:3] == ["tokenizer", "pieces", "bytes/token"]
    assert len(out.splitlines()) == 4


def test_what_is_measured_is_not_trained_on(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps({"text": f"number {i} of them"}) + "\n" for i in range(25)))
    trained: list[str] = []
    real = tools.tokenizer.train_tokenizer

    def spy(documents: Any, *words: Any) -> Any:
        trained.extend(documents)
        return real(trained, *words)

    monkeypatch.setattr("tools.tokenizer.train_tokenizer", spy)
    fields = golf_json(capsys, "tokenizer", "compare", 290, "--text", path)
    assert len(trained) == 22 and not {f"number {i} of them" for i in (0, 10, 20)} & set(trained)
    assert fields["text"] == {"documents": 25, "bytes": sum(map(len, trained)) + 50, "cut": False}


def test_bytes_by_name_and_by_file(capsys: Capture, source: Path, tmp_path: Path) -> None:
    made = tmp_path / "my.json"
    code, out, _ = golf(capsys, "tokenizer", "train", "--bytes", "--out", made)
    assert code == 0 and "vocab_size  260" in out
    words = ("data", "tokenize", source, "--val-docs", 6, "--workers", 1, "--tokenizer")
    for name, tokenizer in (("a", "byte260"), ("b", made)):
        manifest = golf_json(capsys, *words, tokenizer, "--out", tmp_path / name)
        val = manifest["splits"]["val"]
        assert val["tokens"] == val["raw_bytes"] + 6 == val["normalised_bytes"] + 6
    info = golf_json(capsys, "data", "info", tmp_path / "a", "--tokenizer", made)
    assert info["val"]["bytes_reference"] == info["val"]["bytes_raw"] == val["raw_bytes"]
    assert golf(capsys, "data", "verify", tmp_path / "b", "--tokenizer", "byte260")[0] == 0
    found = golf_json(capsys, "tokenizer", "inspect", "byte260", source)
    assert found["byte_table_exact"] and found["text"]["lossless"] and found["lossy"] is None
    rows = golf_json(capsys, "tokenizer", "compare", "byte260", "384", "--text", source)
    assert rows["tokenizers"][0]["bytes_per_token"] == 1.0


@pytest.mark.parametrize("lossless", [True, False])
def test_case_is_told_by_the_model_alone(
    capsys: Capture, text: Text, source: Path, tmp_path: Path, lossless: bool
) -> None:
    model, out = tmp_path / "case.model", tmp_path / "out"
    words = ["--case", "--vocab-size", 384, "--out", model, *["--lossless"] * lossless]
    code, said, _ = golf(capsys, "tokenizer", "train", source, *words)
    assert code == 0 and "transform   lossless_caps_caseops_v1" in said
    where = ("--tokenizer", model, "--val-docs", 6, "--workers", 1, "--out", out)
    code, said, _ = golf(capsys, "data", "tokenize", source, *where)
    assert code == 0 and ("bytes_difference   0\n" in said) == lossless
    info = golf_json(capsys, "data", "info", out, "--tokenizer", model)["val"]
    raw = sum(len(d.encode()) for d in text.documents[:6])
    assert info["bytes_raw"] == raw and (info["bytes_reference"] == raw) == lossless
    said = golf(capsys, "data", "info", out, "--tokenizer", model)[1]
    assert f"bytes_difference  {info['bytes_reference'] - raw:,}\n" in said
    assert golf(capsys, "data", "verify", out, "--tokenizer", model)[0] == 0
    found = golf_json(capsys, "tokenizer", "inspect", model, source)
    assert found["transform"] == "lossless_caps_caseops_v1" and found["lossy"] is None
    assert found["text"]["lossless"] == lossless
    assert (found["text"]["bytes_difference"] == 0) == lossless


def test_a_lossless_model_gives_every_document_back(
    capsys: Capture, source: Path, tmp_path: Path
) -> None:
    words = ("--lossless", "--vocab-size", 384, "--out", tmp_path / "x.model")
    assert golf(capsys, "tokenizer", "train", source, *words)[0] == 0
    found = golf_json(capsys, "tokenizer", "inspect", tmp_path / "x.model", source)
    assert found["byte_table_exact"] and found["text"]["lossless"]
    assert found["text"]["bytes_difference"] == 0


USAGE = [
    # words, exit code, part of the sentence on stderr
    ("tokenizer train --out OUT", 2, "nothing to train on"),
    ("tokenizer train SOURCE --bytes --out OUT", 2, "--bytes needs no training: leave documents"),
    ("tokenizer train --bytes --case --out OUT", 2, "leave --case away"),
    ("data tokenize --tokenizer MODEL --out OUT", 2, "nothing to tokenize"),
    ("data tokenize SOURCE --from-shards SHARDS --tokenizer MODEL --out OUT", 2, "one of them"),
    ("data tokenize --from-shards SHARDS --tokenizer MODEL --out OUT", 2, "go together"),
    ("data tokenize SOURCE --old-tokenizer MODEL --tokenizer MODEL --out OUT", 2, "go together"),
    (
        "data tokenize --from-shards SHARDS --old-tokenizer MODEL --val-docs 5 "
        "--tokenizer MODEL --out OUT",
        2,
        "shards keep their own split",
    ),
    (
        "data tokenize --from-shards OUT --old-tokenizer MODEL --tokenizer MODEL --out OUT",
        1,
        "no such folder",
    ),
    ("data tokenize SOURCE --tokenizer MODEL --out OUT --workers 0", 1, "workers 0 must be"),
    ("data tokenize OUT --tokenizer MODEL --out OUT", 1, "no such file or folder"),
    ("data verify OUT --tokenizer MODEL", 1, "no such shard or folder"),
    ("data verify SHARDS --tokenizer OUT", 1, "no such tokenizer"),
    ("tokenizer inspect OUT", 1, "no such tokenizer"),
    ("tokenizer inspect MODEL OUT", 1, "no such file or folder"),
    ("tokenizer inspect MODEL --model-dim 0", 2, "--model-dim 0 must be above 0"),
    ("tokenizer compare 384 OUT --text SOURCE", 2, "neither a .model file"),
    ("tokenizer compare 384 --text SOURCE --train-docs 1", 1, "one document cannot be"),
    ("tokenizer compare 384 --text SOURCE --tokens-per-s -1", 2, "must be above 0"),
    ("tokenizer train SOURCE --out OUT --train-docs -1", 1, "a sample of -1 documents"),
]


@pytest.mark.parametrize(("line", "code", "sentence"), USAGE)
def test_what_a_user_can_get_wrong(
    capsys: Capture,
    text: Text,
    source: Path,
    tmp_path: Path,
    line: str,
    code: int,
    sentence: str,
) -> None:
    places = {"MODEL": text.model, "SOURCE": source, "SHARDS": text.shards}
    words = [places.get(word, tmp_path / word if word == "OUT" else word) for word in line.split()]
    found, out, err = golf(capsys, *words)
    assert (found, sentence in err) == (code, True), err
    assert out == "" and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_plain_progress_tells_what_is_left(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 5.0, 12.0, 13.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with tools.data.told(1_000) as tell:
        for read in (500, 600, 720, 730):  # what was there at first has no speed
            tell(read, read // 10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["720 of 1,000 bytes, 72 documents, 0.0 MB/s, 14 s left"]


def test_a_terminal_has_a_bar(
    capsys: Capture, text: Text, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = partial(Console, force_terminal=True, width=100)
    monkeypatch.setattr("tools.data.Console", terminal)
    words = ("--tokenizer", text.model, "--val-docs", 6, "--workers", 1, "--out", tmp_path / "out")
    code, out, err = golf(capsys, "data", "tokenize", source, *words)
    assert code == 0 and "[val]" in out
    assert "60 documents" in err and "0:00:00" in err
    assert re.search(r"([\d.]+)/\1 kB", err)
