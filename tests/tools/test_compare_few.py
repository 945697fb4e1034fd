"""golf compare where little is known: copies or other seeds, equal sides, one run, three runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.test_compare import BETTER, RECORD, compare, log_text, write
from tools.main import main

pytest.importorskip("scipy.stats")
Capture = pytest.CaptureFixture[str]


def rounded(seed: int | str, bpb: float = 1.0812, loss: float = 2.7931) -> str:
    """A log that rounds its scores to 4 decimals and its times to seconds."""
    return (
        f"Hyperparameters:\n  seed: {seed}\n"
        "1000/5000 train_loss: 2.5 train_time: 2.0m\n"
        "stopping_early: wallclock_cap train_time: 600000ms step: 5000/20000\n"
        f"quantized val_loss:{loss:.4f} val_bpb:{bpb:.4f} eval_time:400000ms\n"
    )


def shown(capsys: Capture, *words: object) -> str:
    assert main(["compare", *map(str, words)]) == 0
    streams = capsys.readouterr()
    return streams.out + streams.err


def test_seeds_that_score_the_same_to_four_decimals_are_two_runs(
    tmp_path: Path, capsys: Capture
) -> None:
    b = write(tmp_path / "b", RECORD)
    a = tmp_path / "a"
    a.mkdir()
    for seed in (1, 2, 3):
        (a / f"train_seed{seed}.log").write_text(rounded(seed))
    fields = compare(capsys, a, b)
    assert fields["seeds_a"] == [1, 2, 3] and fields["left_out"] == []
    assert f"{a}/train_seed2.log tells the numbers of" in " ".join(fields["notes"])


def test_rounded_logs_without_seeds_are_copies_only_as_whole_texts(
    tmp_path: Path, capsys: Capture
) -> None:
    b = write(tmp_path / "b", RECORD)
    a = tmp_path / "a"
    a.mkdir()
    (a / "one.log").write_text(rounded("none"))
    (a / "other.log").write_text("started at noon\n" + rounded("none"))
    (a / "third.log").write_text(rounded("none"))
    fields = compare(capsys, a, b)
    assert fields["n_a"] == 2
    assert fields["left_out"] == [f"{a}/third.log: the same run as {a}/one.log"]


def test_a_full_score_is_a_copys_unless_seed_or_steps_differ(
    tmp_path: Path, capsys: Capture
) -> None:
    b = write(tmp_path / "b", RECORD)
    a = write(tmp_path / "a", BETTER)
    text = (a / "train_seed42.log").read_text()
    (a / "copy.log").write_text(text)
    (a / "no_head.log").write_text(text.split("  seed: 42\n")[1])
    (a / "other_seed.log").write_text(text.replace("seed: 42", "seed: 5"))
    (a / "other_steps.log").write_text(text.replace("train_loss: 2.5", "train_loss: 2.6"))
    fields = compare(capsys, a, b)
    left_out = " ".join(fields["left_out"])
    assert len(fields["left_out"]) == 2 and "train_seed42.log: the same run as" in left_out
    assert fields["n_a"] == 6 and sorted(fields["seeds_a"]) == [5, 7, 42, 42, 314, 999]


def test_equal_sides_are_called_equal(tmp_path: Path, capsys: Capture) -> None:
    a, b = write(tmp_path / "a", BETTER), write(tmp_path / "b", BETTER)
    assert "A and B are the same runs, and equal" in shown(capsys, a, a)
    said = shown(capsys, a, b)
    assert "A and B are equal to the last digit told" in said and "worse" not in said


def test_one_run_a_side_gets_no_verdict(tmp_path: Path, capsys: Capture) -> None:
    a, b = write(tmp_path / "a", BETTER), write(tmp_path / "b", RECORD)
    said = shown(capsys, a / "train_seed42.log", b / "train_seed42.log")
    assert "A is better than B by 0.00540 BPB" in said and "is a plain progression" not in said
    assert "neither the record rule nor plain progression can be told" in said
    assert "at least 1 more of A and 1 more of B" in said
    said = shown(capsys, a / "train_seed42.log", b)
    assert "at least 1 more of A (" in said and "a side find it at p < 0.01" in said


def test_runs_that_do_not_differ_get_no_verdict(tmp_path: Path, capsys: Capture) -> None:
    a, b = write(tmp_path / "a", [1.061111] * 2), write(tmp_path / "b", [1.062222] * 2)
    assert "look whether they are copies" in shown(capsys, a, b)


@pytest.mark.parametrize("runs", [1, 3])
def test_few_against_themselves_say_why_and_what_they_still_tell(
    tmp_path: Path, capsys: Capture, runs: int
) -> None:
    a = write(tmp_path / "a", BETTER[:runs])
    fields = compare(capsys, a, a)
    null, note = fields["null"]["A"], fields["notes"][-1]
    assert null["splits"] == 0 and null["runs"] == runs
    assert null["rules"]["progression"] == {"nominal": 0.25, "found": None}
    assert f"it takes 4 runs, {4 - runs} more" in note
    if runs == 1:
        assert null["least_gain_bpb"] is None and "spread alone" not in note
    else:
        assert 2 < null["least_gain_bpb"] / null["sd_bpb"] < 6
        assert f"would show a gain of {null['least_gain_bpb']:.5f} BPB" in note


def test_the_seed_of_a_name_counts(tmp_path: Path, capsys: Capture) -> None:
    """One text under two seeds' names: two runs to the reader, and told."""
    b = write(tmp_path / "b", RECORD)
    text = log_text(1, 1.06).replace("  seed: 1\n", "")
    a = tmp_path / "a"
    a.mkdir()
    for seed in (1, 2):
        (a / f"train_seed{seed}.log").write_text(text)
    fields = compare(capsys, a, b)
    assert fields["seeds_a"] == [1, 2] and "if a copy, leave it out" in fields["notes"][0]
