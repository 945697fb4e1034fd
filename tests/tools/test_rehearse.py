"""golf rehearse: every stage is come to, every budget extrapolated, on either engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.arch.plan import forward_plan
from core.train.recipe import Recipe, to_json, with_changes
from core.train.recipes import named
from core.train.run_folder import RunFolder
from core.train.schedules import knobs, stages
from tests.conftest import Text
from tests.parity.engines import ENGINES
from tools.main import main
from tools.rehearse import pod_line, show
from tools.rehearsing.budgets import Budget, Facts, budgets, fits, task_targets
from tools.rehearsing.launch import CACHES, cached_files, caches, environment, launcher
from tools.rehearsing.pods import LOGS, compared, nearest
from tools.rehearsing.seen import Scoring, Seen, observe, scoring, step_times
from tools.rehearsing.short import LEAST_STEPS, enough_targets, rehearsed
from tools.resume import unfinished

Capture = pytest.CaptureFixture[str]
each_engine = pytest.mark.parametrize("name", ENGINES)
ROWS = (
    '[{"at": 0, "train_batch_tokens": 256, "seq_len": 32}, '
    '{"at": 0.1, "train_batch_tokens": 512, "seq_len": 64}]'
)
LOOPED = 'arch.phases=[{"at": 0, "order": [0, 1]}, {"at": %s, "order": [0, 1, 0, 1]}]'
MANY_STAGES = (
    *(LOOPED % 0.97, f"data.batch_schedule={ROWS}", "qat.form=ste", "qat.start=0.99"),
    *("quant.attn=int6", "quant.attn_sigmas=12", "schedule.budget_s=30"),
    *("schedule.steps=20000", "optim.swa_every_steps=50", "optim.ema_decay=0"),
)
EVERY_PHASE = (
    *(LOOPED % 0.35, "quant.solver=gptq", "quant.calibration_batches=2", "quant.mlp_sigmas=12"),
    *("score.protocol=sliding", "score.stride=16", "score.adapt=sgd", "score.sgd.chunk_tokens=256"),
    *("quant.mlp=int6", "schedule.budget_s=20", "schedule.steps=100000", "score.batch=4"),
)


@pytest.mark.parametrize("recipe", ["r1081", "r1061", "baseline", "many stages"])
def test_a_rehearsal_comes_to_every_stage(recipe: str) -> None:
    """However late the real run's switches are, with three steps behind each of them at least."""
    real = with_changes(named("smoke"), MANY_STAGES) if recipe == "many stages" else named(recipe)
    short = rehearsed(real, 7, 1000, 40_000_000)
    assert stages(short) == stages(real)
    come_to = [knobs(short, step, 0.0).stage for step in range(short.schedule.steps)]
    for one in stages(real):
        assert come_to.count(one) >= LEAST_STEPS, one
    assert short.schedule.steps == max(7, LEAST_STEPS * len(stages(real)))
    assert short.schedule.budget_s == 0 and short.score.limit_tokens == 1000
    assert len(forward_plan(short.arch)) == len(forward_plan(real.arch))
    assert (short.quant, short.data.train_batch_tokens, short.data.micro_batch) == (
        *(real.quant, real.data.train_batch_tokens, real.data.micro_batch),
    )
    if real.optim.swa_every_steps:
        assert 0 < short.optim.swa_every_steps < short.schedule.steps * short.optim.swa_below + 1


def test_what_is_learned_from_is_the_same_part_of_the_documents() -> None:
    real = named("r1061")
    short = rehearsed(real, 20, 400_000, 40_000_000)
    assert short.score.phased.prefix_docs == real.score.phased.prefix_docs // 100
    whole = rehearsed(real, 20, 400_000, 400_000)
    assert whole.score == real.score


@pytest.mark.parametrize(
    ("recipe", "ranks", "targets"),
    [
        ("baseline", 8, 12 * 8 * 64 * 1024),  # batches of whole windows
        ("r1081", 8, 12 * 32_768),  # chunks that are learned from, on all ranks together
        ("r1061", 8, 12 * 64_000),  # documents side by side
        ("smoke", 1, 12 * 16 * 64),
    ],
)
def test_enough_is_scored_to_tell_the_speed(recipe: str, ranks: int, targets: int) -> None:
    assert enough_targets(named(recipe), ranks) == targets


