"""Packing to a number of bytes, weights of strangers, and what the command says of them."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from safetensors.numpy import save_file

from core.arch.noise import normal, stream_of
from core.arch.params import init_params
from core.artifact.container import read, weights
from core.artifact.target import SLACK_BYTES, Sizes, meet, scale_at
from core.train.recipe import Recipe, with_changes
from core.train.recipes import smoke
from core.train.run_folder import RunFolder
from tests.parity.engines import ENGINES
from tests.tools.test_golf import golf
from tools.backends import load

Capture = pytest.CaptureFixture[str]
SIX = ("quant.mlp=int6", "quant.mlp_sigmas=12.85", "quant.keep_below=0", "quant.codec=rans")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return with_changes(smoke(), ["arch.num_layers=2", "arch.vocab_size=256", "quant.codec=rans"])


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with weights that nobody trained."""
    folder = RunFolder(tmp_path_factory.mktemp("pack"), "one")
    folder.create(recipe)
    first = init_params(recipe.arch, 3)
    folder.save_weights(
        {n: (w + 0.05 * normal(2, stream_of(n), w.shape)).astype("f4") for n, w in first.items()}
    )
    return folder.path


@pytest.fixture
def tensors(tmp_path: Path) -> Path:
    """A stranger's weights, and the Hessians of two of its three matrices."""
    held = {
        "model.up": normal(1, 0, (96, 64)).astype(np.float32),
        "model.down": normal(1, 1, (64, 96)).astype(np.float16),
        "model.head": normal(1, 2, (50, 64)).astype(np.float64),
        "norm": np.linspace(0.5, 2, 64).astype(np.float32),
        "scalar": np.array(3.0, np.float32),
    }
    save_file(held, tmp_path / "any.safetensors")
    hessians = {}
    for name in ("model.up", "model.down"):
        x = normal(5, stream_of(name), (300, held[name].shape[1]))
        x *= np.exp2(1.5 * normal(6, 0, (1, x.shape[1])))
        hessians[name] = x.T @ x
    hessians["model.up.fisher"] = np.exp2(normal(7, 0, (96,)))
    save_file(hessians, tmp_path / "h.safetensors")
    return tmp_path / "any.safetensors"


def packed(capsys: Capture, *words: object) -> dict[str, Any]:
    code, out, err = golf(capsys, "pack", *words, "--json")
    assert code == 0, err
    fields: dict[str, Any] = json.loads(out)
    return fields


def size_of(scale: float) -> bytes:
    """A file whose size falls by 100,000 an octave, with a jitter as coders have."""
    size = 400_000 - 100_000 * np.log2(scale) + 300 * np.sin(1e6 * scale)
    if scale < 2**-6:
        raise ValueError("too fine")
    return bytes(int(max(size, 5_000)))


@pytest.mark.parametrize("most", [6_500, 77_000, 399_000, 400_500, 650_000, 990_000])
@pytest.mark.parametrize("start", [1.0, 0.05, 30.0])
def test_a_target_is_met_from_below(most: int, start: float) -> None:
    sizes = Sizes(size_of)
    scale, file = meet(sizes, most, start)
    assert 0 <= most - len(file) <= SLACK_BYTES and file == size_of(scale)
    assert float(f"{scale:.6g}") == scale and len(sizes.made) < 20


