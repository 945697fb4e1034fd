"""Levels of few values packed densely: three in base 3, or a bit each; arrays of int8 as bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_THREES = np.array([1, 3, 9, 27, 81], np.uint8)
_DIGITS = len(_THREES)  # in a byte: 3**5 = 243


class UnfitError(ValueError):
    """These levels have values that the packing has no room for."""


@dataclass(frozen=True)
class Packing:
    """`unpack(data, size)` gives `size` levels; ValueError where `data` holds other than these."""

    pack: Callable[[bytes], bytes]
    unpack: Callable[[bytes, int], bytes]


def _levels(data: bytes, *values: int) -> NDArray[np.int8]:
    levels = np.frombuffer(data, np.int8)
    if not np.all(np.isin(levels, values)):
        raise UnfitError(f"a level is none of {values}")
    return levels


def _trits_pack(data: bytes) -> bytes:
    """Five levels -1, 0, 1 a byte as digits 0, 1, 2 of base 3, the first one counting 1."""
    digits = (_levels(data, -1, 0, 1) + 1).astype(np.uint8)
    fives = np.pad(digits, (0, -len(digits) % _DIGITS)).reshape(-1, _DIGITS)
    packed: NDArray[np.uint8] = np.sum(fives * _THREES, axis=1, dtype=np.uint8)
    return packed.tobytes()


def trits_unpack(data: bytes, size: int) -> bytes:
    packed = np.frombuffer(data, np.uint8)
    _need(len(packed) == -(-size // _DIGITS), f"{len(packed)} bytes for {size} levels")
    _need(not len(packed) or int(packed.max()) < 3**_DIGITS, "a byte exceeds 242")
    digits = (packed[:, None] // _THREES % 3).ravel()
    _need(not digits[size:].any(), "a digit behind the last level")
    return (digits[:size].astype(np.int8) - 1).tobytes()


def _bits_pack(data: bytes) -> bytes:
    """Eight levels -1, 1 a byte as bits 0, 1, the lowest first."""
    return np.packbits(_levels(data, -1, 1) > 0, bitorder="little").tobytes()


def bits_unpack(data: bytes, size: int) -> bytes:
    return (_bits(data, size).astype(np.int8) * 2 - 1).tobytes()


def _mask_pack(data: bytes) -> bytes:
    """A bit for each level -1, 0, 1 that is not 0; then one for the sign of each of those."""
    levels = _levels(data, -1, 0, 1)
    mask = np.packbits(levels != 0, bitorder="little").tobytes()
    return mask + _bits_pack(levels[levels != 0].tobytes())


def mask_unpack(data: bytes, size: int) -> bytes:
    end = -(-size // 8)
    mask = _bits(data[:end], size).astype(bool)
    levels = np.zeros(size, np.int8)
    levels[mask] = np.frombuffer(bits_unpack(data[end:], int(mask.sum())), np.int8)
    return levels.tobytes()


def _bits(data: bytes, size: int) -> NDArray[np.uint8]:
    """The first `size` bits; the others of the last byte are 0."""
    _need(len(data) == -(-size // 8), f"{len(data)} bytes for {size} bits")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    _need(not bits[size:].any(), "a bit behind the last level")
    return bits[:size]


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


PACKINGS: dict[str, Packing] = {
    "trits": Packing(_trits_pack, trits_unpack),
    "mask": Packing(_mask_pack, mask_unpack),
    "bits": Packing(_bits_pack, bits_unpack),
}
