"""The bench of quantizers on a run of a few steps: its numbers are of files, and they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.train.run_folder import RunFolder
from tests.bench_quant import FIELD, FIRST, SCALES, measure, table
from tests.conftest import Text
from tools.train import train


@pytest.mark.slow
def test_the_bench_measures_a_run(
    text: Text, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path, "quant-seed1")
    train(text.recipe("schedule.steps=30", "score.limit_tokens=500"), "torch", folder, quiet=True)
    names = [FIRST, "columns", "Fisher"]
    told = measure(folder.path, 1024, names)
    for name in names:
        points = told["rules"][name]["points"]
        bits, kls = ([point[key] for point in points] for key in ("bits", "kl"))
        assert len(points) == len(SCALES)
        assert bits == sorted(bits, reverse=True) and kls == sorted(kls), "coarser: fewer, worse"
        assert all(0 < point["bits"] < 16 and point["kl"] > 0 for point in points)
    capsys.readouterr()
    assert measure(folder.path, 1024, names) == told
    assert not capsys.readouterr().err, "nothing is measured twice"
    table([told], names)
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[0].strip("| ") for row in rows[2:6]] == [FIELD, *names]
