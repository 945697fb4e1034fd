"""The statistics of runs against scipy, against simulations, and at their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.score.stats import (
    RECORD_NATS,
    at,
    error_rates,
    least_gain,
    pair_up,
    paired,
    progression,
    record_rule,
    sample,
    seeds_needed,
    splits,
    welch,
)
from tools.compare import distributions

stats = pytest.importorskip("scipy.stats")
pytestmark = pytest.mark.filterwarnings("ignore:Precision loss")  # scipy, of equal values
TAIL, POWER = distributions()
VALUES = st.lists(st.integers(0, 10_000).map(lambda n: 1.0 + n / 1e5), min_size=2, max_size=9)


@settings(max_examples=200, deadline=None)
@given(a=VALUES, b=VALUES, margin=st.sampled_from([0.0, 0.005, -0.02]))
def test_welch_is_scipys(a: list[float], b: list[float], margin: float) -> None:
    test = welch(a, b, margin)
    if len({*a}) == len({*b}) == 1:
        assert test is None
        return
    assert test is not None
    wanted = stats.ttest_ind(a, [x - margin for x in b], equal_var=False, alternative="less")
    assert test.p_value(TAIL) == pytest.approx(float(wanted.pvalue), rel=1e-6, abs=1e-12)
    assert test.t == pytest.approx(-float(wanted.statistic), rel=1e-6, abs=1e-9)
    assert test.freedom == pytest.approx(float(wanted.df), rel=1e-9)
    assert test.gain == pytest.approx(np.mean(b) - np.mean(a), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(a=VALUES, data=st.data())
def test_pairs_are_scipys(a: list[float], data: st.DataObject) -> None:
    b = data.draw(st.lists(st.floats(1, 1.2), min_size=len(a), max_size=len(a)))
    gains = [y - x for x, y in zip(a, b, strict=True)]
    test = paired(gains)
    if np.std(gains) < 1e-9:
        return
    assert test is not None
    wanted = stats.ttest_rel(a, b, alternative="less")
    assert test.p_value(TAIL) == pytest.approx(float(wanted.pvalue), rel=1e-5, abs=1e-12)


def test_samples() -> None:
    found = sample([1.0, 2.0, 4.0])
    assert (found.n, found.mean) == (3, 7 / 3) and found.sd == pytest.approx(
        np.std([1, 2, 4], ddof=1)
    )
    assert sample([1.0]).sd is None
    with pytest.raises(ValueError, match="0 values"):
        sample([])
    assert welch([1.0], [1.0, 2.0]) is None and paired([0.1]) is None
    assert welch([1.1, 1.1], [1.2, 1.2]) is None and paired([0.1, 0.1, 0.1]) is None


def test_pairs_are_by_seed() -> None:
    a = [(1, 1.0), (2, 2.0), (2, 4.0), (None, 9.0)]
    assert pair_up(a, [(2, 5.0), (3, 6.0), (None, 7.0)]) == {2: (3.0, 5.0)}


RULES = [
    # gain in nats, spread, record rule, progression
    (0.0100, 0.0005, True, True),
    (0.0055, 0.0020, False, True),  # more than 0.005 on average, but not shown to be
    (0.0040, 0.0001, False, True),  # surely better, and surely by less than 0.005
    (0.0002, 0.0030, False, False),
    (-0.010, 0.0005, False, False),
]


@pytest.mark.parametrize(("gain", "spread", "record", "plain"), RULES)
def test_the_rules(gain: float, spread: float, record: bool, plain: bool) -> None:
    b = [2.0 - spread, 2.0, 2.0 + spread]
    a = [value - gain for value in b]
    assert record_rule(a, b, TAIL).holds is record and progression(a, b, TAIL).holds is plain
    p_value = record_rule(a, b, TAIL).p_value
    shifted = [value + RECORD_NATS for value in a]
    wanted = stats.ttest_ind(shifted, b, equal_var=False, alternative="less").pvalue
    assert p_value == pytest.approx(float(wanted), rel=1e-9)


def test_without_a_p_value_nothing_is_shown_and_progression_is_open() -> None:
    assert record_rule([1.0], [2.0], TAIL).holds is False
    for a, b in ([1.0], [2.0]), ([2.0], [1.0]), ([1.0, 1.0], [2.0, 2.0]):
        assert progression(a, b, TAIL).holds is None


POWERS = [
    # gain, sds, runs a side
    (0.0020, (0.0007, 0.0007), (3, 3)),
    (0.0010, (0.0007, 0.0007), (6, 6)),
    (0.0015, (0.0010, 0.0004), (8, 4)),
    (0.0200, (0.0007, 0.0020), (2, 3)),
]


@pytest.mark.parametrize(("gain", "sds", "ns"), POWERS)
def test_power_is_that_of_a_simulation(
    gain: float, sds: tuple[float, float], ns: tuple[int, int]
) -> None:
    """20,000 experiments have a standard error of at most 0.0035; the quantiles cost as much."""
    dice = np.random.default_rng(7)
    a = dice.normal(1.0 - gain, sds[0], (20_000, ns[0]))
    b = dice.normal(1.0, sds[1], (20_000, ns[1]))
    found = stats.ttest_ind(a, b, axis=1, equal_var=False, alternative="less").pvalue < 0.01
    assert abs(POWER(gain, sds, ns, 0.01) - found.mean()) < 0.012


def test_seeds_for_a_power_are_the_fewest() -> None:
    sds = (0.0007, 0.0009)
    for gain in (0.0005, 0.0012, 0.004):
        need = seeds_needed(gain, sds, 0.01, 0.8, POWER)
        assert need is not None and POWER(gain, sds, (need, need), 0.01) >= 0.8
        if need > 2:
            assert POWER(gain, sds, (need - 1, need - 1), 0.01) < 0.8
    alone = seeds_needed(0.0016, sds, 0.01, 0.8, POWER, runs_b=8)
    assert alone is not None and POWER(0.0016, sds, (alone, 8), 0.01) >= 0.8
    assert seeds_needed(0.0012, sds, 0.01, 0.8, POWER, runs_b=2) is None, "B's spread remains"
    assert seeds_needed(0.0, sds, 0.01, 0.8, POWER) is None
    assert seeds_needed(1e-9, sds, 0.01, 0.8, POWER) is None
    assert seeds_needed(0.5, sds, 0.01, 0.8, POWER) == 2, "a gain of 600 spreads"


def test_the_least_gain_has_the_power_and_none_below_it() -> None:
    for runs in (2, 3, 6):
        gain = least_gain(0.0007, runs, 0.01, 0.8, POWER)
        assert gain is not None
        assert POWER(gain, (0.0007, 0.0007), (runs, runs), 0.01) >= 0.8
        assert POWER(gain * 0.999, (0.0007, 0.0007), (runs, runs), 0.01) < 0.8
    assert least_gain(0.0007, 1, 0.01, 0.8, POWER) is None
    assert least_gain(0.0, 3, 0.01, 0.8, POWER) is None


def test_splits_are_all_of_them_or_a_fixed_draw() -> None:
    every = list(splits(5, 100))
    assert len(every) == math.comb(5, 2) and len({tuple(a) for a, _ in every}) == 10
    assert all(sorted([*a, *b]) == [0, 1, 2, 3, 4] for a, b in every)
    drawn = list(splits(40, 30))
    assert len(drawn) == 30 and drawn == list(splits(40, 30))


def test_how_often_rules_err() -> None:
    """Over normal values a rule at p errs in about p of the splits; a rule that always calls errs
    always.
    """
    values = list(np.random.default_rng(3).normal(1.0, 0.001, 14))
    rules = {
        "p": lambda a, b: welch(a, b).p_value(TAIL) < 0.25,  # type: ignore[union-attr]
        "always": lambda a, b: True,
    }
    count, rates = error_rates(values, rules, most=500)
    assert count == 500 and rates["always"] == 1.0 and 0.19 < rates["p"] < 0.31
    assert error_rates([1.0, 2.0, 3.0], rules) == (0, {})


def test_a_curve_between_its_points() -> None:
    points = [(1.0, 10.0), (2.0, 20.0), (4.0, 0.0)]
    assert [at(points, x) for x in (0.9, 1.0, 1.5, 2.0, 3.0, 4.0, 4.1)] == [
        None, 10.0, 15.0, 20.0, 10.0, 0.0, None,
    ]  # fmt: skip
    assert at([], 1.0) is None and at([(1.0, 5.0)], 1.0) == 5.0
