"""The plan: a range of bytes, memory by device, time on a named machine, and what fits the cap."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.artifact.ledger import CAP_BYTES
from core.artifact.quant import Format
from core.train.recipe import Recipe, with_changes
from core.train.recipes import RECIPES, baseline, named
from tools.costs import (
    HARDWARE,
    STEP_FLOOR_S,
    fitting_micro_batch,
    fp16_entropy,
    hardware_of,
    level_entropy,
    micro_batch_bytes,
    peak_flops,
    planned_artifact_bytes,
    planned_memory_bytes,
    role_bytes,
    tokens_per_s,
)
from tools.main import main
from tools.plan import FITTED, fit, largest, plan

CODE_BYTES = 50_000
GIB = 1 << 30


def golf_plan(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    code = main(["plan", *words, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


QUICK = ("baseline", "small")  # each recipe's bundle takes ten seconds the first time, or thirty
EVERY = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in RECIPES]


@pytest.mark.parametrize("name", EVERY)
def test_the_range_holds_the_plan(name: str) -> None:
    fields = plan(named(name))
    low, planned, high = (fields[f"artifact{end}_bytes"] for end in ("_low", "", "_high"))
    assert low < planned <= high
    assert sum(role["parameters"] for role in fields["roles"]) == fields["parameters"]
    for role in fields["roles"]:
        assert role["low_bytes"] <= role["planned_bytes"] <= role["high_bytes"]


def test_the_low_end_is_an_entropy() -> None:
    """A Gaussian in steps of d: log2(sigma/d * sqrt(2 pi e)); rows of 512 peak near 3.1 sigma."""
    assert abs(level_entropy(512) - 7.40) < 0.05
    assert level_entropy(4096) < level_entropy(128), (
        "a longer row has a higher peak, so wider steps"
    )
    assert 12.5 < fp16_entropy() < 14.0, "sign and ten bits of mantissa, and little exponent"


def test_every_format_has_a_cost() -> None:
    for form in get_args(Format):
        recipe = with_changes(baseline(), [f"quant.mlp={form}"])
        mlp = next(role for role in role_bytes(recipe) if role.role == "mlp")
        assert mlp.low_bytes <= mlp.planned_bytes <= mlp.high_bytes
    assert mlp.planned_bytes > 2 * mlp.parameters - 1, "fp16 was the last"


def test_memory_is_by_device(capsys: pytest.CaptureFixture[str]) -> None:
    _, fields, _ = golf_plan(capsys, "baseline")
    memory = fields["memory"]
    assert fields["memory_bytes"] == memory["peak_cuda_bytes"]
    assert memory["peak_cuda_bytes"] == memory["state_bytes"] + memory["micro_batch_cuda_bytes"]
    scores = memory["micro_batch_unified_bytes"] - memory["micro_batch_cuda_bytes"]
    assert scores == (9 + 3) * 64 * 8 * 1024 * 1024 * 2, "(visits + 3) x B x H x T x T in bf16"
    half = golf_plan(capsys, "baseline", "data.micro_batch=32")[1]["memory"]
    assert 2 * half["micro_batch_cuda_bytes"] == memory["micro_batch_cuda_bytes"]
    assert half["state_bytes"] == memory["state_bytes"]


@pytest.mark.parametrize("gib", [8, 16, 32, 128])
def test_a_fitting_micro_batch_is_the_largest(gib: int) -> None:
    rows = fitting_micro_batch(baseline(), gib * GIB)
    fixed = planned_memory_bytes(baseline()) - micro_batch_bytes(baseline(), 64, "cuda")
    assert fixed + micro_batch_bytes(baseline(), rows, "unified") <= gib * GIB // 2
    assert fixed + micro_batch_bytes(baseline(), 2 * rows, "unified") > gib * GIB // 2
    assert fitting_micro_batch(baseline(), 0) == 1


def test_time_is_the_baselines_log(capsys: pytest.CaptureFixture[str]) -> None:
    """The reference's 8xH100 log: 13,780 steps in 600 s."""
    _, fields, _ = golf_plan(capsys, "baseline")
    assert abs(fields["time"]["steps_in_600_s"] - 13_780) < 100
    assert fields["time"]["train_s"] == 600 and fields["time"]["cost_usd"] is None
    assert fields["time"]["assumed_mfu"] == 0.199 and "log" in fields["time"]["assumed_from"]
    words = ("baseline", "--usd-per-hour", "24", "--hardware", "1xH100", "schedule.steps=400")
    _, fields, _ = golf_plan(capsys, *words)
    seconds = 400 * 524_288 / tokens_per_s(baseline(), HARDWARE["1xH100"])
    assert abs(fields["time"]["train_s"] - seconds) < 0.1
    assert fields["time"]["cost_usd"] == round(24 * seconds / 3600, 2)


