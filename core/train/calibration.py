"""Calibration: which matrices' inputs the quantizer wants to know, and where they are tapped."""

from __future__ import annotations

from typing import get_args

from core.arch.params import Param, param_table
from core.arch.spec import ModelSpec
from core.artifact.quant import Quant, Width, stored_format

HEAD = "head"  # where the last activations meet every token's row
SAME_INPUT = {"c_k": "c_q", "c_v": "c_q", "gate": "fc"}  # of attention, and of SwiGLU


def tapped(spec: ModelSpec, quant: Quant) -> dict[str, str]:
    """For each matrix whose levels depend on its inputs the leaf that is tapped for it.

    A leaf is named as its parameter is, without `.weight`. Matrices with the same input share one,
    as q, k and v do. A table of embeddings that is not the head too has rows, and no inputs.
    """
    return {row.name: _leaf(row) for row in param_table(spec) if _has_inputs(row, spec, quant)}


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
