"""Formats of the second file version: fp8, scales of groups and of whole tensors, log scales."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.arch.noise import normal
from core.arch.params import param_table
from core.artifact import header
from core.artifact.container import Artifact, identity, inspect, read, write
from core.artifact.container import weights as unpack
from core.artifact.float8 import float8_codes, float8_values, has_nan
from core.artifact.lowrank import LowRank
from core.artifact.packed import Packed, States, dequantize
from core.artifact.quant import Group, Quant, quantize, quantized
from core.artifact.solving import Calibration, rows_of, solve_tensors
from core.artifact.sums import output_errors
from core.artifact.table import dump
from core.train.qat import Qat
from core.train.recipe import Recipe, recipe_hash, with_changes
from core.train.recipes import smoke
from tests.core.test_container import TINY, perturbed, reseal, tensor_field, tiny_artifact
from tests.core.test_solving import KINDS, matrix

GOLDEN = Path(__file__).parents[1] / "golden" / "formats.txt"
CODES = np.arange(256, dtype=np.uint8)
NUMBERS = CODES[CODES & 127 != 127]


def test_every_number_of_float8_is_its_own_nearest() -> None:
    found = float8_codes(float8_values(NUMBERS))
    assert np.array_equal(found, np.where(NUMBERS == 128, 0, NUMBERS)), "-0 is 0"
    assert has_nan(CODES[127:128]) and has_nan(CODES[255:]) and not has_nan(NUMBERS)


def test_float8_is_e4m3() -> None:
    """OCP's table: largest 448, least normal 2**-6, least subnormal 2**-9, an eighth between."""
    known = {0x7E: 448.0, 0x08: 2.0**-6, 0x01: 2.0**-9, 0x07: 7 * 2.0**-9, 0x38: 1.0, 0x39: 1.125}
    known |= {code + 128: -value for code, value in known.items()}
    codes = np.array(list(known), np.uint8)
    assert float8_values(codes).tolist() == list(known.values())
    torch = pytest.importorskip("torch")
    theirs = torch.from_numpy(NUMBERS.copy()).view(torch.float8_e4m3fn).float().numpy()
    assert np.array_equal(theirs, float8_values(NUMBERS))


def test_float8_rounds_to_the_nearest_and_halves_to_even() -> None:
    """The middle of two neighbours goes to the code whose last bit is 0; a hair off, to its own."""
    low = float8_values(np.arange(126, dtype=np.uint8)).astype(np.float64)
    high = float8_values(np.arange(1, 127, dtype=np.uint8)).astype(np.float64)
    middle = (low + high) / 2
    even = np.arange(126) + np.arange(126) % 2
    assert np.array_equal(float8_codes(middle.astype(np.float32)), even)
    for near, code in ((1 - 1e-6, np.arange(126)), (1 + 1e-6, np.arange(1, 127))):
        found = float8_codes((middle * near).astype(np.float32))
        assert np.array_equal(found, code)
        negative = float8_codes((-middle * near).astype(np.float32))
        assert np.array_equal(negative, np.where(code > 0, code + 128, 0))


def test_float8_saturates() -> None:
    wide = np.array([448, 449, 464, 1e9, np.inf, -1e9, -np.inf], np.float32)
    assert float8_values(float8_codes(wide)).tolist() == [448.0] * 5 + [-448.0] * 2


@pytest.mark.parametrize("kind", [*KINDS[:4], "tiny"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (6, 33), (2, 3, 4)])
def test_fp8_is_off_by_a_sixteenth_at_most(kind: str, shape: tuple[int, ...]) -> None:
    """Of a weight down to 2**-15 of its row's largest; less, in units of the row, below."""
    weight = matrix(kind, 3, shape)
    (tensor,) = stored(weight, mlp="fp8")
    assert tensor.values.dtype == np.uint8 and tensor.row_scale is not None
    error = np.abs(dequantize(tensor) - weight)
    scale = tensor.row_scale.astype(np.float64).reshape(*shape[:-1], 1)
    assert np.all(error <= np.maximum(np.abs(weight) / 16, scale * 2.0**-10) * (1 + 1e-5))


def stored(weight: np.ndarray, **fields: Any) -> list[Packed]:
    (row,) = rows_of({"w": weight})
    return [quantized(row, weight, Quant(keep_below=0, **fields))]


