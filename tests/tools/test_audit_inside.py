"""golf audit inside: validation text is found however it is wrapped, and nothing else is."""

from __future__ import annotations

import base64
import bz2
import io
import json
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.artifact.container import Artifact, write
from core.artifact.packed import Packed
from core.data.shards import open_split
from core.data.tokenizer import open_tokenizer
from tests.planted import Shards, shards
from tools.auditing import copies, views
from tools.auditing.copies import Pieces, rolling
from tools.main import main

Capture = pytest.CaptureFixture[str]
RULE = "no validation inside"
SOME = 90  # tokens that are hidden: more than 64, however they lie


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    return shards(tmp_path_factory.mktemp("shards"))


def golf(capsys: Capture, path: Path, text: Shards, *words: str) -> tuple[int, str, str]:
    given = ("--data", str(text.folder), "--tokenizer", str(text.tokenizer))
    code = main(["audit", "inside", str(path), *given, *words])
    return code, *capsys.readouterr()


def judged(capsys: Capture, path: Path, text: Shards) -> dict[str, dict[str, str]]:
    """The finding on each file."""
    code, out, _ = golf(capsys, path, text, "--json")
    said: dict[str, Any] = json.loads(out)
    assert {one["rule"] for one in said["findings"]} == {RULE}
    assert code == int(not said["passes"])
    return {one["subject"]: one for one in said["findings"]}


def hidden(text: Shards, first: int = 33, count: int = SOME) -> np.ndarray:
    return open_split(text.folder, "val").slice(first, first + count).astype(np.int64)


def npz(ids: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, table=np.eye(3), more=ids.astype(np.int32))
    return file.getvalue()


def packed_script(ids: np.ndarray) -> bytes:
    source = f"import torch\nFOLLOWS = {ids.tolist()}\n".encode()
    code = base64.b85encode(lzma.compress(source)).decode()
    return f"import lzma, base64\nexec(lzma.decompress(base64.b85decode('{code}')))\n".encode()


def literal(ids: np.ndarray, encode: Callable[[bytes], bytes]) -> bytes:
    held = encode(zlib.compress(ids.astype("<u2").tobytes() * 3)).decode()
    return f'import model\nmodel.TABLE = unpacked("""{held}""")\n'.encode()


def artifact(ids: np.ndarray) -> bytes:
    levels = np.frombuffer(ids.astype("<u2").tobytes(), np.int8).reshape(1, -1)
    scale = np.ones(1, np.float16)
    one = Packed(name="prefix", shape=levels.shape, values=levels, row_scale=scale)
    return write(Artifact(None, (one,)))


WRAPPED: dict[str, Callable[[np.ndarray], bytes]] = {
    "list.py": lambda ids: f"PREFIX = {ids.tolist()}\n".encode(),
    "tuples.json": lambda ids: json.dumps(ids.reshape(-1, 2).tolist(), indent=1).encode(),
    "two.bin": lambda ids: b"x" + ids.astype("<u2").tobytes(),
    "turned.bin": lambda ids: ids.astype(">u2").tobytes(),
    "four.dat": lambda ids: b"abc" + ids.astype("<u4").tobytes() + b"d",
    "eight.pt": lambda ids: bytes(51) + ids.astype("<i8").tobytes(),
    "table.npz": npz,
    "a.zlib": lambda ids: zlib.compress(ids.astype("<u2").tobytes()),
    "twice": lambda ids: bz2.compress(lzma.compress(npz(ids))),
    "packed.py": packed_script,
    "b85.py": lambda ids: literal(ids, base64.b85encode),
    "b64.py": lambda ids: literal(ids, base64.b64encode),
    "hex.py": lambda ids: literal(ids, lambda data: data.hex().encode()),
    "model.bin": artifact,
}


@pytest.mark.parametrize("name", WRAPPED)
def test_tokens_are_found_however_they_are_wrapped(
    name: str, text: Shards, tmp_path: Path, capsys: Capture
) -> None:
    """The same file without them passes; so few that chance may do it are left open."""
    rng = np.random.default_rng(3)
    counts = {"FAIL": SOME, "UNDECIDED": 40, "PASS": 12}
    for status, count in counts.items():
        ids = hidden(text, 33, count)
        other = np.concatenate([ids, rng.integers(0, text.vocab_size, 2 * SOME - count)])
        (tmp_path / name).write_bytes(WRAPPED[name](other))
        found = judged(capsys, tmp_path / name, text)[name]
        assert found["status"] == status, (count, found)
    assert "parts that could be unpacked" in found["evidence"]


def test_the_place_is_told(text: Shards, tmp_path: Path, capsys: Capture) -> None:
    ids = hidden(text)
    (tmp_path / "a.bin").write_bytes(b"x" * 101 + ids.astype("<u2").tobytes())
    said = judged(capsys, tmp_path, text)["a.bin"]["evidence"]
    at = 101 // 2 + (48 - 33)  # the first whole piece of 16, in numbers of two bytes
    shown = " ".join(map(str, ids[15:23].tolist()))
    assert said == (
        f"64 tokens of validation text: a.bin, numbers of 2 bytes, at {at}, token 48 on: {shown}"
    )


