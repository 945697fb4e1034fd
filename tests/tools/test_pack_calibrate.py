"""golf pack --calibrate: what the run would have measured, kept for the commands that follow."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.artifact.container import identity, read
from core.train.finish import Finished
from core.train.keeper import Keeper
from core.train.recipe import Recipe, with_changes
from core.train.run_folder import RunFolder, kept_hessians, load_weights
from tests.conftest import Text
from tests.parity.engines import ENGINES
from tests.test_resume import Events, run
from tests.tools.test_golf import golf
from tools.tensors import read_calibration

Capture = pytest.CaptureFixture[str]
FOUR = ("quant.mlp=int4", "quant.attn=int4", "quant.keep_below=256", "quant.calibration_batches=2")
SHORT = ("schedule.steps=2", "score.limit_tokens=512")


def packed(capsys: Capture, *words: object) -> tuple[dict[str, Any], str]:
    code, out, err = golf(capsys, "pack", *words, "--json", "--code-bytes", 1000)
    assert code == 0, err
    return json.loads(out), err


def ran(recipe: Recipe, engine: str, folder: RunFolder) -> Finished:
    """A run, and its folder."""
    folder.create(recipe)
    finished = run(recipe, engine, Keeper(folder, time.perf_counter), Events())
    folder.save_weights(finished.weights)
    return finished


@pytest.mark.parametrize("name", ENGINES)
def test_it_packs_as_the_run_did(text: Text, tmp_path: Path, capsys: Capture, name: str) -> None:
    """The same levels from saved weights and the recipe's data as at the end of the run."""
    recipe = text.recipe(*FOUR, *SHORT, "quant.solver=gptq", "quant.lqer_rank=2")
    folder = RunFolder(tmp_path, "one")
    finished = ran(recipe, name, folder)
    words = ("--backend", name, "--out", tmp_path / "again.bin")
    fields, err = packed(capsys, folder.path, "--calibrate", *words)
    assert fields["identity"] == identity(read(finished.model))
    assert f"with {name}; kept in {folder.path / 'hessians.safetensors'}" in err
    fields, err = packed(capsys, folder.path, *words)
    assert fields["identity"] == identity(read(finished.model)), "kept, and found again"
    assert f"Hessians of {folder.path / 'hessians.safetensors'}" in err


def test_a_run_that_measured_nothing(text: Text, tmp_path: Path, capsys: Capture) -> None:
    """Its weights are solved by what is measured now; other weights have none of it."""
    folder = RunFolder(tmp_path, "one")
    ran(text.recipe(*FOUR, *SHORT), "torch", folder)
    assert kept_hessians(folder.path) is None
    gptq, out = "quant.solver=gptq", ("--out", tmp_path / "x.bin")
    blind, err = packed(capsys, folder.path, gptq, *out)
    assert "no matrix has a Hessian" in err and "--calibrate measures them" in err
    fisher = (gptq, "quant.steps=fisher", "quant.step_scale=0.001")
    seen, _ = packed(capsys, folder.path, *fisher, *out, "--calibrate", "--backend", "torch")
    known = read_calibration(kept_hessians(folder.path))
    assert known.hessians and known.fisher and known.counts["tok_emb.weight"].sum() > 0
    again, _ = packed(capsys, folder.path, *fisher, *out)
    assert again["identity"] == seen["identity"] != blind["identity"]
    weights = load_weights(folder.path)
    folder.save_weights({name: np.float32(2) * array for name, array in weights.items()})
    assert kept_hessians(folder.path) is None, "of other weights"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--hessians", "h.safetensors"), "--calibrate measures a run's own"),
        (("--tensors", "w.safetensors"), "--calibrate measures a run's own"),
        (("--backend", "torch"), "no train data"),
    ],
)
def test_what_a_user_can_get_wrong(
    text: Text, tmp_path: Path, capsys: Capture, words: tuple[str, ...], sentence: str
) -> None:
    folder, recipe = RunFolder(tmp_path, "one"), text.recipe("data.path=/no/such/shards")
    folder.create(with_changes(recipe, ["quant.solver=gptq"]))
    folder.save_weights({"w": np.ones((2, 2), np.float32)})
    code, _, err = golf(capsys, "pack", folder.path, "--calibrate", *words)
    assert code in (1, 2) and sentence in err and "Traceback" not in err


def test_a_kept_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "hessians.safetensors").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        kept_hessians(tmp_path)