formats = st.fixed_dictionaries(
    {
        "mlp": st.sampled_from(["int8", "int6", "int4", "int2", "fp8"]),
        "mlp_sigmas": st.sampled_from([0.0, 3.0]),
        "mlp_group": st.sampled_from(["row", "tensor", "whole", "half", 1]),
        "scale_format": st.sampled_from(["fp16", "log8"]),
    }
)


@settings(max_examples=200, deadline=None)
@given(
    formats,
    st.sampled_from(KINDS[:4]),
    st.lists(st.integers(1, 9), min_size=2, max_size=3).map(tuple),
    st.integers(0, 2**32),
    st.sampled_from(["zlib", "rans", "best"]),
)
def test_every_format_comes_back(
    fields: dict[str, Any], kind: str, shape: tuple[int, ...], seed: int, codec: str
) -> None:
    """Any width and scale, any shape and numbers: equal floats from the file, near the weights."""
    cols = shape[-1]
    group = {"whole": cols, "half": max(cols // 2, 1)}.get(fields["mlp_group"], fields["mlp_group"])
    weight = matrix(kind, seed, shape)
    if group == max(cols // 2, 1) and cols % group:
        with pytest.raises(ValueError, match="has no rows of whole"):
            stored(weight, **{**fields, "mlp_group": group})
        return
    (tensor,) = stored(weight, **{**fields, "mlp_group": group})
    artifact = Artifact(None, (tensor,))
    again = read(write(artifact, codec))
    found = unpack(again)["w"]
    assert identity(again) == identity(artifact) and found.shape == shape
    assert found.tobytes() == dequantize(tensor).tobytes() and np.all(np.isfinite(found))
    assert tensor.row_scale is not None
    wanted = {"row": weight.size // cols, "tensor": 1}.get(fields["mlp_group"])
    assert len(tensor.row_scale) == (weight.size // group if wanted is None else wanted)
    assert tensor.row_scale.dtype == {"fp16": np.float16, "log8": np.uint8}[fields["scale_format"]]
    if not fields["mlp_sigmas"] and fields["mlp"] != "fp8":
        qmax = 2 ** (int(fields["mlp"][3:]) - 1) - 1
        peak = np.abs(weight.reshape(len(tensor.row_scale), -1)).max(1, keepdims=True)
        error = np.abs(found - weight).reshape(len(tensor.row_scale), -1)
        # half a step; a log scale may be an eighth of an octave wider than it would have to be
        assert np.all(error <= 0.5 * 1.1 * np.maximum(peak / qmax, 2.0**-15))


def test_more_scales_lose_less() -> None:
    weight = (normal(1, 0, (64, 256)) * np.exp2(2 * normal(2, 0, (64, 8)).repeat(32, 1))).astype(
        "f4"
    )
    lost = []
    for group in ("tensor", "row", 128, 32):
        (tensor,) = stored(weight, mlp="int4", mlp_group=group)
        lost.append(float(np.square(dequantize(tensor) - weight).sum()))
    assert lost[0] > 1.2 * lost[1] > 1.2 * lost[2] > 1.2 * lost[3]


def test_log_scales_never_clip() -> None:
    """The nearest log scale may be too narrow for the largest weight by 4 parts in 100."""
    weight = (normal(5, 0, (500, 40)) * np.exp2(normal(6, 0, (500, 1)))).astype(np.float32)
    (tensor,) = stored(weight, scale_format="log8")
    step = np.exp2((tensor.row_scale.astype(float) - 128) / 8)[:, None]
    assert np.abs(dequantize(tensor) - weight).max() <= 0.5001 * step.max()
    assert np.all(np.abs(dequantize(tensor) - weight) <= 0.5001 * step)
    assert np.all(step[:, 0] * 127 < 1.1 * np.abs(weight).max(1)), "nor are they wasted"
    with pytest.raises(ValueError, match="has no log scale"):
        stored(weight * np.float32(1e8), scale_format="log8")


def test_a_models_roles_have_formats_of_their_own() -> None:
    quant = Quant(embed="fp8", attn="int6", attn_group=8, mlp_group="tensor", keep_below=200)
    tensors = {t.name: t for t in quantize(perturbed(TINY), TINY, quant)}
    assert tensors["tok_emb.weight"].values.dtype == np.uint8
    c_q, fc = tensors["blocks.0.attn.c_q.weight"], tensors["blocks.0.mlp.fc.weight"]
    assert (c_q.group_size, len(c_q.row_scale)) == (8, c_q.size // 8)
    assert (fc.group_size, len(fc.row_scale)) == (fc.size, 1)
    data = write(Artifact(TINY, tuple(tensors.values())), "best")
    report = {row["name"]: row for row in inspect(data)["tensors"]}
    assert inspect(data)["format_version"] == 2
    assert report["tok_emb.weight"]["format"] == "fp8"
    assert report["blocks.0.attn.c_q.weight"]["group_size"] == 8
    assert unpack(read(data)).keys() == perturbed(TINY).keys()


def test_files_without_them_are_of_the_first_version() -> None:
    assert inspect(write(tiny_artifact()))["format_version"] == 1
    assert inspect(write(tiny_artifact(Quant(scale_format="log8"))))["format_version"] == 1


def test_recipes_keep_their_hashes() -> None:
    """A field that says nothing is in no hash; one that says something is."""
    plain = Recipe()
    assert recipe_hash(plain) == recipe_hash(with_changes(plain, ["quant.mlp_group=row"]))
    other = {with_changes(plain, [w]) for w in ("quant.mlp_group=64", "quant.scale_format=log8")}
    assert len({recipe_hash(plain), *map(recipe_hash, other)}) == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("quant.mlp_group=0",), "a group of 0 columns"),
        (("quant.mlp_group=half",), "expected 'row' or 'tensor' or int"),
        (
            ("quant.mlp_group=64", "quant.solver=gptq", "quant.steps=columns"),
            "are of quant.steps=rows, found columns",
        ),
        (("quant.scale_format=fp32",), "expected 'fp16' or 'log8'"),
        (("quant.mlp=fp8", "qat.form=ste"), "mlp is fp8 .* training does not follow"),
        (("quant.mlp_group=32", "qat.form=ste"), "groups of 32, which training does not"),
    ],
)
def test_settings_that_do_not_fit(words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        with_changes(smoke(), words)


def test_qat_of_other_roles_is_free() -> None:
    with_changes(smoke(), ["quant.embed=fp8", "qat.form=ste", "qat.roles=attn,mlp"])
    assert Qat().form == "none"


def test_matrices_of_no_recipe() -> None:
    weights = {"w": matrix("noise", 1, (6, 8)), "v": matrix("noise", 2, (5,))}
    quant = Quant(mlp="fp8", mlp_group=4, keep_below=0)
    fp8, half = sorted(solve_tensors(weights, quant, Calibration()), key=lambda t: -t.size)
    assert (fp8.values.dtype, fp8.group_size, half.values.dtype) == (np.uint8, 4, np.float16)
    with pytest.raises(ValueError, match="w: ternary is of a model"):
        solve_tensors(weights, Quant(mlp="ternary", keep_below=0), Calibration())


@pytest.mark.parametrize("trellis", [0, 8])
@pytest.mark.parametrize(("group", "size"), [(8, 8), ("tensor", 32 * 24)])
def test_solved_levels_have_groups_too(group: Group, size: int, trellis: States) -> None:
    """Each weight within a step of its own group's, and less lost than by the nearest levels."""
    weights = {"w": matrix("noise", 3, (32, 24)) * np.exp2(np.arange(24) // 8 % 3)}
    x = matrix("noise", 4, (96, 24)) @ matrix("noise", 5, (24, 24))
    known = Calibration(hessians={"w": (x.T @ x).astype(np.float64)})
    plain = Quant(mlp="int4", mlp_group=group, keep_below=0)
    near, found = (
        solve_tensors(weights, quant, known)[0]
        for quant in (plain, replace(plain, solver="gptq", trellis=trellis))
    )
    assert near.group_size == found.group_size == size
    assert np.array_equal(near.row_scale, found.row_scale)
    lost = [
        float(output_errors(weights["w"] - dequantize(one), known.hessians["w"]).sum())
        for one in (near, found)
    ]
    assert lost[1] < 0.8 * lost[0]
    (again,) = read(write(Artifact(None, (found,)), "rans")).tensors
    assert np.array_equal(dequantize(again), dequantize(found))


LEVELS = np.arange(12, dtype=np.int8).reshape(3, 4)
SIDES = np.ones((3, 2), np.int8), np.ones((2, 4), np.int8), np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"group_size": 5, "row_scale": np.ones(2, "f2")}, "12 levels are no groups of 5"),
        ({"group_size": -4, "row_scale": np.ones(3, "f2")}, "no groups of -4"),
        ({"group_size": 4}, "groups without scales"),
        ({"group_size": 2, "row_scale": np.ones(3, "f2")}, r"row scale is float16 \(3,\)"),
        ({"values": np.full((3, 4), 127, "u1")}, "values: a number is NaN"),
        ({"values": np.ones((3, 4), "u1"), "trellis": 4}, "uint8 values take no trellis"),
        ({"low_rank": LowRank(SIDES[0][:2], *SIDES[1:])}, r"low rank is \(2, 4\), expected"),
        ({"values": np.ones((3, 4), "f2"), "low_rank": LowRank(*SIDES)}, "no low rank"),
    ],
)
def test_packed_holds_only_what_can_be_stored(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^w: .*{words}"):
        Packed(**{"name": "w", "shape": (3, 4), "values": LEVELS, **arguments})


def test_every_flipped_bit_is_found() -> None:
    data = write(second_version(), "rans")
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            with pytest.raises(ValueError, match="artifact"):
                read(bytes(flipped))


def second_version() -> Artifact:
    """One tensor of each sort that the second version has room for."""
    tensors = (
        Packed("a.fp8", (3, 4), NUMBERS[60:72].reshape(3, 4), np.ones(3, np.float16)),
        Packed("b.groups", (3, 4), LEVELS, np.arange(6, dtype="u1"), group_size=2),
        Packed("c.tensor", (3, 4), LEVELS, np.ones(1, np.float16), group_size=12),
        Packed("d.low", (3, 4), LEVELS, np.ones(3, np.float16), low_rank=LowRank(*SIDES)),
        Packed("e.plain", (4,), np.ones(4, np.float16)),
    )
    return Artifact(None, tensors, "by hand")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (tensor_field(0, values="int8"), "its identity is"),
        (tensor_field(1, group_size=4), "the shapes in it take"),
        (tensor_field(2, group_size=6), "the shapes in it take"),
        (tensor_field(3, rank=1), "the shapes in it take"),
        (tensor_field(3, rank=3), "the shapes in it take"),
        (lambda whole: whole["tensors"].__delitem__(slice(0, 4)), "format version 1"),
    ],
)
def test_lies_in_the_header(change: Any, words: str) -> None:
    text, sha, end = header.unseal(write(second_version(), "raw"))
    data = write(second_version(), "raw")
    whole = json.loads(text)
    change(whole)
    with pytest.raises(ValueError, match=f"artifact.*({words})"):
        read(header.seal(dump(whole), sha, 2) + data[end:])
    with pytest.raises(ValueError, match="states another format version"):
        read(reseal(data, change))


@pytest.mark.parametrize("fields", [{"group_size": 1}, {"rank": 1024, "streams": [0, 0, 0, 0, 0]}])
def test_lies_allocate_nothing(fields: dict[str, Any]) -> None:
    text, sha, end = header.unseal(write(second_version(), "raw"))
    whole = json.loads(text)
    whole["tensors"][1].update(shape=[1 << 20, 1 << 20], **fields)
    data = header.seal(dump(whole), sha, 2) + write(second_version(), "raw")[end:]
    tracemalloc.start()
    with pytest.raises(ValueError, match="corrupt artifact"):
        read(data)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_golden_files_of_the_second_version() -> None:
    """Each line: what it is, the identity, the file in hex."""
    found = {"by_hand": second_version(), "model": model()}
    lines = GOLDEN.read_text(encoding="utf-8").splitlines()
    assert [line.split()[0] for line in lines] == list(found)
    for line in lines:
        name, sha, text = line.split()
        artifact = read(bytes.fromhex(text))
        assert identity(found[name]) == identity(artifact) == sha, name
        assert all(
            dequantize(one).tobytes() == dequantize(two).tobytes()
            for one, two in zip(found[name].tensors, artifact.tensors, strict=True)
        )


def model() -> Artifact:
    quant = Quant(embed="fp8", attn_group=8, mlp="int5", mlp_group="tensor", keep_below=200)
    rows = [row for row in param_table(TINY) if row.name.startswith(("blocks.0", "tok"))]
    held = perturbed(TINY)
    return Artifact(None, tuple(quantized(row, held[row.name], quant) for row in rows))
