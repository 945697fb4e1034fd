"""ModelSpec: the architecture as frozen, checked data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from core.arch.depth import Order, Pair, Phase, attns, check_phases, mlps

Activation = Literal["relu2", "leaky_relu2", "relu", "swiglu"]
Skips = Literal["none", "unet"]
Routing = Literal["serial", "parallel", "lanes", "lanes_in_turn"]
RopeScaling = Literal["none", "ntk", "yarn"]
Smear = Literal["none", "static", "content"]
Softcap = Literal["tanh", "poly5"]
LinearKind = Literal["dense", "ternary", "binary", "random"]
MatrixInit = Literal["uniform", "normal", "orthogonal"]

FP32_EPS = 1.1920929e-07  # 2**-23, what torch's rms_norm uses when it is given none
BOS = 1  # the token that begins each document
SIZES = ("vocab_size", "num_layers", "model_dim", "num_heads", "mlp_dim", "seq_len")
POSITIVE = ("rope_base", "norm_eps", "tied_embed_init_std", "attn_gate_gain")
NOT_NEGATIVE = (
    *("leaky_slope", "logit_softcap", "qk_gain_init", "attn_gate_init_std", "attn_gate_scale"),
    *("attn_gate_dims", "xsa_last", "routing_start", "smear_dims", "bigram_buckets", "bigram_dim"),
    *("rope_train_len", "rope_max_len", "value_embed_dim", "value_embed_last"),
    *("linear_seed", "adapter_rank"),
)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One GPT. The defaults are the task's naive baseline: 9 x 512, 17,059,912 parameters."""

    vocab_size: int = 1024
    num_layers: int = 9  # blocks with weights of their own
    model_dim: int = 512
    num_heads: int = 8
    num_kv_heads: int = 4
    mlp_dim: int = 1024
    seq_len: int = 1024  # tokens of context in training and scoring
    phases: tuple[Phase, ...] = ()  # the last one is packed and scored; none: each block once
    step_embed: bool = False  # a vector added before each visit of the longest order
    visit_scale: bool = False  # a scale of what attention and MLP add, for each visit of it
    tie_embeddings: bool = True
    tied_embed_init_std: float = 0.005  # an untied table starts as N(0, 1), its head as zeros
    embed_dim: int | None = None  # of a factored table; none: model_dim, without factors
    smear: Smear = "none"  # each embedding takes some of the one before, within its document
    smear_dims: int = 12  # of the embedding that decide how much, where smear is content
    bigram_buckets: int = 0  # rows of a table of hashed pairs of tokens; 0: none
    bigram_dim: int = 128
    value_embed_dim: int = 0  # of a second table, whose rows are added to the values; 0: none
    value_embed_last: int = 0  # in so many last blocks
    value_residual: bool = False  # the first visit's values are added to those of the others
    activation: Activation = "relu2"
    leaky_slope: float = 0.5  # of leaky_relu2, below zero and before the square
    rope_base: float = 10_000.0
    rope_dims: int | None = None  # leading dims of a head that turn; none: all of them
    rope_scaling: RopeScaling = "none"
    rope_train_len: int = 0  # the length that scaling starts from; 0: seq_len
    rope_max_len: int = 0  # the length that it reaches; 0: seq_len
    qk_gain_init: float = 1.5
    xsa_last: int = 0  # in so many last blocks attention leaves out its own value's direction
    attn_gate_dims: int = 0  # leading dims that decide how open each head is; 0: no gates
    attn_gate_scale: float = 1.0  # inside the sigmoid
    attn_gate_gain: float = 1.0  # 2 with zeros at the start: open
    attn_gate_init_std: float = 0.0
    windows: tuple[int, ...] = ()  # tokens that a block attends to, a pattern over blocks; 0: all
    doc_mask: bool = False  # no token attends to another document
    ln_scale: bool = False  # what block l normalises is divided by the root of l + 1
    routing: Routing = "serial"  # of the blocks from routing_start on
    routing_start: int = 0
    skips: Skips = "unet"
    skip_gates: bool = False
    softcap: Softcap = "tanh"
    logit_softcap: float = 30.0  # 0: logits as they are
    head_bias: bool = False  # a number a token, added to its logit before the cap
    linear: LinearKind = "dense"  # what the blocks' matrices are multiplied as
    linear_group: int = 128  # weights that share a scale, where they are ternary or binary
    linear_seed: int = 0  # of the matrices, where they are random: never trained nor stored
    adapter_rank: int = 0  # of what is trained beside a random matrix; 0: nothing is
    norm_out_proj: bool = False  # the input of the output projections is normalised
    matrix_init: MatrixInit = "uniform"
    norm_eps: float = FP32_EPS

    def __post_init__(self) -> None:
        for name in SIZES:
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
        for name in POSITIVE:
            value = getattr(self, name)
            _need(math.isfinite(value) and value > 0, f"{name} {value} must be positive")
        for name in NOT_NEGATIVE:
            value = getattr(self, name)
            _need(math.isfinite(value) and value >= 0, f"{name} {value} must not be negative")
        for name, most in self._at_most().items():
            value = getattr(self, name)
            _need(value <= most, f"{name} {value} must be at most {most}")
        _need(min(self.windows, default=0) >= 0, f"windows {self.windows} must not be negative")
        check_phases(self.phases, self.num_layers)
        self._check_groups()
        self._check_adapters()

    def _at_most(self) -> dict[str, int]:
        most = {"attn_gate_dims": self.model_dim, "xsa_last": self.num_layers}
        most["value_embed_last"] = self.num_layers
        if self.smear == "content":
            most["smear_dims"] = self.model_dim
        return {**most, "routing_start": self.num_layers}

    def _check_groups(self) -> None:
        """Every matrix of a block falls into whole groups."""
        if self.linear not in ("ternary", "binary"):
            return
        _need(self.linear_group >= 1, f"linear_group {self.linear_group} must be at least 1")
        for dims in (self.model_dim, self.kv_dim, self.mlp_dim):
            _need(
                dims * self.model_dim % self.linear_group == 0,
                f"linear_group {self.linear_group} must divide the {dims * self.model_dim} "
                f"weights of a matrix of {dims} x {self.model_dim}",
            )

    def _check_adapters(self) -> None:
        """Beside random matrices alone, and no wider than any of them."""
        rank, least = self.adapter_rank, min(self.model_dim, self.kv_dim, self.mlp_dim)
        _need(
            rank == 0 or self.linear == "random",
            f"adapter_rank {rank} with {self.linear} matrices, which are trained themselves: "
            "set linear=random, or adapter_rank=0",
        )
        _need(
            rank <= least,
            f"adapter_rank {rank} must be at most {least}, the shortest side of a matrix",
        )

    @cached_property
    def orders(self) -> tuple[Order, ...]:
        """The blocks of a forward pass, phase by phase."""
        each_once = tuple(Pair(attn=block, mlp=block) for block in range(self.num_layers))
        return tuple(phase.pairs for phase in self.phases) or (each_once,)

    @cached_property
    def attn_blocks(self) -> frozenset[int]:
        """The blocks that have an attention: those in the last order."""
        return attns(self.orders[-1])

    @cached_property
    def mlp_blocks(self) -> frozenset[int]:
        """The blocks that have an MLP."""
        return mlps(self.orders[-1])

    @cached_property
    def _later_attns(self) -> frozenset[int]:
        return frozenset[int]().union(*(attns(order[1:]) for order in self.orders))

    @property
    def head_dim(self) -> int:
        return self.model_dim // self.num_heads

    @property
    def kv_dim(self) -> int:
        return self.num_kv_heads * self.head_dim

    @property
    def table_dim(self) -> int:
        """Dims of a row of the embedding table."""
        return self.model_dim if self.embed_dim is None else self.embed_dim

    @property
    def rotated_dims(self) -> int:
        """R: how many dims of each head RoPE turns."""
        return self.head_dim if self.rope_dims is None else self.rope_dims

    def takes_rows(self, block: int) -> bool:
        """Whether rows of the value table are added to a block's values."""
        return self.value_embed_dim > 0 and block >= self.num_layers - self.value_embed_last

    def shares_values(self, block: int) -> bool:
        """Whether a block's attention is visited with the first visit's values at hand."""
        return self.value_residual and block in self._later_attns

    def window(self, block: int) -> int:
        """How many tokens a block attends to, its own among them; 0: all."""
        return self.windows[block % len(self.windows)] if self.windows else 0


def _need(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(f"arch: {message}")


def _divides(part: str, part_size: int, whole: str, whole_size: int) -> None:
    fits = part_size >= 1 and whole_size % part_size == 0
    _need(fits, f"{part} {part_size} must divide {whole} {whole_size}")
