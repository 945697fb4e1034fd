"""The container: what goes in comes out, and nothing else ever does."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.arch.noise import normal, stream_of
from core.arch.params import Weights, init_params, num_params
from core.arch.spec import ModelSpec
from core.artifact import header
from core.artifact.container import Artifact, identity, inspect, payload, read, weights, write
from core.artifact.packed import Packed, dequantize
from core.artifact.quant import Format, Quant, Width, quantize
from core.artifact.table import FORMAT_VERSION, dump

GOLDEN = Path(__file__).parents[1] / "golden" / "payload.txt"
TINY = ModelSpec(
    num_layers=2, model_dim=16, num_heads=2, num_kv_heads=1, mlp_dim=32, vocab_size=64, seq_len=16
)


def perturbed(spec: ModelSpec) -> Weights:
    """First weights plus noise, so that nothing is constant."""
    return {
        name: (weight + 0.02 * normal(7, stream_of(name), weight.shape)).astype(np.float32)
        for name, weight in init_params(spec, 1337).items()
    }


def tiny_artifact(quant: Quant | None = None) -> Artifact:
    packed = quantize(perturbed(TINY), TINY, quant or Quant(keep_below=200))
    return Artifact(TINY, tuple(packed))


def every_kind() -> Artifact:
    """One tensor of each sort that the format has room for."""
    levels = (np.arange(12).reshape(3, 4) * 7 - 40).astype(np.int8)
    wide = levels.astype(np.int16) * 300
    half, rows = np.array([0.5, 2.0, 1e-3], np.float16), np.array([0, 128, 255], np.uint8)
    cols = np.array([100, 128, 129, 140], np.uint8)
    return Artifact(
        None,
        (
            Packed("a.int8", (3, 4), levels, half),
            Packed("b.int16.log", (3, 4), wide, rows, cols),
            Packed("c.int16.half", (3, 4), wide, half, cols),
            Packed("d.bare", (3, 2, 2), levels.reshape(3, 2, 2)),
            Packed("e.fp16", (5,), np.linspace(-1, 1, 5).astype(np.float16)),
            Packed("f.scalar", (), np.array(3, np.float16)),
        ),
        "by hand",
    )


def reseal(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The file with its header changed and every checksum of the header right."""
    text, sha, end = header.unseal(data)
    whole = json.loads(text)
    change(whole)
    return header.seal(dump(whole), sha) + data[end:]


@pytest.mark.parametrize("codec", ["raw", "zlib", "lzma", "rans", "best"])
@pytest.mark.parametrize("make", [tiny_artifact, every_kind])
def test_round_trip(make: Callable[[], Artifact], codec: str) -> None:
    artifact = make()
    data = write(artifact, codec)
    assert data == write(make(), codec)
    again = read(data)
    assert (again.spec, again.solver) == (artifact.spec, artifact.solver)
    assert payload(again) == payload(artifact) and write(again, codec) == data
    for one, two in zip(artifact.tensors, again.tensors, strict=True):
        assert dequantize(one).tobytes() == dequantize(two).tobytes()
        assert one.values.dtype == two.values.dtype


@pytest.mark.parametrize("form", (*get_args(Width), "fp16"))
def test_every_format_round_trips(form: Format) -> None:
    quant = Quant(embed=form, attn=form, mlp=form, control=form, mlp_sigmas=3.0, keep_below=0)
    artifact = tiny_artifact(quant)
    for codec in ("zlib", "best"):
        again = read(write(artifact, codec))
        for one, two in zip(artifact.tensors, again.tensors, strict=True):
            assert one.values.tobytes() == two.values.tobytes()
            assert dequantize(one).tobytes() == dequantize(two).tobytes()


def test_codecs_outside_the_standard_library() -> None:
    for codec, package in (("brotli", "brotli"), ("zstd", "zstandard")):
        pytest.importorskip(package)
        data = write(tiny_artifact(), codec)
        assert identity(read(data)) == identity(tiny_artifact())
        assert codec in {tensor["codec"] for tensor in inspect(data)["tensors"]}


