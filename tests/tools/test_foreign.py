"""golf inspect on strangers' blobs: every format and wrapper lists the same tensors, none runs."""

from __future__ import annotations

import bz2
import collections
import gzip
import io
import json
import lzma
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.artifact.codecs import encode
from tools.inspect import foreign_fields
from tools.main import main
from tools.strangers.foreign import foreign_tensors
from tools.strangers.pickles import read_pickle

torch = pytest.importorskip("torch")

RAW = [{"id": lzma.FILTER_LZMA2}]
TABLE = {
    "quantized": {"blocks.0.attn.c_q.weight": torch.ones(4, 8, dtype=torch.int8)},
    "scales": {"blocks.0.attn.c_q.weight": torch.ones(4, dtype=torch.float16)},
    "bf": torch.zeros(3, 2, dtype=torch.bfloat16),
    "meta": {"blocks.0.attn.c_q.weight": "gptq (int6)", "n": 3, "none": None, "f": 1.5},
}
ROWS = [
    ("bf", (3, 2), "bfloat16", 12),
    ("quantized/blocks.0.attn.c_q.weight", (4, 8), "int8", 32),
    ("scales/blocks.0.attn.c_q.weight", (4,), "float16", 8),
]
ARRAYS = {
    "q": {"x": np.ones((2, 3), np.int8), "y": np.ones(3, np.float16)},
    "one": np.float32(3),
    "turned": np.asfortranarray(np.ones((2, 3), ">f8")),
    "text": "words",
    "list": [np.arange(4, dtype=np.uint16)],
}
ARRAY_ROWS = [
    ("list/0", (4,), "uint16", 8),
    ("one", (), "float32", 4),
    ("q/x", (2, 3), "int8", 6),
    ("q/y", (3,), "float16", 6),
    ("turned", (2, 3), "float64", 48),
]


def saved(value: object, **words: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **words)
    return file.getvalue()


def rows(data: bytes) -> list[tuple[str, tuple[int, ...], str, int]]:
    found = foreign_tensors(data, "blob").tensors
    return [(one.name, one.shape, one.dtype, one.bytes) for one in found]


def shuffled(data: bytes) -> bytes:
    return b"BSHF\x02" + data[0::2] + data[1::2]


WRAPPERS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "lzma": lzma.compress,
    "raw lzma": lambda data: lzma.compress(data, lzma.FORMAT_RAW, filters=RAW),
    "bz2": bz2.compress,
    "brotli": lambda data: encode("brotli", data),
    "zstd": lambda data: encode("zstd", data),
    "byte shuffle in brotli": lambda data: encode("brotli", shuffled(data)),
    "zlib in gzip": lambda data: gzip.compress(zlib.compress(data)),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("kind", ["torch zip", "torch pickle", "pickle"])
def test_each_format_within_each_wrapper(kind: str, wrapper: str) -> None:
    plain = {
        "torch zip": saved(TABLE),
        "torch pickle": saved(TABLE, _use_new_zipfile_serialization=False),
        "pickle": pickle.dumps(ARRAYS),
    }[kind]
    try:
        data = WRAPPERS[wrapper](plain)
    except ValueError as error:
        pytest.skip(str(error))
    found = foreign_tensors(data, "blob")
    assert found.format == f"{kind} in {wrapper}" and found.model_bytes == len(data)
    expected = ARRAY_ROWS if kind == "pickle" else ROWS
    assert rows(data) == rows(plain) == expected
    assert found.parameters == (6 + 3 + 1 + 6 + 4 if kind == "pickle" else 6 + 32 + 4)


@pytest.mark.parametrize("protocol", range(6))
def test_each_protocol_of_pickle(protocol: int) -> None:
    assert rows(pickle.dumps(ARRAYS, protocol=protocol)) == ARRAY_ROWS


