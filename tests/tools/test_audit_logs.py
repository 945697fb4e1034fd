"""golf audit logs: every planted fault is found and named, and honest logs have none."""

from __future__ import annotations

import json
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.score.book import BOOK, RULINGS, looks_like, open_questions, ruled
from tests.audit_bytes import named, of, open_rows, signs
from tests.readme import ROOT
from tests.tools import planted_data
from tests.tools.planted_logs import HONEST, PLANTED, Planted
from tests.tools.records import LOG, log_of, write_record
from tools.auditing.log_rules import audit_log, one_text, tails
from tools.auditing.logs import row
from tools.auditing.verdicts import as_text
from tools.checks.seed_logs import read_seed_log
from tools.main import main

Capture = pytest.CaptureFixture[str]
ALWAYS = {"L27", "Q4", "Q6", "Q7", "Q8", "B11"}  # open whatever the logs say
FIELDS = {"rule", "status", "subject", "evidence", "source"}


def told(capsys: Capture, *words: object) -> tuple[int, dict[str, Any]]:
    code = main(["audit", "logs", *map(str, words), "--json"])
    fields: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, fields


@pytest.mark.parametrize("case", PLANTED, ids=lambda case: case.name)
def test_a_planted_fault_is_found_and_named(case: Planted, tmp_path: Path, capsys: Capture) -> None:
    code, fields = told(capsys, *case.make(tmp_path))
    findings = fields["findings"]
    assert of(findings, "FAIL") == case.fails, findings
    assert case.open <= of(findings, "UNDECIDED")
    assert case.names in named(findings)
    assert code == int(bool(case.fails)) and fields["passes"] == (not case.fails)


@pytest.mark.parametrize("case", HONEST, ids=lambda case: case.name)
def test_an_honest_log_passes(case: Planted, tmp_path: Path, capsys: Capture) -> None:
    code, fields = told(capsys, *case.make(tmp_path))
    findings = fields["findings"]
    assert (code, of(findings, "FAIL")) == (0, set()), findings
    assert of(findings, "UNDECIDED") - ALWAYS == case.open
    assert all(set(one) == FIELDS and all(one.values()) for one in findings)
    assert all(one["source"] == BOOK[one["rule"]].source for one in findings)


MISCOUNTED = [
    case
    for case in PLANTED
    if case.fails == {"implied bytes"} and case.name != "bytes that do not fit"
]


@pytest.mark.parametrize("case", MISCOUNTED, ids=lambda case: case.name)
def test_the_ratio_names_one_failure(case: Planted, tmp_path: Path, capsys: Capture) -> None:
    """Of the byte counts that are too large or small, by the sign in the evidence alone."""
    _, fields = told(capsys, *case.make(tmp_path))
    [said] = [x["evidence"] for x in fields["findings"] if x["status"] == "FAIL"]
    assert re.findall(r"looks like ([BL]\d+)", said) == [case.names]


