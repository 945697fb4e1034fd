"""What a recipe will cost before it is trained: parameters, FLOPs, bytes, memory."""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from core.arch.noise import normal
from core.arch.params import flops_per_token, num_params, param_table
from core.artifact.codecs import encode
from core.artifact.ledger import CAP_BYTES, unbundled_code_bytes
from core.artifact.quant import matrix_shape, quantize_rows, stored_format
from core.train.recipe import Recipe
from tools.recipes import add_recipe, read_recipe
from tools.say import note, print_fields, print_json

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_ROWS = 256
HEADER_BYTES = 4_000  # of the artifact: names and shapes, compressed; no more than this


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser, "baseline")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    recipe = read_recipe(args.words, args.default_recipe)
    fields = plan(recipe)
    (print_json if args.json else print_fields)(fields)
    if fields["margin_bytes"] < 0:
        note(f"this recipe's artifact is estimated over the cap of {CAP_BYTES:,} bytes")
    return 0


def plan(recipe: Recipe) -> dict[str, Any]:
    """The fields of `golf plan`. Artifact and memory are estimates, the rest is exact."""
    code_bytes = unbundled_code_bytes(ROOT)
    artifact_bytes = planned_artifact_bytes(recipe, code_bytes)
    tokens = recipe.data.train_batch_tokens * recipe.schedule.steps
    return {
        "recipe": recipe.name,
        "parameters": num_params(recipe.arch),
        "flops_per_token": flops_per_token(recipe.arch),
        "train_tokens": tokens,
        "train_flops": tokens * flops_per_token(recipe.arch),
        "artifact_bytes": artifact_bytes,
        "code_bytes": code_bytes,
        "margin_bytes": CAP_BYTES - artifact_bytes,
        "memory_bytes": planned_memory_bytes(recipe),
        "estimated": ["artifact_bytes", "margin_bytes", "memory_bytes"],
        "code_label": "unbundled",
    }


def planned_artifact_bytes(recipe: Recipe, code_bytes: int) -> int:
    """Code, and what Gaussian weights of these shapes pack to: about what trained ones do."""
    spent = 0.0
    for row in param_table(recipe.arch):
        if stored_format(row, recipe.quant) == "fp16":
            spent += 2 * row.size
        else:
            rows, cols = matrix_shape(row.shape)
            spent += row.size * bytes_per_weight(cols, recipe.quant.codec) + 2 * rows
    return round(spent) + HEADER_BYTES + code_bytes


@cache
def bytes_per_weight(cols: int, codec: str) -> float:
    """Packed bytes of an int8 Gaussian weight in rows of `cols`, from a sample."""
    sample = normal(0, cols, (SAMPLE_ROWS, cols)).astype(np.float32)
    levels, _ = quantize_rows(sample, 0.0)
    return len(encode(codec, levels.tobytes())) / levels.size


def planned_memory_bytes(recipe: Recipe) -> int:
    """fp32 weights, gradients, moments and average, and one micro-batch's activations.

    Kept for the backward pass: about 12 model_dim + 3 mlp_dim values a token and visit, and three
    copies of the fp32 logits. One rank; no allocator's slack.
    """
    spec, table = recipe.arch, param_table(recipe.arch)
    copies = 2 + (recipe.optim.ema_decay > 0)
    state = sum((copies + (1 if row.rule == "matrix" else 2)) * row.size for row in table) * 4
    rows = recipe.data.micro_batch or recipe.data.train_batch_tokens // spec.seq_len
    width = 4 if recipe.precision == "fp32" else 2
    kept = spec.num_layers * (12 * spec.model_dim + 3 * spec.mlp_dim) * width
    return state + rows * spec.seq_len * (kept + 3 * 4 * spec.vocab_size)
