"""golf bench: two forms of one step, timed in turn; the reference form is the same arithmetic."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.train.recipe import Recipe, with_changes
from core.train.recipes import named
from core.train.scale import scaled
from core.train.schedules import knobs, stages
from tests.conftest import Text
from tests.parity.cases import recipe_of
from tests.parity.engines import ENGINES, Run, batch_of, distance, engine, perturbed
from tools.against import as_variables, backend_of
from tools.benching import steps
from tools.benching.suites import SUITES
from tools.benching.tokens import random_shards
from tools.main import main

ROOT = Path(__file__).resolve().parents[2]
ONCE = ("--blocks", "1", "--steps", "1", "--soak", "0")


def frontier() -> Recipe:
    """Clipped, decayed, averaged, rows normalised: all that the reference form does."""
    recipe = scaled(named("r1081"), named("smoke"))
    optim = replace(recipe.optim, ns_precision="fp32")
    return replace(recipe, precision="fp32", compile="off", optim=optim)


SAME = [  # after three steps: sums in other orders; the norm that clips is one, and Adam's eps is
    (recipe_of("baseline"), 2e-5),  # near the gradients of tokens that were not seen. A decay that
    (frontier(), 2e-4),  # is left out moves the weights by 3e-3.
]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(("recipe", "bound"), SAME, ids=["plain", "frontier"])
def test_the_reference_form_is_the_same_step(name: str, recipe: Recipe, bound: float) -> None:
    weights = perturbed(recipe.arch)
    ours = Run(name, recipe, weights)
    parts = engine(name)
    reference = parts.reference.ReferenceTrainer(recipe, ours.trainer.group)
    parts.weights.load_weights(reference.model, weights, recipe.arch)
    reference.state = reference.optimizer.start(parts.weights.parameters(reference.model))
    stage = stages(recipe)[-1]
    for step in range(3):
        x, y = (parts.array(rows) for rows in batch_of(recipe.arch, 8, step))
        dials = replace(knobs(recipe, step, 0.0), stage=stage)
        batch = [parts.feeder.MicroBatch(x, y)]
        losses = float(ours.trainer.step(batch, dials)), reference.step(batch, dials)
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for part in ("weight", "ema"):
        found, expected = (
            parts.weights.to_numpy({k: a for k, a in state.items() if k.startswith(f"{part}/")})
            for state in (reference.state, ours.trainer.state)
        )
        assert found.keys() == expected.keys()
        assert distance(found, expected) <= bound


@pytest.mark.parametrize("name", ENGINES)
def test_the_reference_form_refuses_what_it_has_not(name: str) -> None:
    recipe = with_changes(named("smoke"), ["optim.row_beta2=0.9"])
    with pytest.raises(ValueError, match="row_beta2"):
        engine(name).reference.ReferenceOptimizer(recipe.arch, recipe.optim)


@pytest.mark.parametrize("name", ENGINES)
def test_bench(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "smoke", "--backend", name, "--peak-flops", "1e12"]
    out = tmp_path / "found.json"
    assert main([*words, *ONCE, "--json", "--out", str(out)]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert json.loads(out.read_text()) == fields
    (row,) = fields["rows"]
    assert row["status"] == "measured" and row["backend"] == name and row["ratio"] > 0
    flops = row["flops_per_token"] * row["tokens_per_s"]
    assert row["mfu"] == pytest.approx(flops / 1e12)
    assert row["roofline_ms"] == pytest.approx(row["mfu"] * row["step_ms"])
    assert row["loss_gap"] <= 1e-3 and row["loss_step"] == 3  # two alone, one soaked, one timed
    assert row["host_ms"] > 0 and 0 < row["feeding_share"] < 1
    counted = {"torch": row["peak_memory_bytes"] is None, "mlx": row["peak_memory_bytes"]}
    assert counted[name]
    assert fields["hardware"]["processor"] and "bench smoke" not in fields["hardware"]["versions"]
    assert main([*words, *ONCE]) == 0
    text = capsys.readouterr().out
    assert "6 x (2 x 28,672 + 65,536) + 12 x 64 x 32.5 x 2 = 787,200" in text
    assert "reference form ms" in text and "1.000 TFLOP/s (given)" in text


def test_losses_that_part_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def apart(*args: Any) -> dict[str, Any]:
        return {"loss_step": 1, "loss": 1.0, "reference_loss": 1.01, "loss_gap": 0.01}

    monkeypatch.setattr(steps, "compared", apart)
    assert main(["bench", "smoke", "--backend", "torch", *ONCE]) == 1


def test_losses_are_compared_at_one_step() -> None:
    own = steps.Stepping(None, None, stages(named("smoke"))[0])
    reference = replace(own, losses=dict.fromkeys(range(60), 2.0))
    own = replace(own, losses={step: 2.0 + step / 1000 for step in range(200)})
    assert steps.compared(own, reference, 50)["loss_gap"] == pytest.approx(0.05)
    reference = replace(reference, losses={0: 2.0, 7: 2.0})
    assert steps.compared(own, reference, 50)["loss_step"] == 7


QUICK = {
    suite: [r for r in rows if r.kind not in ("cold", "ranks")] for suite, rows in SUITES.items()
}


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_is_complete(
    suite: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All rows are measured at tiny shapes, whatever device they are for."""
    monkeypatch.setitem(SUITES, suite, tuple(QUICK[suite]))
    assert main(["bench", "--suite", suite, "--tiny", *ONCE, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["title"], row["reason"]) for row in rows] == [
        (r.title, None) for r in QUICK[suite]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["cpu", "cuda"])
