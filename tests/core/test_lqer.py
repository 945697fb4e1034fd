"""LQER: the best outer products by what outputs lose, of the worst matrices, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.arch.noise import normal
from core.arch.params import param_table
from core.artifact.container import Artifact, identity, inspect, read, write
from core.artifact.gptq import output_errors
from core.artifact.lowrank import LowRank
from core.artifact.lqer import low_rank
from core.artifact.packed import Packed, dequantize
from core.artifact.quant import Quant, quantize
from core.artifact.solving import Calibration, solve, solve_tensors, solver_name
from tests.core.test_container import TINY, perturbed
from tests.core.test_solving import hessian, hessians

FOUR = {"mlp": "int4", "attn": "int4", "keep_below": 200}


def lost(error: np.ndarray, known: np.ndarray | None = None) -> float:
    square = np.eye(error.shape[1]) if known is None else known
    return float(output_errors(error, square).sum())


def test_values_are_a_sum_in_order() -> None:
    """Each product is rounded once, then added, in float32, one by one."""
    noise = np.random.default_rng(1)
    left = noise.integers(-127, 128, (7, 5)).astype(np.int8)
    right = noise.integers(-127, 128, (5, 9)).astype(np.int8)
    scale = noise.uniform(1e-6, 1e-3, 5).astype(np.float32)
    found = LowRank(left, right, scale).values()
    for i in range(7):
        for j in range(9):
            total = np.float32(0)
            for k in range(5):
                product = np.float32(int(left[i, k]) * int(right[k, j]))
                total = np.float32(total + np.float32(product * scale[k]))
            assert found[i, j] == total
    assert found.dtype == np.float32


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (32, 32)])
@pytest.mark.parametrize("known", [None, 3])
def test_it_is_near_the_best_of_its_rank(shape: tuple[int, int], known: int | None) -> None:
    """8 bits a side: within 1 part in 50 of what no outer products can do better."""
    error = normal(1, 0, shape) @ np.diag(np.exp2(-np.arange(shape[1]) / 4))
    square = np.eye(shape[1]) if known is None else hessian(known, shape[1])
    root = np.linalg.cholesky(square)
    values = np.linalg.svd(error @ root, compute_uv=False)
    found = low_rank(error, None if known is None else square, 4, 8)
    assert found is not None and found.shape == shape
    left = lost(error - found.values(), square)
    best = float(np.square(values[4:]).sum())
    assert best <= left < best + 0.02 * float(np.square(values[:4]).sum())


def test_more_ranks_and_bits_take_more_away() -> None:
    error = normal(2, 0, (48, 64))
    left = [
        lost(error - found.values())
        for rank, bits in ((1, 4), (4, 2), (4, 4), (8, 4), (8, 8))
        if (found := low_rank(error, None, rank, bits)) is not None
    ]
    assert len(left) == 5 and sorted(left, reverse=True) == left


def test_a_hessian_is_what_it_is_solved_by() -> None:
    error, square = normal(3, 0, (32, 48)), hessian(5, 48)
    blind, seeing = low_rank(error, None, 3, 6), low_rank(error, square, 3, 6)
    assert blind is not None and seeing is not None
    after = [lost(error - one.values(), square) for one in (blind, seeing)]
    assert after[1] < 0.9 * after[0]


def test_an_error_of_lower_rank_or_none() -> None:
    two = np.outer(np.arange(1, 7), np.arange(1, 9)) + np.outer(np.ones(6), np.arange(8) % 3)
    found = low_rank(two.astype(float), None, 6, 8)
    assert found is not None and lost(two - found.values()) < 1e-3 * lost(two)
    assert low_rank(np.zeros((3, 5)), None, 2, 4) is None


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(2, 8),
    st.integers(0, 2**32),
    st.sampled_from(["noise", "one", "zero columns"]),
)
def test_any_matrix_comes_back_no_worse(
    rows: int, cols: int, rank: int, bits: int, seed: int, kind: str
) -> None:
    weight = normal(seed, 0, (rows, cols)).astype(np.float32)
    if kind == "zero columns":
        weight[:, ::2] = 0
    if kind == "one":
        weight[:] = 0.37
    fields: dict[str, Any] = {"mlp": "int3", "keep_below": 0, "solver": "gptq"}
    quant = Quant(**fields, lqer_rank=rank, lqer_bits=bits)
    known = Calibration(hessians={"w": hessian(seed, cols)})
    (plain,) = solve_tensors({"w": weight}, Quant(**fields), known)
    (tensor,) = solve_tensors({"w": weight}, quant, known)
    artifact = Artifact(None, (tensor,), solver_name(quant))
    again = read(write(artifact, "best"))
    assert identity(again) == identity(artifact)
    assert dequantize(again.tensors[0]).tobytes() == dequantize(tensor).tobytes()
    square = known.hessians["w"] + 0.01 * np.diag(known.hessians["w"]).mean() * np.eye(cols)
    before, after = (lost(weight - dequantize(one), square) for one in (plain, tensor))
    assert after <= before * (1 + 1e-6) and np.array_equal(plain.values, tensor.values)
    assert tensor.low_rank is None or len(tensor.low_rank.scale) <= min(rank, rows, cols)


def test_the_worst_matrices_have_one() -> None:
    weights, known = perturbed(TINY), Calibration(hessians=hessians())
    quant = Quant(**FOUR, solver="gptq", lqer_rank=2, lqer_matrices=4)
    plain = {t.name: t for t in solve(weights, TINY, Quant(**FOUR, solver="gptq"), known)}
    found = {t.name: t for t in solve(weights, TINY, quant, known)}
    has = {name for name, tensor in found.items() if tensor.low_rank is not None}
    able = {row.name for row in param_table(TINY) if plain[row.name].values.dtype != np.float16}

    def worth(name: str) -> float:
        square = known.hessians[name] / np.diag(known.hessians[name]).mean()
        error = weights[name] - dequantize(plain[name])
        return lost(error.astype(float), square + 0.01 * np.eye(len(square)))

    assert has == set(sorted(able, key=worth)[-4:])
    report = inspect(write(Artifact(TINY, tuple(found.values()), solver_name(quant))))
    assert {row["name"] for row in report["tensors"] if row.get("rank") == 2} == has
    assert report["format_version"] == 2 and report["solver"] == "gptq+lqer2"
    assert sum(report["bytes"].values()) == report["model_bytes"]


def test_of_nearest_levels_and_without_hessians() -> None:
    weights, quant = perturbed(TINY), Quant(**FOUR, lqer_rank=3, lqer_matrices=2)
    plain = {t.name: t for t in quantize(weights, TINY, quant)}
    found = {t.name: t for t in solve(weights, TINY, quant, Calibration())}
    has = [name for name, tensor in found.items() if tensor.low_rank is not None]
    assert len(has) == 2
    for name in has:
        before, after = (lost(weights[name] - dequantize(t[name])) for t in (plain, found))
        assert after < 0.9 * before and np.array_equal(plain[name].values, found[name].values)


def test_none_where_nothing_has_levels() -> None:
    quant = Quant(embed="fp16", attn="fp16", mlp="fp16", lqer_rank=2)
    assert all(t.low_rank is None for t in solve(perturbed(TINY), TINY, quant, Calibration()))


SIDES = np.ones((3, 2), np.int8), np.ones((2, 4), np.int8), np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ((SIDES[0].T, *SIDES[1:]), r"\(2, 3\), \(2, 4\) and \(2,\) are no outer products"),
        ((*SIDES[:2], np.ones(3, np.float32)), "are no outer products"),
        ((SIDES[0][:, :0], SIDES[1][:0], SIDES[2][:0]), "0 outer products, expected 1 to"),
        ((SIDES[0].astype(np.int16), *SIDES[1:]), "must be int8, int8 and float32"),
        ((*SIDES[:2], np.array([1, 0], np.float32)), "a scale is no scale"),
        ((*SIDES[:2], np.array([1, np.nan], np.float32)), "a scale is no scale"),
        ((*SIDES[:2], np.array([1, np.inf], np.float32)), "a scale is no scale"),
    ],
)
def test_what_is_no_low_rank(sides: tuple[np.ndarray, ...], words: str) -> None:
    with pytest.raises(ValueError, match=f"^low rank: .*{words}"):
        LowRank(*sides)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan])
def test_a_lying_scale_in_a_file(scale: float) -> None:
    low = LowRank(*(side.copy() for side in SIDES))
    tensor = Packed("w", (3, 4), np.ones((3, 4), np.int8), low_rank=low)
    low.scale[0] = scale
    with pytest.raises(ValueError, match="corrupt artifact: low rank: a scale"):
        read(write(Artifact(None, (tensor,)), "raw"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"lqer_rank": -1}, "lqer_rank -1 must be 0 to 1024"),
        ({"lqer_rank": 2000}, "lqer_rank 2000 must be 0 to 1024"),
        ({"lqer_bits": 1}, "lqer_bits 1 must be 2 to 8"),
        ({"lqer_matrices": 0}, "lqer_matrices 0 must be 1 to"),
    ],
)
def test_settings_that_do_not_fit(fields: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Quant(**fields)