def test_files_of_numpy_and_safetensors() -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    arrays = {"a": np.ones((2, 3), np.float16), "b": np.arange(4)}
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **arrays)
        assert rows(file.getvalue()) == [("a", (2, 3), "float16", 12), ("b", (4,), "int64", 32)]
    file = io.BytesIO()
    np.save(file, arrays["a"])
    assert rows(file.getvalue()) == [("array", (2, 3), "float16", 12)]
    data = safetensors.save({"w": torch.ones(2, 2, dtype=torch.bfloat16)}, {"format": "pt"})
    assert rows(data) == [("w", (2, 2), "bfloat16", 8)]


def test_what_torch_saves_beside_dicts() -> None:
    assert rows(saved({"p": torch.nn.Parameter(torch.ones(2, 3))})) == [
        ("p", (2, 3), "float32", 24)
    ]
    assert rows(saved({"v": torch.arange(12).reshape(3, 4).T[1:]})) == [("v", (3, 3), "int64", 72)]
    assert rows(saved({"e": torch.ones(1).expand(1000, 9)})) == [("e", (1000, 9), "float32", 4)]
    assert rows(saved({"z": torch.ones(0, 5)})) == [("z", (0, 5), "float32", 0)]
    assert rows(saved(torch.nn.Linear(3, 2).state_dict())) == [
        ("bias", (2,), "float32", 8),
        ("weight", (2, 3), "float32", 24),
    ]
    module = rows(saved(torch.nn.Linear(3, 2)))
    assert [(name.rsplit("/", 1)[-1], shape) for name, shape, *_ in module] == [
        ("bias", (2,)),
        ("weight", (2, 3)),
    ]
    f8 = torch.ones(3).to(torch.float8_e4m3fn)
    assert rows(saved({"x": f8})) == [("x", (3,), "float8_e4m3fn", 3)]


class Runs:
    """Unpickling it runs a command."""

    def __init__(self, call: Callable[..., object], *args: object) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call, self.args


