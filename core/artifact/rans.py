"""rANS: decodes what entropy.py wrote, lanes side by side, in integers alone: alike everywhere.

A stream is little-endian: the packed size of its side data (u32), these (zlib), a state for each
lane (u32), words (u16). Side data: the number of matrices of bytes (u32), their rows and columns
(u32 u32 each), one byte for each row and each column of each matrix, and the tables: for each 256
frequencies (u16) that add up to 2**15.
Bytes are counted through all matrices, row by row. Byte i belongs to lane i mod lanes; its table
is the row's byte plus the column's.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOW = 1 << 16  # a state below takes in a word; encoding starts from it


def lanes_of(raw_bytes: int) -> int:
    """So many that few steps are left, and so few that their states cost little."""
    return math.isqrt(raw_bytes) // 8 + 1


def rans_decode(data: bytes, raw_bytes: int) -> bytes:
    """The `raw_bytes` bytes that `data` stands for; raises anything where it stands for none."""
    end = 4 + int.from_bytes(data[:4], "little")
    context, share = _side(data[4:end], raw_bytes)
    lanes = lanes_of(raw_bytes)
    states = np.frombuffer(data, "<u4", lanes, end).astype(np.uint32)
    words = np.frombuffer(data[end + 4 * lanes :], "<u2")
    start = (np.cumsum(share, dtype=np.uint32) - share) & 0x7FFF
    symbols = np.repeat(np.arange(len(share), dtype=np.uint16), share)
    raw = np.empty(raw_bytes, np.uint8)
    for at in range(0, raw_bytes, lanes):
        table = context[at : at + lanes].astype(np.uint32)
        state = states[: len(table)]
        slot = state & 0x7FFF
        found = symbols[table << 15 | slot]
        raw[at : at + lanes] = found & 0xFF
        state[:] = share[found] * (state >> 15) + slot - start[found]
        (low,) = (state < LOW).nonzero()
        if len(low) > len(words):
            raise ValueError("it ends too early")
        state[low] = state[low] << 16 | words[: len(low)]
        words = words[len(low) :]
    if len(words) or np.any(states != LOW):
        raise ValueError("it does not end where it began")
    return raw.tobytes()


def _side(packed: bytes, raw_bytes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """The table of each byte (raw_bytes,), and the tables, one after the other (256 * tables,)."""
    side = zlib.decompressobj().decompress(packed, 2 * raw_bytes + LOW * 11)
    matrices = int.from_bytes(side[:4], "little")
    shapes = np.frombuffer(side, "<u4", 2 * matrices, 4).reshape(-1, 2).tolist()
    at = 4 + 8 * matrices
    if sum(rows * cols for rows, cols in shapes) != raw_bytes:
        raise ValueError("its matrices have another size")
    parts: list[NDArray[Any]] = [np.empty(0, np.uint8)]
    for rows, cols in shapes:
        both = np.frombuffer(side, np.uint8, rows + cols, at)
        parts.append(np.add.outer(both[:rows], both[rows:]).ravel())
        at += rows + cols
    share = np.frombuffer(side[at:], "<u2").astype(np.uint32)
    if len(share) > LOW or np.any(share.reshape(-1, 256).sum(1) != 1 << 15):
        raise ValueError("more than 256 tables, or one that does not add up")
    return np.concatenate(parts), share
