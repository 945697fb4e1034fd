"""golf bench: two forms of one step, timed in turn; the reference form is the same arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from core.arch.params import flops_per_token
from core.train.recipe import with_changes
from core.train.recipes import named
from tests.conftest import Text
from tests.parity.cases import recipe_of
from tests.parity.engines import ENGINES, Run, batch_of, engine, perturbed
from tools.against import as_variables, backend_of
from tools.bench import bench, in_turn, random_shards, table
from tools.main import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ENGINES)
def test_the_reference_form_is_the_same_step(name: str) -> None:
    recipe = recipe_of("baseline")
    weights = perturbed(recipe.arch)
    ours, reference = Run(name, recipe, weights), Run(name, recipe, weights)
    parts = engine(name)
    group = parts.distributed.Solo()
    optimizer = parts.reference.ReferenceOptimizer(recipe.arch, recipe.optim, group)
    assert max(len(names) for _, names in optimizer.banks) == 1
    reference.trainer.optimizer = optimizer
    reference.restart()
    for step in range(3):
        batch = batch_of(recipe.arch, 8, step)
        ours.step(step, *batch)
        reference.step(step, *batch)
    expected = reference.weights()
    for key, weight in ours.weights().items():
        assert np.allclose(weight, expected[key], rtol=1e-5, atol=1e-6), key


@pytest.mark.parametrize("name", ENGINES)
def test_bench(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    fields = bench(recipe_of("baseline"), name, rounds=2)
    assert fields["rounds"] == 2 and fields["ratio"] > 0 and fields["loss_gap"] < 2e-3
    assert table(fields).count("\n") == 2
    counted = {"torch": fields["peak_memory_bytes"] is None, "mlx": fields["peak_memory_bytes"]}
    assert counted[name] and fields["mfu"] is None and "| - |" in table(fields)
    words = ["bench", "smoke", "--backend", name, "--rounds", "1", "--json"]
    assert main([*words, "--peak-flops", "1e12"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["backend"] == name and "%" in table(found)
    flops = flops_per_token(named("smoke").arch) * found["tokens_per_s"]
    assert found["mfu"] == pytest.approx(flops / 1e12)


def test_it_is_fed_from_files() -> None:
    with random_shards(named("smoke")) as stream:
        assert all(isinstance(part, np.memmap) for part in stream._shards)
        assert len(stream) == 4 * 1024 + 1


def test_neither_form_is_always_second() -> None:
    forms = {"a": 1, "b": 2}
    assert [name for step in range(2) for name, _ in in_turn(forms, step)] == ["b", "a", "a", "b"]


@pytest.fixture
def words(text: Text) -> list[str]:
    data = (f"data.path={text.shards}", f"data.tokenizer={text.model}")
    sizes = (f"arch.vocab_size={text.tokenizer.vocab_size}", "data.train_batch_tokens=512")
    return ["bench", "smoke", *data, *sizes, "schedule.steps=6", "--rounds", "1"]


def test_an_external_script(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """This project's own entry script reads the reference's variables: it is one such script."""
    script = str(ROOT / "train_torch.py")
    assert main([*words, "--against", script, "--run", "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["ratio"] == pytest.approx(fields["script_ms"] / fields["step_ms"])
    assert fields["train_loss"] == pytest.approx(fields["script_train_loss"], abs=1e-3)
    assert "a process of its own" in fields["isolation"]
    assert fields["variables"]["NUM_LAYERS"] == "2" and fields["variables"]["MLP_MULT"] == "2"


def test_a_strangers_script_needs_consent_and_may_fail(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, canary = tmp_path / "train_gpt.py", tmp_path / "ran"
    script.write_text(f"open({str(canary)!r}, 'w')\nprint('no lines')\nraise SystemExit(5)\n")
    assert main([*words, "--against", str(script)]) == 2 and not canary.exists()
    assert "add --run" in capsys.readouterr().err
    assert main([*words, "--against", str(script), "--run"]) == 1 and canary.exists()
    assert "exit code 5, 0 step lines" in capsys.readouterr().err
    assert main([*words, "--against", str(tmp_path / "none.py"), "--run"]) == 2


def test_the_engine_of_a_script(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import numpy\n  import mlx.core as mx\n")
    (tmp_path / "b.py").write_text("import torch  # not import mlx\n")
    assert [backend_of(tmp_path / name) for name in ("a.py", "b.py")] == ["mlx", "torch"]


def test_what_the_variables_cannot_say() -> None:
    with pytest.raises(ValueError, match="MLP_MULT"):
        as_variables(with_changes(named("smoke"), ["arch.mlp_dim=100"]))
