"""How fast 8 GPUs were in the public records' logs, and what that is at a recipe's shape.

Milliseconds and shapes are those that the logs print; FLOPs are counted by the usual formula.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.arch.params import flops_per_token
from core.arch.plan import forward_plan
from core.arch.spec import ModelSpec
from core.train.recipe import Recipe

GPUS = 8
KV_PART = 0.5  # of the width, in every one of these models
SLOW = 0.95  # logs of one shape differ by a few per cent between pods


@dataclass(frozen=True, kw_only=True)
class Log:
    """One record's training on eight GPUs: shape, and milliseconds a step in its phases."""

    name: str
    gpu: str
    layers: tuple[int, int]  # executed, before and after the switch; equal: there is none
    vocab_size: int
    mlp_mult: float
    seq_len: int
    train_batch_tokens: int
    step_ms: tuple[float, float]
    model_dim: int = 512
    packed: bool = False  # documents apart: fewer FLOPs of attention than counted here

    def flops(self, phase: int) -> float:
        """Of a token, forward and backward, as if every window were one document."""
        dim = self.model_dim
        block = dim * dim * (2 + 2 * KV_PART + 2 * self.mlp_mult)
        context = (self.seq_len + 1) / 2
        layers = self.layers[phase]
        return 6 * (layers * block + dim * self.vocab_size) + 12 * dim * context * layers

    @property
    def tokens_per_s(self) -> tuple[float, float]:
        """Of all eight."""
        before_ms, after_ms = self.step_ms
        tokens = 1000.0 * self.train_batch_tokens
        return tokens / before_ms, tokens / after_ms


def _small(name: str, gpu: str, layers: int, mlp: float, seq: int, tokens: int, ms: float) -> Log:
    return Log(
        name=name,
        gpu=gpu,
        layers=(layers, layers),
        vocab_size=1024,
        mlp_mult=mlp,
        seq_len=seq,
        train_batch_tokens=tokens,
        step_ms=(ms, ms),
    )


def _looped(name: str, layers: int, ms: tuple[float, float], packed: bool = False) -> Log:
    return Log(
        name=name,
        gpu="H100",
        layers=(11, layers),
        vocab_size=8192,
        mlp_mult=4,
        seq_len=2048,
        train_batch_tokens=786_432,
        step_ms=ms,
        packed=packed,
    )


LOGS = (
    _small("naive baseline, 1.2244", "H100", 9, 2, 1024, 524_288, 43.54),
    _small("lower rates at the baseline's shape", "H200", 9, 2, 1024, 524_288, 41.60),
    _small("10 layers, int6, 1.2147", "H200", 10, 2, 1024, 524_288, 45.78),
    _small("rows of 2048, 1.206", "H100", 9, 2, 2048, 524_288, 51.8),
    _small("MLP 3x, int6, 1.1630", "H100", 9, 3, 1024, 524_288, 48.4),
    _small("10 layers, int5, 1.1428", "H100", 10, 3, 2048, 786_432, 89.4),
    _small("parallel Muon and banks, 1.1194", "H100", 11, 3, 2048, 786_432, 83.5),
    _looped("SP8192 loop, 1.0856", 15, (101.8, 140.1)),
    _looped("1.0810", 17, (102.0, 150.3)),
    _looped("1.0611", 17, (96.4, 141.3), packed=True),
)


def compared(
    recipe: Recipe, device: str, device_name: str, ranks: int, step_s: list[float]
) -> dict[str, Any]:
    """This pod beside the nearest log; `step_s` in the first phase and in the last one.

    A record's step at another shape, or on fewer GPUs, is taken to be as long as its FLOPs say.
    """
    if not device.startswith("cuda"):
        why = f"no figure applies to {device}: the logs are of 8 H100 or H200"
        return {"applies": False, "why": why}
    log, spec = nearest(recipe, device_name), recipe.arch
    tokens = recipe.data.train_batch_tokens
    phases = []
    for phase, (spent_s, flops) in enumerate(zip(step_s, ends_flops(spec), strict=True)):
        share = flops * tokens / (log.flops(phase) * log.train_batch_tokens) * GPUS / ranks
        expected_ms = log.step_ms[phase] * share
        phases.append(
            {
                "step_ms": 1000.0 * spent_s,
                "expected_ms": expected_ms,
                "log_ms": log.step_ms[phase],
                "speed": expected_ms / (1000.0 * spent_s),
                "tokens_per_s_per_gpu": tokens / spent_s / ranks,
                "log_tokens_per_s_per_gpu": log.tokens_per_s[phase] / GPUS,
            }
        )
    slow = min(phase["speed"] for phase in phases) < SLOW
    named = {"log": log.name, "log_gpu": log.gpu, "device_name": device_name, "ranks": ranks}
    return {"applies": True, **named, "slow": slow, "phases": phases}


def ends_flops(spec: ModelSpec) -> list[int]:
    """Of a token in the first order of the blocks and in the last one."""
    first = replace(spec, phases=spec.phases[:1]) if _whole(spec) else spec
    return [flops_per_token(first), flops_per_token(spec)]


def _whole(spec: ModelSpec) -> bool:
    """Whether the first order alone leaves no block out, and so is a model by itself."""
    if len(spec.phases) < 2:
        return False
    pairs = spec.phases[0].pairs
    every = set(range(spec.num_layers))
    return {p.attn for p in pairs} == every == {p.mlp for p in pairs}


def nearest(recipe: Recipe, device_name: str) -> Log:
    """The log of the nearest shape; among equals one of the same GPU, then the first."""

    def distance(log: Log) -> tuple[float, bool]:
        pairs: Mapping[str, tuple[float, float]] = {
            "layers": (len(forward_plan(recipe.arch)), log.layers[1]),
            "width": (recipe.arch.model_dim, log.model_dim),
            "MLP": (recipe.arch.mlp_dim, log.mlp_mult * log.model_dim),
            "vocabulary": (recipe.arch.vocab_size, log.vocab_size),
            "rows": (recipe.arch.seq_len, log.seq_len),
            "step": (recipe.data.train_batch_tokens, log.train_batch_tokens),
        }
        apart = sum(abs(math.log(own / theirs)) for own, theirs in pairs.values())
        return apart + 0.1 * (recipe.arch.doc_mask != log.packed), log.gpu not in device_name

    return min(LOGS, key=distance)
