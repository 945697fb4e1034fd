"""golf compare: groups of logs and runs, its numbers against scipy, what it refuses and says."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from core.train.run_folder import RunFolder
from tests.conftest import Text
from tools.main import main
from tools.train import train

stats = pytest.importorskip("scipy.stats")
RECORD = [1.06653, 1.06723, 1.06683, 1.06593]
BETTER = [1.06113, 1.06043, 1.06093, 1.06163]
SEEDS = (42, 314, 999, 7)
BYTES_PER_TOKEN = 3.7


def log_text(seed: int, bpb: float, bytes_per_token: float = BYTES_PER_TOKEN, ms: int = 120) -> str:
    """A log in the frontier's form whose run took `ms` a step and stopped at 600 s."""
    loss, last = bpb * math.log(2) * bytes_per_token, 600_000 // ms
    rows = [f"{n}/20000 train_loss: 2.5 train_time: {n * ms / 60_000:.1f}m" for n in (1000, 4000)]
    rows += [f"{n}/20000 val_loss: 2.4 val_bpb: {bpb + 100 / n:.4f}" for n in (1000, 4000, last)]
    return "\n".join(
        [
            "Hyperparameters:",
            f"  seed: {seed}",
            *rows,
            f"stopping_early: wallclock_cap train_time: {600_000 + seed}ms step: {last}/20000",
            "diagnostic pre-quantization post-ema val_loss:1.00000000 val_bpb:0.50000000",
            f"quantized_ttt val_loss:{loss:.8f} val_bpb:{bpb:.8f} eval_time:400000ms",
            "",
        ]
    )


def write(folder: Path, scores: Sequence[float], **options: Any) -> Path:
    folder.mkdir()
    for seed, bpb in zip(SEEDS, scores, strict=False):
        (folder / f"train_seed{seed}.log").write_text(log_text(seed, bpb, **options))
    return folder


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "a", BETTER), write(tmp_path / "b", RECORD)


