"""Every codec gives back what it was given, and nothing it was not."""

from __future__ import annotations

import builtins
import tracemalloc
import zlib
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.artifact.codecs import _PACKED, CODECS, candidates, codec_name, decode, encode, smallest
from core.artifact.packing import PACKINGS, UnfitError
from core.artifact.quant import CodecChoice

NEEDS = {"brotli": "brotli", "zstd": "zstandard"}
TEXT = b"sixteen million bytes " * 40
TERNARY = bytes([0, 1, 255, 0, 0, 255, 1]) * 130  # -1, 0, 1 as int8
BINARY = bytes([1, 255, 255, 1, 255]) * 176
SAMPLES = {"trits": TERNARY, "mask": TERNARY, "bits": BINARY}  # the others take any bytes


def usable(codec: str) -> str:
    if codec in NEEDS:
        pytest.importorskip(NEEDS[codec])
    return codec


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> str:
    return usable(request.param)


def test_ids_are_those_of_written_files() -> None:
    ids = {name: entry.id for name, entry in CODECS.items()}
    assert ids == {
        "raw": 0,
        "zlib": 1,
        "lzma": 2,
        "brotli": 3,
        "zstd": 4,
        "rans": 5,
        "trits": 6,
        "mask": 7,
        "bits": 8,
        "wide": 9,
    }
    assert [codec_name(number) for number in range(10)] == list(CODECS)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["raw", "zlib", "lzma", "rans"]), st.binary(max_size=3000), st.integers(1, 50)
)
def test_round_trip(codec: str, data: bytes, times: int) -> None:
    packed = encode(codec, data * times)
    assert packed == encode(codec, data * times)
    assert decode(codec, packed, len(data) * times) == data * times


@pytest.mark.parametrize("data", [b"", b"a", TEXT, bytes(300_000), TERNARY, BINARY])
def test_round_trip_of_every_codec(codec: str, data: bytes) -> None:
    try:
        packed = encode(codec, data)
    except UnfitError:
        halved = codec == "wide" and len(data) % 2
        assert halved or (codec in SAMPLES and set(data) - set(SAMPLES[codec]))
        return
    assert decode(codec, packed, len(data)) == data


@pytest.mark.parametrize("wrong", [-1, 1, -800, 1000])
def test_other_length_than_stated(codec: str, wrong: int) -> None:
    data = SAMPLES.get(codec, TEXT)
    with pytest.raises(ValueError, match=f"corrupt artifact: {codec} data"):
        decode(codec, encode(codec, data), len(data) + wrong)


def test_truncated_and_trailing(codec: str) -> None:
    data = SAMPLES.get(codec, TEXT)
    packed = encode(codec, data)
    for cut in {0, 1, len(packed) // 2, len(packed) - 1}:
        with pytest.raises(ValueError, match="corrupt artifact"):
            decode(codec, packed[:cut], len(data))
    with pytest.raises(ValueError, match="corrupt artifact"):
        decode(codec, packed + b"xx", len(data))


@pytest.mark.parametrize("codec", ["rans", "trits", "mask", "bits"])
def test_every_flipped_bit_is_an_error_or_data_of_the_stated_length(codec: str) -> None:
    data = SAMPLES.get(codec, TEXT)[:200]
    packed = encode(codec, data)
    for position, bit in product(range(len(packed)), range(8)):
        flipped = bytearray(packed)
        flipped[position] ^= 1 << bit
        try:
            assert len(decode(codec, bytes(flipped), len(data))) == len(data)
        except ValueError as error:
            assert f"corrupt artifact: {codec} data" in str(error)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(CODECS)), st.binary(max_size=200), st.integers(0, 500))
def test_noise_is_an_error_or_data_of_the_stated_length(
    codec: str, data: bytes, raw_bytes: int
) -> None:
    try:
        assert len(decode(usable(codec), data, raw_bytes)) == raw_bytes
    except ValueError as error:
        assert "corrupt artifact" in str(error)


