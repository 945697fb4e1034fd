"""The two commands of the reference README run as they stand, shortened, on both engines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Text
from tests.tools.test_environment import ROOT

TINY = {
    "VOCAB_SIZE": "384",
    "MODEL_DIM": "64",
    "NUM_LAYERS": "2",
    "NUM_HEADS": "4",
    "NUM_KV_HEADS": "2",
    "TRAIN_SEQ_LEN": "64",
    "ITERATIONS": "3",
    "TRAIN_BATCH_TOKENS": "512",
    "VAL_LOSS_EVERY": "0",
    "VAL_BATCH_SIZE": "8192",
}


COMMANDS = {  # the reference README's two, but for the variables above
    "mlx_smoke": ["train_mlx.py"],
    "baseline_sp1024": [
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"),
        "train_torch.py",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("run_id", COMMANDS)
def test_the_readmes_commands_run(text: Text, tmp_path: Path, run_id: str) -> None:
    data, tokenizers = tmp_path / "data" / "datasets", tmp_path / "data" / "tokenizers"
    data.mkdir(parents=True)
    tokenizers.mkdir()
    (data / "fineweb10B_sp1024").symlink_to(text.shards)
    (tokenizers / "fineweb_1024_bpe.model").symlink_to(text.model)
    paths = {
        "DATA_PATH": "./data/datasets/fineweb10B_sp1024/",
        "TOKENIZER_PATH": "./data/tokenizers/fineweb_1024_bpe.model",
    }
    given = paths if run_id == "baseline_sp1024" else {}
    *launcher, script = COMMANDS[run_id]
    for number in ("", "-2"):  # pasted twice, nothing is lost
        done = subprocess.run(
            [sys.executable, *launcher, str(ROOT / script)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(ROOT),
                "RUN_ID": run_id,
                **TINY,
                **given,
            },
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        log = (tmp_path / "runs" / (run_id + number) / "log.txt").read_text(encoding="utf-8")
        assert log == done.stdout
    assert "set arch.mlp_dim=128 from MODEL_DIM (2 x model_dim)\n" in log
    assert "set schedule.steps=3 from ITERATIONS\n" in log and "step:3/3 train_loss:" in log
    assert "final_int8_zlib_roundtrip_exact val_loss:" in log
    events = (tmp_path / "runs" / run_id / "log.jsonl").read_text(encoding="utf-8").splitlines()
    first = json.loads(events[0])
    assert first["event"] == "origin" and {"field", "value", "origin"} < set(first)
