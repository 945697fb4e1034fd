"""golf audit data: every planted table and folder is found and named, and honest ones pass."""

from __future__ import annotations

import json
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.data.export import tokenize
from core.score.book import BOOK
from tests.audit_bytes import named, of
from tests.core.tiny_models import tiny
from tests.tools.planted_data import DOCUMENTS, HONEST, PLANTED, VAL_DOCS, Bench, Planted, reference
from tests.tools.test_audit_logs import FIELDS
from tools.main import main

Capture = pytest.CaptureFixture[str]
ALWAYS = {"Q2", "Q6"}  # open whatever the data


def told(capsys: Capture, bench: Bench) -> tuple[int, dict[str, Any]]:
    code = main(["audit", "data", *bench.arguments, "--json"])
    fields: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, fields


@pytest.mark.parametrize("case", PLANTED, ids=lambda case: case.name)
def test_a_planted_fault_is_found_and_named(case: Planted, tmp_path: Path, capsys: Capture) -> None:
    code, fields = told(capsys, case.make(tmp_path))
    findings = fields["findings"]
    assert of(findings, "FAIL") == case.fails, findings
    assert case.open <= of(findings, "UNDECIDED")
    assert case.names in named(findings)
    assert code == int(bool(case.fails)) and fields["passes"] == (not case.fails)


@pytest.mark.parametrize("case", HONEST, ids=lambda case: case.name)
def test_honest_data_pass(case: Planted, tmp_path: Path, capsys: Capture) -> None:
    code, fields = told(capsys, case.make(tmp_path))
    findings = fields["findings"]
    assert (code, of(findings, "FAIL")) == (0, set()), findings
    assert of(findings, "UNDECIDED") - ALWAYS == case.open
    assert all(set(one) == FIELDS and all(one.values()) for one in findings)
    assert all(one["source"] == BOOK[one["rule"]].source for one in findings)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(root=tmp_path, tokenizer=tiny())
    tokenize(DOCUMENTS, made.tokenizer, made.shards, val_docs=VAL_DOCS)
    return made


def test_totals_and_positions_are_exact(bench: Bench, capsys: Capture) -> None:
    """Against the sums and the first difference of a loop over the tokens."""
    arrays = reference(bench.tokenizer)
    tokens = bench.tokens("val").tolist()
    spaced, limits = arrays["has_leading_space"], arrays["is_boundary_token"]
    pairs = list(pairwise(tokens))
    true = sum(int(arrays["base_bytes"][b]) + int(spaced[b] and not limits[a]) for a, b in pairs)
    at = tokens.index(next(b for a, b in pairs[60:] if spaced[b]), 61)
    piece = bench.tokenizer.pieces()[tokens[at]].text
    at = tokens.index(tokens[at])
    arrays["base_bytes"][tokens[at]] += 1
    extra = tokens.count(tokens[at])
    bench.claim(arrays)
    bench.ask_documents()
    code, fields = told(capsys, bench)
    held = fields["validation"]
    assert code == 1 and held["bytes_reference"] == true == sum(
        len(bench.tokenizer.decode(bench.tokenizer.encode_ids(x)).encode())
        for x in DOCUMENTS[:VAL_DOCS]
    )
    assert held["bytes_claimed"] == true + extra
    assert held["bytes_raw"] == held["document_bytes"]
    assert held["document_bytes"] == sum(len(x.encode()) for x in DOCUMENTS[:VAL_DOCS])
    assert held["documents"] == VAL_DOCS and held["tokens"] == len(tokens)
    said = {x["rule"]: x["evidence"] for x in fields["findings"] if x["status"] == "FAIL"}
    assert (
        f"token {at} of validation (document {tokens[: at + 1].count(1) - 1})" in said["decoding"]
    )
    assert f"id {tokens[at]} {piece!r} counts" in said["B1"]


def test_a_bos_with_bytes_belongs_to_the_document_that_it_begins(
    bench: Bench, capsys: Capture
) -> None:
    arrays = reference(bench.tokenizer)
    arrays["base_bytes"][bench.tokenizer.bos_id] = 3
    bench.claim(arrays)
    second = np.flatnonzero(bench.tokens("val") == bench.tokenizer.bos_id)[1]
    _, fields = told(capsys, bench)
    said = {x["rule"]: x["evidence"] for x in fields["findings"] if x["status"] == "FAIL"}
    assert set(said) == {"B4", "decoding"}
    assert f"token {second} of validation (document 1), '<s>': counts 3" in said["decoding"]