def test_bomb_stops_at_the_stated_length(codec: str) -> None:
    bomb = encode(codec, bytes(50_000_000) if codec != "bits" else b"\1" * 50_000_000)
    tracemalloc.start()
    with pytest.raises(ValueError, match="corrupt artifact"):
        decode(codec, bomb, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_lying_length_allocates_nothing(codec: str) -> None:
    packed = encode(codec, SAMPLES.get(codec, TEXT))
    tracemalloc.start()
    with pytest.raises(ValueError, match="corrupt artifact"):
        decode(codec, packed, 2_000_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80_000_000  # lzma's window is 64 MiB for data stated as so long


def test_smallest_takes_the_first_of_equals() -> None:
    assert smallest(TEXT, ("raw", "zlib")) == (1, zlib.compress(TEXT, 9))
    assert smallest(b"ab", ("zlib", "raw")) == (0, b"ab")
    assert smallest(b"", ("raw", "raw"))[0] == 0


def test_unknown_codec() -> None:
    with pytest.raises(ValueError, match="codec 'zlip' is unknown; did you mean 'zlib'"):
        encode("zlip", b"")
    with pytest.raises(ValueError, match="codec id 77 is unknown"):
        codec_name(77)


@pytest.mark.parametrize(("codec", "package"), NEEDS.items())
def test_missing_package_is_a_sentence(
    codec: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == package:
            raise ImportError(name)
        return honest(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    for attempt in (lambda: encode(codec, b"a"), lambda: decode(codec, b"a", 1)):
        with pytest.raises(ValueError, match=f"^codec {codec}: pip install {package}, or choose"):
            attempt()


def test_what_a_recipe_allows() -> None:
    """Only its own words bring in a package that Python does not have."""
    assert candidates("zlib") == ("zlib", "raw")
    assert set(candidates("best")) == set(CODECS) - {*NEEDS, "wide"}
    assert set(candidates("any")) == set(CODECS) - {"wide"}
    assert set(get_args(CodecChoice)) == set(CODECS) - {"raw", "wide", *SAMPLES} | {"best", "any"}


def test_int16_has_the_coder_of_wide_levels_in_place_of_that_of_bytes() -> None:
    assert candidates("rans", "int16") == ("wide", "raw")
    assert candidates("zlib", "int16") == ("zlib", "raw")
    assert set(candidates("best", "int16")) == set(CODECS) - {*NEEDS, "rans"}


levels = st.lists(st.sampled_from([-1, 0, 1]), max_size=70)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["trits", "mask", "bits"]), levels, st.integers(1, 30))
def test_few_values_pack_densely(codec: str, some: list[int], times: int) -> None:
    data = np.array(some * times, np.int8)
    data = data if codec != "bits" else np.where(data == 0, np.int8(1), data)
    packing = PACKINGS[codec]
    packed = packing.pack(data.tobytes())
    eighths, signs = -(-len(data) // 8), -(-int(np.count_nonzero(data)) // 8)
    sizes = {"trits": -(-len(data) // 5), "mask": eighths + signs, "bits": eighths}
    assert len(packed) == sizes[codec]
    assert packing.unpack(packed, len(data)) == data.tobytes()
    assert decode(codec, encode(codec, data.tobytes()), len(data)) == data.tobytes()


@pytest.mark.parametrize(
    ("codec", "data", "size", "words"),
    [
        ("trits", b"\xf3", 5, "exceeds 242"),
        ("trits", b"\x01\x51", 9, "behind the last level"),
        ("trits", b"\x01", 9, "1 bytes for 9 levels"),
        ("bits", b"\x02", 1, "behind the last level"),
        ("bits", b"\x02\x00", 8, "2 bytes for 8 bits"),
        ("mask", b"\x03", 8, "0 bytes for 2 bits"),
        ("mask", b"\x03\x04", 8, "behind the last level"),
    ],
)
def test_what_no_packing_wrote(codec: str, data: bytes, size: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PACKINGS[codec].unpack(data, size)
    sealed = _PACKED.pack(0, len(data), size) + data
    with pytest.raises(ValueError, match=f"corrupt artifact: {codec} data: .*{words}"):
        decode(codec, sealed, size)


def test_dense_levels_lie_behind_raw_or_lzma_only() -> None:
    for codec_id in (1, 6, 99):
        with pytest.raises(ValueError, match="corrupt artifact"):
            decode("trits", _PACKED.pack(codec_id, 1, 5) + b"\0", 5)
    with pytest.raises(ValueError, match="5 levels in 4000000000 bytes"):
        decode("trits", _PACKED.pack(0, 4_000_000_000, 5) + b"\0", 5)


def test_ternary_levels_find_the_densest_form() -> None:
    """Random ones are base 3 or entropy-coded, 1.6 bits; sparse ones a mask; signs alone a bit."""
    noise = np.random.default_rng(1)
    even = noise.integers(-1, 2, 60_000).astype(np.int8).tobytes()
    codec_id, packed = smallest(even, candidates("best"))
    assert codec_name(codec_id) in ("trits", "rans") and len(packed) <= 60_000 / 5 + 16
    signs = (noise.integers(0, 2, 60_000) * 2 - 1).astype(np.int8).tobytes()
    codec_id, packed = smallest(signs, candidates("best"))
    assert codec_name(codec_id) == "bits" and len(packed) <= 60_000 / 8 + 16
    small = noise.integers(-1, 2, 40).astype(np.int8).tobytes()
    assert codec_name(smallest(small, ("zlib", "lzma", "rans", "trits"))[0]) == "trits"
