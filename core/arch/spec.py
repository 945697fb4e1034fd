"""ModelSpec: the architecture as frozen, checked data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Activation = Literal["relu2", "leaky_relu2"]
Skips = Literal["none", "unet"]

FP32_EPS = 1.1920929e-07  # 2**-23, what torch's rms_norm uses when it is given none


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One GPT. The defaults are the task's naive baseline: 9 x 512, 17,059,912 parameters."""

    vocab_size: int = 1024
    num_layers: int = 9
    model_dim: int = 512
    num_heads: int = 8
    num_kv_heads: int = 4
    mlp_dim: int = 1024
    seq_len: int = 1024  # tokens of context in training and scoring
    tie_embeddings: bool = True
    tied_embed_init_std: float = 0.005  # an untied table starts as N(0, 1), its head as zeros
    activation: Activation = "relu2"
    leaky_slope: float = 0.5  # of leaky_relu2, below zero and before the square
    rope_base: float = 10_000.0
    rope_dims: int | None = None  # leading dims of a head that turn; none: all of them
    qk_gain_init: float = 1.5
    skips: Skips = "unet"
    logit_softcap: float = 30.0  # 0: logits as they are
    norm_eps: float = FP32_EPS

    def __post_init__(self) -> None:
        for name in ("vocab_size", "num_layers", "model_dim", "num_heads", "mlp_dim", "seq_len"):
            _need(getattr(self, name) >= 1, f"{name} {getattr(self, name)} must be at least 1")
        _need(
            self.vocab_size <= 65_536,
            f"vocab_size {self.vocab_size} exceeds 65536: a shard's token is 16 bits",
        )
        _divides("num_heads", self.num_heads, "model_dim", self.model_dim)
        _divides("num_kv_heads", self.num_kv_heads, "num_heads", self.num_heads)
        dims, head_dim = self.rotated_dims, self.head_dim
        _need(
            dims % 2 == 0 and 0 <= dims <= head_dim,
            f"rope_dims {dims} must be even and within head_dim {head_dim} "
            f"(model_dim {self.model_dim} / num_heads {self.num_heads})",
        )
        for name in ("rope_base", "norm_eps", "tied_embed_init_std"):
            value = getattr(self, name)
            _need(math.isfinite(value) and value > 0, f"{name} {value} must be positive")
        for name in ("leaky_slope", "logit_softcap", "qk_gain_init"):
            value = getattr(self, name)
            _need(math.isfinite(value) and value >= 0, f"{name} {value} must not be negative")

    @property
    def head_dim(self) -> int:
        return self.model_dim // self.num_heads

    @property
    def kv_dim(self) -> int:
        return self.num_kv_heads * self.head_dim

    @property
    def rotated_dims(self) -> int:
        """R: how many dims of each head RoPE turns."""
        return self.head_dim if self.rope_dims is None else self.rope_dims


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(f"arch: {message}")


def _divides(part: str, part_size: int, whole: str, whole_size: int) -> None:
    fits = part_size >= 1 and whole_size % part_size == 0
    _need(fits, f"{part} {part_size} must divide {whole} {whole_size}")
