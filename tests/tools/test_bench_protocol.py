"""The protocol of ratios, on a clock of its own; FLOPs and contexts by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.arch.params import flops_per_token
from core.arch.spec import BOS
from core.train.recipes import RECIPES, named
from tools.benching.blocks import Rules, Turns, block, in_turns
from tools.benching.flops import flops_of, peak_of
from tools.benching.tokens import mean_context, tokens


class Machine:
    """A clock that only work moves: what is launched, and what waiting for it costs."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.done: list[str] = []

    def now(self) -> float:
        return self.time_s

    def form(self, name: str, host_s: float, device_s: float = 0.0):  # type: ignore[no-untyped-def]
        def launch() -> float:
            self.done.append(name)
            self.time_s += host_s
            return device_s

        return launch

    def settle(self, device_s: float) -> None:
        self.time_s += device_s


def test_blocks_alternate_and_the_first_form_meets_itself_first() -> None:
    machine = Machine()
    forms = {"a": machine.form("a", 1.0), "b": machine.form("b", 3.0)}
    rules = Rules(blocks=2, steps=2, soak_s=0.0, now=machine.now)
    turns = in_turns(forms, machine.settle, rules)
    soaked, itself, in_turn = "ab", "aa" * 2 * 2, "aabb" + "bbaa"
    assert "".join(machine.done) == soaked + itself + in_turn
    assert turns.ratio("b", "a").median == pytest.approx(3.0) and turns.noise() == 0.0
    assert turns.step_s("b").low == turns.step_s("b").high == pytest.approx(3.0)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_step_is_from_where_one_is_done_to_where_the_next_is(count: int) -> None:
    machine = Machine()
    rules = Rules(steps=count, now=machine.now)
    both = block(machine.form("x", 1.0, device_s=4.0), machine.settle, rules)
    assert both == pytest.approx(5.0)
    assert len(machine.done) == count


def test_nothing_of_a_block_is_left_to_the_next() -> None:
    machine = Machine()
    left = [2.0]  # seconds of work that settling does not wait for

    def drain() -> None:
        machine.time_s += left.pop()

    assert (
        block(machine.form("x", 1.0), machine.settle, Rules(steps=1, now=machine.now), drain) == 3.0
    )


def test_a_slow_step_does_not_move_a_block() -> None:
    machine, held = Machine(), iter([1.0, 1.0, 9.0, 1.0, 1.0])

    def launch() -> float:
        machine.time_s += next(held)
        return 0.0

    assert block(launch, machine.settle, Rules(steps=5, now=machine.now)) == 1.0


def test_a_ratio_within_the_noise_does_not_count() -> None:
    turns = Turns(seconds={"a": [1.0, 1.0], "b": [1.1, 1.1]}, itself=[0.95, 1.04])
    assert turns.noise() == pytest.approx(0.05)
    assert turns.counts(turns.ratio("b", "a").median)
    assert not replace(turns, itself=[0.85, 1.0]).counts(turns.ratio("b", "a").median)


@pytest.mark.parametrize("change", [{"blocks": 0}, {"steps": 0}, {"soak_s": -1.0}])
def test_rules_are_checked(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"0|-1"):
        Rules(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RECIPES)
def test_the_formula_is_the_cores(name: str) -> None:
    spec = named(name).arch
    found = flops_of(spec)
    assert found.per_token == flops_per_token(spec)
    assert f"= {found.per_token:,}" in found.terms


def test_the_records_flops() -> None:
    """284.7 and 426.3 million before and behind the switch, as counted by hand."""
    spec = named("r1081").arch
    before, behind = (flops_of(spec, phase).per_token / 1e6 for phase in (0, -1))
    assert before == pytest.approx(284.7, abs=0.1) and behind == pytest.approx(426.3, abs=0.1)
    apart = flops_of(spec, -1, context=620.0)
    assert apart.per_token / 1e6 == pytest.approx(384.1, abs=0.1)


def test_the_context_of_documents() -> None:
    rows = np.array([[5, 5, BOS, 5], [5, 5, 5, 5]], np.uint16)
    assert mean_context(rows) == (3 + 3 + 10) / 8
    assert mean_context(np.full((1, 7), 5, np.uint16)) == (7 + 1) / 2


def test_tokens_have_documents_and_order() -> None:
    recipe = named("small")
    found = tokens(recipe, 50_000)
    assert found.max() < recipe.arch.vocab_size and 30 < (found == BOS).sum() < 2000
    follows = (31 * found[:-1].astype(np.int64) + 7) % recipe.arch.vocab_size
    assert 0.2 < np.mean(follows == found[1:]) < 0.6
    assert np.array_equal(found, tokens(recipe, 50_000))


def test_peaks_are_given_known_or_measured() -> None:
    calls: list[int] = []

    def product() -> None:
        calls.append(1)

    def settle(value: None) -> None:
        pass

    assert peak_of("NVIDIA H200", 5.0, product, 8, settle).source == "given"
    assert peak_of("NVIDIA H200", None, product, 8, settle).flops == 989e12 and not calls
    assert "product of 8 x 8" in peak_of("cpu", None, product, 8, settle).source and calls
