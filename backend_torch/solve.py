"""Core's solver on the device: PyTorch's sums for batches of alike matrices.

Float64 where the device has it, so that levels are the reference's but for ties: an error of
float32 may move a level on the edge, and with it the row behind. Where it has not, factors are
taken from the processor in float64, and only the columns are solved in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.artifact.sums import LEAST_SPREAD, Rule
from core.artifact.trellis import RUN, SHIFT, paths

Nearest = Callable[[Tensor], tuple[Tensor, Tensor]]  # of a column, in steps: levels, their values

LEAF = 8  # columns that are solved one by one; wider halves meet in a product


class Solver:
    """core.artifact.sums.Solver: numpy in and out."""

    def __init__(self, device: torch.device) -> None:
        exact = device.type != "mps"
        self.device = device
        self.dtype = torch.float64 if exact else torch.float32
        self.exact = device if exact else torch.device("cpu")

    @torch.no_grad()
    def factors(self, damped: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, C, C) to U, upper triangular, with U^T U the inverse; NaN where there is none."""
        held = torch.tensor(damped, device=self.exact).flip(1, 2)
        lower, wrong = torch.linalg.cholesky_ex(held)
        one = torch.eye(held.shape[1], dtype=held.dtype, device=self.exact).expand_as(held)
        found = torch.linalg.solve_triangular(lower, one, upper=False).flip(1, 2)
        return torch.where(wrong[:, None, None] == 0, found, torch.nan).cpu().numpy()

    @torch.no_grad()
    def levels(
        self,
        weight: NDArray[np.float64],
        factor: NDArray[np.float64],
        step: NDArray[np.float64],
        rule: Rule,
    ) -> NDArray[np.int16]:
        """(N, R, C) by (N, C, C), in steps (N, R, C), to levels (N, R, C)."""
        held, by = self._put(weight).mT.contiguous(), self._put(factor)
        wide = self._put(step).mT.contiguous()
        nearest: Nearest = Plain(rule.last)
        if rule.trellis:
            nearest = Trellis(rule, weight.shape[1], held)
        found, _ = columns(held, by, wide, nearest)
        return found.to(torch.int16).mT.cpu().numpy()

    @torch.no_grad()
    def errors(
        self, error: NDArray[np.float64], hessian: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(N, R, C) by (N, C, C) to e H e^T of each row e, (N, R)."""
        held = self._put(error)
        return (held @ self._put(hessian) * held).sum(-1).double().cpu().numpy()

    def _put(self, held: NDArray[Any]) -> Tensor:
        return torch.tensor(held, dtype=self.dtype, device=self.device)


class Plain:
    """To the nearest level."""

    def __init__(self, last: int) -> None:
        self.last = last

    def __call__(self, wanted: Tensor) -> tuple[Tensor, Tensor]:
        levels = torch.clamp(torch.round(wanted), -self.last, self.last)
        return levels, levels


class Trellis:
    """To the best path of each run of rows: core/artifact/trellis.py, all runs side by side.

    Steps are on the first axis, then the branches, 2 grid + bit, then the runs of all matrices.
    """

    def __init__(self, rule: Rule, rows: int, like: Tensor) -> None:
        """rows: of each matrix; like: of whose dtype and device numbers are."""

        def put(held: Any) -> Tensor:
            return torch.tensor(held, dtype=like.dtype, device=like.device)

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
        self.branch = torch.tensor(branches.reshape(-1, self.stretch), device=like.device)

    def __call__(self, wanted: Tensor) -> tuple[Tensor, Tensor]:
        rows = wanted.shape[1]
        spread = torch.clamp(torch.mean(torch.square(wanted), 1), min=LEAST_SPREAD)
        price = torch.repeat_interleave(self.rule.price / spread, self.runs)
        levels, costs = self._branches(self._in_runs(wanted), price)
        ways = self.adds @ costs.reshape(-1, 4 * self.stretch, costs.shape[2])
        chosen = self._chosen(cheapest(ways, self.rule.trellis))
        found = torch.gather(levels, 1, chosen)[:, 0]
        values = (found + SHIFT) * (1 - 2 * (chosen[:, 0] // 2))
        return self._in_rows(found, rows), self._in_rows(values, rows)

    def _in_runs(self, wanted: Tensor) -> Tensor:
        """(N, R) to (steps, 1, N runs); zeros fill it up, which cost every state alike."""
        short = self.runs * self.steps - wanted.shape[1]
        held = torch.nn.functional.pad(wanted, (0, short)).reshape(-1, self.steps)
        return torch.nn.functional.pad(held, (0, self.spare)).mT[:, None, :]

    def _in_rows(self, held: Tensor, rows: int) -> Tensor:
        """(steps, N runs) to (N, R)."""
        return held[: self.steps].mT.reshape(-1, self.runs * self.steps)[:, :rows]

    def _branches(self, wanted: Tensor, price: Tensor) -> tuple[Tensor, Tensor]:
        """(steps, branch, runs): the level that is best with this last bit, and what it costs."""
        aim = self.sign * wanted
        ideal = aim / (1 + price) - SHIFT
        level = 2 * torch.round((ideal - self.bit) / 2) + self.bit
        level = torch.minimum(torch.maximum(level, -self.most), self.most)
        value = level + SHIFT
        return level, torch.square(aim - value) + price * torch.square(value)

    def _chosen(self, states: Tensor) -> Tensor:
        """(stretches + 1, runs) to the branch of each step, (steps, 1, runs)."""
        pair = states[:-1] * self.rule.trellis + states[1:]
        return self.branch[pair].mT.reshape(-1, 1, states.shape[1])


def columns(
    weight: Tensor, factor: Tensor, wide: Tensor, nearest: Nearest
) -> tuple[Tensor, Tensor]:
    """(N, C, R) by (N, C, C), steps (N, C, R), to levels and to what is lost over the factor's
    diagonal, (N, C, R) each: the first half, what it takes from the second, the second."""
    count = weight.shape[1]
    if count > LEAF:
        half = count // 2
        first = columns(weight[:, :half], factor[:, :half, :half], wide[:, :half], nearest)
        rest = weight[:, half:] - factor[:, :half, half:].mT @ first[1]
        second = columns(rest, factor[:, half:, half:], wide[:, half:], nearest)
        levels, lost = (torch.cat(list(both), 1) for both in zip(first, second, strict=True))
        return levels, lost
    found = []
    for j in range(count):
        step, weights = wide[:, j], weight[:, 0]
        level, value = nearest(weights / step)
        error = (weights - value * step) / factor[:, j, j, None]
        weight = weight[:, 1:] - factor[:, j, j + 1 :, None] * error[:, None, :]
        found.append((level, error))
    levels, lost = (torch.stack(list(both), 1) for both in zip(*found, strict=True))
    return levels, lost


def cheapest(costs: Tensor, states: int) -> Tensor:
    """(stretches, states * states, runs) to the states of the cheapest path from state 0 on,
    (stretches + 1, runs).

    Two stretches side by side are one, which costs what the best state between them makes of it:
    half as many each time. On the way back each end is known, and so which state was the best.
    """
    halves, runs = [], costs.shape[2]
    while len(costs) > 1:
        pairs = len(costs) // 2
        both = costs[: 2 * pairs].reshape(pairs, 2, states, states, runs)
        least = torch.amin(both[:, 0, :, :, None] + both[:, 1, None], 2)
        halves.append(both)
        costs = torch.cat([least.reshape(pairs, -1, runs), costs[2 * pairs :]])
    end = torch.argmin(costs[0, :states], 0)
    path = torch.stack([torch.zeros_like(end), end])
    for both in reversed(halves):
        pairs = len(both)
        behind = path[:pairs, None, None].expand(-1, 1, states, -1)
        ahead = path[1 : pairs + 1, None, None].expand(-1, states, 1, -1)
        to = torch.gather(both[:, 0], 1, behind)[:, 0]
        on = torch.gather(both[:, 1], 2, ahead)[:, :, 0]
        woven = torch.stack([path[:pairs], torch.argmin(to + on, 1)], 1)
        path = torch.cat([woven.reshape(-1, runs), path[pairs:]])
    return path
