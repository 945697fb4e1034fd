"""What a command line comes to: presets by memory, micro-batches, --scale, who talks, the ETA."""

from __future__ import annotations

import re

import pytest

from core.train.recipe import with_changes
from core.train.recipes import baseline
from tests.tools.test_environment import GIB
from tools import environment
from tools.recipes import settle
from tools.say import UsageError
from tools.train import ScoringEta


def test_without_arguments_a_mac_gets_the_preset_of_its_memory() -> None:
    for gib, name in ((8, "mac-8g"), (16, "mac-16g"), (18, "mac-16g"), (36, "mac-32g")):
        settled = settle([], "mlx", {}, memory_bytes=gib * GIB)
        assert settled.recipe.name == name and f"{gib} GiB of unified memory" in settled.notes[0]
        assert "predicted peak" in settled.notes[1]
        assert "a subset, spread-1m; --full" in settled.notes[2]
    assert settle([], "mlx", {}).recipe.name == "small"
    for place in ("DATA_PATH", "TOKENIZER_PATH", "SEED", "RUN_ID", "OUT_DIR"):
        kept = settle([], "mlx", {place: "7"}, memory_bytes=16 * GIB).recipe
        preset = settle([], "mlx", {}, memory_bytes=16 * GIB).recipe
        assert kept.name == "mac-16g" and kept.score == preset.score, "no default of the script"
        assert kept.data.micro_batch == preset.data.micro_batch
    both = {"SEED": "7", "ITERATIONS": "9"}
    assert settle([], "mlx", both, memory_bytes=16 * GIB).recipe.name == "baseline"
    assert settle([], "torch", {}, memory_bytes=16 * GIB).recipe.name == "baseline"
    full = settle([], "mlx", {}, full=True, memory_bytes=16 * GIB)
    assert full.recipe.score.subset == "full"
    assert {change.origin for change in full.origins} == {"--full"}
    named = settle(["baseline", "score.subset=first-1m"], "torch", {}, full=True)
    assert named.recipe.score.subset == "first-1m", "words come last"


def test_a_micro_batch_is_made_to_fit_unless_it_was_asked_for() -> None:
    fitted = settle(["baseline"], "mlx", {}, memory_bytes=16 * GIB)
    assert 1 <= fitted.recipe.data.micro_batch < 64
    assert fitted.origins[-1].origin == "16 GiB of unified memory"
    for words, environ in (
        (["baseline", "data.micro_batch=64"], {}),
        (["baseline"], {"MLX_MAX_MICROBATCH_TOKENS": "65536"}),
    ):
        asked = settle(words, "mlx", environ, memory_bytes=16 * GIB)
        assert asked.recipe.data.micro_batch == 64
    roomy = settle(["baseline"], "mlx", {}, memory_bytes=512 * GIB)
    assert roomy.recipe == baseline() and not roomy.origins


def test_scale_stands_between_the_environment_and_the_words() -> None:
    settled = settle(["arch.num_layers=5"], "torch", {"NUM_LAYERS": "40"}, scale="small")
    told = {change.field: change for change in settled.origins}
    assert settled.recipe.arch.num_layers == 5
    assert told["arch.num_layers"].origin == "the command line"
    assert told["arch.model_dim"] == ("arch.model_dim", "256", "--scale small")
    assert settled.recipe.name == "baseline-small"
    with pytest.raises(UsageError, match="no recipe 'mac-16'; did you mean 'mac-16g'"):
        settle([], "torch", {}, scale="mac-16")


def test_only_the_first_rank_talks() -> None:
    assert environment.leads({}) and environment.leads({"RANK": "0"})
    assert not environment.leads({"RANK": "1"}) and not environment.leads({"MLX_RANK": "2"})


def test_the_eta_of_scoring_is_told_early(capsys: pytest.CaptureFixture[str]) -> None:
    """Planned before the first step, corrected after ten; validations on the way count."""
    for words, planned, measured in (
        (["score.val_every_steps=0"], "before and after packing will take about 30 min", 34),
        (["schedule.budget_s=0", "schedule.steps=5001"], "5 times on the way", 7 * 17),
        (["schedule.steps=60"], "about 30 min (planned", 34),
        (["score.limit_tokens=1000"], "", 0),
    ):
        eta = ScoringEta(with_changes(baseline(), words))
        eta("start", val_tokens=62_021_846, world_size=1, device="Device(gpu, 0)")
        told = capsys.readouterr().err
        assert planned in told and bool(told) == bool(planned)
        for step in (9, 10, 11):
            eta("step", step=step, steps=100, tokens_per_s=20_000.0)
        err = capsys.readouterr().err
        assert err.count("\n") == bool(measured)
        if measured:
            found = re.search(r"62,021,845 targets .*about (\d+) min", err)
            assert found and abs(int(found[1]) - measured) <= 2, err


def test_validations_are_of_the_steps_that_fit() -> None:
    eta = ScoringEta(baseline())  # 600 s, 1,000 steps between two validations
    assert eta.validations(12e6) == 13 and eta.validations(524_288.0) == 0
    assert eta.validations(1e12) == 19, "20,000 steps, of which the last is scored at the end"
