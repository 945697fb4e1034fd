"""What a recipe costs, estimated from its shapes: bytes of the artifact, memory, speed.

Nothing is trained, so bytes are a range. What is planned is what Gaussian weights of these shapes
pack to with the recipe's codec; the low end is the order-0 entropy of their levels, which no coder
of single levels beats (trained rows have longer tails and may fall below); the high end is what
is stored if nothing compresses at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.arch.noise import normal
from core.arch.params import Param, flops_per_token, num_frozen, param_table
from core.arch.plan import forward_plan
from core.artifact.codecs import candidates, smallest
from core.artifact.grid import Grid
from core.artifact.groups import OneBit, grouped_levels
from core.artifact.packed import Levels, matrix_shape
from core.artifact.quant import stored_format
from core.artifact.rounding import ABSMAX, quantize_float8, quantize_rows
from core.train.recipe import Recipe

Memory = Literal["cuda", "unified"]

SAMPLE_ROWS = 256
MOST_COLS = 1 << 14  # of a sample: a longer row is taken for one of these
HEADER_BYTES = 4_000  # of the artifact: names and shapes, compressed; no more than this
TASK_S = 600.0


@dataclass(frozen=True)
class RoleBytes:
    """The artifact bytes of all parameters of one role, before training."""

    role: str
    parameters: int
    low_bytes: float
    planned_bytes: float
    high_bytes: float


@dataclass(frozen=True)
class Hardware:
    """A machine as dense bf16 FLOP/s and the part of it that the reference scripts reach."""

    devices: int
    peak_flops: float  # of one device
    mfu: float
    source: str
    memory_bytes: int = 0  # of one device; 0: not known

    @property
    def flops(self) -> float:
        return self.devices * self.peak_flops * self.mfu


_H100, _H200 = (989e12, 0.199), (989e12, 0.208)
_MEASURED = "the reference baseline's log on 8 of them"
HARDWARE = {
    "8xH100": Hardware(8, *_H100, _MEASURED, 80_000_000_000),
    "1xH100": Hardware(1, *_H100, _MEASURED, 80_000_000_000),
    "8xH200": Hardware(8, *_H200, _MEASURED, 141_000_000_000),
    "1xH200": Hardware(1, *_H200, _MEASURED, 141_000_000_000),
    "mac": Hardware(1, 9e12, 0.33, "public logs of M4-class Macs: 2.2 to 4 TFLOP/s reached"),
    "cpu": Hardware(1, 0.4e12, 0.33, "docs/bench.md, two cores: 0.07 to 0.3 TFLOP/s reached"),
}
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16, by a part of the name
STEP_FLOOR_S = 0.003  # launches and the optimizer, however small the model


def planned_artifact_bytes(recipe: Recipe, code_bytes: int) -> int:
    """Code, and what Gaussian weights of these shapes pack to: about what trained ones do."""
    return round(sum(role.planned_bytes for role in role_bytes(recipe))) + HEADER_BYTES + code_bytes


def role_bytes(recipe: Recipe) -> list[RoleBytes]:
    """Artifact bytes by role, in the order of the table."""
    rows: dict[str, list[Param]] = {}
    for row in param_table(recipe.arch):
        rows.setdefault(row.role, []).append(row)
    return [_role(recipe, role, held) for role, held in rows.items()]


def _role(recipe: Recipe, role: str, rows: list[Param]) -> RoleBytes:
    low, planned, high = np.sum([_row_bytes(recipe, row) for row in rows], axis=0).tolist()
    return RoleBytes(role, sum(row.size for row in rows), low, planned, high)


def _row_bytes(recipe: Recipe, row: Param) -> tuple[float, float, float]:
    """Low, planned and high bytes of one parameter, scales included."""
    form = stored_format(row, recipe.quant)
    if form == "fp16":
        return row.size * fp16_entropy() / 8, 2.0 * row.size, 2.0 * row.size
    if form in ("ternary", "binary"):
        group = recipe.arch.linear_group
        low, planned = _group_bytes(group, form, recipe.quant.codec)
        scales = 2.0 * row.size / group
        return row.size * low + scales, row.size * planned + scales, row.size + scales
    group = recipe.quant.group(row)
    grid, cols = recipe.quant.grid(row.role), group or matrix_shape(row.shape)[1]
    scales = row.size / cols * (1.0 if grid.log_scales else 2.0)
    if form == "fp8":
        low, planned = _float8_bytes(min(cols, MOST_COLS), recipe.quant.codec)
    else:
        planned = bytes_per_weight(min(cols, MOST_COLS), recipe.quant.codec, grid)
        low = level_entropy(min(cols, MOST_COLS), grid) / 8
    return row.size * low + scales, row.size * planned + scales, row.size + scales


@cache
def _float8_bytes(cols: int, codec: str) -> tuple[float, float]:
    """Least and packed bytes of a Gaussian weight in fp8, without its scale."""
    codes, _ = quantize_float8(normal(0, cols, (SAMPLE_ROWS, cols)).astype(np.float32), ABSMAX)
    return _entropy(codes) / 8, _packed(codes.view(np.int8), codec)


@cache
def bytes_per_weight(cols: int, codec: str, grid: Grid = ABSMAX) -> float:
    """Packed bytes of a Gaussian weight in rows of `cols`, from a sample."""
    return _packed(_sample(cols, grid), codec)


@cache
def level_entropy(cols: int, grid: Grid = ABSMAX) -> float:
    """Bits of a level of a Gaussian weight in rows of `cols`, from the same sample."""
    levels = _sample(cols, grid)
    return _entropy(levels.view(f"u{levels.itemsize}"))


@cache
def fp16_entropy() -> float:
    """Bits of a Gaussian weight in fp16: of its high and its low byte."""
    halves = normal(0, 0, (SAMPLE_ROWS * 512,)).astype("<f2").view(np.uint8)
    return _entropy(halves[0::2]) + _entropy(halves[1::2])


def _sample(cols: int, grid: Grid) -> Levels:
    """Of unit deviation, so a floor that is absolute does not count."""
    free = replace(grid, floor=0.0)
    return quantize_rows(normal(0, cols, (SAMPLE_ROWS, cols)).astype(np.float32), free)[0]


@cache
def _group_bytes(group: int, form: OneBit, codec: str) -> tuple[float, float]:
    """Least and packed bytes of a Gaussian weight in groups, without their scales."""
    weight = normal(0, group, (16 * SAMPLE_ROWS, group)).astype(np.float32)
    levels, _ = grouped_levels(weight, group, form)
    return _entropy(levels.view(np.uint8)) / 8, _packed(levels, codec)


def _packed(levels: Levels, codec: str) -> float:
    """Bytes of one of these levels."""
    rows, cols = levels.shape
    allowed = candidates(codec, levels.dtype.name)
    _, packed = smallest(levels.tobytes(), allowed, [(rows, cols * levels.itemsize)])
    return len(packed) / levels.size


def _entropy(symbols: NDArray[Any]) -> float:
    share = np.bincount(symbols.ravel(), minlength=256) / symbols.size
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


def planned_memory_bytes(recipe: Recipe, memory: Memory = "cuda") -> int:
    """The peak of training: state, and one micro-batch's activations. No allocator's slack."""
    return state_bytes(recipe) + micro_batch_bytes(recipe, micro_batch_rows(recipe), memory)


def state_bytes(recipe: Recipe) -> int:
    """fp32 weights, gradients, moments and average of one rank; and random weights, which stay."""
    copies = 2 + (recipe.optim.ema_decay > 0)
    table = param_table(recipe.arch)
    held = sum((copies + (1 if row.rule == "matrix" else 2)) * row.size for row in table)
    return (held + num_frozen(recipe.arch)) * 4


def micro_batch_rows(recipe: Recipe) -> int:
    """Sequences in one forward pass of a single rank."""
    rows = recipe.data.train_batch_tokens // recipe.arch.seq_len
    return min(recipe.data.micro_batch or rows, rows)


def micro_batch_bytes(recipe: Recipe, rows: int, memory: Memory) -> int:
    """What a forward pass of `rows` sequences keeps for the backward pass.

    About 12 model_dim + 3 mlp_dim values a token and visit, and three copies of the fp32 logits.
    CUDA's attention is fused. With gradients MLX's is not: each visit keeps its T x T
    probabilities a head, and three more are alive in the one that is being worked on. MLX's CPU
    device peaks at 1.1 to 1.4 times this.
    """
    spec, visits = recipe.arch, len(forward_plan(recipe.arch))
    width = 4 if recipe.precision == "fp32" else 2
    kept = visits * (12 * spec.model_dim + 3 * spec.mlp_dim) * width + 3 * 4 * spec.vocab_size
    if memory == "unified":
        kept += (visits + 3) * spec.num_heads * spec.seq_len * width
    return rows * spec.seq_len * kept


def fitting_micro_batch(recipe: Recipe, memory_bytes: int) -> int:
    """The largest power of two of sequences that trains in half of a Mac's memory; at least 1."""
    rows = 1
    most = recipe.data.train_batch_tokens // recipe.arch.seq_len
    while 2 * rows <= most:
        needed = state_bytes(recipe) + micro_batch_bytes(recipe, 2 * rows, "unified")
        if needed > memory_bytes // 2:
            break
        rows *= 2
    return rows


def tokens_per_s(recipe: Recipe, hardware: Hardware) -> float:
    """Training speed, had this recipe the part of the peak that the hardware's row assumes.

    No step takes less than STEP_FLOOR_S.
    """
    most = recipe.data.train_batch_tokens / STEP_FLOOR_S
    return min(hardware.flops / flops_per_token(recipe.arch), most)


def hardware_of(device: str, ranks: int) -> Hardware:
    """What a run's device is taken for, from its name in the log, as cuda:0 or Device(gpu, 0)."""
    name = "1xH100" if "cuda" in device else "cpu" if "cpu" in device else "mac"
    return replace(HARDWARE[name], devices=ranks)


def usual_hardware(name: str) -> str:
    """What a recipe of this name is meant for; scaling to a Mac's size puts it into the name."""
    return "mac" if re.search(r"\bmac-\d+g\b", name) else "8xH100"


def peak_flops(device_name: str) -> float | None:
    """The dense bf16 FLOP/s of a device by its maker's name; None for one that is not known."""
    known = (flops for part, flops in PEAK_FLOPS.items() if part in device_name)
    return None if "PCIe" in device_name else next(known, None)