def test_a_row_for_every_log(tmp_path: Path, capsys: Capture) -> None:
    folder = write_record(tmp_path)
    (tmp_path / "more" / "deeper").mkdir(parents=True)
    (tmp_path / "more" / "deeper" / "x.txt").write_text(log_of(5, 2.07, 300))
    (tmp_path / "more" / "notes.txt").write_text("no log\n")
    code, fields = told(capsys, tmp_path)
    assert code == 0 and len(fields["logs"]) == 4
    row = {x["log"].split("/")[-1]: x for x in fields["logs"]}["train_seed42.log"]
    assert (row["seed"], row["steps"], row["tokens"]) == (42, 13_800, 62_021_632)
    assert (row["val_loss"], row["implied_bytes"]) == (2.0612, 151_080_363)
    assert (row["train_s"], row["eval_s"], row["status"]) == (600.044, 1.5, "UNDECIDED")
    assert main(["audit", "logs", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "1.22075874" in text and "UNDECIDED  Q4" in text and "PASS, 0 FAIL" in text


def test_markdown_is_a_report(tmp_path: Path, capsys: Capture) -> None:
    [path] = PLANTED[0].make(tmp_path)
    path = path.rename(tmp_path / "a|b`@c.log")
    assert main(["audit", "logs", str(path), "--markdown"]) == 1
    text = capsys.readouterr().out
    assert "### Failed" in text and "**implied bytes [" in text and "looks like B1" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)
    assert "a\\|b'@c.log`" in text


def test_a_hundred_logs_take_seconds(tmp_path: Path, capsys: Capture) -> None:
    source = "import torch\nimport os\n" + "x = 1  # a line of the source\n" * 1500 + "=" * 100
    for seed in range(100):
        text = f"{source}\n{log_of(seed, 2.06 + 1e-4 * seed, 300)}"
        (tmp_path / f"train_seed{seed}.log").write_text(text)
    before = time.monotonic()
    code, fields = told(capsys, tmp_path)
    assert code == 0 and len(fields["logs"]) == 100
    assert time.monotonic() - before < 20  # 0.5 s on an idle core; a machine may be busy


WORDS = st.sampled_from(
    [
        *LOG.replace("{", "").replace("}", "").splitlines(),
        "final_x_exact val_loss:2.0 val_bpb:1e-300 tokens:9 bytes:0 eval_time:1e300ms",
        "final_x_exact val_loss:inf val_bpb:0.0 tokens:999999999999999",
        "final_x_exact val_loss:1e-300 val_bpb:1e300 tokens:1",
        "Total submission size x: 999999999999999999 bytes",
        "GPTQ:collected 1 Hessians in nans",
        "phases train:1e300s calibrate:nans",
        "world_size:8 tokenizer_path=00000_bpe.model vocab_size:0",
        "train_seq_len:0 eval_seq_len:-1",
        "\0\x1b[31m|`\ud800",
    ]
)


@given(st.lists(WORDS, max_size=12))
@settings(max_examples=60, deadline=None)
def test_no_text_raises(lines: list[str]) -> None:
    log = read_seed_log("x.log", "\n".join(lines).encode("utf-8", "replace"))
    findings = [*audit_log(log), *tails([log])]
    assert findings and row(log, findings)["log"] == "x.log"
    one_text([log])
    as_text([row(log, findings)], findings).encode()


def test_what_is_no_log_gets_a_sentence(tmp_path: Path, capsys: Capture) -> None:
    for word in (tmp_path, tmp_path / "absent.log", "no*such"):
        assert main(["audit", "logs", str(word)]) == 1
        assert "log" in capsys.readouterr().err
    (tmp_path / "empty.log").write_bytes(b"\0\xff")
    code, fields = told(capsys, tmp_path / "empty.log")
    assert code == 1 and of(fields["findings"], "FAIL") == {"logs"}


def test_links_are_not_followed(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "logs").mkdir()
    [path] = HONEST[0].make(tmp_path)
    (tmp_path / "logs" / "link.log").symlink_to(path)
    (tmp_path / "logs" / "up").symlink_to(tmp_path)
    assert main(["audit", "logs", str(tmp_path / "logs")]) == 1
    assert "no logs" in capsys.readouterr().err


def test_the_book_has_every_id_and_each_names_what_exists(capsys: Capture) -> None:
    assert main(["audit", "rules", "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)["rules"]}
    expected = [f"B{i}" for i in range(1, 19)] + [f"L{i}" for i in range(1, 29)]
    assert set(expected) | {f"Q{i}" for i in range(1, 9)} <= rows.keys() == BOOK.keys()
    for held in rows.values():
        assert held["text"] and held["source"]
        assert held["status"] in ("organiser", "relayed", "community", "toolkit", "open")
        assert re.fullmatch(r"(2026-\d\d(-\d\d)?( to 2026-\d\d)?)?", held["date"])
        assert set(held["rules"]) <= rows.keys()
    assert rows["implied bytes"]["covers"] == ["B1", "B5", "B6", "B7", "B9", "B14", "B15", "B18"]
    assert len({rule.id for rule in RULINGS}) == len(RULINGS)


def test_one_rule_by_its_id(capsys: Capture) -> None:
    assert main(["audit", "rules", "B6"]) == 0
    assert "U+FFFD" in capsys.readouterr().out
    assert main(["audit", "rules", "B66"]) == 2
    assert "B6" in capsys.readouterr().err


@pytest.mark.parametrize("about", ["data", "logs", "scorer"])
def test_open_questions_never_pass(about: Any) -> None:
    asked = open_questions(about)
    assert asked and {one.status for one in asked} == {"UNDECIDED"}
    with pytest.raises(AssertionError):
        ruled(asked[0].rule, "PASS", "x", "y")


def test_signs_of_failures_do_not_overlap() -> None:
    spans = sorted(rule.ratio for rule in RULINGS if isinstance(rule.ratio, tuple))
    assert all(one[1] < two[0] for one, two in pairwise(spans))
    assert looks_like(1.0) is None and looks_like(1.5) is None


def test_the_page_has_every_case() -> None:
    """docs/audit-bytes.md is printed by tests/audit_bytes.py: no case without its row."""
    text = (ROOT / "docs" / "audit-bytes.md").read_text(encoding="utf-8")
    for case in (*PLANTED, *HONEST, *planted_data.PLANTED, *planted_data.HONEST):
        expected = ", ".join(sorted(case.fails)) or ("none: open" if case.names else "none")
        start = f"| {case.name} | {case.names or 'honest'} | {expected} |"
        assert start in text, f"{case.name}: run python -m tests.audit_bytes"
    assert "WRONGLY" not in text and signs() in text and open_rows() in text
    assert f"{len(BOOK)} rows" in text
