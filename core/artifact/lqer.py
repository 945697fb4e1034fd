"""LQER: the matrices that lose most by their levels, each with a few outer products beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from core.arch.params import Param, Weights
from core.artifact.grid import Array
from core.artifact.lowrank import LowRank
from core.artifact.packed import Packed, dequantize, matrix_shape
from core.artifact.quant import Quant, stored_format

Float = NDArray[np.float64]

DAMPING = 0.01  # of the mean of a Hessian's diagonal, added to it, as in GPTQ
_REACHES = (1.0, 0.85, 0.7, 0.55, 0.4)  # of the largest number, tried for the last level


def corrected(
    rows: Iterable[Param],
    tensors: list[Packed],
    weights: Weights,
    quant: Quant,
    hessians: Mapping[str, Float],
) -> list[Packed]:
    """The tensors, the quant.lqer_matrices of them that lose most with a low rank (record of
    2026-04-27).

    A matrix loses the sum of e H e^T over the rows e of its error, H being its Hessian over the
    mean of the diagonal; without one, the squares. One that a low rank does not help has none.
    """
    if not quant.lqer_rank:
        return tensors
    able = {row.name for row in rows if _has_levels(row, quant)}
    lost = dict[str, float]()
    for packed in tensors:
        if packed.name in able:
            known = _scaled(hessians.get(packed.name), packed.name)
            lost[packed.name] = _lost(_error(packed, weights[packed.name]), known)
    worst = sorted(lost, key=lambda name: (-lost[name], name))[: quant.lqer_matrices]
    return [
        _with_correction(packed, weights[packed.name], quant, hessians.get(packed.name))
        if packed.name in worst
        else packed
        for packed in tensors
    ]


def low_rank(error: Float, hessian: Float | None, rank: int, bits: int) -> LowRank | None:
    """Outer products near an error (R, C), by what its outputs lose; None where it is nothing.

    The best ones of this rank are the first of E H^1/2. Right sides are rounded, left sides are
    solved anew for what they have become, and rounded too; each has 2**bits - 1 levels at most.
    """
    known = np.eye(error.shape[1]) if hessian is None else hessian
    right = _directions(error, known, min(rank, *error.shape))
    right_levels, right_scale = _rounded(right, bits)
    kept = right_levels.any(axis=1)
    right_levels, right_scale = right_levels[kept], right_scale[kept]
    held = right_levels * right_scale[:, None]
    left = np.linalg.lstsq(held @ known @ held.T, held @ known @ error.T, rcond=None)[0]
    left_levels, left_scale = _rounded(left.astype(np.float64), bits)
    scale = (left_scale * right_scale).astype(np.float32)
    kept = left_levels.any(axis=1) & (scale > 0) & np.isfinite(scale)
    if not kept.any():
        return None
    return LowRank(np.ascontiguousarray(left_levels[kept].T), right_levels[kept], scale[kept])


def _with_correction(packed: Packed, weight: Array, quant: Quant, hessian: Float | None) -> Packed:
    """With the low rank of what it loses, unless it loses no less by it."""
    error, known = _error(packed, weight), _scaled(hessian, packed.name)
    found = low_rank(error, known, quant.lqer_rank, quant.lqer_bits)
    if found is None:
        return packed
    other = replace(packed, low_rank=found)
    return other if _lost(_error(other, weight), known) < _lost(error, known) else packed


def _directions(error: Float, known: Float, rank: int) -> Float:
    """(rank, C): the right sides of the best outer products, from the smaller square."""
    rows, cols = error.shape
    if rows <= cols:
        _, vectors = np.linalg.eigh(error @ known @ error.T)
        return vectors[:, -rank:].T[::-1] @ error
    root = np.linalg.cholesky(known)
    tilted = error @ root
    _, vectors = np.linalg.eigh(tilted.T @ tilted)
    found: Float = np.linalg.solve(root.T, vectors[:, -rank:]).T[::-1]
    return found


def _rounded(sides: Float, bits: int) -> tuple[NDArray[np.int8], Float]:
    """(K, N) to levels (K, N) and scales (K,): of some reaches the one that loses least."""
    last = 2 ** (bits - 1) - 1
    peak = np.abs(sides).max(axis=1)
    best = np.full(len(sides), np.inf)
    levels, scale = np.zeros(sides.shape, np.int8), np.zeros(len(sides))
    for reach in _REACHES:
        step = np.where(peak > 0, reach * peak / last, 1.0)
        tried = np.clip(np.rint(sides / step[:, None]), -last, last)
        lost = np.square(sides - tried * step[:, None]).sum(axis=1)
        better = lost < best
        levels[better], scale[better], best[better] = tried[better], step[better], lost[better]
    return levels, scale


def _has_levels(row: Param, quant: Quant) -> bool:
    """Not floats as they are, nor what a model rounds once more."""
    return stored_format(row, quant) not in ("fp16", "ternary", "binary")


def _error(packed: Packed, weight: Array) -> Float:
    """(R, C): what the levels leave."""
    exact = np.asarray(weight, np.float64) - dequantize(packed)
    return exact.reshape(matrix_shape(packed.shape))


def _scaled(hessian: Float | None, name: str) -> Float | None:
    """Over the mean of its diagonal, damped; None where it is not known or nothing."""
    mean = 0.0 if hessian is None else float(np.diag(hessian).mean())
    if hessian is None or not mean:
        return None
    if not np.all(np.isfinite(hessian)) or mean < 0:
        raise ValueError(f"{name}: its Hessian is not one of sums of squares")
    return hessian / mean + DAMPING * np.eye(len(hessian))


def _lost(error: Float, known: Float | None) -> float:
    return float(np.sum(error * (error if known is None else error @ known)))
