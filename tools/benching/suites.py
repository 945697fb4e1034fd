"""The suites as data: what is measured on which device, at which shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tools.benching import (
    adapting,
    coders,
    cold,
    feeding,
    kernels,
    ranks,
    sliding,
    solving,
    steps,
)
from tools.benching.job import Job, Kind, Row

Suite = Literal["cpu", "cuda", "mlx", "score", "quant", "load"]
Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How a kind of row is measured and shown."""

    title: str
    measure: Callable[[Job], Fields]
    cells: Callable[[Fields], dict[str, str]]


KINDS: dict[Kind, Measured] = {
    "step": Measured(title="The training step", measure=steps.measure, cells=steps.cells),
    "optimizer": Measured(
        title="The optimizer alone", measure=kernels.optimizer, cells=kernels.cells
    ),
    "kernels": Measured(title="The step with a kernel", measure=kernels.each, cells=kernels.cells),
    "attention": Measured(
        title="Attention, forward and backward", measure=kernels.attention, cells=kernels.cells
    ),
    "loss": Measured(
        title="Softcapped cross-entropy, forward and backward",
        measure=kernels.loss,
        cells=kernels.cells,
    ),
    "sliding": Measured(title="Sliding windows", measure=sliding.measure, cells=sliding.cells),
    "adapting": Measured(title="Adapters", measure=adapting.measure, cells=sliding.cells),
    "cold": Measured(title="Cold start", measure=cold.measure, cells=cold.cells),
    "ranks": Measured(title="Ranks", measure=ranks.measure, cells=ranks.cells),
    "feeding": Measured(title="Loading", measure=feeding.measure, cells=feeding.cells),
    "coder": Measured(title="Coders, bits a weight", measure=coders.measure, cells=coders.cells),
    "solver": Measured(title="Solvers, seconds", measure=solving.measure, cells=solving.cells),
}
SMALL = ("small", "data.train_batch_tokens=8192", "compile=on")
HOPPER = ("precision=autocast", "compile=on")
TINY_LORA, TINY_WINDOWS = (32, 2, 96), (32, 128, 2, 2)
TINY_HEADS, TINY_LOGITS = (2, 4, 2, 32, 16), (64, 96)


def _sides(title: str, kind: Kind, **rest: Any) -> tuple[Row, ...]:
    """The same row on both engines."""
    return tuple(
        Row(title=f"{name}, {title}", kind=kind, backend=name, **rest) for name in ("torch", "mlx")
    )


def _shape(name: str, title: str, stage: int = 0) -> Row:
    words = (name, *HOPPER)
    return Row(title=title, kind="step", words=words, needs="cuda", stage=stage)


_SCORE = (
    *_sides("stride 64", "sliding", words=SMALL, shape=(256, 1024, 32, 8), tiny=TINY_WINDOWS),
    *_sides("LoRA", "adapting", words=SMALL, shape=(128, 8, 512), tiny=TINY_LORA),
)
_CUDA_STEPS = (
    _shape("baseline", "baseline"),
    _shape("r1081", "r1081 before the switch"),
    _shape("r1081", "r1081 behind the switch", -1),
    _shape("r1061", "r1061 before the switch"),
    _shape("r1061", "r1061 behind the switch", -1),
    Row(
        title="baseline, 16k tokens",
        kind="step",
        words=("baseline", "data.train_batch_tokens=16384", *HOPPER),
        needs="cuda",
    ),
)
_CUDA_PARTS = (
    Row(
        title="48 x 2048",
        kind="attention",
        words=("r1081",),
        needs="cuda",
        shape=(48, 8, 4, 2048, 64),
        tiny=TINY_HEADS,
    ),
    Row(
        title="64 x 1024",
        kind="attention",
        words=("baseline",),
        needs="cuda",
        shape=(64, 8, 4, 1024, 64),
        tiny=TINY_HEADS,
    ),
    Row(
        title="98,304 x 8192",
        kind="loss",
        words=("r1081",),
        needs="cuda",
        shape=(98_304, 8192),
        tiny=TINY_LOGITS,
    ),
    Row(title="baseline", kind="kernels", words=("baseline", *HOPPER), needs="cuda"),
    Row(title="r1081", kind="kernels", words=("r1081", *HOPPER), needs="cuda", stage=-1),
    Row(title="baseline", kind="optimizer", words=("baseline", *HOPPER), needs="cuda"),
    Row(title="r1081", kind="optimizer", words=("r1081", *HOPPER), needs="cuda"),
    Row(
        title="LoRA",
        kind="adapting",
        words=("baseline",),
        needs="cuda",
        shape=(512, 96, 512),
        tiny=TINY_LORA,
    ),
    Row(
        title="stride 64",
        kind="sliding",
        words=("baseline",),
        needs="cuda",
        shape=(512, 2048, 512, 32),
        tiny=TINY_WINDOWS,
    ),
    Row(title="baseline, NCCL", kind="ranks", words=("baseline", *HOPPER), needs="cuda"),
    Row(title="baseline", kind="cold", words=("baseline", *HOPPER), needs="cuda"),
    Row(title="r1081", kind="cold", words=("r1081", *HOPPER), needs="cuda"),
)
SUITES: dict[Suite, tuple[Row, ...]] = {
    "cpu": (
        Row(title="small, fp32", kind="step", words=SMALL),
        Row(title="small, bf16", kind="step", words=(*SMALL, "precision=autocast")),
        Row(title="small", kind="optimizer", words=SMALL),
        Row(title="small, gloo", kind="ranks", words=(*SMALL[:2], "compile=off")),
        Row(title="small", kind="feeding", words=SMALL),
    ),
    "cuda": (*_CUDA_STEPS, *_CUDA_PARTS),
    "mlx": (
        Row(title="small, fp32", kind="step", backend="mlx", words=SMALL),
        Row(title="mac-16g", kind="step", backend="mlx", words=("mac-16g", *HOPPER), needs="metal"),
        Row(title="mac-32g", kind="step", backend="mlx", words=("mac-32g", *HOPPER), needs="metal"),
        Row(title="small", kind="optimizer", backend="mlx", words=SMALL),
        Row(
            title="8 x 1024",
            kind="attention",
            backend="mlx",
            words=SMALL,
            shape=(8, 8, 4, 1024, 64),
            tiny=TINY_HEADS,
        ),
        Row(
            title="8192 x 1024",
            kind="loss",
            backend="mlx",
            words=SMALL,
            shape=(8192, 1024),
            tiny=TINY_LOGITS,
        ),
        Row(title="small", kind="feeding", backend="mlx", words=SMALL),
    ),
    "score": _SCORE,
    "quant": (
        Row(title="11 layers, int6", kind="coder", shape=(11, 0), tiny=(0, 64)),
        Row(title="embedding, int8", kind="coder", shape=(0, 8192), tiny=(0, 32)),
        Row(title="numpy", kind="solver", backend="numpy", shape=(1, 8, 0), tiny=(0, 8, 32)),
        *_sides("8 states", "solver", shape=(1, 8, 0), tiny=(0, 8, 32)),
    ),
    "load": (
        *_sides("small", "feeding", words=SMALL),
        *_sides("baseline", "feeding", words=("baseline",)),
        *_sides("r1061, documents apart", "feeding", words=("r1061",)),
    ),
}
