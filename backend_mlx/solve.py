"""Core's solver on the device: MLX's sums for batches of alike matrices.

Float64 where the device has it, so that levels are the reference's but for ties: an error of
float32 may move a level on the edge, and with it the row behind. Where it has not, factors are
taken from the processor in float64, and only the columns are solved in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.core import array
from numpy.typing import NDArray

from core.artifact.sums import LEAST_SPREAD, Rule
from core.artifact.trellis import RUN, SHIFT, paths

Nearest = Callable[[array], tuple[array, array]]  # of a column, in steps: levels, their values

LEAF = 8  # columns that are solved one by one; wider halves meet in a product


class Solver:
    """core.artifact.sums.Solver: numpy in and out."""

    def __init__(self, device: mx.Device) -> None:
        exact = device.type != mx.gpu
        self.device = device
        self.dtype = mx.float64 if exact else mx.float32
        self.exact = device if exact else mx.Device(mx.cpu)

    def factors(self, damped: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, C, C) to U, upper triangular, with U^T U the inverse; NaN where there is none."""
        with mx.stream(self.exact):
            held = mx.array(damped, dtype=mx.float64)[:, ::-1, ::-1]
            lower = mx.linalg.cholesky(held)
            wrong = mx.any(mx.diagonal(lower, axis1=1, axis2=2) <= 0, axis=1)
            found = mx.linalg.tri_inv(lower)[:, ::-1, ::-1]
            return np.array(mx.where(wrong[:, None, None], mx.nan, found))

    def levels(
        self,
        weight: NDArray[np.float64],
        factor: NDArray[np.float64],
        step: NDArray[np.float64],
        rule: Rule,
    ) -> NDArray[np.int16]:
        """(N, R, C) by (N, C, C), in steps (N, R, C), to levels (N, R, C)."""
        held, by = self._put(weight).swapaxes(1, 2), self._put(factor)
        wide = self._put(step).swapaxes(1, 2)
        nearest: Nearest = Plain(rule.last)
        if rule.trellis:
            nearest = Trellis(rule, weight.shape[1], held)
        found, _ = columns(held, by, wide, nearest)
        return np.array(found.astype(mx.int16).swapaxes(1, 2))

    def errors(
        self, error: NDArray[np.float64], hessian: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(N, R, C) by (N, C, C) to e H e^T of each row e, (N, R)."""
        held = self._put(error)
        total = (held @ self._put(hessian) * held).sum(-1)
        return np.array(total).astype(np.float64)

    def _put(self, held: NDArray[Any]) -> array:
        return mx.array(held, dtype=self.dtype)


class Plain:
    """To the nearest level."""

    def __init__(self, last: int) -> None:
        self.last = last

    def __call__(self, wanted: array) -> tuple[array, array]:
        levels = mx.clip(mx.round(wanted), -self.last, self.last)
        return levels, levels


class Trellis:
    """To the best path of each run of rows: core/artifact/trellis.py, all runs side by side.

    Steps are on the first axis, then the branches, 2 grid + bit, then the runs of all matrices.
    """

    def __init__(self, rule: Rule, rows: int, like: array) -> None:
        """rows: of each matrix; like: of whose dtype and device numbers are."""

        def put(held: Any) -> array:
            return mx.array(held, dtype=like.dtype)

        branches = paths(rule.trellis)
        self.rule = rule
        self.runs, self.steps = -(-rows // RUN), min(RUN, rows)
        self.stretch = branches.shape[2]
        self.spare = -self.steps % self.stretch
        bits = np.array([0, 1, 0, 1])
        self.bit = put(bits[:, None])
        self.sign = put([[1.0], [1.0], [-1.0], [-1.0]])
        self.most = put((rule.last - (rule.last + bits) % 2)[:, None])
        self.adds = put(np.eye(4)[branches].reshape(rule.trellis**2, -1))
        self.branch = mx.array(branches.reshape(-1, self.stretch))

    def __call__(self, wanted: array) -> tuple[array, array]:
        rows = wanted.shape[1]
        spread = mx.maximum(mx.mean(mx.square(wanted), 1), LEAST_SPREAD)
        price = mx.repeat(self.rule.price / spread, self.runs)
        levels, costs = self._branches(self._in_runs(wanted), price)
        ways = self.adds @ costs.reshape(-1, 4 * self.stretch, costs.shape[2])
        chosen = self._chosen(cheapest(ways, self.rule.trellis))
        found = mx.take_along_axis(levels, chosen, 1)[:, 0]
        values = (found + SHIFT) * (1 - 2 * (chosen[:, 0] // 2))
        return self._in_rows(found, rows), self._in_rows(values, rows)

    def _in_runs(self, wanted: array) -> array:
        """(N, R) to (steps, 1, N runs); zeros fill it up, which cost every state alike."""
        short = self.runs * self.steps - wanted.shape[1]
        held = mx.pad(wanted, [(0, 0), (0, short)]).reshape(-1, self.steps)
        return mx.pad(held, [(0, 0), (0, self.spare)]).T[:, None, :]

    def _in_rows(self, held: array, rows: int) -> array:
        """(steps, N runs) to (N, R)."""
        return held[: self.steps].T.reshape(-1, self.runs * self.steps)[:, :rows]

    def _branches(self, wanted: array, price: array) -> tuple[array, array]:
        """(steps, branch, runs): the level that is best with this last bit, and what it costs."""
        aim = self.sign * wanted
        ideal = aim / (1 + price) - SHIFT
        level = 2 * mx.round((ideal - self.bit) / 2) + self.bit
        level = mx.minimum(mx.maximum(level, -self.most), self.most)
        value = level + SHIFT
        return level, mx.square(aim - value) + price * mx.square(value)

    def _chosen(self, states: array) -> array:
        """(stretches + 1, runs) to the branch of each step, (steps, 1, runs)."""
        pair = states[:-1] * self.rule.trellis + states[1:]
        return self.branch[pair].swapaxes(1, 2).reshape(-1, 1, states.shape[1])


def columns(weight: array, factor: array, wide: array, nearest: Nearest) -> tuple[array, array]:
    """(N, C, R) by (N, C, C), steps (N, C, R), to levels and to what is lost over the factor's
    diagonal, (N, C, R) each: the first half, what it takes from the second, the second."""
    count = weight.shape[1]
    if count > LEAF:
        half = count // 2
        first = columns(weight[:, :half], factor[:, :half, :half], wide[:, :half], nearest)
        rest = weight[:, half:] - factor[:, :half, half:].swapaxes(1, 2) @ first[1]
        second = columns(rest, factor[:, half:, half:], wide[:, half:], nearest)
        levels, lost = (mx.concatenate(list(both), 1) for both in zip(first, second, strict=True))
        return levels, lost
    found = []
    for j in range(count):
        step, weights = wide[:, j], weight[:, 0]
        level, value = nearest(weights / step)
        error = (weights - value * step) / factor[:, j, j, None]
        weight = weight[:, 1:] - factor[:, j, j + 1 :, None] * error[:, None, :]
        found.append((level, error))
    levels, lost = (mx.stack(list(both), 1) for both in zip(*found, strict=True))
    mx.eval(levels, lost)
    return levels, lost


def cheapest(costs: array, states: int) -> array:
    """(stretches, states * states, runs) to the states of the cheapest path from state 0 on,
    (stretches + 1, runs).

    Two stretches side by side are one, which costs what the best state between them makes of it:
    half as many each time. On the way back each end is known, and so which state was the best.
    """
    halves, runs = [], costs.shape[2]
    while len(costs) > 1:
        pairs = len(costs) // 2
        both = costs[: 2 * pairs].reshape(pairs, 2, states, states, runs)
        least = mx.min(both[:, 0, :, :, None] + both[:, 1, None], 2)
        halves.append(both)
        costs = mx.concatenate([least.reshape(pairs, -1, runs), costs[2 * pairs :]])
    end = mx.argmin(costs[0, :states], 0)
    path = mx.stack([mx.zeros_like(end), end])
    for both in reversed(halves):
        pairs = len(both)
        behind = mx.repeat(path[:pairs, None, None], states, 2)
        ahead = mx.repeat(path[1 : pairs + 1, None, None], states, 1)
        to = mx.take_along_axis(both[:, 0], behind, 1)[:, 0]
        on = mx.take_along_axis(both[:, 1], ahead, 2)[:, :, 0]
        woven = mx.stack([path[:pairs], mx.argmin(to + on, 1)], 1)
        path = mx.concatenate([woven.reshape(-1, runs), path[pairs:]])
    return path