def test_text_is_found_and_a_phrase_of_it_is_open(
    text: Shards, tmp_path: Path, capsys: Capture
) -> None:
    stream = open_split(text.folder, "val")
    words = open_tokenizer(str(text.tokenizer)).decode(stream.slice(0, len(stream)))
    longer = words * (1 + 5000 // len(words))
    (tmp_path / "phrase.py").write_text(f"SAID = {words[300:400]!r}\n")
    (tmp_path / "text.py").write_text(f"SAID = {words!r}\n")
    (tmp_path / "again.py").write_text(f"SAID = {longer!r}\n")
    found = judged(capsys, tmp_path, text)
    assert found["phrase.py"]["status"] == "UNDECIDED"
    assert "bytes of validation text: phrase.py, at " in found["phrase.py"]["evidence"]
    large = len(words.encode()) >= 2200
    assert found["text.py"]["status"] == ("FAIL" if large else "UNDECIDED")
    said = found["again.py"]["evidence"].split(";")[0], found["text.py"]["evidence"].split(";")[0]
    assert said[0].split()[0] == said[1].split()[0], "each piece of validation counts once"


HONEST: dict[str, bytes] = {
    "noise.bin": np.random.default_rng(1).bytes(200_000),
    "zeros.bin": bytes(10_000),
    "ones.py": b"X = " + repr([1, 2] * 500).encode(),
    "range.py": b"X = " + repr(list(range(500))).encode(),
    "empty": b"",
    "one": b"1",
    "broken.py": b"def f(:\n" + b"1 " * 100,
    "broken.zip": b"PK\x03\x04" + b"\1" * 500,
    "broken.bin": b"GOLF" + b"\2" * 500,
    "broken.zlib": zlib.compress(bytes(1000))[:-5],
}


@pytest.mark.parametrize("name", HONEST)
def test_what_holds_none_of_it_passes(
    name: str, text: Shards, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / name).write_bytes(HONEST[name])
    assert judged(capsys, tmp_path, text)[name]["status"] == "PASS"


def test_this_repository_holds_none(text: Shards, tmp_path: Path, capsys: Capture) -> None:
    """Code and prose, as of a submission, and a packed model."""
    root = Path(__file__).resolve().parents[2]
    for name in ("README.md", "LICENSE", "backend_torch/model.py", "core/score/rules.py"):
        (tmp_path / Path(name).name).write_bytes((root / name).read_bytes())
    assert {one["status"] for one in judged(capsys, tmp_path, text).values()} == {"PASS"}


HEADS = (
    b"",
    b"GOLF",
    b"PK\x03\x04",
    b"\x1f\x8b\x08",
    b"BZh9",
    b"\xfd7zXZ\0",
    b"\x78\x9c",
    b"X = '",
)


@given(st.sampled_from(HEADS), st.binary(max_size=300), st.sampled_from(["a.py", "a.bin"]))
def test_no_bytes_raise(head: bytes, data: bytes, name: str) -> None:
    unread: list[str] = []
    held = [*views.contents(name, head + data, unread)]
    assert held[0] == (name, head + data)
    for _, part in held:
        assert all(len(numbers) for _, numbers in views.tokens_of(part, 1024))


def test_a_long_list_is_read_in_parts(text: Shards) -> None:
    """As lists of a million numbers each, so that no file takes all memory."""
    data = b"1 " * 3_000_000
    sizes = [len(n) for kind, n in views.tokens_of(data, 1024) if kind == "a list of numbers"]
    assert sum(sizes) == 3_000_000 and max(sizes) <= 1 << 20


def test_what_unpacks_to_too_much_is_told(
    text: Shards, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "LIMIT_BYTES", 100_000)
    (tmp_path / "bomb.zlib").write_bytes(zlib.compress(bytes(10_000_000)))
    found = judged(capsys, tmp_path, text)["bomb.zlib"]
    assert found["status"] == "UNDECIDED" and "not read to its end" in found["evidence"]


def test_what_a_user_can_get_wrong(text: Shards, tmp_path: Path, capsys: Capture) -> None:
    code, _, err = golf(capsys, tmp_path / "none.bin", text)
    assert code == 1 and "none.bin: no such file or folder" in err
    code, _, err = golf(capsys, tmp_path, text)
    assert code == 1 and "holds no files" in err
    (tmp_path / "a.bin").write_bytes(b"123")
    nowhere = Shards(folder=tmp_path, tokenizer=text.tokenizer, vocab_size=1)
    code, _, err = golf(capsys, tmp_path, nowhere)
    assert code == 1 and "fineweb_val" in err
    code, out, _ = golf(capsys, tmp_path / "a.bin", text, "--markdown")
    assert code == 0 and "### Passed" in out


@given(st.data(), st.integers(1, 60), st.integers(1, 9))
def test_each_occurrence_of_each_piece_is_found(
    data: st.DataObject, count: int, kinds: int
) -> None:
    """As by looking at every place of both."""
    numbers = st.lists(st.integers(0, kinds), min_size=count, max_size=count + 40)
    sought, held = (np.array(data.draw(numbers), np.uint16) for _ in range(2))
    pieces = Pieces(4, 2)
    cut = data.draw(st.integers(0, len(sought) // 4)) * 4
    pieces.add(sought[:cut])
    pieces.add(sought[cut:])
    pieces.close()
    parts = {at: tuple(sought[at : at + 4].tolist()) for at in range(0, len(sought) - 3, 4)}
    expected = {
        (at, part)
        for at in range(len(held) - 3)
        for part in parts.values()
        if len(set(part)) > 1 and tuple(held[at : at + 4].tolist()) == part
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "BLOCK", 7)
        assert {(at, parts[place]) for at, place in pieces.found(held)} == expected


def test_a_hash_depends_on_every_number_and_its_place() -> None:
    numbers = np.arange(16, dtype=np.uint16)
    told = {int(rolling(numbers, 16)[0]), int(rolling(numbers[::-1], 16)[0])}
    for place in range(16):
        other = numbers.copy()
        other[place] += 1
        told.add(int(rolling(other, 16)[0]))
    assert len(told) == 18
