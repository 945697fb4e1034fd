"""Calibration: what the quantizer wants to know of the matrices, and where they are tapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from core.arch.noise import stream_of, uniform
from core.arch.params import Param, param_table
from core.arch.spec import ModelSpec
from core.artifact.quant import Quant, Width, stored_format
from core.artifact.solving import Calibration
from core.data.shards import TokenStream

HEAD = "head"  # where the last activations meet every token's row
COUNTED_TOKENS = 1 << 22
FISHER_TOKENS = 12_288  # whose gradients are measured, over all ranks, in whole rows
AT_ONCE_TOKENS = 4096  # of them, on one rank
SAME_INPUT = {"c_k": "c_q", "c_v": "c_q", "gate": "fc"}  # of attention, and of SwiGLU

Draw = Callable[[NDArray[np.float32]], NDArray[np.int32]]  # log-probabilities (..., V) to tokens
Moments = dict[str, NDArray[np.float64]]


def tapped(spec: ModelSpec, quant: Quant) -> dict[str, str]:
    """For each matrix whose levels depend on its inputs the leaf that is tapped for it.

    A leaf is named as its parameter is, without `.weight`. Matrices with the same input share one,
    as q, k and v do. A table of embeddings that is not the head too has rows, and no inputs.
    """
    return {row.name: _leaf(row) for row in param_table(spec) if _has_inputs(row, spec, quant)}


def weighed(spec: ModelSpec, quant: Quant) -> dict[str, str]:
    """The leaf of each of these matrices whose outputs' gradients are measured: its own."""
    leaves = {name: name.removesuffix(".weight") for name in tapped(spec, quant)}
    return {
        name: HEAD if tapped(spec, quant)[name] == HEAD else own for name, own in leaves.items()
    }


def first_rows(batches: Iterable[Any], seq_len: int, world_size: int) -> Iterator[Any]:
    """The first rows (B, T) of a rank: FISHER_TOKENS of all ranks, a few rows at a time."""
    rows, few = -(-FISHER_TOKENS // (seq_len * world_size)), max(AT_ONCE_TOKENS // seq_len, 1)
    for batch in batches:
        for at in range(0, min(len(batch), rows), few):
            yield batch[at : min(at + few, rows)]
        rows -= min(len(batch), rows)


def drawer(seed: int, rank: int) -> Draw:
    """Draws tokens by the run's seed, other ones each time and on each rank."""
    times = count()

    def draw(log_probs: NDArray[np.float32]) -> NDArray[np.int32]:
        up_to = np.cumsum(np.exp(log_probs, dtype=np.float64), axis=-1)
        stream = stream_of(f"fisher/{rank}/{next(times)}")
        where = uniform(seed, stream, log_probs.shape[:-1]) * up_to[..., -1]
        drawn: NDArray[np.int32] = np.sum(up_to < where[..., None], axis=-1, dtype=np.int32)
        return drawn

    return draw


def calibration(
    spec: ModelSpec, quant: Quant, moments: Moments, fisher: Moments, stream: TokenStream
) -> Calibration:
    """What the solver is told, by the leaves: the moments of inputs, the worth of outputs, and how
    often each token is met among the first of the training stream, for the rows of the table.

    The rows of a head are of one worth: their own would be nearly the tokens' frequencies, and
    steps by these must not be as unlike as that.
    """
    hessians = {name: moments[leaf] for name, leaf in tapped(spec, quant).items()}
    worth = {
        name: fisher[leaf].mean(keepdims=True) if leaf == HEAD else fisher[leaf]
        for name, leaf in weighed(spec, quant).items()
        if leaf in fisher
    }
    tokens = stream.slice(0, min(len(stream), COUNTED_TOKENS))
    counts = np.bincount(tokens, minlength=spec.vocab_size).astype(np.float64)
    return Calibration(hessians=hessians, fisher=worth, counts={"tok_emb.weight": counts})


def _has_inputs(row: Param, spec: ModelSpec, quant: Quant) -> bool:
    if stored_format(row, quant) not in get_args(Width):
        return False
    return row.role in ("attn", "mlp", "head") or (row.role == "embed" and _is_head(row, spec))


def _is_head(row: Param, spec: ModelSpec) -> bool:
    return row.name == ("tok_emb.weight" if spec.tie_embeddings else "lm_head.weight")


def _leaf(row: Param) -> str:
    if row.role in ("embed", "head"):
        return HEAD
    return ".".join(SAME_INPUT.get(part, part) for part in row.name.split(".")[:-1])