@pytest.mark.parametrize("most", [3_000, 20_000, 123_456, 5_000_000])
def test_a_target_is_met_where_no_line_leads_to_it(most: int) -> None:
    """Sizes that fall by the third power, and in stairs."""
    made = Sizes(lambda scale: bytes(int(1e5 / scale**3) // 1_500 * 1_500))
    _, file = meet(made, most)
    assert 0 <= most - len(file) <= SLACK_BYTES


@pytest.mark.parametrize(
    ("most", "words"),
    [
        (4_000, "4,000 bytes are too few for this model: with the coarsest steps it has 5,000"),
        (1_500_000, "largest that fits has 999,712"),
        (-1, "-1 bytes are too few"),
    ],
)
def test_a_target_that_nothing_meets(most: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        meet(Sizes(size_of), most)


def test_an_error_of_its_own_is_not_hidden() -> None:
    def fails(scale: float) -> bytes:
        raise ValueError("no Hessian")

    with pytest.raises(ValueError, match="no Hessian"):
        meet(Sizes(fails), 10)


def test_octaves() -> None:
    assert scale_at(0.0) == 1.0 and scale_at(-2.0) == 0.25 and scale_at(0.1) == 1.07177


def test_a_run_meets_its_target(capsys: Capture, run: Path, tmp_path: Path) -> None:
    plain = packed(capsys, run)
    words = (run, "--code-bytes", 1000, "--out", tmp_path / "m.bin")
    for target in (plain["model_bytes"] - 4000, plain["model_bytes"] + 9000):
        fields = packed(capsys, *words, "--target-bytes", target)
        assert 0 <= target - fields["artifact_bytes"] <= SLACK_BYTES
        assert fields["artifact_bytes"] == 1000 + (tmp_path / "m.bin").stat().st_size
        change = f"quant.step_scale={fields['step_scale']}"
        again = packed(capsys, *words, change)
        assert again["identity"] == fields["identity"], "the step scale says what was done"
        assert packed(capsys, *words, "--target-bytes", target)["identity"] == again["identity"]
        _, out, _ = golf(capsys, "pack", *words, change)
        assert re.search(r"^step_scale +(\S+)$", out, re.M)[1] == str(fields["step_scale"])


@pytest.mark.slow
def test_the_code_of_the_step_scale_is_in_the_target(capsys: Capture, run: Path) -> None:
    plain = packed(capsys, run)
    target = plain["artifact_bytes"] + 5000
    fields = packed(capsys, run, "--target-bytes", target)
    assert 0 <= target - fields["artifact_bytes"] <= SLACK_BYTES
    again = packed(capsys, run, f"quant.step_scale={fields['step_scale']}")
    assert again["code_bytes"] == fields["code_bytes"] != plain["code_bytes"]


def test_weights_of_no_recipe(capsys: Capture, tensors: Path) -> None:
    out = tensors.with_name("any.bin")
    fields = packed(capsys, "--tensors", tensors, *SIX, "--out", out)
    artifact = read(out.read_bytes())
    assert artifact.spec is None and artifact.solver == "rtn" and fields["code_bytes"] == 0
    found = weights(artifact)
    assert {name: one.shape for name, one in found.items()} == {
        "model.down": (64, 96),
        "model.head": (50, 64),
        "model.up": (96, 64),
        "norm": (64,),
        "scalar": (),
    }
    up = normal(1, 0, (96, 64))
    sigma = np.sqrt(np.mean(np.square(up), axis=1)).max()
    assert np.abs(found["model.up"] - up).max() < 0.51 * 12.85 / 31 * sigma
    assert found["scalar"] == 3.0


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_solves_as_numpy_does(capsys: Capture, tensors: Path, engine: str) -> None:
    """Equal levels of so small matrices; without --backend it is not asked."""
    words = ("--tensors", tensors, *SIX, "quant.solver=gptq", "quant.trellis=4")
    words += ("--hessians", tensors.with_name("h.safetensors"), "--out", tensors.with_name("x"))
    solver = load(engine, "solve").Solver
    with patch.object(solver, "levels", autospec=True, side_effect=solver.levels) as asked:
        plain = packed(capsys, *words)
        assert not asked.called
        solved = packed(capsys, *words, "--backend", engine)
    assert asked.called and solved["identity"] == plain["identity"]


def test_hessians_of_no_recipe(capsys: Capture, tensors: Path) -> None:
    out = tensors.with_name("any.bin")
    words = ("--tensors", tensors, *SIX, "--out", out, "quant.solver=gptq", "quant.trellis=4")
    words += ("--hessians", tensors.with_name("h.safetensors"), "--code-bytes", 500)
    fields = packed(capsys, *words, "--why", "--target-bytes", 9_000)
    assert read(out.read_bytes()).solver == "gptq+trellis4"
    assert 7_000 <= fields["artifact_bytes"] <= 9_000
    told = {row["name"]: set(row) - {"name", "shape"} for row in fields["why"]}
    assert told == {
        "model.up": {"columns_bits", "fisher_bits", "rows_bits"},
        "model.down": {"columns_bits"},
        "model.head": set(),
    }
    assert next(row for row in fields["why"] if row["name"] == "model.up")["columns_bits"] > 0.3


def test_what_it_says(capsys: Capture, tensors: Path) -> None:
    hessians = tensors.with_name("h.safetensors")
    words = ("--tensors", tensors, *SIX, "--out", tensors.with_name("any.bin"))
    _, out, err = golf(capsys, "pack", *words, "quant.solver=gptq", "--hessians", hessians, "--why")
    assert "1 of the matrices have no Hessian, as model.head: to the nearest level" in err
    assert "bits a weight that steps may save by" in out and "model.down" in out
    _, _, err = golf(capsys, "pack", *words, "quant.solver=gptq")
    assert "no matrix has a Hessian: to the nearest level" in err


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ((), 2, "name a folder of runs/, or weights with --tensors"),
        (("--tensors", "none.safetensors"), 1, "no such file"),
        (("--tensors", "{}", "quant.mpl=int6"), 2, "did you mean 'mlp'"),
        (("--tensors", "{}", "optim.x=1"), 2, "changes only the quant section"),
        (("--tensors", "{}", "--code-bytes", "-1"), 2, "must not be negative"),
        (("--tensors", "{}", "--target-bytes", "100"), 1, "100 bytes are too few for this model"),
        (("--tensors", "{}", "--target-bytes", "900000"), 1, "no step scale gives a model of"),
        (("--tensors", "{}", "--target-bytes", "90", "--code-bytes", "99"), 1, "the code alone"),
        (("--tensors", "{}", "quant.steps=columns", "quant.solver=gptq"), 1, "need its Hessian"),
        (("--tensors", "{}", "--hessians", "{}"), 1, "not a Hessian"),
    ],
)
def test_what_a_user_can_get_wrong(
    capsys: Capture, tensors: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    out = tensors.with_name("any.bin")
    said = [str(tensors) if word == "{}" else word for word in words]
    keep = ["quant.keep_below=0"] if "{}" in words else []
    found, _, err = golf(capsys, "pack", *said, *keep, "--out", out)
    assert (found, sentence in err) == (code, True), err
    assert "Traceback" not in err and not out.exists()


def raw(table: object, numbers: bytes = b"", size: int | None = None) -> bytes:
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + numbers


def entry(**fields: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **fields}}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "a header of 0 bytes in 0"),
        (b"PK\x03\x04 and so on", "a header of"),
        (raw(b"{}", size=1 << 60), "a header of"),
        (raw(b"\xff\xff"), "no JSON"),
        (raw(b"[" * 100_000), "no JSON"),
        (raw([1]), "no table"),
        (raw({"w": 3}), "corrupt row"),
        (raw(entry(dtype="I64"), bytes(8)), "floats alone"),
        (raw(entry(dtype=["F32"]), bytes(8)), "floats alone"),
        (raw(entry(shape=[-2]), bytes(8)), "corrupt row"),
        (raw(entry(shape=[True]), bytes(8)), "corrupt row"),
        (raw(entry(shape=[1 << 60]), bytes(8)), "expected 4,611,686"),
        (raw(entry(data_offsets=[0, 80]), bytes(8)), "bytes 0 to 80 of 8"),
        (raw(entry(data_offsets=[-8, 0]), bytes(8)), "bytes -8 to 0"),
        (raw(entry(data_offsets=["0", 8]), bytes(8)), "corrupt row"),
        (raw({**entry(), "v": entry()["w"]}, bytes(8)), "state 16 bytes, more than"),
        (raw(entry(), np.array([1, np.nan], "<f4").tobytes()), "NaN"),
    ],
)
def test_a_strangers_file_is_data(capsys: Capture, tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "bad.safetensors"
    file.write_bytes(data)
    code, _, err = golf(capsys, "pack", "--tensors", file, "--out", tmp_path / "x.bin")
    assert code == 1 and words in err and "Traceback" not in err, err


def test_bfloat16_is_read(capsys: Capture, tmp_path: Path) -> None:
    halves = (np.array([1.5, -0.25], "<f4").view("<u4") >> 16).astype("<u2")
    file = tmp_path / "b.safetensors"
    file.write_bytes(raw(entry(dtype="BF16", data_offsets=[0, 4]), halves.tobytes()))
    packed(capsys, "--tensors", file, "--out", tmp_path / "x.bin")
    assert weights(read((tmp_path / "x.bin").read_bytes()))["w"].tolist() == [1.5, -0.25]
