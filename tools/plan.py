"""What a recipe will cost before it is trained: parameters, FLOPs, bytes, memory, time, money."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from core.arch.params import flops_per_token, num_params
from core.arch.spec import ModelSpec
from core.artifact.ledger import CAP_BYTES
from core.train.recipe import Recipe, with_changes
from tools.bundling.script import code_bytes
from tools.costs import (
    HARDWARE,
    HEADER_BYTES,
    TASK_S,
    Hardware,
    RoleBytes,
    micro_batch_bytes,
    micro_batch_rows,
    planned_artifact_bytes,
    planned_memory_bytes,
    role_bytes,
    state_bytes,
    tokens_per_s,
    usual_hardware,
)
from tools.recipes import add_recipe, add_scale, settle
from tools.say import note, print_fields, print_json

FITTED: dict[str, Callable[[ModelSpec], int]] = {  # field: what it grows by
    "mlp_dim": lambda spec: 8,
    "num_layers": lambda spec: 1,
    "model_dim": lambda spec: 8 * spec.num_heads,
}
RANGE = (
    "low: order-0 entropy of the levels of Gaussian rows; planned: what such rows pack to; "
    "high: nothing compresses. Trained weights are not quite Gaussian: golf pack knows."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser, "baseline")
    add_scale(parser)
    parser.add_argument(
        "--hardware", choices=HARDWARE, help="default: 8xH100; mac for mac- recipes"
    )
    parser.add_argument("--usd-per-hour", type=float, help="of the hardware, for the cost")
    parser.add_argument(
        "--fit", choices=FITTED, help="the largest value of this field whose artifact fits the cap"
    )
    parser.add_argument("--strict", action="store_true", help="exit 1 if a cap is surely broken")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    recipe = settle(args.words, "torch", {}, scale=args.scale).recipe
    hardware = args.hardware or usual_hardware(recipe.name)
    fitted = None
    if args.fit is not None:
        recipe = fit(recipe, args.fit, code_bytes(recipe))
        fitted = {"field": f"arch.{args.fit}", "value": getattr(recipe.arch, args.fit)}
    fields = plan(recipe, hardware, args.usd_per_hour)
    if fitted is not None:
        fields["fit"] = fitted
    if args.json:
        print_json(fields)
    else:
        show(fields)
    for broken in fields["breaks"]:
        note(broken["message"])
    certain = any(broken["certain"] for broken in fields["breaks"])
    return 1 if args.strict and certain else 0


def plan(
    recipe: Recipe, hardware: str = "8xH100", usd_per_hour: float | None = None
) -> dict[str, Any]:
    """The fields of `golf plan`. Artifact, memory and time are estimates, the rest is exact."""
    own_bytes = code_bytes(recipe)
    artifact_bytes = planned_artifact_bytes(recipe, own_bytes)
    roles = role_bytes(recipe)
    tokens = recipe.data.train_batch_tokens * recipe.schedule.steps
    return {
        "recipe": recipe.name,
        "parameters": num_params(recipe.arch),
        "flops_per_token": flops_per_token(recipe.arch),
        "train_tokens": tokens,
        "train_flops": tokens * flops_per_token(recipe.arch),
        "artifact_bytes": artifact_bytes,
        "artifact_low_bytes": round(_whole(roles, "low_bytes", own_bytes)),
        "artifact_high_bytes": round(_whole(roles, "high_bytes", own_bytes)),
        "code_bytes": own_bytes,
        "margin_bytes": CAP_BYTES - artifact_bytes,
        "roles": [_role(role) for role in roles],
        "range": RANGE,
        "memory_bytes": planned_memory_bytes(recipe),
        "memory": memory(recipe),
        "time": duration(recipe, hardware, usd_per_hour),
        "breaks": breaks(recipe, hardware),
        "estimated": ["artifact_bytes", "margin_bytes", "roles", "memory", "time"],
    }


def memory(recipe: Recipe) -> dict[str, int]:
    """Bytes of the state and of one micro-batch, by where attention runs."""
    rows = micro_batch_rows(recipe)
    return {
        "state_bytes": state_bytes(recipe),
        "micro_batch_rows": rows,
        "micro_batch_cuda_bytes": micro_batch_bytes(recipe, rows, "cuda"),
        "micro_batch_unified_bytes": micro_batch_bytes(recipe, rows, "unified"),
        "peak_cuda_bytes": planned_memory_bytes(recipe, "cuda"),
        "peak_unified_bytes": planned_memory_bytes(recipe, "unified"),
    }


def duration(recipe: Recipe, name: str, usd_per_hour: float | None) -> dict[str, Any]:
    """How far 600 s go on this hardware, and how long this recipe's training is."""
    hardware = HARDWARE[name]
    speed = tokens_per_s(recipe, hardware)
    train_s = train_seconds(recipe, hardware)
    return {
        "hardware": name,
        "assumed_mfu": hardware.mfu,
        "assumed_from": hardware.source,
        "tokens_per_s": round(speed),
        "steps_in_600_s": int(TASK_S * speed / recipe.data.train_batch_tokens),
        "train_s": round(train_s, 1),
        "cost_usd": None if usd_per_hour is None else round(usd_per_hour * train_s / 3600, 2),
    }


