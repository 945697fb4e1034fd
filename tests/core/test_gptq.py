"""GPTQ in float64: never worse than nearest, and what it must give where that is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.arch.noise import normal
from core.artifact.gptq import DAMPING, gptq_rows, weighted_errors
from core.artifact.grid import Grid
from core.artifact.rounding import quantize_rows
from core.artifact.sums import BLOCK

GRID = Grid(bits=4, sigmas=4.0)


def problem(seed: int, rows: int, cols: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """A weight, and the second moments of inputs that lie near a few directions."""
    weight = normal(seed, 0, (rows, cols)).astype(np.float32)
    mixed = normal(seed, 1, (inputs, cols)) @ normal(seed, 2, (cols, cols)) / np.sqrt(cols)
    x = (mixed * np.exp2(normal(seed, 3, (1, cols)))).astype(np.float64)
    return weight, x.T @ x


def errors(weight: np.ndarray, levels: np.ndarray, scale: np.ndarray, h: np.ndarray) -> np.ndarray:
    return weighted_errors(weight, levels, scale.astype(np.float64), h)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 9),
    st.integers(1, 2 * BLOCK + 3),
    st.integers(1, 300),
    st.sampled_from([GRID, Grid(bits=2, sigmas=1.2), Grid(bits=8), Grid(bits=3, quantile=0.9)]),
)
def test_never_worse_than_nearest(seed: int, rows: int, cols: int, inputs: int, grid: Grid) -> None:
    weight, h = problem(seed, rows, cols, inputs)
    nearest, scale = quantize_rows(weight, grid)
    levels, same = gptq_rows(weight, h, grid)
    assert levels.dtype == np.int8 and levels.shape == weight.shape
    assert np.array_equal(scale, same) and np.abs(levels.astype(int)).max() <= grid.qmax
    ours, theirs = errors(weight, levels, scale, h), errors(weight, nearest, scale, h)
    assert np.all(ours <= theirs * (1 + 1e-9) + 1e-9)


def test_it_is_much_better_where_inputs_agree() -> None:
    """Twice as many inputs as columns, correlated: less than two thirds of the error."""
    weight, h = problem(7, 64, 192, 384)
    levels, scale = gptq_rows(weight, h, GRID)
    nearest, _ = quantize_rows(weight, GRID)
    assert errors(weight, levels, scale, h).sum() < 0.66 * errors(weight, nearest, scale, h).sum()


@pytest.mark.parametrize("cols", [1, 5, BLOCK, BLOCK + 1, 300])
def test_inputs_of_their_own_leave_the_nearest(cols: int) -> None:
    weight = normal(3, 0, (8, cols)).astype(np.float32)
    for h in (np.eye(cols), np.diag(np.linspace(0.1, 9, cols))):
        for one, two in zip(gptq_rows(weight, h, GRID), quantize_rows(weight, GRID), strict=True):
            assert np.array_equal(one, two)


def plain(weight: np.ndarray, h: np.ndarray, grid: Grid) -> np.ndarray:
    """The same without blocks: each column's error into the conditional mean of all others."""
    _, scale = quantize_rows(weight, grid)
    order = np.argsort(-np.diag(h), kind="stable")
    left = h[np.ix_(order, order)] + np.eye(len(h)) * DAMPING * np.mean(np.diag(h))
    w, levels = weight.astype(np.float64)[:, order], np.zeros(weight.shape, int)
    for j in range(w.shape[1]):
        levels[:, j] = np.clip(np.rint(w[:, j] / scale), -grid.qmax, grid.qmax)
        error = w[:, j] - levels[:, j] * scale.astype(np.float64)
        rest = left[j + 1 :, j + 1 :]
        if len(rest):
            w[:, j + 1 :] += np.outer(error, np.linalg.solve(rest, left[j + 1 :, j]))
    back = np.empty_like(levels)
    back[:, order] = levels
    return back


def test_blocks_are_the_method_written_out() -> None:
    weight, h = problem(11, 6, BLOCK + 40, 400)
    levels, scale = gptq_rows(weight, h, GRID)
    wanted = plain(weight, h, GRID)
    nearest, _ = quantize_rows(weight, GRID)
    keeps = errors(weight, nearest, scale, h) <= errors(weight, wanted, scale, h)
    assert not keeps.all() and np.array_equal(levels[~keeps], wanted[~keeps])


def test_columns_that_no_input_reaches_are_zero() -> None:
    weight, h = problem(5, 8, 40, 200)
    h[:, 7] = h[7] = 0
    levels, _ = gptq_rows(weight, h, GRID)
    assert not levels[:, 7].any() and levels[:, 8].any()
    without = np.delete(np.arange(40), 7)
    alone, scale = gptq_rows(weight, h, GRID)
    assert np.array_equal(alone[:, without], levels[:, without]) and np.all(scale > 0)
    assert not gptq_rows(weight, np.zeros((40, 40)), GRID)[0].any()


def test_the_size_of_h_does_not_matter() -> None:
    weight, h = problem(6, 8, 60, 100)
    assert np.array_equal(gptq_rows(weight, h, GRID)[0], gptq_rows(weight, h * 2.0**20, GRID)[0])


@pytest.mark.parametrize(
    ("h", "words"),
    [
        (np.eye(4), r"c_q: its Hessian is \(4, 4\), expected \(5, 5\)"),
        (np.diag([1, 1, np.nan, 1, 1]), "NaN or infinite"),
        (np.diag([1, 1, -1.0, 1, 1]), "a negative square"),
        (np.eye(5) - 3 * np.eye(5)[::-1], "negative square|sums of squares"),
        (np.ones((5, 5)) * 9 - 8 * np.eye(5), "sums of squares"),
    ],
)
def test_what_is_no_hessian(h: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gptq_rows(np.ones((2, 5), np.float32), h, GRID, "c_q")