shapes = st.lists(st.integers(1, 6), min_size=0, max_size=4).map(tuple)
tensors = st.tuples(shapes, st.sampled_from(["i1", "i2", "f2"]), st.integers(0, 8))


@settings(max_examples=80, deadline=None)
@given(st.lists(tensors, max_size=6), st.sampled_from(["raw", "zlib", "lzma", "rans", "best"]))
def test_any_table_round_trips(table: list[Any], codec: str) -> None:
    artifact = Artifact(None, tuple(random_tensor(i, *row) for i, row in enumerate(table)))
    data = write(artifact, codec)
    assert payload(read(data)) == payload(artifact)
    report = inspect(data)
    assert sum(report["bytes"].values()) == len(data) == report["model_bytes"]
    assert report["parameters"] == sum(tensor.size for tensor in artifact.tensors)


def random_tensor(index: int, shape: tuple[int, ...], dtype: str, scales: int) -> Packed:
    """`scales` = 3 * (none, fp16 or log8 row scale) + (any of them: a column scale)."""
    name, values = f"t{index}", (normal(index, 1, shape) * 40).astype(dtype)
    if dtype == "f2":
        return Packed(name, shape, values)
    rows, cols = (values.size // shape[-1], shape[-1]) if shape else (1, 1)
    row = [None, np.linspace(0.1, 1, rows).astype("f2"), np.arange(rows, dtype="u1")][scales // 3]
    return Packed(name, shape, values, row, np.arange(cols, dtype="u1") if scales % 3 else None)


def test_payload_knows_neither_codec_nor_order() -> None:
    artifact = tiny_artifact()
    backwards = Artifact(TINY, artifact.tensors[::-1])
    assert payload(backwards) == payload(artifact)
    shuffled = dict(reversed(perturbed(TINY).items()))
    packed = quantize(shuffled, TINY, Quant(keep_below=200, codec="lzma"))
    assert identity(Artifact(TINY, tuple(packed))) == identity(artifact)
    found = {inspect(write(artifact, codec))["identity"] for codec in ("raw", "zlib", "lzma")}
    assert found == {identity(artifact)}


def test_each_tensor_has_the_codec_that_makes_it_smallest() -> None:
    noise, cols = np.random.default_rng(3), np.ones(64, np.float16)
    text = np.frombuffer(b"the same words again and again .. " * 256, np.int8)[: 64 * 128]
    made = {
        "gauss": np.rint(noise.normal(0, 3, (64, 128))),
        "ones": noise.integers(0, 2, (64, 128)) * 2 - 1,
        "three": noise.integers(-1, 2, (64, 128)),
        "words": text.reshape(64, 128),
        "noise": noise.integers(-128, 128, (64, 128)),
    }
    artifact = Artifact(
        None, tuple(Packed(n, w.shape, w.astype(np.int8), cols) for n, w in made.items())
    )
    data = write(artifact, "best")
    table = {tensor["name"]: tensor["codec"] for tensor in inspect(data)["tensors"]}
    assert table["gauss"] == "rans" and table["ones"] == "bits" and table["noise"] == "raw"
    assert table["three"] in ("trits", "rans") and table["words"] in ("lzma", "zlib")
    assert payload(read(data)) == payload(artifact)
    alone = min(len(write(artifact, codec)) for codec in ("zlib", "lzma", "rans"))
    assert len(data) < alone
    pytest.importorskip("brotli")
    pytest.importorskip("zstandard")
    assert identity(read(write(artifact, "any"))) == identity(artifact)


def test_identity_sees_every_part() -> None:
    base = every_kind()
    known = {identity(base), identity(Artifact(TINY, base.tensors, base.solver))}
    known.add(identity(Artifact(None, base.tensors, "gptq")))
    for index in range(len(base.tensors)):
        known.add(identity(Artifact(None, base.tensors[:index] + base.tensors[index + 1 :])))
    assert len(known) == 3 + len(base.tensors)


def test_a_spec_is_spelled_one_way() -> None:
    as_int = ModelSpec(logit_softcap=30, rope_base=10_000)
    assert identity(Artifact(as_int, ())) == identity(Artifact(ModelSpec(), ()))


def test_golden_identities() -> None:
    """Round to nearest, byte for byte, as it was when the format was made.

    The header has the fields of ModelSpec that are not its defaults: a new one changes nothing.
    """
    artifact, floor = tiny_artifact(), Quant(keep_below=200, scale_floor=1 / 127)
    found = {
        "payload": identity(artifact),
        "tensors": identity(Artifact(None, artifact.tensors)),
        "tensors_scale_floor": identity(Artifact(None, tiny_artifact(floor).tensors)),
        "tensors_every_kind": identity(every_kind()),
    }
    golden = dict(line.split() for line in GOLDEN.read_text().splitlines())
    assert found == golden, "the format moved: artifacts that people hold are no longer readable"


def test_weights_fit_the_spec() -> None:
    artifact = tiny_artifact()
    found, wanted = weights(read(write(artifact))), perturbed(TINY)
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        assert np.max(np.abs(found[name] - weight)) <= np.max(np.abs(weight)) / 253
    with pytest.raises(ValueError, match="artifact: weights do not fit"):
        weights(Artifact(TINY, artifact.tensors[1:]))
    assert len(weights(Artifact(None, artifact.tensors[1:]))) == len(wanted) - 1


def test_inspect_reports_what_golf_promises() -> None:
    data = write(tiny_artifact())
    report = json.loads(json.dumps(inspect(data)))
    assert report["parameters"] == num_params(TINY) and report["format_version"] == 1
    assert report["model_bytes"] == len(data) == sum(report["bytes"].values())
    assert report["bytes"]["header"] + sum(t["bytes"] for t in report["tensors"]) == len(data)
    table = {tensor["name"]: tensor for tensor in report["tensors"]}
    assert table["tok_emb.weight"]["shape"] == [64, 16]
    assert table["tok_emb.weight"]["format"] == "int8"
    assert table["skip_weights"]["format"] == "fp16"
    assert report["model_spec"]["num_layers"] == 2 and report["solver"] == "rtn"


def test_small_tensors_cost_little() -> None:
    """A tensor of the table costs some bytes in the compressed header and no stream of its own."""
    many = tuple(Packed(f"blocks.{i}.gain", (1,), np.ones(1, np.float16)) for i in range(200))
    assert len(write(Artifact(None, many))) < 200 * 12


def test_baseline_header_is_small() -> None:
    sizes = ModelSpec()
    flat = {name: np.zeros_like(w) for name, w in init_params(sizes, 0).items()}
    data = write(Artifact(sizes, tuple(quantize(flat, sizes, Quant()))))
    assert inspect(data)["bytes"]["header"] < 1000  # 92 tensors


@pytest.mark.parametrize("codec", ["raw", "zlib", "lzma", "rans", "best"])
def test_every_flipped_bit_is_found(codec: str) -> None:
    data = write(every_kind(), codec)
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            with pytest.raises(ValueError, match="artifact"):
                read(bytes(flipped))


def test_every_truncation_and_any_tail_is_found() -> None:
    data = write(every_kind())
    for end in range(len(data)):
        with pytest.raises(ValueError, match="artifact"):
            read(data[:end])
    for tail in (b"\0", b"more", data):
        with pytest.raises(ValueError, match=r"corrupt artifact: .* bytes follow its last stream"):
            read(data + tail)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_foreign_bytes(noise: bytes, with_magic: bool) -> None:
    with pytest.raises(ValueError, match="artifact"):
        read(header.MAGIC * with_magic + noise)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_change_of_a_well_sealed_header(draw: st.DataObject) -> None:
    """A header whose checksums are right but whose words are not: an error or equal content."""
    artifact = tiny_artifact() if draw.draw(st.booleans()) else every_kind()

    def change(whole: dict[str, Any]) -> None:
        place: Any = whole
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw.draw(st.sampled_from(keys))
            below = place[key]
            if not isinstance(below, dict | list) or not below or draw.draw(st.integers(0, 3)) == 0:
                break
            place = below
        place[key] = draw.draw(anything)

    changed = reseal(write(artifact), change)
    try:
        assert payload(read(changed)) == payload(artifact)
    except ValueError as error:
        assert "artifact" in str(error)


def tensor_field(index: int, **fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda whole: whole["tensors"][index].update(fields)


def stream_field(index: int, **fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda whole: whole["streams"][index].update(fields)


def spec_field(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda whole: whole["model_spec"].update(fields)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (tensor_field(1, name="blocks.0.attn.c_k.weight"), "two tensors are named"),
        (tensor_field(0, name="zebra"), "out of order"),
        (tensor_field(0, name="\x1b[31m"), "no short printable name"),
        (
            tensor_field(0, values="int3"),
            "expected 'int8' or 'int16' or 'fp8' or 'fp16', found 'int3'",
        ),
        (tensor_field(0, trellis=16), "written by a newer version"),
        (tensor_field(0, trellis=8), "float16 values take no trellis"),
        (tensor_field(1, trellis=8), "its identity is"),
        (tensor_field(0, shape=[16, 8]), "do not fit its model_spec"),
        (tensor_field(0, shape=[1 << 40, 1 << 40]), "the shapes in it take"),
        (tensor_field(0, shape=[-8, -16]), "positive sizes"),
        (tensor_field(0, shape=[0]), "positive sizes"),
        (tensor_field(0, shape=[1] * 5), "at most 4"),
        (tensor_field(0, shape="8x16"), "not a list of integers"),
        (tensor_field(0, shape=[8.0, 16]), "not a list of integers"),
        (tensor_field(1, streams=[1, 9]), "lie in streams"),
        (tensor_field(1, streams=[1]), "lie in streams"),
        (tensor_field(0, bits=3), "no field 'bits'"),
        (tensor_field(1, group_size=0), "says nothing, of .'group_size'"),
        (tensor_field(1, rank=0), "says nothing"),
        (tensor_field(1, group_size=-16), "levels in groups of -16"),
        (tensor_field(1, group_size=7), "levels in groups of 7"),
        (tensor_field(0, group_size=2), "levels in groups of 2"),  # it has no scale
        (tensor_field(1, group_size=1 << 70), "levels in groups of"),
        (tensor_field(1, group_size="8"), "expected int, found '8'"),
        (tensor_field(1, group_size=16), "its tensors are of format version 2"),
        (tensor_field(1, rank=-1), "rank -1 exceeds"),
        (tensor_field(1, rank=1 << 40), "rank 1099511627776 exceeds 1024"),
        (tensor_field(1, rank=2, streams=[1, 1, 1, 1]), "lie in streams"),
        (tensor_field(1, values="fp8"), "of format version 2"),
        (lambda whole: whole["tensors"][0].pop("trellis"), "trellis"),
        (tensor_field(1, streams=[1, 1]), "the shapes in it take"),
        (stream_field(0, codec=99), "codec id 99 is unknown"),
        (stream_field(0, codec=2), "lzma data"),
        (stream_field(0, raw_bytes=1 << 62), "more than 256000000"),
        (stream_field(0, raw_bytes=1 << 31), "more than 256000000"),
        (stream_field(0, raw_bytes=100_000_000), "the shapes in it take"),
        (stream_field(0, packed_bytes=1 << 40), "truncated"),
        (stream_field(0, packed_bytes=-5), "stream 0 has -5 bytes"),
        (stream_field(0, crc32=0), "checksum of stream 0"),
        (lambda whole: whole["streams"].pop(), "follow its last stream|lie in streams"),
        (spec_field(num_layers=10**9), "1000000000 layers but"),
        (spec_field(seq_len=10**12), "seq_len 1000000000000 exceeds"),
        (spec_field(rope_base=10**400), "wrong form"),
        (spec_field(norm_eps=-1.0), "norm_eps -1.0 must be positive"),
        (spec_field(wings=2), "no field 'wings'.*newer version"),
        (spec_field(model_dim=32), "do not fit its model_spec"),
        (spec_field(model_dim=10**400), "model_dim 10{19} exceeds"),
        (spec_field(seq_len=1 << 24, rope_dims=0), "seq_len x head_dim"),
        (spec_field(linear="random", mlp_dim=1 << 24), "1073743360 random weights exceed"),
        (
            spec_field(num_layers=10**9, phases=[{"at": 0, "order": [0, {"attn": 1, "mlp": 0}]}]),
            "the last order has 2 blocks, expected all num_layers 1000000000",
        ),
        (spec_field(phases=[{"at": 0, "order": [{"attn": 1}]}]), "'mlp' is missing"),
        (lambda whole: whole.update(model_spec=[]), "expected an object"),
        (lambda whole: whole.update(solver="rtm"), "its identity is"),
        (lambda whole: whole.update(solver=""), "solver"),
        (lambda whole: whole.update(tensors=None), "tensors is not a list"),
        (lambda whole: whole.update(extra=1), "has fields"),
        (lambda whole: whole.update(format_version=2), "another format version"),
    ],
)
def test_lies_in_the_header(change: Callable[[dict[str, Any]], object], words: str) -> None:
    with pytest.raises(ValueError, match=f"artifact.*({words})"):
        read(reseal(write(tiny_artifact()), change))


@pytest.mark.parametrize(
    "text",
    [b"{}", b"[]", b"[" * 100_000, b'{"a":NaN}', b"\xff\xfe", b'{"a":1,"a":1}', b"1" * 5000, b""],
)
def test_header_that_is_no_header(text: bytes) -> None:
    with pytest.raises(ValueError, match="corrupt artifact: its header"):
        read(header.seal(text, "00" * 32))


def test_only_one_spelling_of_a_header_is_read() -> None:
    """Otherwise a key given twice could mean one thing here and another elsewhere."""
    text, sha, end = header.unseal(write(every_kind()))
    data = write(every_kind())[end:]
    assert read(header.seal(text, sha) + data).solver == "by hand"
    twice = text.replace(b'"solver":', b'"solver":"x","solver":')
    for other in (twice, text + b" ", json.dumps(json.loads(text)).encode()):
        with pytest.raises(ValueError, match="not canonical"):
            read(header.seal(other, sha) + data)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
def test_scale_that_is_no_scale(bad: float) -> None:
    tensor = Packed("w", (1, 1), np.ones((1, 1), np.int8), np.ones(1, np.float16))
    tensor.row_scale[0] = bad  # past the checks of Packed, as only a stranger's writer would be
    with pytest.raises(ValueError, match=r"corrupt artifact: w: .*(NaN|not positive)"):
        read(write(Artifact(None, (tensor,)), "raw"))


def test_a_trellis_goes_through_a_file() -> None:
    levels = (np.arange(1200).reshape(300, 4) % 9 - 4).astype(np.int8)
    for states in (4, 8):
        tensor = Packed("w", (300, 4), levels, col_scale=np.full(4, 128, "u1"), trellis=states)
        (again,) = read(write(Artifact(None, (tensor,)), "rans")).tensors
        assert (
            again.trellis == states and dequantize(again).tobytes() == dequantize(tensor).tobytes()
        )
        assert not np.array_equal(dequantize(tensor), levels)


def test_newer_format_version() -> None:
    data = bytearray(write(every_kind()))
    data[4] = FORMAT_VERSION + 1
    with pytest.raises(ValueError, match="format 3, written by a newer version"):
        read(bytes(data))


def test_a_pickle_in_a_zip_is_foreign() -> None:
    with pytest.raises(ValueError, match=r"not an artifact: it starts with b'PK"):
        read(b"PK\x03\x04 and so on")


def peak_bytes(data: bytes) -> int:
    tracemalloc.start()
    with pytest.raises(ValueError, match="corrupt artifact"):
        read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def with_stream(packed: bytes, shape: list[int], raw_bytes: int) -> bytes:
    row = {"name": "w", "shape": shape, "values": "int8", "row_scale": None, "col_scale": None}
    size = {"packed_bytes": len(packed), "raw_bytes": raw_bytes}
    whole = {
        "format_version": 1,
        "model_spec": None,
        "solver": "rtn",
        "streams": [{"codec": 1, "crc32": zlib.crc32(packed), **size}],
        "tensors": [{**row, "trellis": 0, "streams": [0]}],
    }
    return header.seal(dump(whole), "00" * 32) + packed


def test_bombs_allocate_nothing() -> None:
    bomb = zlib.compress(bytes(100_000_000))
    assert peak_bytes(with_stream(bomb, [1000], 1000)) < 2_000_000
    assert peak_bytes(with_stream(zlib.compress(b"a"), [3_000_000, 1000], 3 * 10**9)) < 2_000_000
    assert peak_bytes(with_stream(b"a", [10**9, 10**9], 10**18)) < 2_000_000


@pytest.mark.parametrize(
    ("raw_bytes", "words"), [(4_000_001, "exceeds 4000000"), (99, "more than")]
)
def test_header_bomb(raw_bytes: int, words: str) -> None:
    packed = zlib.compress(bytes(50_000_000))
    prefix = header.PREFIX.pack(header.MAGIC, 1, 1, len(packed), raw_bytes, bytes(32))
    data = prefix + header.CRC.pack(zlib.crc32(prefix + packed)) + packed
    with pytest.raises(ValueError, match=words):
        read(data)
    assert peak_bytes(data) < 2_000_000


def test_a_changed_level_behind_right_checksums_breaks_the_identity() -> None:
    tensor = Packed("w", (1, 4), np.arange(4, dtype=np.int8)[None], np.ones(1, np.float16))
    data = bytearray(write(Artifact(None, (tensor,)), "raw"))
    start = header.unpack_header(bytes(data)).header_bytes
    data[start] ^= 1
    crc = zlib.crc32(data[start : start + 4])
    whole = reseal(bytes(data), stream_field(0, crc32=crc))
    with pytest.raises(ValueError, match=r"its identity is .*, expected"):
        read(whole)


@pytest.mark.parametrize(
    ("names", "solver", "words"),
    [(["a", "a"], "rtn", "two tensors are named 'a'"), (["ü"], "rtn", "printable"), ([], "", "''")],
)
def test_artifact_is_checked_when_made(names: list[str], solver: str, words: str) -> None:
    tensors = tuple(Packed(name, (1,), np.ones(1, np.float16)) for name in names)
    with pytest.raises(ValueError, match=f"artifact: .*{words}"):
        Artifact(None, tensors, solver)


def test_a_tensor_that_the_model_has_not_is_refused_before_it_unpacks() -> None:
    """200 MB of zeros in a file of some kilobytes."""
    junk = Packed(
        "junk", (20_000, 10_000), np.zeros((20_000, 10_000), np.int8), np.ones(20_000, np.float16)
    )
    data = write(Artifact(tiny_artifact().spec, (*tiny_artifact().tensors, junk)))
    assert len(data) < 1_000_000
    del junk
    tracemalloc.start()
    with pytest.raises(ValueError, match="do not fit its model_spec"):
        read(data)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
