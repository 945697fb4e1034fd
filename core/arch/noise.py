"""Dice that fall the same everywhere: a counter-based integer hash, no library's sampler.

Every draw is splitmix64 (Steele, Lea, Flood 2014) of a counter under a key made of `seed` and
`stream`, so that any element can be drawn alone, in any order, on any machine, with equal bits.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def stream_of(name: str) -> int:
    """A stream number for a name, so that adding a parameter leaves the others' draws alone."""
    return zlib.crc32(name.encode())


def random_bits(seed: int, stream: int, count: int) -> NDArray[np.uint64]:
    """`count` uniform 64-bit integers."""
    key = _mix(np.array([(seed * _GOLDEN + stream) & _MASK], np.uint64))
    counters = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return _mix(counters + key)


def uniform(seed: int, stream: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Uniform in [0, 1), a multiple of 2**-24: exact in float32."""
    bits = random_bits(seed, stream, int(np.prod(shape)))
    return ((bits >> np.uint64(40)).astype(np.float64) * 2.0**-24).reshape(shape)


def normal(seed: int, stream: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Standard normal as the sum of twelve 16-bit integers: variance 1, kurtosis 2.9, |x| < 6.

    Integer sums need no logarithm or cosine, whose last bit differs between machines.
    """
    count = int(np.prod(shape))
    lanes = random_bits(seed, stream, 3 * count).astype("<u8").view("<u2").reshape(count, 12)
    centred = lanes.sum(axis=1, dtype=np.int64) - 6 * 65_535
    drawn: NDArray[np.float64] = centred / np.sqrt(65_536.0**2 - 1.0)
    return drawn.reshape(shape)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
