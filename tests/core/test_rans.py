"""The entropy coder: any matrices come back, near their entropy; lies are errors."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.arch.noise import normal
from core.artifact.codecs import decode, encode
from core.artifact.grid import Grid
from core.artifact.rans import LOW, lanes_of
from core.artifact.rounding import quantize_rows

GOLDEN = Path(__file__).parents[1] / "golden" / "rans.txt"
shapes = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 60)), max_size=4)


def drawn(seed: int, rows: int, cols: int, bits: int = 6, k: float = 12.85) -> np.ndarray:
    weight = normal(seed, 0, (rows, cols)).astype(np.float32)
    return quantize_rows(weight, Grid(bits=bits, sigmas=k))[0]


def entropy_bytes(levels: np.ndarray) -> float:
    counts = np.bincount(levels.view(np.uint8).ravel())
    counts = counts[counts > 0]
    return float(counts @ np.log2(levels.size / counts)) / 8


def stream(levels: np.ndarray) -> bytes:
    return encode("rans", levels.tobytes(), [levels.shape])


@settings(max_examples=120, deadline=None)
@given(shapes, st.integers(0, 2**32), st.sampled_from(["any", "levels", "rows", "one"]))
def test_any_matrices_come_back(table: list[tuple[int, int]], seed: int, kind: str) -> None:
    noise, pieces = np.random.default_rng(seed), []
    for shape in table:
        spread = noise.exponential(20, (shape[0], 1)) if kind == "rows" else 3.0
        pieces.append(
            {
                "any": noise.integers(-128, 128, shape),
                "one": np.full(shape, seed % 256 - 128),
            }.get(kind, np.clip(np.rint(noise.normal(0, spread, shape)), -127, 127))
        )
    data = b"".join(piece.astype(np.int8).tobytes() for piece in pieces)
    packed = encode("rans", data, table)
    assert packed == encode("rans", data, table)
    assert decode("rans", packed, len(data)) == data


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("rule", [0.0, 12.85])
def test_near_the_entropy_at_every_width(bits: int, rule: float) -> None:
    """A part in 1000 above the order-0 entropy, two bytes a table's entry, four a lane."""
    levels = drawn(bits, 512, 512, bits, rule)
    tables = 60 + 2 * len(np.unique(levels))
    assert len(stream(levels)) < entropy_bytes(levels) * 1.001 + tables + 4 * lanes_of(levels.size)


def test_rows_and_columns_of_other_sizes_gain_from_tables_of_their_own() -> None:
    noise = np.random.default_rng(5)
    rows, cols = 2.0 ** noise.uniform(-1, 4, (256, 1)), 2.0 ** noise.uniform(-1, 2, 256)
    for spread in (rows, cols, rows * cols):
        levels = np.clip(np.rint(noise.normal(0, 1, (256, 256)) * spread), -127, 127)
        levels = levels.astype(np.int8)
        assert len(stream(levels)) < 0.93 * entropy_bytes(levels)


def test_equal_matrices_share_their_table() -> None:
    apart = [drawn(seed, 256, 256) for seed in range(8)]
    data = b"".join(levels.tobytes() for levels in apart)
    together = len(encode("rans", data, [levels.shape for levels in apart]))
    assert together < sum(map(len, map(stream, apart))) - 7 * 40


def test_other_matrices_have_tables_of_their_own() -> None:
    """Of one mean |level| and two shapes: a table of both would cost two parts in a hundred."""
    noise = np.random.default_rng(2)
    flat = noise.integers(-6, 7, (256, 512)).astype(np.int8)
    peaked = np.rint(noise.laplace(0, 3.3, (256, 512))).astype(np.int8)
    assert abs(np.abs(flat).mean() / np.abs(peaked).mean() - 1) < 0.03
    pair = [flat, peaked]
    size = len(encode("rans", b"".join(w.tobytes() for w in pair), [w.shape for w in pair]))
    assert size < 1.001 * sum(map(entropy_bytes, pair)) + 4 * lanes_of(2 * flat.size) + 200
    assert size < 0.99 * entropy_bytes(np.concatenate(pair))


def test_no_more_tables_than_a_byte_counts() -> None:
    """Sixty matrices of sixty shapes and sizes, with tables for rows of all sizes."""
    noise, pieces = np.random.default_rng(4), []
    for index in range(60):
        spread = 2.0 ** noise.uniform(-3, 4.5, (64, 1))
        drawn_ = noise.normal(0, spread, (64, 64 + index)) ** (1 + index % 3)
        pieces.append(np.clip(np.rint(drawn_), -127, 127).astype(np.int8))
    data = b"".join(piece.tobytes() for piece in pieces)
    assert decode("rans", encode("rans", data, [p.shape for p in pieces]), len(data)) == data