BREAKS = [
    # words, the caps broken, surely?
    (("small", "schedule.steps=1"), []),
    (("baseline", "arch.num_layers=12"), [("artifact_bytes", "arch.mlp_dim", True)]),
    (
        ("baseline", "arch.vocab_size=65536", "schedule.steps=1"),
        [("artifact_bytes", "arch.vocab_size", True)],
    ),
    (("small", "schedule.steps=90000000"), [("train_s", "schedule.budget_s", False)]),
    (("small", "schedule.budget_s=700", "schedule.steps=90000000"), [("train_s", None, True)]),
    (
        ("mac-8g", "data.train_batch_tokens=52428800", "--hardware", "8xH100"),
        [("memory_bytes", "data.micro_batch", False)],
    ),
]


@pytest.mark.slow
def test_a_macs_recipe_is_planned_on_a_mac(capsys: pytest.CaptureFixture[str]) -> None:
    for words, hardware in (
        (("mac-16g",), "mac"),
        (("baseline", "--scale", "mac-8g"), "mac"),
        (("mac-16g", "--hardware", "1xH100"), "1xH100"),
        (("baseline",), "8xH100"),
        (("small",), "8xH100"),
    ):
        assert golf_plan(capsys, *words)[1]["time"]["hardware"] == hardware


def test_no_step_is_planned_in_less_than_its_launches() -> None:
    for name, hardware in (("smoke", "8xH100"), ("baseline", "mac")):
        recipe = named(name)
        step_s = recipe.data.train_batch_tokens / tokens_per_s(recipe, HARDWARE[hardware])
        assert step_s >= STEP_FLOOR_S
        assert plan(recipe, hardware)["time"]["steps_in_600_s"] <= 600 / STEP_FLOOR_S


def test_devices_are_known_by_their_names() -> None:
    assert hardware_of("cuda:3", 8).flops == HARDWARE["8xH100"].flops
    assert hardware_of("Device(gpu, 0)", 1) == hardware_of("mps", 1) == HARDWARE["mac"]
    assert hardware_of("Device(cpu, 0)", 1) == hardware_of("cpu", 1) == HARDWARE["cpu"]
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") is None and peak_flops("AMD EPYC") is None


@pytest.mark.parametrize(("words", "expected"), BREAKS)
def test_what_breaks_which_cap(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: list[Any]
) -> None:
    code, fields, err = golf_plan(capsys, *words)
    found = fields["breaks"]
    assert code == 0 and [b["cap"] for b in found] == [cap for cap, _, _ in expected]
    for broken, (_, setting, certain) in zip(found, expected, strict=True):
        assert broken["setting"] == (setting or broken["setting"])
        assert broken["certain"] is certain and broken["message"] in err
    surely = any(certain for _, _, certain in expected)
    assert golf_plan(capsys, *words, "--strict")[0] == int(surely)


@settings(max_examples=200)
@given(edge=st.integers(1, 100_000))
def test_the_largest_that_fits(edge: int) -> None:
    asked: list[int] = []

    def fits(count: int) -> bool:
        asked.append(count)
        return count <= edge

    assert largest(fits) == edge
    assert len(asked) <= 40, "a search, not a walk"


@pytest.mark.parametrize("field", FITTED)
@pytest.mark.parametrize("name", ["baseline", "mac-8g"])
def test_a_fitted_recipe_is_at_the_edge(field: str, name: str) -> None:
    recipe = fit(named(name), field, CODE_BYTES)
    value, unit = getattr(recipe.arch, field), FITTED[field](recipe.arch)
    assert value % unit == 0
    assert planned_artifact_bytes(recipe, CODE_BYTES) <= CAP_BYTES
    wider = with_changes(recipe, [f"arch.{field}={value + unit}"])
    assert planned_artifact_bytes(wider, CODE_BYTES) > CAP_BYTES
    usual = with_changes(recipe, [f"arch.{field}={getattr(named(name).arch, field)}"])
    assert usual == named(name), "only that field"


def test_fit_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    _, fields, _ = golf_plan(capsys, "baseline", "--fit", "num_layers")
    assert fields["fit"]["field"] == "arch.num_layers" and fields["margin_bytes"] >= 0
    assert main(["plan", "baseline", "arch.vocab_size=65536", "--fit", "mlp_dim"]) == 1
    assert "no arch.mlp_dim fits" in capsys.readouterr().err


def test_scaled_plans_and_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    _, fields, _ = golf_plan(capsys, "baseline", "--scale", "mac-8g", "--hardware", "mac")
    assert fields["recipe"] == "baseline-mac-8g" and fields["time"]["hardware"] == "mac"
    assert main(["plan", "baseline"]) == 0
    out = capsys.readouterr().out
    for part in ("of the cap", "embed", "steps_in_600_s", "low: order-0 entropy"):
        assert part in out


def test_the_plan_does_not_read_old_variables(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("NUM_LAYERS", "3")
    assert golf_plan(capsys, "baseline")[1]["parameters"] == 17_059_912


def test_state_follows_the_average() -> None:
    plain = baseline()
    with_average: Recipe = replace(plain, optim=replace(plain.optim, ema_decay=0.9))
    extra = planned_memory_bytes(with_average) - planned_memory_bytes(plain)
    assert extra == 4 * 17_059_912