def compare(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main(["compare", *map(str, words), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main(["compare", *map(str, words)])
    return code, capsys.readouterr().err


def test_the_numbers(sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    fields = compare(capsys, *sides)
    nats = math.log(2) * BYTES_PER_TOKEN
    assert fields["mean_a"] == pytest.approx(1.06103) and fields["mean_b"] == pytest.approx(1.06663)
    assert fields["difference_bpb"] == pytest.approx(-0.0056)
    assert fields["difference_nats"] == pytest.approx(-0.0056 * nats, abs=1e-7)
    welch = stats.ttest_ind(BETTER, RECORD, equal_var=False, alternative="less")
    assert fields["p_value"] == pytest.approx(float(welch.pvalue), rel=1e-5)
    shifted = [value + 0.005 / nats for value in BETTER]
    record = stats.ttest_ind(shifted, RECORD, equal_var=False, alternative="less")
    assert fields["record_rule"]["p_value"] == pytest.approx(float(record.pvalue), rel=1e-3)
    assert fields["meets_record_rule"] is True and fields["progression"]["holds"] is True
    pairs = stats.ttest_rel(BETTER, RECORD, alternative="less")
    assert fields["paired"]["p_value"] == pytest.approx(float(pairs.pvalue), rel=1e-4)
    assert fields["paired"]["seeds"] == sorted(SEEDS)
    assert fields["seeds_needed"]["any_gain"]["each_side"] <= 4
    assert fields["equal_seconds"]["seconds"] == pytest.approx(600.0, abs=0.05)
    assert fields["notes"] == [] and fields["left_out"] == []


def test_the_other_way_round(sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    fields = compare(capsys, *reversed(sides))
    assert fields["difference_bpb"] == pytest.approx(0.0056) and fields["p_value"] > 0.99
    assert not fields["meets_record_rule"] and not fields["progression"]["holds"]
    assert fields["seeds_needed"]["any_gain"]["each_side"] is None


def test_ways_to_name_a_group(sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = sides
    whole = compare(capsys, a, b)
    listed = compare(capsys, ",".join(map(str, sorted(a.glob("*.log")))), f"{b}/train_*.log")
    assert {**whole} == {**listed}


def test_one_run_a_side_has_no_p_value(
    sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (side / "train_seed42.log" for side in sides)
    fields = compare(capsys, a, b)
    assert fields["p_value"] is None and fields["sd_a"] is None and fields["paired"] is None
    assert fields["meets_record_rule"] is False and fields["progression"]["holds"] is None
    assert "no p-value: it takes two runs a side" in fields["notes"]
    more = compare(capsys, a, sides[1])["seeds_needed"]["any_gain"]
    assert more["more_a"] == more["each_side"] - 1


def test_equal_steps_and_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """B's pod is slower: at 4,000 steps they are level but for the scores, at 600 s B is behind."""
    a, b = write(tmp_path / "a", BETTER, ms=120), write(tmp_path / "b", BETTER, ms=140)
    fields = compare(capsys, a, b)
    steps, seconds = fields["equal_steps"], fields["equal_seconds"]
    assert steps["step"] == 4000 and not steps["interpolated"]
    assert steps["difference_bpb"] == pytest.approx(0.0, abs=1e-9)
    assert seconds["seconds"] == pytest.approx(600.0, abs=0.05)
    assert seconds["difference_bpb"] == pytest.approx(100 / 5000 - 100 / 4285, abs=2e-4)
    assert fields["step_ms_b"] > fields["step_ms_a"] + 19


def test_a_against_a(sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = sides
    fields = compare(capsys, a, a)
    assert fields["difference_bpb"] == 0.0 and fields["p_value"] == pytest.approx(0.5)
    null = fields["null"]["A"]
    assert (null["runs"], null["splits"]) == (4, 6)
    wanted = sum(
        float(stats.ttest_ind(x, y, equal_var=False, alternative="less").pvalue) < 0.25
        for x, y in [
            ([BETTER[i] for i in one], [v for j, v in enumerate(BETTER) if j not in one])
            for one in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
        ]
    )
    assert null["rules"]["progression"] == {"nominal": 0.25, "found": wanted / 6}
    assert null["rules"]["record_rule"]["found"] == 0.0
    assert set(compare(capsys, a, b, "--null")["null"]) == {"A", "B"}


def test_refusals(sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = sides
    code, said = refused(capsys, a, f"{b},{a / 'train_seed42.log'}")
    assert code == 2 and "is in A and in B" in said
    assert refused(capsys, a, b, "--power", "1.5")[0] == 2
    assert refused(capsys, a, b / "nothing") == (1, f"golf: {b / 'nothing'}: no such log, run "
    "folder, folder of them, or pattern\n")  # fmt: skip
    log = a / "train_seed42.log"
    whole = log.read_text()
    log.write_text(whole.replace("eval_time:400000ms", 'eval_time:1ms subset:{"name": "x"}'))
    code, said = refused(capsys, a, b)
    assert code == 1 and "subset" in said and "estimate" in said
    log.write_text(whole.replace("eval_time:400000ms", "(modified: arch.rope_dims=0)"))
    assert "modified (arch.rope_dims=0)" in refused(capsys, a, b)[1]
    log.write_text(whole[: whole.index("quantized_ttt")])
    code, said = refused(capsys, log, b)
    assert code == 1 and "A has no finished run" in said and "no score after" in said


def test_what_is_left_out_or_odd_is_said(
    sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = sides
    (a / "train.log").write_text((a / "train_seed42.log").read_text())
    (a / "crashed.log").write_text("step:1/9 train_loss:2.0 train_time:9ms\n")
    (a / "nan.log").write_text("quantized val_loss:nan val_bpb:nan\n")
    fields = compare(capsys, a, b)
    said = " ".join(fields["left_out"])
    assert fields["n_a"] == 4 and len(fields["left_out"]) == 3
    assert "the same run as" in said and "no score after" in said and "not a number" in said
    (a / "again.log").write_text(log_text(42, 1.06123456))
    assert "A has several runs of the seeds [42]" in compare(capsys, a, b)["notes"]


def test_nats_of_two_tokenizers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write(tmp_path / "a", BETTER, bytes_per_token=3.7)
    b = write(tmp_path / "b", RECORD, bytes_per_token=2.4)
    fields = compare(capsys, a, b)
    assert fields["difference_nats"] == pytest.approx(-0.0056 * math.log(2) * 2.4, abs=1e-6)
    assert any("not comparable" in note for note in fields["notes"])
    for path in a.iterdir():
        path.write_text("val_tokens: 1000\n" + path.read_text())
    for path in b.iterdir():
        path.write_text("val_tokens: 1000\n" + path.read_text())
    assert any("not the same validation text" in n for n in compare(capsys, a, b)["notes"])


def test_the_table(sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *map(str, sides)]) == 0
    out = capsys.readouterr().out
    for part in ("1.06113000", "mean_bpb_a", "A is better than B by 0.00560 BPB", "meets the rec"):
        assert part in out


def test_runs_of_ours(text: Text, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for side, rate in {"a": "0.04", "b": "0.0001"}.items():
        for seed in (1, 2):
            recipe = text.recipe(
                f"optim.matrix_lr={rate}", f"optim.embed_lr={rate}", f"seed={seed}"
            )
            train(recipe, "torch", RunFolder(tmp_path / side, f"s{seed}"), quiet=True)
    fields = compare(capsys, tmp_path / "a", tmp_path / "b")
    assert fields["seeds_a"] == fields["seeds_b"] == [1, 2] and fields["n_b"] == 2
    assert fields["difference_bpb"] < -0.01 and fields["progression"]["holds"]
    assert fields["equal_steps"]["step"] == 6 and fields["paired"]["seeds"] == [1, 2]
    assert fields["equal_seconds"] is None or fields["equal_seconds"]["seconds"] > 0