def test_processes_of_their_own(
    suite: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = tuple(row for row in SUITES[suite] if row not in QUICK[suite])
    assert rest
    monkeypatch.setitem(SUITES, suite, rest)
    assert main(["bench", "--suite", suite, "--tiny", *ONCE, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["reason"] for row in rows] == [None] * len(rest)


def test_what_a_device_cannot_run_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--suite", "cuda", *ONCE]) == 0
    lines = capsys.readouterr().out.splitlines()
    refused = [line for line in lines if "not measured: it needs cuda, the device is cpu" in line]
    assert len(refused) == len(SUITES["cuda"])


def test_profiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ENGINES:
        words = ["bench", "smoke", "--backend", name, *ONCE, "--profile", str(tmp_path)]
        assert main(words) == 0
    said = capsys.readouterr().err
    (trace,) = tmp_path.glob("torch*/trace.json")
    assert json.loads(trace.read_text())["traceEvents"]
    assert "aten::mm" in trace.with_name("top.txt").read_text()
    assert "MLX captures on Metal alone" in said


def test_it_is_fed_from_files() -> None:
    with random_shards(named("smoke")) as stream:
        assert all(isinstance(part, np.memmap) for part in stream._shards)
        assert len(stream) == 4 * 1024 + 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("smoke", "--blocks", "0"), "blocks 0: at least 1 is needed"),
        (("smoke", "--suite", "cpu"), "recipes of its own, found smoke"),
        (("smoke", "--out", "nowhere/found.json"), "there is no folder nowhere"),
    ],
)
def test_usage(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture
def words(text: Text) -> list[str]:
    data = (f"data.path={text.shards}", f"data.tokenizer={text.model}")
    sizes = (f"arch.vocab_size={text.tokenizer.vocab_size}", "data.train_batch_tokens=512")
    rest = ("precision=autocast", "schedule.steps=6", "--rounds", "1")  # as a script without words
    return ["bench", "smoke", *data, *sizes, *rest]


@pytest.mark.slow
def test_an_external_script(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """This project's own entry script reads the reference's variables: it is one such script."""
    script = str(ROOT / "train_torch.py")
    assert main([*words, "--against", script, "--run", "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["ratio"] == pytest.approx(fields["script_ms"] / fields["step_ms"])
    to_reference = fields["script_ms"] / fields["reference_form_ms"]
    assert fields["ratio_to_reference_form"] == pytest.approx(to_reference)
    assert fields["train_loss"] == pytest.approx(fields["script_train_loss"], abs=1e-3)
    assert "a process of its own" in fields["isolation"]
    assert fields["variables"]["NUM_LAYERS"] == "2" and fields["variables"]["MLP_MULT"] == "2"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_gpt.py", "train_gpt_mlx.py"])
def test_a_script_of_the_references_structure(
    words: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It learns about as much: it draws first weights of its own."""
    script = str(ROOT / "tests" / "scripts" / name)
    assert main([*words, "--against", script, "--run", "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["backend"] == ("mlx" if "mlx" in name else "torch")
    assert fields["script_train_loss"] == pytest.approx(fields["train_loss"], abs=0.5)


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
