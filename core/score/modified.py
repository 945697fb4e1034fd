"""A trained model with something changed and nothing trained: what each part of it is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.arch.fields import closest, override, to_plain
from core.arch.params import Weights, param_table
from core.arch.plan import forward_plan
from core.arch.rope import rotary_tables
from core.arch.spec import ModelSpec

STARTS = ("qk_gain_init", "tied_embed_init_std")  # read when training starts, never again
SHOWN_BY_TABLES = (*STARTS, "rope_base", "rope_dims", "skips")


@dataclass(frozen=True, kw_only=True, eq=False)
class Modified:
    """The model to score, and what is said of it."""

    spec: ModelSpec
    weights: Weights
    changes: tuple[str, ...] = ()  # as section.field=value; none: the model as it was trained
    dropped: tuple[str, ...] = ()  # parameters that the changed spec has no longer


@dataclass(frozen=True, kw_only=True)
class _Settable:
    arch: ModelSpec


def modify(spec: ModelSpec, weights: Weights, changes: Sequence[str]) -> Modified:
    """Apply `arch.FIELD=value` to the spec and `weights.NAME=value` to every entry of each
    parameter whose name is or ends with NAME, as weights.q_gain=1.0.

    ValueError for a change that changes no score, or that would need parameters that the trained
    model has not: those take a training.
    """
    of_arch = [change for change in changes if change.startswith("arch.")]
    of_weights = [change for change in changes if change.startswith("weights.")]
    for change in changes:
        if change not in of_arch + of_weights or "=" not in change:
            raise ValueError(f"{change!r}: expected arch.FIELD=value or weights.NAME=value")
    changed = _override(spec, of_arch)
    for index, change in enumerate(of_arch):
        _require_effect(spec, changed, change, of_arch[:index] + of_arch[index + 1 :])
    kept = _fit(weights, changed)
    for change in of_weights:
        kept = _fill(kept, change)
    dropped = tuple(name for name in weights if name not in kept)
    said = tuple(_as_applied(changed, change) for change in changes)
    return Modified(spec=changed, weights=kept, changes=said, dropped=dropped)


def _override(spec: ModelSpec, changes: Sequence[str]) -> ModelSpec:
    return override(_Settable(arch=spec), changes, "the changed model").arch


def _require_effect(spec: ModelSpec, changed: ModelSpec, change: str, others: list[str]) -> None:
    """Raise ValueError when the model would compute the same without this change."""
    try:
        without = _override(spec, others)
    except ValueError:  # it takes this change to make sense of the others
        return
    if _computes(without) != _computes(changed):
        return
    name, value = _field(change), getattr(without, _field(change))
    if name in STARTS:
        why = (
            f"{name} is a start value, which a trained model has left behind; to set its "
            "parameters themselves: --set weights.NAME=value, as weights.q_gain=1.0"
        )
    elif value == getattr(changed, name):
        why = f"it is {_shown(value)} already"
    else:
        why = f"this model computes the same with {name}={_shown(value)}"
    raise ValueError(f"{change} changes nothing: {why}")


def _computes(spec: ModelSpec) -> dict[str, Any]:
    """What decides a score beside the weights' values; a field unknown here counts itself."""
    plain = {k: v for k, v in to_plain(spec).items() if k not in SHOWN_BY_TABLES}
    if spec.activation != "leaky_relu2":
        del plain["leaky_slope"]
    if spec.linear != "random":
        del plain["linear_seed"]
    angles = rotary_tables(replace(spec, seq_len=2))  # the second row holds every frequency
    shapes = {row.name: row.shape for row in param_table(spec)}
    plan = forward_plan(spec)
    return {**plain, "shapes": shapes, "plan": plan, "angles": [t.tolist() for t in angles]}


def _fit(weights: Weights, spec: ModelSpec) -> Weights:
    """The parameters that the changed spec has."""
    for row in param_table(spec):
        found = weights[row.name].shape if row.name in weights else None
        if found != row.shape:
            held = "the artifact holds none" if found is None else f"the artifact's is {found}"
            raise ValueError(
                f"the changed model needs {row.name} of shape {row.shape}, {held}: only training "
                "gives it; use `golf train` with this change"
            )
    return {row.name: weights[row.name] for row in param_table(spec)}


def _fill(weights: Weights, change: str) -> Weights:
    """Every entry of the named parameters at one value."""
    path, _, text = change.partition("=")
    wanted = path.removeprefix("weights.")
    names = [name for name in weights if f".{name}".endswith(f".{wanted}")]
    if not names:
        hint = closest(wanted, {_without_numbers(name) for name in weights})
        raise ValueError(f"{change}: no parameter is or ends with {wanted!r}; {hint}")
    filled = {name: np.full_like(weights[name], _number(change, text)) for name in names}
    if all(np.array_equal(filled[name], weights[name]) for name in names):
        raise ValueError(f"{change} changes nothing: every entry is {text} already")
    return {**weights, **filled}


def _without_numbers(name: str) -> str:
    """blocks.3.attn.q_gain -> q_gain, and blocks.3.mlp.fc.weight -> mlp.fc.weight."""
    own = name.split(".")[2:] if name.startswith("blocks.") else name.split(".")
    return ".".join(own if own[-1] == "weight" else own[-1:])


def _number(change: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{change}: expected a finite number, found {text!r}")
    return value


def _as_applied(spec: ModelSpec, change: str) -> str:
    """The change with the value as it was understood."""
    path, _, text = change.partition("=")
    value = getattr(spec, _field(change)) if path.startswith("arch.") else float(text)
    return f"{path.strip()}={_shown(value)}"


def _field(change: str) -> str:
    return change.partition("=")[0].strip().removeprefix("arch.")


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
