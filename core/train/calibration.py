"""Calibration: what the quantizer wants to know of the matrices, and where they are tapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from core.arch.noise import stream_of, uniform
from core.arch.params import Param, param_table
from core.arch.spec import BOS, ModelSpec
from core.artifact.quant import Quant, Width, stored_format
from core.artifact.solving import Calibration
from core.data.shards import TokenStream

HEAD = "head"  # where the last activations meet every token's row
COUNTED_TOKENS = 1 << 22
FISHER_TOKENS = 12_288  # whose gradients are measured, over all ranks, in whole rows
AT_ONCE_TOKENS = 4096  # of them, on one rank
SAME_INPUT = {"c_k": "c_q", "c_v": "c_q", "gate": "fc"}  # of attention, and of SwiGLU

Rows = NDArray[np.int32]
Draw = Callable[[NDArray[np.float32]], Rows]  # log-probabilities (..., V) to tokens
NextLogits = Callable[[Rows], NDArray[np.float32]]  # rows (B, T) to (B, V)
Moments = dict[str, NDArray[np.float64]]


class Given(NamedTuple):
    """What is calibrated by."""

    batches: list[Any]  # (B, T) each, on the device, of this rank
    counts: NDArray[Any]  # (V,): how often each token is met


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

    def draw(log_probs: NDArray[np.float32]) -> Rows:
        stream = stream_of(f"fisher/{rank}/{next(times)}")
        return drawn(log_probs, uniform(seed, stream, log_probs.shape[:-1]))

    return draw


def share(rows: int, rank: int, world_size: int) -> range:
    """The rows of a rank; ValueError where there is not one for each."""
    if rows < world_size:
        raise ValueError(
            f"quant.calibration_rows {rows} must be at least one for each rank, "
            f"and there are {world_size}"
        )
    return range(rank, rows, world_size)


def written(next_logits: NextLogits, rows: range, seq_len: int, seed: int) -> Iterator[Rows]:
    """Rows (B, T) of documents that the model writes itself, each from BOS on, a few at a time.

    So nothing is read to calibrate by (after the record of 2026-03-25). Each row is drawn by the
    seed and its own number, whatever rank it falls to; each token takes a forward of those before.
    """
    few = max(AT_ONCE_TOKENS // seq_len, 1)
    for at in range(0, len(rows), few):
        streams = [stream_of(f"written/{row}") for row in rows[at : at + few]]
        where = np.stack([uniform(seed, stream, (seq_len,)) for stream in streams])
        held = np.full(where.shape, BOS, np.int32)
        for place in range(1, seq_len):
            held[:, place] = drawn(next_logits(held[:, :place]), where[:, place])
        yield held


def drawn(logits: NDArray[Any], where: NDArray[np.float64]) -> Rows:
    """Logits (..., V) to tokens: whose share of the probability line holds `where`, in [0, 1)."""
    likely = np.exp(logits - logits.max(-1, keepdims=True), dtype=np.float64)
    up_to = np.cumsum(likely, axis=-1)
    wanted = (where * up_to[..., -1])[..., None]
    below = np.sum(up_to <= wanted, axis=-1, dtype=np.int32)
    found: Rows = np.minimum(below, logits.shape[-1] - 1)
    return found


def token_counts(stream: TokenStream, vocab_size: int) -> NDArray[np.float64]:
    """(V,): how often each token is met among the first of the training stream."""
    return counted(stream.slice(0, min(len(stream), COUNTED_TOKENS)), vocab_size)


def counted(tokens: NDArray[Any], vocab_size: int) -> NDArray[np.float64]:
    """(V,): how often each token is met."""
    return np.bincount(tokens.ravel(), minlength=vocab_size).astype(np.float64)


def calibration(
    spec: ModelSpec,
    quant: Quant,
    moments: Moments,
    fisher: Moments,
    counts: NDArray[Any],
) -> Calibration:
    """What the solver is told, by the leaves: the moments of inputs, the worth of outputs, and how
    often each token is met, (V,), for the rows of the table.

    The rows of a head are of one worth: their own would be nearly the tokens' frequencies, and
    steps by these must not be as unlike as that.
    """
    hessians = {name: moments[leaf] for name, leaf in tapped(spec, quant).items()}
    worth = {
        name: fisher[leaf].mean(keepdims=True) if leaf == HEAD else fisher[leaf]
        for name, leaf in weighed(spec, quant).items()
        if leaf in fisher
    }
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
