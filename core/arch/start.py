"""Start values: drawn in float64 and rounded once; and the random matrices that nobody trains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.arch.noise import normal, stream_of, uniform
from core.arch.spec import ModelSpec

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Start:
    """A start value: uniform in +-scale, normal of deviation scale, or `rows` of constants.

    orthogonal: the shorter side's vectors are orthonormal, times scale (Saxe et al. 2014).
    """

    kind: Literal["uniform", "normal", "orthogonal", "rows"]
    scale: float = 0.0
    rows: tuple[float, ...] = ()  # one value for all, or one for each entry of the first axis


def constant(*rows: float) -> Start:
    return Start("rows", rows=rows)


def matrix_start(spec: ModelSpec, dims: int) -> Start:
    """Of a matrix with so many columns: uniform in +-1/sqrt(dims), as torch's Linear, or normal
    of that deviation, or orthogonal."""
    scale = 1.0 if spec.matrix_init == "orthogonal" else 1.0 / math.sqrt(dims)
    return Start(spec.matrix_init, scale)


def adapter_start(spec: ModelSpec, dims: int) -> Start:
    """Of an adapter's way down, (rank, dims): orthogonal where matrices are, else normal."""
    return matrix_start(spec, dims) if spec.matrix_init == "orthogonal" else _normal(dims)


def frozen_start(spec: ModelSpec, dims: int) -> Start:
    """Of a random matrix that stays as it is: as matrix_start, but equal in every bit everywhere,
    and so normal in place of orthogonal. Output projections too: as zeros they would add nothing
    ever; what they add at first is of attn_scale's and mlp_scale's size, and those are trained."""
    return _normal(dims) if spec.matrix_init == "orthogonal" else matrix_start(spec, dims)


def frozen_matrix(spec: ModelSpec, name: str, shape: tuple[int, int]) -> Array:
    """The random matrix of this name, float32 [out, in], from arch.linear_seed: it is stored
    nowhere, and drawn anew wherever the model is made."""
    return start_value(name, shape, frozen_start(spec, shape[1]), spec.linear_seed)


def start_value(name: str, shape: tuple[int, ...], start: Start, seed: int) -> Array:
    """The first value of the parameter of this name, float32 of `shape`."""
    if start.kind == "rows":
        column = np.array(start.rows, np.float32).reshape(-1, *[1] * (len(shape) - 1))
        return np.ascontiguousarray(np.broadcast_to(column, shape))
    stream = stream_of(name)
    if start.kind == "uniform":
        drawn = 2.0 * uniform(seed, stream, shape) - 1.0
    else:
        drawn = normal(seed, stream, shape)
    if start.kind == "orthogonal":
        drawn = orthonormal(drawn)
    return (drawn * start.scale).astype(np.float32)


def orthonormal(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Q of a QR decomposition on the longer side, with R's diagonal positive: uniform over
    all such matrices where `drawn` is normal. LAPACK's last bits are the library's."""
    tall = drawn if drawn.shape[0] >= drawn.shape[1] else drawn.T
    q, r = np.linalg.qr(tall)
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return q if tall is drawn else q.T


def _normal(dims: int) -> Start:
    return Start("normal", 1.0 / math.sqrt(dims))
