"""Every codec gives back what it was given, and nothing it was not."""

from __future__ import annotations

import builtins
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.artifact.codecs import CODECS, codec_name, decode, encode, smallest

NEEDS = {"brotli": "brotli", "zstd": "zstandard"}
TEXT = b"sixteen million bytes " * 40


def usable(codec: str) -> str:
    if codec in NEEDS:
        pytest.importorskip(NEEDS[codec])
    return codec


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> str:
    return usable(request.param)


def test_ids_are_those_of_written_files() -> None:
    ids = {name: entry.id for name, entry in CODECS.items()}
    assert ids == {"raw": 0, "zlib": 1, "lzma": 2, "brotli": 3, "zstd": 4}
    assert [codec_name(number) for number in range(5)] == list(CODECS)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["raw", "zlib", "lzma"]), st.binary(max_size=3000), st.integers(1, 50))
def test_round_trip(codec: str, data: bytes, times: int) -> None:
    packed = encode(codec, data * times)
    assert packed == encode(codec, data * times)
    assert decode(codec, packed, len(data) * times) == data * times


@pytest.mark.parametrize("data", [b"", b"a", TEXT, bytes(300_000)])
def test_round_trip_of_every_codec(codec: str, data: bytes) -> None:
    assert decode(codec, encode(codec, data), len(data)) == data


@pytest.mark.parametrize("wrong", [-1, 1, -len(TEXT), 1000])
def test_other_length_than_stated(codec: str, wrong: int) -> None:
    with pytest.raises(ValueError, match=f"corrupt artifact: {codec} data"):
        decode(codec, encode(codec, TEXT), len(TEXT) + wrong)


def test_truncated_and_trailing(codec: str) -> None:
    packed = encode(codec, TEXT)
    for cut in {0, 1, len(packed) // 2, len(packed) - 1}:
        with pytest.raises(ValueError, match="corrupt artifact"):
            decode(codec, packed[:cut], len(TEXT))
    with pytest.raises(ValueError, match="corrupt artifact"):
        decode(codec, packed + b"xx", len(TEXT))


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
    bomb = encode(codec, bytes(50_000_000))
    tracemalloc.start()
    with pytest.raises(ValueError, match="corrupt artifact"):
        decode(codec, bomb, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_lying_length_allocates_nothing(codec: str) -> None:
    packed = encode(codec, TEXT)
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
