"""Round to nearest: how near, for which scale, and the same for every shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.arch.noise import normal
from core.arch.params import init_params, param_table
from core.arch.spec import ModelSpec
from core.artifact.grid import Grid, sigma
from core.artifact.packed import Packed, dequantize
from core.artifact.quant import Quant, quantize, stored_format
from core.artifact.rounding import ABSMAX, FP16_TINY, quantize_rows, to_fp16
from core.artifact.scales import log_scale_from_float, log_scale_to_float

TINY = ModelSpec(
    num_layers=2, model_dim=16, num_heads=2, num_kv_heads=1, mlp_dim=32, vocab_size=64, seq_len=16
)


def draw(seed: int, rows: int, cols: int, log2_size: float) -> np.ndarray:
    return (normal(seed, 0, (rows, cols)) * 2.0**log2_size).astype(np.float32)


def half_step_error(weight: np.ndarray, levels: np.ndarray, scale: np.ndarray) -> float:
    """The largest |weight - level * scale| in units of half a scale."""
    exact = levels.astype(np.float64) * scale.astype(np.float64)[:, None]
    return float(np.max(np.abs(weight - exact) / scale.astype(np.float64)[:, None]) * 2)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 40), st.floats(-150, 15, width=32))
def test_any_shape_and_size_is_within_half_a_step(
    seed: int, rows: int, cols: int, log2_size: float
) -> None:
    weight = draw(seed, rows, cols, log2_size)
    levels, scale = quantize_rows(weight, ABSMAX)
    assert levels.dtype == np.int8 and levels.shape == (rows, cols)
    assert scale.dtype == np.float16 and scale.shape == (rows,) and np.all(scale > 0)
    # a rounded quotient of up to 127: 127 * 2**-24 of a step
    assert half_step_error(weight, levels, scale) <= 1 + 1e-4


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.floats(-8, 8))
def test_levels_are_the_nearest_for_the_stored_scale(seed: int, log2_size: float) -> None:
    weight = draw(seed, 4, 33, log2_size)
    levels, scale = quantize_rows(weight, ABSMAX)
    grid = np.arange(-127, 128)[:, None, None] * scale.astype(np.float64)[:, None]
    best = np.abs(weight - grid).min(axis=0)
    chosen = np.abs(weight - levels * scale.astype(np.float64)[:, None])
    assert np.all(chosen <= best + 1e-6 * scale.astype(np.float64)[:, None])


def test_scale_is_rounded_before_it_divides() -> None:
    """Levels of the unrounded scale would be others: the property is not empty."""
    weight = draw(5, 64, 256, -3.0)
    levels, scale = quantize_rows(weight, ABSMAX)
    unrounded = np.max(np.abs(weight), axis=1, keepdims=True) / np.float32(127)
    assert np.any(np.rint(weight / unrounded) != levels)
    assert np.array_equal(np.rint(weight / scale.astype(np.float32)[:, None]), levels)


def test_zeros_outliers_constants_and_one_element() -> None:
    rows = np.zeros((5, 8), np.float32)
    rows[1], rows[2, 3], rows[3] = -0.25, 1000.0, np.linspace(-1, 1, 8)
    rows[4] = 1e-42  # float32 subnormal, below every fp16 scale
    levels, scale = quantize_rows(rows, ABSMAX)
    assert not levels[0].any() and not levels[4].any() and scale[0] == scale[4] == FP16_TINY
    assert set(levels[1]) == {-127} and list(levels[2]) == [0, 0, 0, 127, 0, 0, 0, 0]
    assert levels[3, 0] == -127 and levels[3, -1] == 127
    one, _ = quantize_rows(np.array([[-3.0]], np.float32), ABSMAX)
    assert one.tolist() == [[-127]]


def test_subnormal_scale_does_not_clip() -> None:
    """127 * 1.4 * 2**-24 needs a scale between two fp16 numbers; the lower one would clip."""
    weight = np.array([[1.4 * 127 * 2.0**-24, 2.0**-24]], np.float32)
    levels, scale = quantize_rows(weight, ABSMAX)
    assert float(scale[0]) == 2.0**-23
    assert half_step_error(weight, levels, scale) <= 1 + 1e-4


def test_memory_order_does_not_matter() -> None:
    weight = draw(9, 37, 53, -4.0)
    for other in (np.asfortranarray(weight), np.ascontiguousarray(weight.T).T):
        for one, two in zip(
            quantize_rows(weight, ABSMAX), quantize_rows(other, ABSMAX), strict=True
        ):
            assert one.tobytes() == two.tobytes()


def test_scale_floor_is_the_reference_grid() -> None:
    weight = draw(3, 8, 64, -6.0)  # every row far below 1
    levels, scale = quantize_rows(weight, Grid(floor=1 / 127))
    assert np.all(scale == np.float16(1 / 127))
    assert np.abs(levels).max() < 20
    big, free = draw(3, 8, 64, 4.0), quantize_rows(draw(3, 8, 64, 4.0), ABSMAX)
    assert np.array_equal(quantize_rows(big, Grid(floor=1 / 127))[0], free[0])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.nan, "c_q.weight: a weight is NaN"),
        (np.inf, "c_q.weight: a weight is NaN"),
        (1e9, "c_q.weight: weight 1e\\+09 overflows"),
    ],
)
def test_what_no_scale_can_hold_is_refused(bad: float, words: str) -> None:
    weight = np.ones((2, 3), np.float32)
    weight[1, 2] = bad
    with pytest.raises(ValueError, match=words):
        quantize_rows(weight, Grid(), "c_q.weight")


def test_largest_weight_that_fits() -> None:
    levels, scale = quantize_rows(np.array([[127 * 65_504.0, 0.0]], np.float32), ABSMAX)
    assert levels[0, 0] == 127 and float(scale[0]) == 65_504.0


@pytest.mark.parametrize("bad", [np.nan, -np.inf, 70_000.0])
def test_fp16_refuses_what_it_cannot_hold(bad: float) -> None:
    with pytest.raises(ValueError, match=r"q_gain: .* over 65504"):
        to_fp16(np.array([1.0, bad], np.float32), "q_gain")


def test_formats_come_from_the_rows_of_the_table() -> None:
    quant = Quant(keep_below=257, mlp="fp16")
    formats = {row.name: stored_format(row, quant) for row in param_table(TINY)}
    assert formats["tok_emb.weight"] == "int8"
    assert formats["blocks.0.attn.c_q.weight"] == "fp16"  # 256 elements: small
    assert formats["blocks.1.mlp.fc.weight"] == "fp16"  # its role says so
    assert formats["blocks.0.attn_scale"] == formats["skip_weights"] == "fp16"


def test_reference_threshold_is_the_default() -> None:
    spec = ModelSpec(model_dim=256, num_heads=4, num_kv_heads=4, num_layers=1)
    (square,) = [row for row in param_table(spec) if row.name.endswith("c_q.weight")]
    assert square.size == 65_536 and stored_format(square, Quant()) == "fp16"
    assert stored_format(square, Quant(keep_below=65_536)) == "int8"


def test_vectors_stay_fp16_whatever_is_asked() -> None:
    quant = Quant(keep_below=0, control="int8")
    formats = {row.name: stored_format(row, quant) for row in param_table(TINY)}
    assert formats["blocks.0.mlp_scale"] == "fp16" and formats["blocks.0.resid_mix"] == "int8"


def test_quantize_gives_every_parameter_once_in_name_order() -> None:
    packed = quantize(init_params(TINY, 1337), TINY, Quant(keep_below=0))
    assert [one.name for one in packed] == sorted(row.name for row in param_table(TINY))
    shapes = {row.name: row.shape for row in param_table(TINY)}
    for one in packed:
        weight = dequantize(one)
        assert weight.dtype == np.float32 and weight.shape == shapes[one.name]


def test_quantize_refuses_weights_of_another_spec() -> None:
    weights = init_params(TINY, 1337)
    weights["extra"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="unknown \\['extra'\\]"):
        quantize(weights, TINY, Quant())


def test_control_overflow_names_the_tensor() -> None:
    weights = init_params(TINY, 1337)
    weights["blocks.1.attn.q_gain"][0] = 1e6
    with pytest.raises(ValueError, match=r"blocks\.1\.attn\.q_gain"):
        quantize(weights, TINY, Quant())


def test_dequantize_multiplies_what_is_there() -> None:
    levels = np.array([[-300, 2], [0, 32_767]], np.int16)
    rows, cols = np.array([128, 136], np.uint8), np.array([120, 128], np.uint8)
    both = Packed("w", (2, 2), levels, rows, cols)
    assert dequantize(both).tolist() == [[-150.0, 2.0], [0.0, 65_534.0]]
    assert dequantize(Packed("w", (2, 2), levels)).tolist() == levels.tolist()
    stacked = Packed("w", (2, 1, 2), levels.reshape(2, 1, 2), rows)
    assert dequantize(stacked).shape == (2, 1, 2)


def test_a_trellis_of_so_many_states_is_unknown() -> None:
    with pytest.raises(ValueError, match="trellis 16 must be 0, 4 or 8"):
        Packed("w", (1, 1), np.ones((1, 1), np.int8), trellis=16)


def test_log_scales_are_exact_and_their_inverse_is_nearest() -> None:
    codes = np.arange(256, dtype=np.uint8)
    known = log_scale_to_float(codes)
    assert known.dtype == np.float32
    assert known[128] == 1.0 and known[136] == 2.0 and known[0] == 2.0**-16
    np.testing.assert_allclose(known, 2.0 ** ((codes.astype(float) - 128) / 8), rtol=2.0**-24)
    assert np.array_equal(log_scale_from_float(known), codes)
    values = np.exp(draw(1, 1, 1000, 1.0)[0])
    error = np.log2(values / log_scale_to_float(log_scale_from_float(values)))
    assert np.max(np.abs(error)) <= 1 / 16 + 1e-6
    ends = log_scale_from_float(np.array([1e-30, 1e30], np.float32))
    assert ends.tolist() == [0, 255]


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_log_scale_of_what_is_no_scale(bad: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        log_scale_from_float(np.array([bad], np.float32))


LEVELS = np.zeros((2, 3), np.int8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((3, 2), LEVELS), r"values is int8 \(2, 3\), expected"),
        (((2, 3), LEVELS.astype(np.int32)), "values is int32"),
        (((2, 3), LEVELS, np.ones(3, np.float16)), "row scale is"),
        (((2, 3), LEVELS, np.ones(2, np.float32)), "row scale is float32"),
        (((2, 3), LEVELS, np.zeros(2, np.float16)), "not positive"),
        (((2, 3), LEVELS, np.full(2, np.nan, np.float16)), "row scale: a number is NaN"),
        (((2, 3), LEVELS, None, np.ones(2, np.uint8)), "column scale is"),
        (((2, 3), np.full((2, 3), np.inf, np.float16)), "values: a number is NaN or inf"),
        (((2, 3), LEVELS.astype(np.float16), np.ones(2, np.float16)), "take no scale"),
        (((1,) * 5, LEVELS[:1, :1].reshape((1,) * 5)), "rank 5 exceeds 4"),
        (((0, 3), LEVELS[:0]), "is empty"),
    ],
)
def test_packed_holds_only_what_can_be_stored(arguments: tuple, words: str) -> None:
    with pytest.raises(ValueError, match=f"^w: .*{words}"):
        Packed("w", *arguments)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"keep_below": -1}, "keep_below -1"),
        ({"scale_floor": -0.5}, "scale_floor -0.5"),
        ({"scale_floor": float("nan")}, "scale_floor nan"),
        ({"scale_floor": 1e6}, "scale_floor 1000000.0"),
        ({"mlp_sigmas": -1.0}, "sigmas -1.0"),
        ({"mlp_sigmas": float("inf")}, "sigmas inf"),
        ({"attn_quantile": 1.5}, "quantile 1.5"),
        ({"embed_sigmas": 20.0, "embed_quantile": 0.9}, "choose one of them"),
    ],
)
def test_quant_is_checked(fields: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Quant(**fields)


GRIDS = [
    *(Grid(bits=bits) for bits in range(2, 9)),
    *(Grid(bits=bits, sigmas=k) for bits, k in ((8, 20.0), (6, 12.85), (5, 3.0), (2, 1.5))),
    *(Grid(bits=bits, quantile=q) for bits, q in ((8, 0.9999984), (6, 0.995), (4, 0.5))),
    Grid(bits=6, sigmas=12.85, floor=1 / 31),
]
KINDS = {
    "normal": lambda rows, cols: draw(3, rows, cols, -4.0),
    "zeros": lambda rows, cols: np.zeros((rows, cols), np.float32),
    "constant": lambda rows, cols: np.full((rows, cols), -0.37, np.float32),
    "outlier": lambda rows, cols: draw(4, rows, cols, -9.0) + np.eye(rows, cols, dtype="f4") * 30,
    "mostly zeros": lambda rows, cols: np.eye(rows, cols, dtype=np.float32) * -2,
    "subnormal": lambda rows, cols: draw(5, rows, cols, -140.0),
    "huge": lambda rows, cols: np.clip(draw(6, rows, cols, 12.0), -6e4, 6e4),
}


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_width_and_rule_on_any_matrix(kind: str, grid: Grid) -> None:
    """Half a step off where nothing is clipped, the last level where it is; zeros are exact."""
    for rows, cols in ((1, 1), (1, 7), (5, 1), (6, 33), (3, 300)):
        weight = KINDS[kind](rows, cols)
        levels, scale = quantize_rows(weight, grid)
        step = scale.astype(np.float64)[:, None]
        assert levels.dtype == np.int8 and np.all(scale > 0)
        assert np.abs(levels.astype(int)).max() <= grid.qmax
        clipped = np.abs(weight) > (grid.qmax + 0.5) * step
        error = np.abs(weight - levels * step) / step
        assert np.all(error[~clipped] <= 0.5 + 1e-4)
        assert np.array_equal(levels[clipped], np.sign(weight[clipped]) * grid.qmax)
        assert grid.sigmas or grid.quantile < 1 or not clipped.any()
        packed = Packed("w", (rows, cols), levels, scale)
        assert np.all(np.abs(dequantize(packed) - levels * step) <= 1e-6 * np.abs(weight).max())


def test_a_quantile_clips_the_rest_and_an_empty_one_nothing() -> None:
    weight = np.arange(1, 101, dtype=np.float32)[None]
    levels, scale = quantize_rows(weight, Grid(bits=8, quantile=0.9))
    assert np.isclose(float(scale[0]), 90 / 127, rtol=2.0**-11)
    assert np.count_nonzero(levels == 127) == 11, "90 and the ten beyond it"
    sparse = np.zeros((1, 100), np.float32)
    sparse[0, 7] = 3.0
    assert quantize_rows(sparse, Grid(quantile=0.5))[0][0, 7] == 127


def test_sigmas_set_the_step() -> None:
    """12.85 sigmas at 6 bits: steps of 0.4145 sigma, 3.33 bits a level, nothing clipped."""
    weight = draw(8, 64, 4096, -5.0)
    levels, scale = quantize_rows(weight, Grid(bits=6, sigmas=12.85))
    np.testing.assert_allclose(scale / sigma(weight), 12.85 / 31, rtol=1e-3)
    assert np.abs(levels).max() < 16
    share = np.bincount(levels.ravel() + 32) / levels.size
    share = share[share > 0]
    assert abs(-(share * np.log2(share)).sum() - 3.327) < 0.01
    coarse, _ = quantize_rows(weight, Grid(bits=6, sigmas=25.7))
    assert np.abs(coarse).max() < np.abs(levels).max()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 700), st.floats(-100, 100))
def test_sigma_is_the_root_mean_square_in_any_order(
    seed: int, rows: int, cols: int, log2_size: float
) -> None:
    weight = draw(seed, rows, cols, log2_size)
    exact = np.sqrt(np.mean(weight.astype(np.float64) ** 2, axis=1))
    np.testing.assert_allclose(sigma(weight), exact, rtol=1e-5)
    order = np.random.default_rng(seed).permutation(cols)
    for other in (weight[:, order], np.asfortranarray(weight), -weight):
        assert sigma(other).tobytes() == sigma(weight).tobytes()


def test_sigma_of_long_rows_does_not_overflow() -> None:
    """2**24 squares of 19 bits are 2**62."""
    assert sigma(np.broadcast_to(np.float32(3.5), (1, 1 << 24)))[0] == 3.5


def test_roles_have_rules_of_their_own() -> None:
    quant = Quant(embed="int7", embed_sigmas=14.0, mlp="int5", mlp_quantile=0.99, keep_below=0)
    assert quant.grid("embed") == Grid(bits=7, sigmas=14.0)
    assert quant.grid("mlp") == Grid(bits=5, quantile=0.99)
    assert quant.grid("attn") == Grid() == Quant().grid("control")
    weights = init_params(TINY, 1337)
    table = {one.name: one for one in quantize(weights, TINY, quant)}
    fc = table["blocks.0.mlp.fc.weight"]
    levels, _ = quantize_rows(weights[fc.name], quant.grid("mlp"))
    assert np.array_equal(fc.values, levels) and np.abs(levels).max() == 15