@pytest.mark.parametrize("block_tokens", [2, 7, 50])
def test_blocks_do_not_matter(
    block_tokens: int, bench: Bench, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = reference(bench.tokenizer)
    arrays["base_bytes"][bench.tokens("val")[-1]] += 1
    bench.claim(arrays)
    whole = told(capsys, bench)
    monkeypatch.setattr("tools.auditing.streams.BLOCK_TOKENS", block_tokens)
    assert told(capsys, bench) == whole


def test_the_position_of_an_overlap_is_told(tmp_path: Path, capsys: Capture) -> None:
    [case] = [case for case in PLANTED if case.name == "a smaller split"]
    _, fields = told(capsys, case.make(tmp_path))
    [said] = [x["evidence"] for x in fields["findings"] if x["rule"] == "B10"]
    assert said.startswith("5 of the first 9 documents")
    assert "train document 0 is document 4 of the source" in said


def test_markdown_has_the_counter_example(tmp_path: Path, capsys: Capture) -> None:
    bench = PLANTED[0].make(tmp_path)
    assert main(["audit", "data", *bench.arguments, "--markdown"]) == 1
    text = capsys.readouterr().out
    assert "### Failed" in text and "first at token" in text and "**B1**" in text
    assert main(["audit", "data", *bench.arguments]) == 1
    assert "FAIL       B1" in capsys.readouterr().out


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("base_bytes.npy", bytes(1 << 27))


TABLES = {  # file: (content, what is said)
    "absent.npz": (None, "no such table"),
    "a.txt": (b"1 2 3", "expected a table in"),
    "short.json": (b"[1, 2, 3]", "3 entries, the tokenizer has 380 pieces"),
    "words.json": (b'["a", "b"]', "expected one number a piece"),
    "other.json": (b'{"x": [1]}', "found x; expected base_bytes"),
    "broken.json": (b"{", "no byte table"),
    "nan.json": (b"[NaN]", "no byte counts"),
    "deep.json": (b"[" * 100_000, "no byte table"),
    "broken.npz": (b"PK\3\4", "no byte table"),
    "broken.npy": (b"\x93NUMPY", "no byte table"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_bad_table_gets_a_sentence(name: str, bench: Bench, capsys: Capture) -> None:
    content, said = TABLES[name]
    path = bench.root / name
    if content is not None:
        path.write_bytes(content)
    assert main(["audit", "data", *bench.arguments, "--table", str(path)]) == 1
    assert said in capsys.readouterr().err


def test_nothing_is_unpickled_or_unpacked_without_bound(bench: Bench, capsys: Capture) -> None:
    path = bench.root / "objects.npz"
    np.savez(path, base_bytes=np.array([print] * 380, dtype=object))
    assert main(["audit", "data", *bench.arguments, "--table", str(path)]) == 1
    assert "no byte table" in capsys.readouterr().err
    _bomb(path)
    assert main(["audit", "data", *bench.arguments, "--table", str(path)]) == 1
    assert "unpacks to" in capsys.readouterr().err


def test_a_broken_shard_is_a_finding(bench: Bench, capsys: Capture) -> None:
    path = bench.shards / "fineweb_val_000000.bin"
    path.write_bytes(path.read_bytes()[:-2])
    code, fields = told(capsys, bench)
    assert code == 1 and "header" in of(fields["findings"], "FAIL")
    assert "B9" in of(fields["findings"], "UNDECIDED")


def test_too_few_documents_are_undecided(bench: Bench, capsys: Capture) -> None:
    bench.ask_documents()
    bench.val_docs = 1000
    _, fields = told(capsys, bench)
    assert {"B9"} <= of(fields["findings"], "FAIL") & of(fields["findings"], "UNDECIDED")


def test_bad_words_are_usage(bench: Bench, capsys: Capture) -> None:
    bench.val_docs = 0
    assert main(["audit", "data", *bench.arguments]) == 2
    assert "must be positive" in capsys.readouterr().err
    absent = ["audit", "data", str(bench.root / "no"), "--tokenizer", bench.model]
    assert main(absent) == 1
    assert "no such shard or folder" in capsys.readouterr().err
