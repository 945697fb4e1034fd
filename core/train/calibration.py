"""Calibration: which matrices' inputs the quantizer wants to know, and where they are tapped."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from core.arch.params import Param, param_table
from core.arch.spec import ModelSpec
from core.artifact.quant import Quant, Width, stored_format
from core.artifact.solving import Calibration
from core.data.shards import TokenStream

HEAD = "head"  # where the last activations meet every token's row
COUNTED_TOKENS = 1 << 22
SAME_INPUT = {"c_k": "c_q", "c_v": "c_q", "gate": "fc"}  # of attention, and of SwiGLU


def tapped(spec: ModelSpec, quant: Quant) -> dict[str, str]:
    """For each matrix whose levels depend on its inputs the leaf that is tapped for it.

    A leaf is named as its parameter is, without `.weight`. Matrices with the same input share one,
    as q, k and v do. A table of embeddings that is not the head too has rows, and no inputs.
    """
    return {row.name: _leaf(row) for row in param_table(spec) if _has_inputs(row, spec, quant)}


def calibration(
    spec: ModelSpec, quant: Quant, moments: dict[str, NDArray[np.float64]], stream: TokenStream
) -> Calibration:
    """What the solver is told: the moments of each matrix's leaf, and how often each token is
    met among the first of the training stream, for the rows of the table."""
    hessians = {name: moments[leaf] for name, leaf in tapped(spec, quant).items()}
    tokens = stream.slice(0, min(len(stream), COUNTED_TOKENS))
    counts = np.bincount(tokens, minlength=spec.vocab_size).astype(np.float64)
    return Calibration(hessians=hessians, counts={"tok_emb.weight": counts})


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
