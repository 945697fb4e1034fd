"""Trellis: the best of all paths, as the decoder reads it; errors a fifth smaller."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.arch.noise import normal
from core.artifact.sums import Rule
from core.artifact.trellis import RUN, next_states, paths, trellis_levels, trellis_values

STATES = (4, 8)


def plain_values(levels: list[int], states: int) -> list[float]:
    """The machine written out for one column."""
    table, state, found = next_states(states), 0, list[float]()
    for row, level in enumerate(levels):
        state = 0 if row % RUN == 0 else state
        found.append(-(level + 0.25) if state % 2 else level + 0.25)
        state = int(table[state, level % 2])
    return found


@pytest.mark.parametrize("states", STATES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (RUN, 1), (RUN + 1, 3), (2 * RUN + 7, 2)])
def test_values_are_those_of_the_machine(shape: tuple[int, int], states: int) -> None:
    levels = np.rint(normal(1, 0, shape) * 300).astype(np.float32)
    found = trellis_values(levels, states)
    assert found.dtype == np.float32
    for col in range(shape[1]):
        wanted = plain_values(levels[:, col].astype(int).tolist(), states)
        assert found[:, col].tolist() == wanted


@pytest.mark.parametrize("states", STATES)
def test_both_grids_and_all_states_are_met_equally(states: int) -> None:
    """Each state leads to two and is led to by two; the grids together are half a step apart."""
    table = next_states(states)
    assert np.bincount(table.ravel(), minlength=states).tolist() == [2] * states
    assert all(len(set(row)) == 2 for row in table.tolist())
    seen = {0}
    for _ in range(states):
        seen |= {int(to) for state in seen for to in table[state]}
    assert seen == set(range(states))


@pytest.mark.parametrize("states", STATES)
@pytest.mark.parametrize("price", [0.0, 0.05])
def test_the_path_is_the_best_of_all(states: int, price: float) -> None:
    """Against every sequence of levels -2 to 2, written out."""
    for seed in range(6):
        wanted = normal(seed, 0, (5,)) * 1.2
        _, values = trellis_levels(wanted, states, 2, price)
        costs = []
        for path in product(range(-2, 3), repeat=5):
            made = np.array(plain_values(list(path), states))
            costs.append(np.sum((wanted - made) ** 2 + price * made**2))
        found = np.sum((wanted - values) ** 2 + price * values**2)
        assert found == pytest.approx(min(costs), rel=1e-12)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 2 * RUN + 3),
    st.sampled_from(STATES),
    st.sampled_from([1, 2, 3, 31, 127, 32_767]),
    st.floats(-3, 12),
)
def test_any_column_comes_back(seed: int, rows: int, states: int, last: int, size: float) -> None:
    wanted = normal(seed, 0, (rows,)) * 2.0**size
    levels, values = trellis_levels(wanted, states, last, 0.01)
    assert levels.shape == (rows,) and np.abs(levels).max() <= last
    again = trellis_values(levels[:, None].astype(np.float32), states)[:, 0]
    assert again.tobytes() == values.astype(np.float32).tobytes()
    if np.abs(wanted).max() < last - 3:  # a path may take the second nearest, and pays for size
        assert np.all(np.abs(wanted - values) <= 1 + 0.02 * np.abs(wanted))


@pytest.mark.parametrize("states", STATES)
def test_one_way_leads_from_any_state_to_any_other(states: int) -> None:
    """In the steps of paths(): along its branches, whose grids are their states'."""
    table, branches = next_states(states), paths(states)
    assert branches.shape == (states, states, int(np.log2(states)))
    for start, end in product(range(states), repeat=2):
        state = start
        for branch in branches[start, end]:
            assert branch // 2 == state & 1
            state = table[state, branch % 2]
        assert state == end


@pytest.mark.parametrize(("states", "most"), [(4, 0.82), (8, 0.80)])
def test_errors_are_a_fifth_smaller_than_of_plain_levels(states: int, most: float) -> None:
    """The granular gain of such codes is 0.99 and 1.1 dB: 0.796 and 0.776 of a twelfth."""
    wanted = normal(3, 0, (40 * RUN,)) * 4
    levels, values = trellis_levels(wanted, states, 127)
    error = np.mean(np.square(wanted - values)) * 12
    assert 0.75 < error < most
    plain, _ = Rule(last=127).nearest(wanted)
    assert abs(entropy(levels) - entropy(plain)) < 0.01, "in as many bits"


def test_a_price_takes_bits_away() -> None:
    wanted = normal(5, 0, (40 * RUN,)) * 2
    bits = [entropy(trellis_levels(wanted, 8, 127, price)[0]) for price in (0.0, 0.05, 0.2)]
    assert bits[0] > bits[1] + 0.03 > bits[2] + 0.06


def entropy(levels: np.ndarray) -> float:
    share = np.unique(levels, return_counts=True)[1] / levels.size
    return float(-(share * np.log2(share)).sum())


@pytest.mark.parametrize("states", STATES)
def test_one_table_serves_both_grids(states: int) -> None:
    """Levels have one distribution whichever grid they are of: less than a thousandth of a bit."""
    wanted = normal(6, 0, (400 * RUN,)) * 2
    levels, values = trellis_levels(wanted, states, 127)
    other = values != levels + 0.25
    apart = [entropy(levels[other]) * other.mean(), entropy(levels[~other]) * (~other).mean()]
    assert 0.4 < other.mean() < 0.6 and entropy(levels) - sum(apart) < 1e-3