@pytest.mark.parametrize("protocol", range(6))
def test_an_empty_array(protocol: int) -> None:
    data = pickle.dumps(
        {"a": np.zeros((0, 3), np.float32), "b": bytearray(b"x")}, protocol=protocol
    )
    assert rows(data) == [("a", (0, 3), "float32", 0)]


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_a_command_runs_nothing(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    calls = [Runs(os.system, f"touch {trace}"), Runs(eval, f"open({str(trace)!r}, 'w')")]
    calls += [Runs(open, str(trace), "w"), Runs(os.mkdir, f"{trace}.d")]
    value = collections.OrderedDict(a=np.ones(2), b=calls)
    data = pickle.dumps(value, protocol=protocol)
    assert rows(data) == [("a", (2,), "float64", 16)]
    assert rows(saved({"a": torch.ones(2), "b": calls})) == [("a", (2,), "float32", 8)]
    assert not trace.exists()
    pickle.loads(data)
    assert trace.exists()  # the file is what it says


def test_the_machine_agrees_with_pickle_on_plain_values() -> None:
    value = [
        None,
        True,
        False,
        0,
        -1,
        255,
        65_536,
        -(1 << 40),
        1 << 200,
        1.5,
        "µ",
        b"\xff",
        (),
        (1,),
    ]
    value += [(1, 2, 3, 4), [], [[1], [2]], bytearray(b"ab"), "x" * 300, b"y" * 300]
    for protocol in range(6):
        data = pickle.dumps(value, protocol=protocol)
        found, end = read_pickle(data)
        assert end == len(data)
        assert found == [bytes(v) if isinstance(v, bytearray) else v for v in value], protocol


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return file.getvalue()


def _npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text + body


def _safe(row: object, body: bytes = b"") -> bytes:
    text = json.dumps({"a": row}).encode()
    return len(text).to_bytes(8, "little") + text + body


def _longer_storage() -> bytes:
    """A torch file whose pickle claims a larger storage than the file holds."""
    members = zipfile.ZipFile(io.BytesIO(saved({"x": torch.ones(5)})))
    found = {name: members.read(name) for name in members.namelist()}
    root = next(name for name in found if name.endswith("data.pkl"))
    found[root] = found[root].replace(b"K\x05", b"K\x77")
    return _zip(found)


REFUSED = {
    "text": (b"import os\n", "not an artifact"),
    "empty": (b"", "not an artifact"),
    "zip of others": (_zip({"a.txt": b"a"}), "neither data.pkl"),
    "zip of bz2": (_zip({"a.npy": b"a" * 99}, zipfile.ZIP_BZIP2), "neither stored nor deflated"),
    "zlib bomb": (zlib.compress(b"\0" * (1 << 28) + b"\0", 1), "more than 268,435,456"),
    "zip bomb": (_zip({"a.npy": b"\0" * (1 << 28) + b"\0"}, 8), "more than 268,435,456"),
    "truncated": (zlib.compress(pickle.dumps(ARRAYS))[:-20], "too early"),
    "nested": (
        b"".join([zlib.compress(zlib.compress(zlib.compress(zlib.compress(zlib.compress(b"a")))))]),
        "more than 4 times",
    ),
    "grouped": (b"PGRP\x09\0\0\0", "lrzip"),
    "npy too short": (_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}"), "12"),
    "npy that calls": (_npy("__import__('os').getcwd()"), "corrupt npy header"),
    "npy of much": (_npy("{'descr': '<f4', 'shape': (1 << 60,)}"), "corrupt npy header"),
    "safetensors past its end": (
        _safe({"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}),
        "8",
    ),
    "safetensors of none": (_safe([1]), "corrupt row"),
    "storage too short": (_longer_storage(), "expected 476"),
    "pickle cut": (pickle.dumps(ARRAYS)[:-9], "ends too early"),
    "pickle with more behind": (pickle.dumps(1) + b"x" * 99, "follow the pickle"),
    "pickle of a mark": (b"\x80\x02(.", "mark"),
    "pickle of nothing": (b"\x80\x02.", "empty stack"),
    "pickle recalls": (b"\x80\x02h\x05.", "recalls 5"),
    "pickle that swells": (b"\x80\x02" + b"]" * 600_000 + b".", "more than 500,000"),
    "array too short": (
        pickle.dumps(np.ones(3)).replace(b"K\x03\x85", b"K\x04\x85"),
        "24 bytes, expected 32",
    ),
    "huge shape": (
        pickle.dumps({"a": np.ones(3)}).replace(b"K\x03\x85", b"\x8a\x08" + b"\x7f" * 8 + b"\x85"),
        "elements",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_why(name: str) -> None:
    data, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=sentence) as told:
        foreign_tensors(data, "blob.ptz")
    assert str(told.value).startswith("blob.ptz: ")


def test_what_is_held_twice_is_listed_once() -> None:
    array: list[object] = [np.ones(2)]
    for _ in range(60):
        array = [array, array]
    found = rows(pickle.dumps(array))
    assert len(found) == 1
    round_ = [np.ones(2)]
    round_.append(round_)  # type: ignore[arg-type]
    assert len(rows(pickle.dumps(round_))) == 1


def test_the_verb_lists_a_foreign_blob(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blob = tmp_path / "final_model.int8.ptz"
    blob.write_bytes(zlib.compress(saved(TABLE), 9))
    assert main(["inspect", str(blob), "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields == foreign_fields(blob.read_bytes(), "blob")
    assert fields["identity"] is None and fields["format"] == "torch zip in zlib"
    assert fields["model_bytes"] == blob.stat().st_size and fields["parameters"] == 42
    assert fields["tensors"][0] == {
        "name": "bf",
        "shape": [3, 2],
        "format": "bfloat16",
        "bytes": 12,
    }
    assert main(["inspect", str(blob)]) == 0
    assert "quantized/blocks.0.attn.c_q.weight" in capsys.readouterr().out