def train_seconds(recipe: Recipe, hardware: Hardware) -> float:
    """Until the last step or the end of the budget."""
    tokens = recipe.data.train_batch_tokens * recipe.schedule.steps
    by_steps = tokens / tokens_per_s(recipe, hardware)
    return min(by_steps, recipe.schedule.budget_s or by_steps)


def breaks(recipe: Recipe, name: str) -> list[dict[str, Any]]:
    """Each cap that the recipe breaks, or may break within the range, and the setting to change."""
    found = (_over_bytes(recipe), _over_time(recipe, name), _over_memory(recipe, name))
    return [broken for broken in found if broken is not None]


def _over_bytes(recipe: Recipe) -> dict[str, Any] | None:
    own_bytes, roles = code_bytes(recipe), role_bytes(recipe)
    low, planned = (round(_whole(roles, end, own_bytes)) for end in ("low_bytes", "planned_bytes"))
    if planned <= CAP_BYTES:
        return None
    largest_role = max(roles, key=lambda role: role.planned_bytes).role
    size = {"mlp": "arch.mlp_dim", "attn": "arch.model_dim"}.get(largest_role, "arch.vocab_size")
    verb = "is" if low > CAP_BYTES else "may be"
    return {
        "cap": "artifact_bytes",
        "setting": size,
        "certain": low > CAP_BYTES,
        "message": f"this recipe's artifact {verb} over the cap of {CAP_BYTES:,} bytes: about "
        f"{planned:,}, from {low:,} on; most of it is {largest_role}: lower {size} or "
        f"arch.num_layers (--fit mlp_dim finds what fits)",
    }


def _over_time(recipe: Recipe, name: str) -> dict[str, Any] | None:
    train_s = train_seconds(recipe, HARDWARE[name])
    if train_s <= TASK_S:
        return None
    return {
        "cap": "train_s",
        "setting": "schedule.budget_s",
        "certain": recipe.schedule.budget_s > TASK_S,
        "message": f"schedule.budget_s {recipe.schedule.budget_s:g} lets training take about "
        f"{train_s:,.0f} s on {name}, over the task's {TASK_S:.0f} s: set it to 600",
    }


def _over_memory(recipe: Recipe, name: str) -> dict[str, Any] | None:
    peak_bytes, limit_bytes = planned_memory_bytes(recipe), HARDWARE[name].memory_bytes
    if not 0 < limit_bytes < peak_bytes:
        return None
    return {
        "cap": "memory_bytes",
        "setting": "data.micro_batch",
        "certain": False,
        "message": f"data.micro_batch of {micro_batch_rows(recipe)} sequences needs about "
        f"{peak_bytes / 1e9:,.0f} GB, over the {limit_bytes / 1e9:.0f} GB of one device of {name}: "
        f"lower it; no other number changes",
    }


def fit(recipe: Recipe, field: str, code_bytes: int) -> Recipe:
    """The recipe with the largest value of arch.`field` whose planned artifact fits the cap."""
    unit = FITTED[field](recipe.arch)

    def sized(count: int) -> Recipe:
        return with_changes(recipe, [f"arch.{field}={count * unit}"])

    def fits(count: int) -> bool:
        return planned_artifact_bytes(sized(count), code_bytes) <= CAP_BYTES

    if not fits(1):
        raise ValueError(
            f"no arch.{field} fits: even {unit} gives more than {CAP_BYTES:,} bytes; "
            f"make another size smaller first"
        )
    return sized(largest(fits))


def largest(fits: Callable[[int], bool]) -> int:
    """The last count that fits, of 1, 2, 3 ...; 1 does, and from some count on none does."""
    high = 2
    while fits(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def show(fields: dict[str, Any]) -> None:
    """For people: one value a line, then the bytes by role."""
    apart = {"roles", "range", "memory", "time", "breaks", "estimated", "fit"}
    plain = {name: value for name, value in fields.items() if name not in apart}
    print_fields(plain | fields["memory"] | fields["time"] | fields.get("fit", {}))
    heads = ("low", "planned", "high", "bits", "of the cap")
    print(f"\n{'role':<9}{'parameters':>12}" + "".join(f"{head:>12}" for head in heads))
    for role in fields["roles"]:
        sizes = (role["low_bytes"], role["planned_bytes"], role["high_bytes"])
        counts = "".join(f"{size:>12,}" for size in (role["parameters"], *sizes))
        print(f"{role['role']:<9}{counts}{role['bits_per_weight']:>12.2f}{role['share']:>12.1%}")
    print(fields["range"])


def _role(role: RoleBytes) -> dict[str, Any]:
    sizes = {name: round(size) for name, size in asdict(role).items() if name != "role"}
    bits = 8 * role.planned_bytes / role.parameters
    share = role.planned_bytes / CAP_BYTES
    return {"role": role.role, **sizes, "bits_per_weight": bits, "share": share}


def _whole(roles: list[RoleBytes], end: str, code_bytes: int) -> float:
    return sum(getattr(role, end) for role in roles) + HEADER_BYTES + code_bytes