FITS = {  # recipe, seconds a step of each stage, the steps that a public log counts, to 0.5 %
    "naive baseline": ("baseline", 600.0, (0.04354,), 13_780),
    "1.0810": ("r1081", 588.0, (0.1020, 0.1503), 4_550),
    "1.0611": ("r1061", 599.5, (0.0964, 0.1413), 4_931),
}


@pytest.mark.parametrize("name", FITS)
def test_the_steps_that_fit_are_those_of_the_records(name: str) -> None:
    recipe, budget_s, step_s, steps = FITS[name]
    real = named(recipe)
    found = fits(real, dict(zip(stages(real), step_s, strict=True)), budget_s)
    assert abs(found.steps / steps - 1) < 0.005
    assert budget_s - max(step_s) <= found.seconds <= budget_s
    if len(step_s) == 2:
        before, after = (count * s for (_, count), s in zip(found.by_stage, step_s, strict=True))
        assert before / (before + after) == pytest.approx(0.35, abs=0.001)


def test_without_a_budget_all_steps_are_counted() -> None:
    real = with_changes(named("smoke"), ["schedule.steps=50"])
    found = fits(real, dict.fromkeys(stages(real), 30.0), 0.0)
    assert (found.steps, found.seconds) == (50, 1500.0)


def event(beats: list[float], seconds: float, targets: int = 100) -> dict[str, Any]:
    return {"beats_s": beats, "eval_ms": 1000 * seconds, "tokens": targets}


def test_what_compiles_once_is_not_multiplied() -> None:
    """Ten seconds of compiling, then a batch a second: ten times the targets are 40 batches."""
    seen = scoring(event([11.0, 12.0, 13.0, 14.0], 14.0))
    assert seen.batch_s == pytest.approx(1.0)
    assert seen.whole_s(1000) == pytest.approx(50.0) and seen.whole_s(100) == pytest.approx(14.0)
    few = scoring(event([11.0, 12.0], 12.0))
    assert few.batch_s is None and few.whole_s(1000) == pytest.approx(120.0)
    assert scoring(event([], 3.0)).whole_s(200) == pytest.approx(6.0)


def test_seconds_of_a_step_are_those_behind_a_switch(text: Text) -> None:
    recipe = text.recipe("schedule.steps=8", LOOPED % 0.5)
    times = [1, 2, 3, 4, 14, 16, 18, 20]
    events = [
        {"event": "step", "step": i + 1, "train_ms": 1000.0 * t, "progress": i / 8}
        for i, t in enumerate(times)
    ]
    before, after = stages(recipe)
    assert step_times(events, recipe) == {before: [1, 1, 1, 1], after: [10, 2, 2, 2]}
    del events[5]  # a bad step says nothing
    assert step_times(events, recipe)[after] == [10, 2, 2]
    with pytest.raises(ValueError, match="never came to"):
        step_times(events[:4], recipe)


