"""Allocation: steps that follow what is known, stored as bytes; how much that is worth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.arch.noise import normal
from core.artifact.allocation import Worth, allocated, anisotropy, gain_bits, tilt
from core.artifact.gptq import Feedback, Matrix, Steps, feedback, gptq, no_feedback
from core.artifact.grid import Grid
from core.artifact.packed import Packed, dequantize
from core.artifact.quant import Quant
from core.artifact.rounding import row_scales
from core.artifact.sums import Rule, output_errors
from tests.core.test_gptq import problem

QUANT = Quant(solver="gptq", mlp="int6", mlp_sigmas=12.85)
GRID = QUANT.grid("mlp")


def of(changes: dict[str, object]) -> Quant:
    return Quant(solver="gptq", mlp="int6", mlp_sigmas=12.85, **changes)


def counted(counts: np.ndarray) -> Worth:
    return Worth(feedback=feedback(np.eye(3), 3), counts=counts)


def levels_of(weight: np.ndarray, known: Feedback, steps: Steps) -> np.ndarray:
    hessian = np.eye(weight.shape[1])  # which only never_worse asks for
    return gptq([Matrix(weight=weight, hessian=hessian, known=known, steps=steps)])[0]


def test_freedom_is_what_a_columns_error_costs() -> None:
    """The output error of GPTQ is the sum of (lost / freedom)^2: each lost up to half a step."""
    weight, h = problem(3, 5, 40, 200)
    known = feedback(h, 40)
    steps = allocated(weight, GRID, of({"steps": "columns"}), Worth(feedback=known), "w")
    levels = levels_of(weight, known, steps)
    error = weight - levels * steps.rows()[:, None] * steps.cols(40)
    damped = h + 0.01 * np.mean(np.diag(h)) * np.eye(40)
    lost = error[:, known.order] @ np.linalg.inv(known.factor)
    assert np.allclose(output_errors(error, damped), np.sum(lost**2, axis=1), rtol=1e-6)
    freedom = known.freedom[known.order]
    half = 0.5 * steps.rows()[:, None] * steps.cols(40)[known.order] / freedom
    assert np.all(np.abs(lost) <= half * (1 + 1e-6))


def test_steps_by_column_are_as_wide_as_the_columns_freedom() -> None:
    weight, h = problem(4, 16, 60, 300)
    known = feedback(h, 60)
    steps = allocated(weight, GRID, of({"steps": "columns"}), Worth(feedback=known), "w")
    assert steps.row.dtype == np.uint8 and steps.col is not None
    ratio = np.log2(steps.cols(60) / known.freedom)
    assert np.ptp(ratio) <= 1 / 8 + 1e-6  # a log scale is an eighth of an octave from the next
    wide = np.log2(steps.rows()) + np.log2(steps.cols(60)).mean()
    assert np.allclose(wide, np.log2(row_scales(weight, GRID).astype(float)), atol=1 / 8)


def test_steps_by_fisher_weight_know_no_sigma() -> None:
    weight, h = problem(5, 16, 60, 300)
    fisher = np.exp2(normal(5, 9, (16,)) * 3)
    fisher[3] = 0.0  # an output that nothing reads: its steps end somewhere
    known = Worth(feedback=feedback(h, 60), fisher=fisher)
    quant = of({"steps": "fisher", "step_scale": 0.25})
    steps = allocated(weight * 7, quant.grid("mlp"), quant, known, "w")
    wide = steps.rows()[:, None] * steps.cols(60)
    wanted = 0.25 * known.feedback.freedom / np.sqrt(np.maximum(fisher, 1e-300))[:, None]
    alive = np.arange(16) != 3
    assert np.all(np.abs(np.log2(wide / wanted))[alive] <= 1 / 8 + 1e-6)
    assert np.log2(steps.rows()[3] / steps.rows()[alive].max()) < 9
    one = Worth(feedback=known.feedback, fisher=np.array([4.0]))
    same = allocated(weight, quant.grid("mlp"), quant, one, "w")
    assert len(set(same.row.tolist())) == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.floats(-22, 10), st.floats(-2, 2), st.sampled_from([0, 4, 8]))
def test_steps_fit_a_byte_whatever_the_weights_size(
    seed: int, size: float, spread: float, states: int
) -> None:
    """Rows far below 2**-16, columns apart by octaves: little of the output is lost."""
    weight = (normal(seed, 0, (6, 20)) * 2.0**size).astype(np.float32)
    x = normal(seed, 1, (80, 20)) * np.exp2(spread * normal(seed, 2, (1, 20)))
    h = x.T @ x
    known = feedback(h, 20)
    quant = of({"steps": "columns", "trellis": states})
    steps = allocated(weight, GRID, quant, Worth(feedback=known), "w")
    levels = levels_of(weight, known, steps)
    found = dequantize(Packed("w", (6, 20), levels, steps.row, steps.col, states))
    lost = output_errors(weight.astype(float) - found, h).sum()
    assert lost <= 0.1 * output_errors(weight.astype(float), h).sum()


def test_rows_that_are_met_often_have_finer_steps() -> None:
    counts = np.array([0.0, 1.0, 15.0, 255.0])
    weight, known = np.ones((4, 8), np.float32), feedback(np.eye(8), 8)
    found = tilt(counts, 4, "e")
    assert np.allclose(found / found[0], np.array([1, 2**-0.25, 0.5, 0.25]))
    assert np.prod(found) == pytest.approx(1.0)
    quant = of({"steps": "columns"})
    steps = allocated(weight, GRID, quant, Worth(feedback=known, counts=counts), "e")
    assert np.allclose(steps.rows() / steps.rows()[0], found / found[0], rtol=0.1)
    plain = allocated(weight, GRID, quant, Worth(feedback=known), "w")
    assert len(set(plain.row.tolist())) == 1, "a matrix whose rows are no tokens has no tilt"


def test_the_default_is_the_grids_own_steps() -> None:
    weight = normal(2, 0, (4, 30)).astype(np.float32)
    steps = allocated(weight, GRID, QUANT, Worth(), "w")
    assert np.array_equal(steps.row, row_scales(weight, GRID))
    assert steps.rule.last == GRID.last == 31


def test_one_step_for_all_rows() -> None:
    weight = (normal(2, 0, (9, 30)) * np.exp2(normal(2, 1, (9, 1)))).astype(np.float32)
    steps = allocated(weight, GRID, of({"steps": "tensor"}), Worth(), "w")
    wanted = 12.85 / 31 * np.sqrt(np.mean(np.square(weight, dtype=float)))
    assert len(set(steps.row.tolist())) == 1
    assert float(steps.row[0]) == pytest.approx(wanted, rel=2**-11)


def test_rows_that_their_inputs_reach_more_have_wider_steps() -> None:
    """Two rows of one sigma, their weights where inputs are large or where they are small."""
    weight = np.array([[2, 0, 0, 0], [0, 2, 0, 0], [1, 1, 1, 1]], np.float32)
    known = Worth(diagonal=np.array([5.0, 1.0, 1.0, 1.0]))
    steps = allocated(weight, GRID, of({"steps": "weighted"}), known, "w")
    plain = row_scales(weight, GRID).astype(float)
    size = np.array([10, 2, 8])
    assert np.allclose(steps.rows() / plain, 1 + 0.175 * (size / size.mean() - 1), rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "known", "words"),
    [
        ({"steps": "weighted"}, Worth(), "w: quant.steps weighted needs its Hessian"),
        ({"steps": "columns"}, Worth(), "w: quant.steps by column need its Hessian"),
        ({"steps": "fisher"}, Worth(feedback=feedback(np.eye(3), 3)), "w: .* Fisher weight"),
        ({"steps": "fisher"}, Worth(fisher=np.ones(7)), "w: .* Fisher weight"),
        ({"steps": "fisher"}, Worth(fisher=np.array([1.0, np.nan])), "not finite"),
        ({"steps": "fisher"}, Worth(fisher=np.array([1.0, -1.0])), "negative"),
        ({"steps": "fisher"}, Worth(fisher=np.zeros(2)), "all zero"),
        ({"steps": "columns"}, counted(np.ones(3)), "w: 2 rows need as many counts"),
        ({"steps": "columns"}, counted(np.array([1.0, -1.0])), "0 or more"),
    ],
)
def test_what_is_not_known_is_said(changes: dict[str, object], known: Worth, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        allocated(np.ones((2, 3), np.float32), GRID, of(changes), known, "w")


def test_columns_that_no_input_reaches() -> None:
    weight, h = problem(6, 8, 30, 100)
    h *= 1e-8  # so that a dead column's own freedom is far from the others'
    h[:, 4] = h[4] = 0
    known = feedback(h, 30)
    steps = allocated(weight, GRID, of({"steps": "columns"}), Worth(feedback=known), "w")
    assert not levels_of(weight, known, steps)[:, 4].any()
    alive = np.log2(np.delete(steps.cols(30), 4)).mean()  # dead ones have no part in the mean
    plain = np.log2(row_scales(weight, GRID).astype(float))
    assert np.allclose(np.log2(steps.rows()) + alive, plain, atol=0.07)
    none = Worth(feedback=feedback(np.zeros((30, 30)), 30))
    flat = allocated(weight, GRID, of({"steps": "columns"}), none, "w")
    assert len(set(flat.cols(30).tolist())) == 1


def test_gains() -> None:
    assert gain_bits(np.full(9, 3.0)) == pytest.approx(0.0, abs=1e-12)
    assert gain_bits(np.array([1.0, 4.0])) == pytest.approx(0.5 * np.log2(2.5 / 2))
    assert gain_bits(np.array([0.0, 0.0])) == 0.0
    weight, h = problem(7, 8, 30, 100)
    known = Worth(feedback=feedback(h, 30), fisher=np.array([2.0]), counts=np.arange(8.0))
    found = anisotropy(weight, known)
    assert set(found) == {"columns_bits", "fisher_bits", "rows_bits", "tokens_bits"}
    assert found["columns_bits"] > 0 == found["fisher_bits"] and found["rows_bits"] > 0


def test_the_gain_by_columns_is_what_is_saved() -> None:
    """At fine steps, where the theory holds: half the log2 of the errors' ratio."""
    weight, h = problem(8, 200, 60, 600)
    known = feedback(h, 60)
    losses = []
    for rule in ("rows", "columns"):
        quant = Quant(solver="gptq", mlp="int8", mlp_sigmas=6.0, steps=rule)
        steps = allocated(weight, quant.grid("mlp"), quant, Worth(feedback=known), "w")
        levels = levels_of(weight, known, steps)
        error = weight - levels * steps.rows()[:, None] * steps.cols(60)
        losses.append(output_errors(error, h).sum())
    told = anisotropy(weight, Worth(feedback=known))["columns_bits"]
    assert told > 0.3
    assert 0.5 * np.log2(losses[0] / losses[1]) == pytest.approx(told, rel=0.15)


def test_wide_levels_are_kept() -> None:
    """A step of a hundredth: levels of thousands."""
    weight = np.array([[1000.0, -1.0]], np.float32)
    col, rule = np.array([128, 128 - 53], np.uint8), Rule(last=32_767)
    steps = Steps(row=np.array([1.0], np.float16), col=col, rule=rule)
    levels = levels_of(weight, no_feedback(2), steps)
    assert levels.dtype == np.int16 and levels[0].tolist() == [1000, -99]


def test_grids_of_other_step_scales_reach_as_far() -> None:
    weight = normal(1, 0, (5, 64)).astype(np.float32)
    for times in (0.01, 0.5, 1.0, 1.7, 9.0):
        grid = Grid(bits=6, times=times)
        reach = row_scales(weight, grid).astype(float) * grid.last
        assert np.allclose(reach, np.abs(weight).max(axis=1), rtol=0.5 / grid.last + 1e-3)
    with pytest.raises(ValueError, match="step_scale 1e-06: 31000000 levels exceed 32767"):
        Grid(bits=6, times=1e-6)
