"""Rotary tables (Su et al. 2021), made once in float64 and handed to both engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from core.arch.spec import ModelSpec, RopeScaling

Table = NDArray[np.float32]
Frequencies = NDArray[np.float64]  # (R/2,), radians a position


def rotary_tables(spec: ModelSpec) -> tuple[Table, Table]:
    """cos and sin, each float32 (T, R/2), of position * frequency.

    The pair (x1, x2) = (x[i], x[i + R/2]) turns to (x1 cos + x2 sin, -x1 sin + x2 cos).
    """
    frequencies = SCALINGS[spec.rope_scaling](spec)
    angles = np.outer(np.arange(spec.seq_len, dtype=np.float64), frequencies)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def longer_tables(spec: ModelSpec, length: int) -> tuple[Table, Table]:
    """cos and sin for more tokens than the spec's seq_len, at which it was trained.

    Scaled frequencies follow: they start from rope_train_len, or else from seq_len.
    """
    trained = spec.rope_train_len or spec.seq_len
    return rotary_tables(replace(spec, seq_len=length, rope_train_len=trained))


def plain(spec: ModelSpec) -> Frequencies:
    """rope_base**(-2i/R), i = 0 .. R/2 - 1."""
    return _powers(spec.rope_base, spec.rotated_dims)


def ntk(spec: ModelSpec) -> Frequencies:
    """Of a base that grows with the length over the trained one: base * ratio**(R/(R-2))."""
    dims, ratio = spec.rotated_dims, _ratio(spec)
    return _powers(spec.rope_base * ratio ** (dims / max(dims - 2, 1)), dims)


def yarn(spec: ModelSpec) -> Frequencies:
    """Low frequencies are divided by the ratio of lengths, high ones are kept (Peng et al. 2023).

    Frequency i is divided by 1 + ramp * (ratio - 1), ramp rising from 0 at 2i/R = 1/4 to 1 at 1.
    """
    dims = spec.rotated_dims
    ramp = np.clip((np.arange(0, dims, 2) / max(dims, 1) - 0.25) / 0.75, 0.0, 1.0)
    return _powers(spec.rope_base, dims) / (1.0 + ramp * (_ratio(spec) - 1.0))


SCALINGS: dict[RopeScaling, Callable[[ModelSpec], Frequencies]] = {
    "none": plain,
    "ntk": ntk,
    "yarn": yarn,
}


def _powers(base: float, dims: int) -> Frequencies:
    return base ** (-np.arange(0, dims, 2, dtype=np.float64) / max(dims, 1))


def _ratio(spec: ModelSpec) -> float:
    """The length that RoPE must reach over the length it is scaled from, at least 1."""
    reached = spec.rope_max_len or spec.seq_len
    return max(reached / (spec.rope_train_len or spec.seq_len), 1.0)