TARGETS = {
    "all of the task's": ((62_021_632, 1024, False, None), 62_021_632, "validation split"),
    "a tail left out": ((62_000_000, 1024, False, None), 62_000_000, "validation split"),
    "a part of it": ((9_662_464, 1024, False, None), 62_021_632, "(9,662,464 are here)"),
    "of 8,192 pieces": ((1_000_000, 8192, False, None), 40_540_160, "(1,000,000 are here)"),
    "of transformed text": ((1_000_000, 8192, True, None), 47_851_520, "(1,000,000 are here)"),
    "a subset that is asked for": ((9_000, 1024, False, 1000), 1000, "subset"),
    "another text": ((9_000, 384, False, None), 9_000, "validation split"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_whose_targets_are_scored(name: str) -> None:
    given, count, whose = TARGETS[name]
    found = task_targets(*given)
    assert found[0] == count and whose in found[1]


def seen(recipe: Recipe, **changes: Any) -> Seen:
    """A rehearsal on 8 GPUs at the speed of the 1.0810 record's log."""
    plain = Scoring(seconds=1.0, targets=400_000, batches=40, batch_s=0.02)
    whole = {
        "start": {},
        "first_step_at_s": 60.0,
        "passes_s": [[20.0, 20.0], [0.1, 0.2]],
        "step_s": dict(zip(stages(recipe), (0.1020, 0.1503), strict=True)),
        "steps": dict.fromkeys(stages(recipe), 10),
        "scorings": {
            "pre": plain,
            "quantized": plain,
            "final": Scoring(seconds=5.0, targets=400_000, batches=12, batch_s=0.3),
        },
        "phases_s": {"train": 2.0, "calibrate": 12.0, "quantize": 9.0, "compress": 20.0},
        "peak_bytes": None,
        "model_bytes": 15_900_000,
    }
    return Seen(**{**whole, **changes})


FACTS = Facts(
    targets=40_540_160,
    of_targets="of the validation split",
    open_s=5.0,
    code_bytes=17_000,
    planned_bytes=15_950_000,
    bundle_s=3.0,
    cold=True,
    cold_start_s=60.0,
    warm_start_s=15.0,
)


def by_name(rows: list[Budget]) -> dict[str, Budget]:
    return {row.name: row for row in rows}


def test_every_budget_has_its_verdict() -> None:
    recipe = named("r1081")
    rows = by_name(budgets(recipe, seen(recipe), FACTS))
    assert {name for name, row in rows.items() if row.limit} == {"training", "scoring", "artifact"}
    assert all(rows[name].status == "PASS" for name in ("training", "scoring", "artifact"))
    assert rows["training"].value == pytest.approx(600.0, abs=0.2)
    assert "12.0 s of them for calibration" in rows["training"].how
    share = 40_540_160 / 400_000
    assert rows["scoring"].value == pytest.approx(1.4 + share * 3.6)
    assert rows["scoring, nothing learned"].value == pytest.approx(0.2 + share * 0.8)
    assert (rows["cold start"].value, rows["warm start"].value) == (65.0, 20.0)
    assert rows["artifact"].value == 15_917_000
    assert rows["one seed"].value == pytest.approx(
        20.0 + 600.0 + 29.0 + 1.4 + share * 3.6 + 2 * (0.2 + share * 0.8), abs=0.2
    )


OVER: dict[str, tuple[str, dict[str, Any], dict[str, Any], list[str], str]] = {
    "calibration does not fit beside the budget": (
        "training",
        {},
        {},
        ["schedule.budget_s=599"],
        "schedule.budget_s=588.0 leaves room",
    ),
    "scoring is too slow": (
        "scoring",
        {"final": Scoring(seconds=30.0, targets=400_000, batches=12, batch_s=2.0)},
        {},
        [],
        "adapted by sgd",
    ),
    "a model too large": ("artifact", {}, {"model_bytes": 16_000_000}, [], "code and these"),
}


@pytest.mark.parametrize("name", OVER)
def test_what_is_over_budget(name: str) -> None:
    row, scorings, changes, words, said = OVER[name]
    recipe = with_changes(named("r1081"), words)
    found = seen(recipe, **changes)
    found = replace(found, scorings={**found.scorings, **scorings})
    facts = replace(FACTS, planned_bytes=FACTS.planned_bytes + (row == "artifact") * 10**6)
    rows = by_name(budgets(recipe, found, facts))
    assert rows[row].status == "over budget" and said in rows[row].how
    others = [rows[n].status for n in ("training", "scoring", "artifact") if n != row]
    assert others == ["PASS", "PASS"]


def test_what_cannot_be_known_is_unknown() -> None:
    recipe = named("r1081")
    few = Scoring(seconds=30.0, targets=400_000, batches=2, batch_s=None)
    found = seen(recipe)
    found = replace(found, scorings={**found.scorings, "final": few})
    facts = replace(FACTS, planned_bytes=16_100_000, warm_start_s=None, cold=False)
    rows = by_name(budgets(recipe, found, facts))
    for name in ("scoring", "artifact", "warm start"):
        assert rows[name].status == "unknown", name
    assert "this is no cold start" in rows["cold start"].how


FLOPS = {"naive baseline, 1.2244": (130.6, 130.6), "1.0810": (284.7, 426.3)}  # millions a token


def test_the_logs_are_what_their_own_figures_say() -> None:
    """Tokens a second and FLOPs a token as they were computed from the same logs elsewhere."""
    logs = {log.name: log for log in LOGS}
    for name, (before, after) in FLOPS.items():
        assert logs[name].flops(0) / 1e6 == pytest.approx(before, abs=0.05)
        assert logs[name].flops(1) / 1e6 == pytest.approx(after, abs=0.05)
    speeds = [speed / 1e6 for speed in logs["1.0611"].tokens_per_s]
    assert speeds == [pytest.approx(8.16, abs=0.005), pytest.approx(5.57, abs=0.005)]


NEAREST = {
    ("baseline", "NVIDIA H100 80GB HBM3"): "naive baseline, 1.2244",
    ("baseline", "NVIDIA H200"): "lower rates at the baseline's shape",
    ("r1081", "NVIDIA H200"): "1.0810",
    ("r1061", "NVIDIA H100 80GB HBM3"): "1.0611",
}


@pytest.mark.parametrize(("recipe", "device_name"), NEAREST)
def test_the_nearest_log_is_the_records_own(recipe: str, device_name: str) -> None:
    assert nearest(named(recipe), device_name).name == NEAREST[recipe, device_name]


def test_a_pod_is_compared_with_its_log() -> None:
    recipe, h100 = named("r1081"), "NVIDIA H100 80GB HBM3"
    equal = compared(recipe, "cuda:0", h100, 8, [0.1020, 0.1503])
    assert not equal["slow"] and [p["speed"] for p in equal["phases"]] == pytest.approx([1, 1])
    assert "as fast as its log" in pod_line(equal)
    slow = compared(recipe, "cuda:0", h100, 8, [0.1020, 0.1670])
    assert slow["slow"] and "SLOW" in pod_line(slow)
    alone = compared(recipe, "cuda:0", h100, 1, [8 * 0.1020, 8 * 0.1503])
    assert alone["phases"][1]["speed"] == pytest.approx(1.0)
    wide = with_changes(recipe, ["arch.mlp_dim=4096"])
    more = compared(wide, "cuda:0", h100, 8, [0.1020, 0.1503])["phases"][0]
    assert more["expected_ms"] > 1.4 * more["log_ms"]
    none = compared(recipe, "cpu", "cpu", 1, [1.0, 1.0])
    assert none["applies"] is False and "no figure applies" in pod_line(none)


def test_how_processes_are_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(launcher("torch", 1)) == 1 == len(launcher("mlx", 1))
    assert launcher("torch", 8)[-2:] == ["--nproc_per_node", "8"]
    for name in CACHES:
        monkeypatch.delenv(name, raising=False)
    beside = caches("torch", None, tmp_path)
    assert list(beside) == list(CACHES) and caches("mlx", None, tmp_path) == {}
    assert all(place.startswith(str(tmp_path / "compile-cache")) for place in beside.values())
    monkeypatch.setenv("TRITON_CACHE_DIR", "mine")
    assert caches("torch", None, tmp_path)["TRITON_CACHE_DIR"] == "mine"
    asked = caches("torch", tmp_path / "asked", tmp_path)
    assert all(place.startswith(str(tmp_path / "asked")) for place in asked.values())
    assert environment(asked).items() >= asked.items()
    assert cached_files(asked) == 0
    (tmp_path / "asked" / "triton").mkdir(parents=True)
    (tmp_path / "asked" / "triton" / "graph").write_text("x")
    assert cached_files(asked) == 1


def rehearsed_fields(
    capsys: Capture, recipe: Recipe, folder: Path, *words: str
) -> tuple[int, dict[str, Any], str]:
    path = folder / "recipe.json"
    path.write_text(to_json(recipe))
    code = main(["rehearse", str(path), "--runs", str(folder / "runs"), "--json", *words])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else {}, err


@each_engine
def test_every_phase_of_a_run(text: Text, tmp_path: Path, capsys: Capture, name: str) -> None:
    """A switch, Hessians, solving, sliding and learning windows; the report of all of it.

    With torch also a second start, to the first step alone.
    """
    recipe, twice = text.recipe(*EVERY_PHASE), name == "torch"
    words = ("--backend", name, "--nproc", "1", "--steps", "8", "--targets", "1500")
    words += ("--usd-per-hour", "20", *(() if twice else ("--once",)))
    code, fields, err = rehearsed_fields(capsys, recipe, tmp_path, *words)
    rows = {row["name"]: row for row in fields["budgets"]}
    assert code == (1 if any(r["status"] == "over budget" for r in rows.values()) else 0)
    assert fields["world_size"] == 1 and fields["rehearsed_steps"] == 8
    assert [stage["rehearsed_steps"] for stage in fields["stages"]] == [4, 4]
    assert all(stage["steps"] > 0 and stage["step_ms"] > 0 for stage in fields["stages"])
    assert fields["steps"] == sum(stage["steps"] for stage in fields["stages"])
    assert rows["training"]["value"] == pytest.approx(20 + fields["calibration_s"], abs=1)
    assert rows["scoring"]["status"] != "unknown" and "adapted by sgd" in rows["scoring"]["how"]
    assert "validation split" in rows["scoring"]["how"]
    assert rows["artifact"]["value"] > rows["bundle"]["value"] > 0
    assert err.count("warmup_step:") == 1 + twice and err.count("stopped: step:8/8") == 1
    assert rows["warm start"]["status"] == ("no limit" if twice else "unknown")
    assert fields["pod"]["applies"] is False and fields["seed_usd"] > 0
    run = Path(fields["run"])
    assert not (run / "warm-start" / "model.bin").exists()
    assert observe(run, rehearsed(recipe, 8, 1500, 10**9)).scorings.keys() == {
        *("pre", "quantized", "final"),
    }
    assert (run / "model.bin").stat().st_size
    show(fields)
    out = capsys.readouterr().out
    for part in ("training", "PASS", "no figure applies", "dollars"):
        assert part in out
    assert ("export TORCHINDUCTOR_CACHE_DIR=" in out) == twice


def test_what_breaks_breaks_here(
    text: Text, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.rehearse.bundle", lambda *_: None)  # it takes seconds
    monkeypatch.setattr("tools.rehearse.code_bytes", lambda _: 16_000)
    recipe = text.recipe("optim.matrix_lr=1e30")
    words = ("--backend", "torch", "--nproc", "1", "--once", "--steps", "4")
    code, fields, err = rehearsed_fields(capsys, recipe, tmp_path, *words)
    assert code == 1 and not fields
    assert "golf: the rehearsal ended with exit code 1" in err and "overflows" in err
    missing = text.recipe("data.path=nowhere")
    code, fields, err = rehearsed_fields(capsys, missing, tmp_path, *words)
    assert code == 1 and "nowhere" in err and "Traceback" not in err


def test_what_is_asked_for_is_checked(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert main(["rehearse", "smoke", "--steps", "0"]) == 2
    assert main(["rehearse", "smoke", "--nproc", "-1"]) == 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(["rehearse", "smoke"]) == 2
    assert "starts the ranks itself" in capsys.readouterr().err


def test_a_rehearsal_is_no_run_to_go_on_with(text: Text, tmp_path: Path) -> None:
    recipe = text.recipe()
    RunFolder(tmp_path, "rehearsal-smoke-torch").create(rehearsed(recipe, 20, 10, 100))
    assert unfinished(tmp_path, "smoke-01234567-torch", recipe) is None


@pytest.mark.slow
@each_engine
def test_two_ranks(text: Text, tmp_path: Path, capsys: Capture, name: str) -> None:
    recipe = text.recipe(*EVERY_PHASE)
    words = ("--backend", name, "--nproc", "2", "--steps", "8", "--targets", "1500")
    _, fields, err = rehearsed_fields(capsys, recipe, tmp_path, *words)
    assert fields["world_size"] == 2 and err.count("stopped: step:8/8") == 1
    rows = {row["name"]: row for row in fields["budgets"]}
    assert rows["warm start"]["value"] > 0 and rows["scoring"]["status"] != "unknown"


@pytest.mark.slow
def test_graphs_are_kept_for_the_next_start(
    text: Text, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled once: the second start finds them, and so does a second rehearsal."""
    for name in CACHES:  # what compiled in this process has named its own
        monkeypatch.delenv(name, raising=False)
    recipe = text.recipe("compile=on")
    words = ("--backend", "torch", "--nproc", "1", "--steps", "3", "--targets", "500")
    _, fields, _ = rehearsed_fields(capsys, recipe, tmp_path, *words)
    rows = {row["name"]: row for row in fields["budgets"]}
    assert fields["cached_files"] > 0 and "no cold start" not in rows["cold start"]["how"]
    assert rows["warm start"]["value"] < rows["cold start"]["value"]
    _, again, _ = rehearsed_fields(capsys, recipe, tmp_path, *words, "--once")
    how = next(row["how"] for row in again["budgets"] if row["name"] == "cold start")
    assert "the cache was not empty" in how
    assert again["stages"][0]["compile_s"] < fields["stages"][0]["compile_s"]
