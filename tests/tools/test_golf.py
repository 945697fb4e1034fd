"""The golf command: every verb as a user runs it, its JSON fields, exit codes and sentences."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.train.recipe import recipe_hash
from core.train.recipes import named
from core.train.run_folder import RunFolder
from tests.conftest import Text
from tools import english
from tools.generate import sample
from tools.main import VERBS, main
from tools.plan import plan
from tools.recipes import read_recipe
from tools.terminal import Terminal
from tools.train import free_run_id

ROOT = Path(__file__).resolve().parents[2]
GOLF = Path(sys.executable).with_name("golf")


def golf(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def run(text: Text, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder made by the command."""
    root = tmp_path_factory.mktemp("golf")
    words = [
        "train",
        "smoke",
        "schedule.steps=3",
        f"arch.vocab_size={text.tokenizer.vocab_size}",
        f"data.path={text.shards}",
        f"data.tokenizer={text.model}",
        *("--backend", "torch", "--runs", str(root), "--run-id", "first"),
    ]
    assert main(words) == 0
    return root / "first"


def test_help_loads_no_framework() -> None:
    for verb in ["", *VERBS]:
        code = (
            "import sys\nfrom tools.main import main\n"
            f"try: main({[verb, '--help'] if verb else ['--help']})\n"
            "except SystemExit as stop: assert stop.code == 0\n"
            "assert not {'torch', 'mlx', 'sentencepiece'} & set(sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 0, done.stderr
        assert "usage: golf" in done.stdout


def test_the_command_works_from_any_folder(tmp_path: Path) -> None:
    if not GOLF.exists():
        pytest.skip("the golf script is not installed beside this Python: pip install -e .")
    done = subprocess.run(
        [GOLF, "plan", "smoke", "--json"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert json.loads(done.stdout)["parameters"] > 0


def test_plan(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = golf(capsys, "plan", "baseline", "--json")
    fields = json.loads(out)
    assert code == 0 and fields["parameters"] == 17_059_912
    wanted = "flops_per_token artifact_bytes code_bytes margin_bytes memory_bytes"
    assert set(wanted.split()) < set(fields)
    assert fields["margin_bytes"] == 16_000_000 - fields["artifact_bytes"]
    code, out, _ = golf(capsys, "plan", "baseline", "arch.num_layers=8")
    assert code == 0 and "15,222,848" in out


def test_plan_says_when_the_cap_is_passed(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = golf(capsys, "plan", "baseline", "arch.num_layers=12")
    assert code == 0 and "over the cap of 16,000,000" in err


def test_the_plan_is_near_what_is_packed(run: Path, text: Text) -> None:
    recipe = read_recipe([str(run / "recipe.json")], "")
    planned, model = plan(recipe), (run / "model.bin").stat().st_size
    assert abs(planned["artifact_bytes"] - planned["code_bytes"] - model) < 0.1 * model


def test_score(capsys: pytest.CaptureFixture[str], run: Path, text: Text) -> None:
    where = ("--data", text.shards, "--tokenizer", text.model)
    scores = {}
    for backend in ("torch", "mlx"):
        code, out, _ = golf(
            capsys, "score", run / "model.bin", *where, "--backend", backend, "--json"
        )
        scores[backend] = json.loads(out)
        assert code == 0
    wanted = "val_loss val_bpb val_bpb_raw tokens bytes seconds protocol subset modified"
    assert set(wanted.split()) < set(scores["torch"])
    assert abs(scores["torch"]["val_bpb"] - scores["mlx"]["val_bpb"]) <= 1e-6
    code, out, _ = golf(capsys, "score", run / "model.bin", *where, "--limit-tokens", 100, "--json")
    assert json.loads(out)["subset"]["first_targets"] == 100
    assert json.loads(out)["tokens"] == 100


def test_inspect(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    code, out, _ = golf(capsys, "inspect", run / "model.bin", "--json")
    fields = json.loads(out)
    assert code == 0 and {"identity", "model_bytes", "format_version", "parameters"} < set(fields)
    assert {"name", "shape", "format", "bytes"} <= set(fields["tensors"][0])
    assert fields["model_bytes"] == (run / "model.bin").stat().st_size
    code, out, _ = golf(capsys, "inspect", run / "model.bin")
    assert code == 0 and "blocks.1.mlp.proj.weight" in out


def test_pack(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    packed = {}
    for codec in ("zlib", "lzma", "rans", "best"):
        out_path = tmp_path / codec
        code, out, _ = golf(
            capsys, "pack", run, f"quant.codec={codec}", "--out", out_path, "--json"
        )
        packed[codec] = json.loads(out)
        assert code == 0
        assert packed[codec]["model_bytes"] == out_path.stat().st_size
    assert (tmp_path / "zlib").read_bytes() == (run / "model.bin").read_bytes()
    assert len({fields["identity"] for fields in packed.values()}) == 1
    assert packed["best"]["model_bytes"] == min(fields["model_bytes"] for fields in packed.values())
    assert {"artifact_bytes", "margin_bytes"} < set(packed["zlib"])
    code, _, err = golf(capsys, "pack", run, "arch.num_layers=1")
    assert code == 2 and "only the quant section" in err


def test_an_artifact_over_the_cap_fails(
    capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.artifact.ledger.CAP_BYTES", 50_000)
    code, out, err = golf(capsys, "pack", run, "--out", tmp_path / "m", "--json")
    assert code == 1 and "exceed the cap 50,000 by" in err
    assert json.loads(out)["margin_bytes"] < 0


def test_a_run_over_the_cap_fails(
    capsys: pytest.CaptureFixture[str], text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.artifact.ledger.CAP_BYTES", 50_000)
    words = [f"data.path={text.shards}", f"data.tokenizer={text.model}", "schedule.steps=1"]
    words += [f"arch.vocab_size={text.tokenizer.vocab_size}", "--runs", str(tmp_path)]
    code, out, _ = golf(capsys, "train", "smoke", *words)
    assert code == 1
    assert out.splitlines()[-1].startswith("failed: over the cap: artifact_bytes:")
    assert (tmp_path / next(tmp_path.iterdir()).name / "model.bin").exists()


def test_generate(capsys: pytest.CaptureFixture[str], run: Path, text: Text) -> None:
    told = []
    for backend in ("torch", "mlx", "torch"):
        words = ("--tokenizer", text.model, "--prompt", "The list", "--tokens", 12)
        code, out, _ = golf(capsys, "generate", run / "model.bin", *words, "--backend", backend)
        assert code == 0 and out.startswith("The list")
        told.append(out)
    assert told[0] == told[1] == told[2]


def test_sampling_follows_the_distribution() -> None:
    logits = np.log(np.array([0.5, 0.25, 0.25], np.float32))
    drawn = [sample(logits, 1.0, draw) for draw in (0.0, 0.49, 0.51, 0.74, 0.76, 0.9999)]
    assert drawn == [0, 0, 1, 1, 2, 2]
    assert sample(logits, 0.0, 0.9) == 0


def test_data_and_tokenizer(capsys: pytest.CaptureFixture[str], text: Text, tmp_path: Path) -> None:
    source = tmp_path / "docs.jsonl"
    source.write_text("".join(json.dumps({"text": d}) + "\n" for d in text.documents))
    model, shards = tmp_path / "t.model", tmp_path / "shards"
    code, out, _ = golf(capsys, "tokenizer", "train", source, "--vocab-size", 384, "--out", model)
    assert code == 0 and "vocab_size  384" in out
    words = ("--tokenizer", model, "--out", shards, "--val-docs", 6)
    code, out, _ = golf(capsys, "data", "tokenize", source, *words)
    assert code == 0 and "[val]" in out
    code, out, _ = golf(capsys, "data", "info", shards, "--tokenizer", model, "--json")
    found = json.loads(out)
    wanted = {"tokens", "documents", "bytes_reference", "bytes_raw", "sha256"}
    assert set(found) == {"train", "val"} and set(found["val"]) == wanted
    assert found["val"]["bytes_raw"] == sum(len(d.encode()) for d in text.documents[:6])
    shard = shards / "fineweb_train_000000.bin"
    code, out, _ = golf(capsys, "data", "info", shard, "--tokenizer", model, "--json")
    assert set(json.loads(out)) == wanted and json.loads(out)["documents"] == 54
    code, _, err = golf(capsys, "data", "tokenize", source, *words)
    assert code == 1 and "expected a new or empty folder" in err


def test_a_log_says_whose_the_other_values_are(run: Path) -> None:
    """In a line; the event has every value."""
    log = (run / "log.txt").read_text(encoding="utf-8")
    own = recipe_hash(named("smoke"))[:16]
    assert f"\nall other values from recipe:smoke hash:{own}\n" in log
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    (resolved,) = [event for event in events if event["event"] == "resolved"]
    assert resolved["values"] == json.loads((run / "recipe.json").read_text())
    changed = [event["field"] for event in events if event["event"] == "origin"]
    assert set(changed) == {"schedule.steps", "arch.vocab_size", "data.path", "data.tokenizer"}


def test_words_stand_before_between_options_and_behind(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("arch.num_layers=3", "--hardware", "mac", "small", "--json", "arch.mlp_dim=64")
    code, out, _ = golf(capsys, "plan", *words)
    assert code == 0 and json.loads(out)["recipe"] == "small"
    code, again, _ = golf(capsys, "plan", "small", "arch.num_layers=3", "arch.mlp_dim=64", "--json")
    assert json.loads(again)["parameters"] == json.loads(out)["parameters"]
    for wrong in (["plan", "--jsn", "small"], ["inspect", "a", "b"]):
        code, _, err = golf(capsys, *wrong)
        assert code == 2 and "unrecognized arguments" in err


def test_run_ids_are_numbered(tmp_path: Path, text: Text) -> None:
    for expected in ("smoke", "smoke-2", "smoke-3"):
        assert free_run_id(tmp_path, "smoke") == expected
        RunFolder(tmp_path, expected).create(text.recipe())


def test_the_live_line(text: Text) -> None:
    terminal = Terminal(text.recipe("schedule.budget_s=10"), 1_000_000)
    step: dict[str, Any] = {
        "step": 3,
        "steps": 6,
        "train_loss": 5.0,
        "train_ms": 9000.0,
        "step_avg_ms": 3000.0,
        "tokens_per_s": 1234.0,
        "progress": 0.9,
    }
    terminal.val_bpb = 2.5
    line = terminal.status(step)
    for part in ("val BPB 2.5000", "15,000,000 of 16,000,000", "1 s left", "1,234 tokens/s"):
        assert part in line, line


def test_python_carries_english() -> None:
    documents = english.documents()
    assert len(documents) > 300 and sum(map(len, documents)) > 1_500_000
    assert documents == english.documents()
    assert len(set(documents)) > 0.95 * len(documents)


@pytest.mark.slow
def test_the_demo_goes_the_whole_way(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = golf(capsys, "demo", "--steps", 12, "--runs", tmp_path)
    assert code == 0
    for part in ("one artifact, both engines", "difference", "the ledger", "header", "train"):
        assert part in out
    assert "bytes left" in err and "Scoring the same file with mlx." in err
    assert out.split("The packed model writes:\n")[1].count("\n  ") >= 2
