"""Solving: every format comes back from its file, whatever the matrix; who is solved, and how."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.arch.noise import normal
from core.arch.params import Weights, param_table
from core.artifact import sums
from core.artifact.codecs import decode, encode
from core.artifact.container import Artifact, identity, inspect, read, write
from core.artifact.container import weights as unpack
from core.artifact.groups import grouped_levels
from core.artifact.packed import Packed, dequantize
from core.artifact.quant import Quant, Width, quantize
from core.artifact.rounding import narrow
from core.artifact.solving import (
    Calibration,
    solve,
    solve_tensors,
    solver_name,
    unknown,
)
from core.artifact.sums import output_errors
from tests.core.test_container import TINY, perturbed

KINDS = ("noise", "zeros", "outlier", "constant rows", "tiny", "huge")


def matrix(kind: str, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    drawn = normal(seed, 0, shape)
    if kind == "outlier":
        drawn.flat[seed % drawn.size] = 1000.0
    if kind == "constant rows":
        drawn = np.broadcast_to(drawn[..., :1], shape) if shape else drawn
    size = {"zeros": 0.0, "tiny": 1e-20, "huge": 1e5}.get(kind, 1.0)
    return (drawn * size).astype(np.float32)


def hessian(seed: int, cols: int) -> np.ndarray:
    x = normal(seed, 1, (2 * cols, cols)) * np.exp2(normal(seed, 2, (1, cols)))
    return x.T @ x


shapes = st.lists(st.integers(1, 9), min_size=2, max_size=3).map(tuple)
quants = st.builds(
    lambda form, sigmas, steps, trellis, scale: Quant(
        mlp=form,
        mlp_sigmas=sigmas,
        steps=steps,
        trellis=trellis,
        step_scale=scale,
        solver="gptq",
        keep_below=0,
    ),
    st.sampled_from([*get_args(Width), "fp16"]),
    st.sampled_from([0.0, 3.0, 12.85]),
    st.sampled_from(["rows", "tensor", "weighted", "columns", "fisher"]),
    st.sampled_from([0, 4, 8]),
    st.sampled_from([0.25, 1.0, 3.0]),
)


@settings(max_examples=200, deadline=None)
@given(
    quants,
    st.sampled_from(KINDS),
    shapes,
    st.integers(0, 2**32),
    st.sampled_from(["zlib", "rans", "best"]),
)
def test_every_format_comes_back(
    quant: Quant, kind: str, shape: tuple[int, ...], seed: int, codec: str
) -> None:
    """Any width, steps and trellis, any shape and numbers: equal floats from the file."""
    weight = matrix(kind, seed, shape)
    if quant.mlp == "fp16" and kind == "huge":
        weight = weight / 1e3
    known = Calibration(
        hessians={"w": hessian(seed, shape[-1])}, fisher={"w": np.full(1, 64.0 / shape[-1])}
    )
    try:
        (tensor,) = solve_tensors({"w": weight}, quant, known)
    except ValueError as error:  # no scale of fp16 is enough for few levels of 1e5
        assert "fp16" in str(error) and kind == "huge"
        return
    artifact = Artifact(None, (tensor,), solver_name(quant))
    again = read(write(artifact, codec))
    found = unpack(again)["w"]
    assert identity(again) == identity(artifact) and found.shape == shape
    assert found.tobytes() == dequantize(tensor).tobytes() and np.all(np.isfinite(found))
    if quant.mlp != "fp16":
        assert tensor.trellis in (0, quant.trellis)
        assert (tensor.col_scale is not None) == (quant.steps in ("columns", "fisher"))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["ternary", "binary"]),
    st.sampled_from(KINDS[:5]),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 2**32),
)
def test_groups_of_few_values_come_back(
    form: str, kind: str, groups: int, group: int, seed: int
) -> None:
    levels, size = grouped_levels(matrix(kind, seed, (groups, group)), group, form)
    scale = np.maximum(size.astype(np.float16), np.float16(2.0**-24))
    tensor = Packed("w", levels.shape, levels, scale)
    (again,) = read(write(Artifact(None, (tensor,)), "best")).tensors
    assert dequantize(again).tobytes() == dequantize(tensor).tobytes()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=4),
    st.integers(0, 2**32),
    st.sampled_from([3, 100, 40_000]),
)
def test_wide_levels_come_back(table: list[tuple[int, int]], seed: int, size: int) -> None:
    drawn = [np.clip(normal(seed, i, s) * size, -32768, 32767) for i, s in enumerate(table)]
    data = b"".join(piece.astype("<i2").tobytes() for piece in drawn)
    packed = encode("wide", data, [(rows, 2 * cols) for rows, cols in table])
    assert decode("wide", packed, len(data)) == data


def test_wide_levels_cost_what_narrow_ones_do() -> None:
    """A handful over 127 make a tensor int16: hardly a hundredth of a bit for all the others."""
    levels = np.rint(normal(3, 0, (256, 256)) * 9).astype(np.int16)
    levels[7, :5] = 900
    wide = Packed("w", levels.shape, levels, np.ones(256, np.float16))
    narrow_ = Packed("w", levels.shape, np.clip(levels, -127, 127).astype("i1"), wide.row_scale)
    sizes = [len(write(Artifact(None, (one,)), "rans")) for one in (wide, narrow_)]
    assert 0 < sizes[0] - sizes[1] < 0.02 * levels.size / 8 + 60
    assert inspect(write(Artifact(None, (wide,)), "rans"))["tensors"][0]["codec"] == "wide"
    assert inspect(write(Artifact(None, (narrow_,)), "rans"))["tensors"][0]["codec"] == "rans"


def test_narrow_is_as_narrow_as_it_can_be() -> None:
    for most, dtype in ((127, np.int8), (128, np.int16), (-128, np.int16), (-32767, np.int16)):
        assert narrow(np.array([0, most], np.int16)).dtype == dtype


def model(quant: Quant, **known: dict[str, np.ndarray]) -> tuple[Weights, list[Packed]]:
    weights = perturbed(TINY)
    return weights, solve(weights, TINY, quant, Calibration(**known))


def hessians(seed: int = 3) -> dict[str, np.ndarray]:
    matrices = [row for row in param_table(TINY) if len(row.shape) == 2]
    return {row.name: hessian(seed, row.shape[-1]) for row in matrices}


def test_nearest_is_quantize() -> None:
    quant = Quant(keep_below=200, mlp_sigmas=8.0)
    weights, packed = model(quant, hessians=hessians())
    wanted = quantize(weights, TINY, quant)
    assert [p.name for p in packed] == [p.name for p in wanted]
    for one, two in zip(packed, wanted, strict=True):
        assert dequantize(one).tobytes() == dequantize(two).tobytes()


def test_gptq_of_a_model_loses_less_and_is_read_back() -> None:
    base = {"keep_below": 200, "attn": "int4", "mlp": "int4", "embed": "int6"}
    known, lost = hessians(), []
    for fields in (
        {"solver": "nearest"},
        {"solver": "gptq"},
        {"solver": "gptq", "trellis": 4, "trellis_lambda": 0.0},
    ):
        quant = Quant(**{**base, **fields})
        weights, packed = model(quant, hessians=known)
        artifact = Artifact(TINY, tuple(packed), solver_name(quant))
        found = unpack(read(write(artifact, "rans")))
        errors = {name: weights[name] - found[name] for name in known}
        lost.append(
            sum(float(output_errors(errors[n].astype(float), known[n]).sum()) for n in known)
        )
    assert lost[0] > 1.1 * lost[1] > 1.2 * lost[2]
    assert [solver_name(Quant()), solver_name(quant)] == ["rtn", "gptq+trellis4"]


def test_a_matrix_that_loses_by_a_trellis_has_none() -> None:
    """Columns far below their steps: a trellis has no level for zero."""
    weight = normal(4, 0, (96, 64)).astype(np.float32)
    small = weight * np.where(np.arange(64) % 2, 1.0, 0.02).astype(np.float32)
    h = np.diag(np.where(np.arange(64) % 2, 1.0, 900.0))  # and that is where inputs are large
    quant = Quant(mlp="int6", mlp_sigmas=12.85, keep_below=0, solver="gptq", trellis=8)
    known = Calibration(hessians={"even": h, "small": h})
    even, uneven = solve_tensors({"even": weight, "small": small}, quant, known)
    assert (even.trellis, uneven.trellis) == (8, 0)
    plain = solve_tensors({"small": small}, replace(quant, trellis=0), known)[0]
    assert np.array_equal(plain.values, uneven.values)


def test_matrices_without_a_hessian_are_named_and_nearest() -> None:
    quant, known = Quant(keep_below=200, solver="gptq"), hessians()
    del known["blocks.1.mlp.fc.weight"]
    weights, packed = model(quant, hessians=known)
    assert unknown(param_table(TINY), quant, Calibration(hessians=known)) == [
        "blocks.1.mlp.fc.weight"
    ]
    plain = {p.name: p for p in quantize(weights, TINY, quant)}
    same = {p.name: np.array_equal(p.values, plain[p.name].values) for p in packed}
    assert same["blocks.1.mlp.fc.weight"] and not same["blocks.0.mlp.fc.weight"]


def test_one_array_is_factored_once_and_another_anew() -> None:
    shared = hessian(1, 6)
    known = Calibration(hessians={"q": shared, "k": shared, "v": hessian(2, 6)})
    first = known.worth("q", 6).feedback
    assert known.worth("k", 6).feedback is first is known.worth("q", 6).feedback
    assert known.worth("v", 6).feedback is not first and known.worth("o", 6).feedback is None
    with pytest.raises(ValueError, match=r"q: its Hessian is \(6, 6\), expected \(7, 7\)"):
        known.worth("q", 7)


def test_alike_arrays_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results in the order of what was given; a batch ends where it is large enough."""
    monkeypatch.setattr(sums, "MOST", 12)
    shapes = [(2, 3), (1, 3), (2, 3), (2, 3), (2, 3), (1, 3)]
    arrays = [np.full(shape, float(i)) for i, shape in enumerate(shapes)]
    seen = []

    def work(stack: np.ndarray, other: np.ndarray, word: str) -> np.ndarray:
        assert stack.shape == other.shape
        seen.append((len(stack), word))
        return stack + other

    words = [("a",), ("a",), ("b",), ("a",), ("a",), ("a",)]
    found = sums.together(work, arrays, arrays, alike=words)
    assert [one.tolist() for one in found] == [(2 * one).tolist() for one in arrays]
    assert sorted(seen) == [(1, "a"), (1, "b"), (2, "a"), (2, "a")]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"trellis": 4}, "of quant.solver=gptq, found nearest"),
        ({"steps": "columns"}, "of quant.solver=gptq, found nearest"),
        ({"trellis_lambda": -1.0}, "trellis_lambda -1.0 must be at least 0"),
        ({"step_scale": 0.0}, "step_scale 0.0 must be positive"),
        ({"step_scale": float("nan")}, "step_scale nan must be positive"),
    ],
)
def test_settings_that_do_not_fit(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Quant(**fields)
