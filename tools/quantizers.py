"""The quantizers of the lab: formats, rules of their steps and levels, and what outputs lose."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, get_args

import numpy as np

from core.artifact.container import Artifact, write
from core.artifact.packed import dequantize, matrix_shape
from core.artifact.quant import Quant, Width
from core.artifact.solving import Calibration, solvable
from core.artifact.sums import output_errors
from core.artifact.target import Sizes, meet
from tools.packing import Subject
from tools.say import UsageError, note

RULES: dict[str, dict[str, Any]] = {
    "nearest": {"solver": "nearest", "steps": "rows", "trellis": 0},
    "gptq": {"solver": "gptq", "steps": "rows", "trellis": 0},
    "trellis4": {"solver": "gptq", "steps": "rows", "trellis": 4},
    "trellis8": {"solver": "gptq", "steps": "rows", "trellis": 8},
    "tensor": {"solver": "gptq", "steps": "tensor", "trellis": 0},
    "weighted": {"solver": "gptq", "steps": "weighted", "trellis": 0},
    "columns": {"solver": "gptq", "steps": "columns", "trellis": 0},
    "columns+trellis4": {"solver": "gptq", "steps": "columns", "trellis": 4},
    "columns+trellis8": {"solver": "gptq", "steps": "columns", "trellis": 8},
    "fisher": {"solver": "gptq", "steps": "fisher", "trellis": 0},
    "fisher+trellis8": {"solver": "gptq", "steps": "fisher", "trellis": 8},
}
BY_HESSIAN = ("weighted", "columns", "fisher")  # steps that cannot be without one
FORMATS_HELP = (
    "of attn and mlp: a width or fp8, then if wanted what has one scale, then if wanted how it is "
    "stored, as int6,fp8,int4:64,int4:tensor:log8 (default int8,int6,int5,int4)"
)
WIDTHS = (*get_args(Width), "fp8")


def able(subject: Subject) -> list[str]:
    """The rules that need nothing which is not known."""
    known = subject.known
    lacking = () if known.hessians else BY_HESSIAN
    lacking = lacking if known.fisher else (*lacking, "fisher")
    return [rule for rule, how in RULES.items() if how["steps"] not in lacking]


def quant_of(base: Quant, form: str, rule: str, scale: float) -> Quant:
    """The run's own, with another format of its blocks' matrices, rule and step scale."""
    changes: dict[str, Any] = {"step_scale": scale, **RULES[rule], **as_fields(form)}
    return replace(base, **changes)


def fisher_unit(subject: Subject, form: str) -> float:
    """The step scale of Fisher steps whose file is as large as that of SDClip's, plain levels."""

    def make(rule: str, scale: float) -> bytes:
        return write(subject.artifact(quant_of(subject.quant, form, rule, scale)), "rans")

    return meet(Sizes(partial(make, "fisher")), len(make("gptq", 1.0)))[0]


def as_fields(form: str) -> dict[str, Any]:
    """A word of --formats as fields of Quant."""
    width, *more = form.split(":")
    stored = {"scale_format": "log8"} if more[-1:] == ["log8"] else {}
    group = "".join(more[: len(more) - len(stored)]) or "row"
    if width not in WIDTHS or len(more) > 1 + len(stored):
        raise UsageError(f"format {form!r} is unknown; --formats takes those {FORMATS_HELP}")
    if group not in ("row", "tensor") and not group.isdecimal():
        raise UsageError(f"format {form!r}: {group!r} is no row, tensor or number of columns")
    named = int(group) if group.isdecimal() else group
    return {"attn": width, "mlp": width, "attn_group": named, "mlp_group": named, **stored}


def fits(form: str, rule: str) -> bool:
    """Whether there is such a quantizer: fp8 has no levels to choose, groups no steps by column."""
    by_column = RULES[rule]["steps"] != "rows"
    plain = as_fields(form)["attn_group"] == "row"
    if (fp8 := form.startswith("fp8") and rule != "nearest") or (by_column and not plain):
        why = "has no levels to choose" if fp8 else "has steps of its groups, not of columns"
        note(f"{form} {why}: rule {rule} is left out")
        return False
    return True


def output_error(subject: Subject, artifact: Artifact, unseen: Calibration) -> float:
    """The part of their outputs' squares that matrices lose, on the mean of the matrices."""
    packed, parts = {tensor.name: tensor for tensor in artifact.tensors}, list[float]()
    for row in subject.rows:
        if solvable(row, subject.quant):
            rows, cols = matrix_shape(row.shape)
            weight = np.asarray(subject.weights[row.name], np.float64).reshape(rows, cols)
            hessian = unseen.hessians.get(row.name, np.eye(cols))
            error = weight - dequantize(packed[row.name]).reshape(rows, cols)
            whole = float(output_errors(weight, hessian).sum())
            parts.append(float(output_errors(error, hessian).sum()) / whole if whole else 0.0)
    return float(np.mean(parts)) if parts else 0.0
