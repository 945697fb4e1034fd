"""The printed decoder: alone in an empty folder it reads what the toolkit reads, bit for bit."""

from __future__ import annotations

import ast
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.arch.params import Weights
from core.artifact import header
from core.artifact.container import Artifact, read, write
from core.artifact.container import weights as unpack
from core.artifact.packed import Packed
from core.artifact.quant import Quant, quantize
from core.artifact.solving import Calibration, solve_tensors, solver_name
from core.artifact.table import dump
from tests.core.test_container import TINY, every_kind, perturbed, tiny_artifact
from tests.core.test_formats import second_version
from tests.core.test_solving import hessians
from tests.parity.cases import spec_of
from tests.tools.test_golf import golf
from tools.bundling.decoder import PLAIN, codecs_in, decoder

Capture = pytest.CaptureFixture[str]
READ_ALL = """
import pathlib, sys
import numpy
for file in pathlib.Path().glob("*.bin"):
    numpy.savez(file.with_suffix(".npz"), **read_weights(file.read_bytes()))
"""


def of(**fields: Any) -> Artifact:
    """The tiny model by a quantizer that is not told of its inputs."""
    quant = Quant(**{"keep_below": 0, **fields})
    return Artifact(TINY, tuple(quantize(perturbed(TINY), TINY, quant)))


def even_trits() -> Artifact:
    """Levels of three values that are equally frequent."""
    levels = np.random.default_rng(3).integers(-1, 2, (16, 20)).astype(np.int8)
    return Artifact(None, (Packed("w", levels.shape, levels, np.ones(16, np.float16)),))


def solved(**fields: Any) -> Artifact:
    """Its matrices by GPTQ."""
    quant = Quant(keep_below=0, solver="gptq", **fields)
    tensors = solve_tensors(perturbed(TINY), quant, Calibration(hessians=hessians()))
    return Artifact(None, tuple(tensors), solver_name(quant))


CASES: dict[str, tuple[Callable[[], Artifact], str]] = {
    "int8 zlib": (tiny_artifact, "zlib"),
    "int6 rans": (lambda: of(mlp="int6", mlp_sigmas=12.85, attn="int5"), "rans"),
    "int2 best": (lambda: of(mlp="int2", attn="int3", embed="int4"), "best"),
    "signs": (lambda: of(mlp="int2", mlp_quantile=0.01), "best"),
    "trits": (even_trits, "best"),
    "lzma": (lambda: of(embed="fp16"), "lzma"),
    "raw": (every_kind, "raw"),
    "wide": (lambda: of(step_scale=0.02, codec="rans"), "rans"),
    "trellis": (lambda: solved(mlp="int5", trellis=4, trellis_lambda=0.0), "rans"),
    "columns": (lambda: solved(mlp="int6", steps="columns", trellis=8), "best"),
    "every kind": (every_kind, "best"),
    "ternary": (lambda: signs("ternary"), "best"),
    "binary": (lambda: signs("binary"), "lzma"),
    "fp8": (lambda: of(embed="fp8", mlp="fp8", mlp_group=8), "rans"),
    "groups": (lambda: of(attn_group=8, mlp_group="tensor", scale_format="log8"), "best"),
    "second version": (second_version, "best"),
}


def signs(form: str) -> Artifact:
    """Of a model whose matrices are multiplied as they are stored."""
    spec = spec_of(form)
    quant = Quant(attn=form, mlp=form, keep_below=0)
    return Artifact(spec, tuple(quantize(perturbed(spec), spec, quant)))


@cache
def file_of(case: str) -> bytes:
    make, codec = CASES[case]
    return write(make(), codec)