def test_lanes_cost_little_and_steps_are_few() -> None:
    for size in (1, 1000, 10**6, 36 * 10**6, 4 * 10**9):
        assert 2 * lanes_of(size) < 0.01 * size + 2
        assert size / lanes_of(size) < 8 * np.sqrt(size) + 1


def test_streams_of_the_first_version_are_read() -> None:
    """Each line: seed, rows, columns, sigmas x 100, the stream in hex."""
    lines = GOLDEN.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    for line in lines:
        *numbers, text = line.split()
        seed, rows, cols, k = map(int, numbers)
        levels = drawn(seed, rows, cols, 6, k / 100)
        assert decode("rans", bytes.fromhex(text), levels.size) == levels.tobytes()


LEVELS = drawn(9, 24, 40)


def changed(change: Callable[[bytearray], object]) -> bytes:
    """The stream of LEVELS with its side data changed."""
    packed = stream(LEVELS)
    end = 4 + int.from_bytes(packed[:4], "little")
    side = bytearray(zlib.decompress(packed[4:end]))
    change(side)
    packed_side = zlib.compress(bytes(side), 9)
    return len(packed_side).to_bytes(4, "little") + packed_side + packed[end:]


def put(at: int, *numbers: int) -> Callable[[bytearray], None]:
    def change(side: bytearray) -> None:
        new = np.array(numbers, "<u4").tobytes()
        side[at : at + len(new)] = new

    return change


def test_side_data_are_as_described() -> None:
    assert changed(lambda side: None) == stream(LEVELS)
    assert changed(put(0, 1, 24, 40)) == stream(LEVELS)


@pytest.mark.parametrize(
    "change",
    [
        put(0, 0),  # no matrix
        put(0, 2),  # two of them
        put(0, 2**31),
        put(4, 25),  # another shape
        put(4, 40, 25),
        put(4, 0, 2**32 - 1),
        put(4, 2**32 - 1, 2**32 - 1),
        lambda side: side.__setitem__(12, 1),  # a row whose table is not there
        lambda side: side.__setitem__(slice(12, 76), b"\xff" * 64),
        lambda side: side.__setitem__(slice(76, 588), b"\0" * 512),  # an empty table
        lambda side: side.__setitem__(slice(76, 588), b"\xff" * 512),  # one of too much
        lambda side: side.__delitem__(slice(76, None)),  # no table
        lambda side: side.extend(b"\0" * 512),
        lambda side: side.extend(b"\x80\0" * 256 * 256),  # more than a byte can count
        lambda side: side.extend(b"\0"),
        lambda side: side.clear(),
        lambda side: side.__delitem__(slice(100, None)),
    ],
)
def test_lies_in_the_side_data(change: Callable[[bytearray], object]) -> None:
    data = changed(change)
    tracemalloc.start()
    with pytest.raises(ValueError, match="corrupt artifact: rans data"):
        decode("rans", data, LEVELS.size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


def test_side_data_that_swell() -> None:
    bomb = zlib.compress(bytes(200_000_000), 9)
    data = len(bomb).to_bytes(4, "little") + bomb + bytes(1000)
    tracemalloc.start()
    with pytest.raises(ValueError, match="corrupt artifact: rans data"):
        decode("rans", data, LEVELS.size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


@pytest.mark.parametrize("at", [-1, -2, -9])
def test_words_and_states_are_bound_to_the_end(at: int) -> None:
    """A changed word leads the states elsewhere."""
    data = bytearray(stream(LEVELS))
    data[at] ^= 4
    for some in (data, data[:-2], data + b"\0\0"):
        with pytest.raises(ValueError, match="where it began|too early"):
            decode("rans", bytes(some), LEVELS.size)


def test_a_state_below_the_least_is_no_trap() -> None:
    """States of zeros read words until these end."""
    packed = stream(LEVELS)
    end = 4 + int.from_bytes(packed[:4], "little")
    zeros = packed[:end] + bytes(4 * lanes_of(LEVELS.size)) + packed[end:]
    with pytest.raises(ValueError, match="corrupt artifact: rans data"):
        decode("rans", zeros, LEVELS.size)
    assert LOW == 1 << 16
