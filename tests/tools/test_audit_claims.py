"""golf audit logs --claim: a number is one of the logs', to its digits, or it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.data.findings import Status
from tests.tools.records import LOSSES, log_of, write_record
from tools.main import main

Capture = pytest.CaptureFixture[str]
LOSS, CODE = 2.0612, 40_000  # its val_bpb: 1.22075874


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "train_seed42.log"
    path.write_text(log_of(42, LOSS, CODE))
    return path


def judged(capsys: Capture, *words: object) -> tuple[int, list[dict[str, Any]]]:
    """The exit code and the findings on claims."""
    code = main(["audit", "logs", *map(str, words), "--json"])
    told: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["findings"]
    return code, [one for one in told if one["subject"].startswith("claim")]


CLAIMS: dict[str, tuple[Status, str]] = {
    "1.2208": ("PASS", "1 scores are those of the logs' last lines"),
    "1.22075874": ("PASS", "1 scores"),
    "val_bpb=1.2208": ("PASS", "1 scores"),
    "mean_val_loss=2.0612": ("PASS", "1 scores"),
    "1.2207": ("FAIL", "1.2207, the mean of the logs is 1.22075874"),
    "1.22075875": ("FAIL", "the mean of the logs is 1.22075874"),
    "1.2150": ("FAIL", "it stands in line 8 of"),  # of a validation before packing
    "1.22": ("UNDECIDED", "fewer than 4 digits"),
    "1.05": ("FAIL", "fewer than 4 digits"),
    "val_loss=2.05": ("FAIL", "2.05 has fewer than 4 digits"),
    "artifact_bytes=15839489": ("PASS", "15,839,489, by "),
    "bytes_total=15000000": ("FAIL", "15000000 is no size that the logs tell: 15,839,489"),
    "bytes_total=15799489": ("FAIL", "15799489 is no size"),  # of the model alone
    "bytes_code=40000": ("PASS", "40,000, by "),
    "bytes_code=100": ("FAIL", "100 is no size that the logs tell: 40,000"),
    "train_seconds=600.04": ("PASS", "1 numbers"),
    "train_seconds=590.0": ("FAIL", "590.0 is not what the logs tell"),
    "steps=13800": ("PASS", "1 numbers"),
    "p_value=0.00123": ("UNDECIDED", "0.00123 stands in no log and follows from none"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_is_held_to_a_single_log(claim: str, log: Path, capsys: Capture) -> None:
    status, said = CLAIMS[claim]
    code, [one] = judged(capsys, log, "--claim", claim)
    assert (one["status"], code) == (status, int(status == "FAIL")), one
    assert one["rule"] == ("score" if "val_" in claim or "=" not in claim else "numbers")
    assert said in one["evidence"] and one["source"]


def test_of_several_logs_it_is_the_mean(tmp_path: Path, capsys: Capture) -> None:
    for seed, loss in LOSSES.items():
        (tmp_path / f"train_seed{seed}.log").write_text(log_of(seed, loss, CODE))
    code, [one] = judged(capsys, tmp_path, "--claim", "val_loss=2.060733")
    assert (code, one["status"]) == (0, "PASS")
    code, [one] = judged(capsys, tmp_path, "--claim", "val_loss=2.0601")
    assert code == 1 and "is the score of" in one["evidence"], "the best seed's is no claim"
    code, found = judged(capsys, tmp_path, "--claim", "val_loss=2.060733", "--claim", "steps=1")
    assert code == 1 and {one["status"] for one in found} == {"PASS", "FAIL"}


def test_a_submission_is_claims_of_logs_that_lie_elsewhere(tmp_path: Path, capsys: Capture) -> None:
    folder = write_record(tmp_path)
    (tmp_path / "logs").mkdir()
    for path in folder.glob("*.log"):
        path.rename(tmp_path / "logs" / path.name)
    claims = folder / "submission.json"
    code, found = judged(capsys, tmp_path / "logs", "--claim", claims)
    assert code == 0 and {one["status"] for one in found} == {"PASS"} and len(found) == 4, found
    claims.write_text(json.dumps({**json.loads(claims.read_text()), "val_bpb": 1.20123}))
    code, found = judged(capsys, tmp_path / "logs", "--claim", claims)
    assert code == 1 and [one["rule"] for one in found if one["status"] == "FAIL"] == ["score"]


def test_what_is_no_claim_gets_a_sentence(log: Path, tmp_path: Path, capsys: Capture) -> None:
    for word in ("x", "a=b", '1.2"', "nan", "val_bpb=", "1e999", "=1"):
        assert main(["audit", "logs", str(log), "--claim", word]) == 2, word
        assert "expected a val_bpb as 1.0810" in capsys.readouterr().err
    assert main(["audit", "logs", str(log), "--claim", "1.2208", "--claim", "1.2208"]) == 2
    assert "val_bpb is claimed twice" in capsys.readouterr().err
    (tmp_path / "bad.json").write_text("[1]")
    assert main(["audit", "logs", str(log), "--claim", str(tmp_path / "bad.json")]) == 1
    assert "not to be read as claims: expected an object" in capsys.readouterr().err