@pytest.fixture(scope="module")
def read_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """What the printed source makes of every case, run by itself."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "read.py").write_text(decoder().source + READ_ALL, encoding="utf-8")
    for index, case in enumerate(CASES):
        (folder / f"{index}.bin").write_bytes(file_of(case))
    command = [sys.executable, "-I", "read.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {case: dict(np.load(folder / f"{i}.npz")) for i, case in enumerate(CASES)}


def same(found: dict[str, np.ndarray], wanted: Weights) -> None:
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        assert found[name].dtype == np.float32 and found[name].shape == weight.shape, name
        assert found[name].tobytes() == weight.tobytes(), name


@pytest.mark.parametrize("case", CASES)
def test_it_reads_what_the_toolkit_reads(read_alone: dict[str, Any], case: str) -> None:
    same(read_alone[case], unpack(CASES[case][0]()))


def test_the_cases_have_every_codec_and_a_trellis() -> None:
    held = set[str]().union(*(codecs_in(file_of(case)) for case in CASES))
    assert held == set(PLAIN)
    assert any(tensor.trellis for tensor in CASES["trellis"][0]().tensors)
    assert any(tensor.col_scale is not None for tensor in CASES["columns"][0]().tensors)


def test_it_needs_numpy_alone() -> None:
    imports = set[str]()
    for node in ast.walk(ast.parse(decoder().source)):
        if isinstance(node, ast.Import):
            imports |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imports.add((node.module or "").split(".")[0])
    assert imports - set(sys.stdlib_module_names) == {"numpy"}


@cache
def reader(source: str | None = None) -> Callable[[bytes], Weights]:
    scope: dict[str, Any] = {"__name__": "pasted"}
    exec(compile(source or decoder().source, "pasted", "exec", dont_inherit=True), scope)
    found: Callable[[bytes], Weights] = scope["read_weights"]
    return found


@pytest.mark.parametrize("case", ["int8 zlib", "columns"])
def test_minified_it_reads_the_same(case: str) -> None:
    same(reader(decoder().minified)(file_of(case)), unpack(CASES[case][0]()))


def test_every_flipped_bit_is_found() -> None:
    data = file_of("every kind")
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        with pytest.raises(ValueError, match=r"corrupt artifact|pasted"):
            reader()(bytes(flipped))


def test_every_truncation_and_a_tail_is_found() -> None:
    data = file_of("every kind")
    for wrong in (*(data[:end] for end in range(len(data))), data + b"\0"):
        with pytest.raises(ValueError, match="corrupt artifact"):
            reader()(wrong)


def resealed(change: Callable[[dict[str, Any]], object]) -> bytes:
    text, sha, end = header.unseal(file_of("raw"))
    whole = json.loads(text)
    change(whole)
    return header.seal(dump(whole), sha) + file_of("raw")[end:]


def lies() -> Iterator[tuple[bytes, str]]:
    data = file_of("raw")
    yield b"PK\x03\x04 and so on", "starts with b'PK"
    yield data[:4] + struct.pack("<H", 9) + data[6:], "format 9; this decoder is of"
    yield data[:4] + struct.pack("<H", 0) + data[6:], "format 0"
    yield resealed(lambda whole: whole["tensors"][0].update(trellis=4)), "identity"
    yield resealed(lambda whole: whole["tensors"][0].update(shape=[4, 4])), "do not fit"
    yield resealed(lambda whole: whole["tensors"][0].update(wings=2)), "wrong form"
    yield resealed(lambda whole: whole["tensors"][0].pop("name")), "wrong form"
    yield resealed(lambda whole: whole["tensors"][0].update(streams=[99, 0])), "wrong form"
    yield resealed(lambda whole: whole["streams"][0].update(codec=77)), "codec 77 is not in"
    yield resealed(lambda whole: whole["streams"][0].update(raw_bytes=5)), "gives 24 bytes"
    yield resealed(lambda whole: whole["streams"].pop()), "expected|wrong form"
    yield resealed(lambda whole: whole.update(solver="rtm")), "identity"


@pytest.mark.parametrize(("data", "words"), list(lies()))
def test_it_refuses_and_says_why(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        reader()(data)


def test_a_decoder_of_one_artifact(tmp_path: Path, capsys: Capture) -> None:
    """It has that file's codecs alone, and says so of another."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.bin").write_bytes(file_of("int8 zlib"))
    code, out, err = golf(capsys, "bundle", "--decoder-only", tmp_path / "run")
    assert code == 0 and "bytes; " in err
    assert "rans_decode" not in out and "trits" not in out
    same(reader(out)(file_of("int8 zlib")), unpack(tiny_artifact()))
    with pytest.raises(ValueError, match="codec 5 is not in this decoder"):
        reader(out)(file_of("int6 rans"))
    assert len(out) < len(decoder().source) - 2000


def test_codecs_of_other_packages() -> None:
    for codec, package in (("brotli", "brotli"), ("zstd", "zstandard")):
        pytest.importorskip(package)
        data = write(tiny_artifact(), codec)
        source = decoder(codecs_in(data)).source
        same(reader(source)(data), unpack(tiny_artifact()))
        with pytest.raises(ValueError, match="is not in this decoder"):
            reader()(data)


def test_the_verb(tmp_path: Path, capsys: Capture) -> None:
    code, out, _ = golf(capsys, "bundle", "--decoder-only")
    assert code == 0 and out == decoder().source
    code, text, _ = golf(capsys, "bundle", "--decoder-only", "--json")
    fields = json.loads(text)
    assert code == 0 and fields["source"] == out and fields["codecs"] == list(PLAIN)
    assert fields["compressed_bytes"] < fields["minified_bytes"] < fields["source_bytes"]
    code, text, _ = golf(capsys, "bundle", "--decoder-only", "--json", "--out", tmp_path / "d.py")
    assert json.loads(text)["file"] == str(tmp_path / "d.py")
    assert (tmp_path / "d.py").read_text(encoding="utf-8") == out


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("none.bin",), 1, "no such file"),
        (("a", "b"), 2, "takes an artifact"),
        (("--readable",), 2, "takes an artifact"),
        (("--out", "no/such/d.py"), 2, "there is no folder"),
    ],
)
def test_what_a_user_can_get_wrong(
    capsys: Capture, words: tuple[str, ...], code: int, sentence: str
) -> None:
    found, _, err = golf(capsys, "bundle", "--decoder-only", *words)
    assert (found, sentence in err) == (code, True), err


def test_the_checksums_are_of_what_is_there() -> None:
    """A changed level with a right checksum breaks the identity."""
    data = bytearray(file_of("raw"))
    start = header.unpack_header(bytes(data)).header_bytes
    first = header.unpack_header(bytes(data)).streams[0].packed_bytes
    data[start] ^= 1
    crc = zlib.crc32(data[start : start + first])
    text, sha, end = header.unseal(bytes(data))
    whole = json.loads(text)
    whole["streams"][0]["crc32"] = crc
    with pytest.raises(ValueError, match="its identity is another"):
        reader()(header.seal(dump(whole), sha) + bytes(data[end:]))


def test_groups_as_rows_are_told() -> None:
    """As ternary models of the first version had them: their shapes are in no file."""
    spec = spec_of("ternary")
    tensors = Artifact(spec, signs("ternary").tensors).tensors
    rows = [
        replace(t, shape=shape, values=t.values.reshape(shape), group_size=0)
        if t.group_size and (shape := (t.size // t.group_size, t.group_size))
        else t
        for t in tensors
    ]
    old = write(Artifact(spec, tuple(rows)))
    same(unpack(read(old)), unpack(signs("ternary")))
    with pytest.raises(ValueError, match="golf pack makes format 2"):
        reader()(old)


def test_a_spec_changes_nothing() -> None:
    """The decoder reads weights, not models."""
    bare = replace(tiny_artifact(), spec=None)
    same(reader()(write(bare)), unpack(tiny_artifact()))
