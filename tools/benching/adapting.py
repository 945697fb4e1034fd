"""Adapters for 16 documents at once against one document at a time, in one run."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from core.arch.noise import uniform
from core.arch.params import init_params
from core.arch.spec import BOS, ModelSpec
from core.data.shards import TokenStream
from core.data.token_bytes import ByteTable
from core.score.adaptation import Adaptation, Lora, Phased, Sgd
from core.score.adapted import play, warm_up
from core.score.protocols import Protocol
from core.score.scoring import Validation, open_tally
from tools.backends import load
from tools.benching.blocks import Launch, Rules, in_turns
from tools.benching.job import Job
from tools.benching.kernels import against
from tools.benching.sliding import cells, on_clock, spec_of

DOCUMENTS, WINDOW = 16, 64
TOGETHER, APART = "documents at once", "one at a time"
GAPS = {"fp32": 1e-5}  # bits per byte
GAP = 5e-3  # where products are rounded to bf16


def validation_of(spec: ModelSpec, docs_batch: int, rank: int, tokens: int) -> Validation:
    """16 documents of as many tokens, in windows of 64 that do not overlap."""
    how = Adaptation(
        name="lora",
        sgd=Sgd(),
        lora=Lora(rank=rank, alpha=1.8 * rank, docs_batch=docs_batch, warm_a=False),
        phased=Phased(),
    )
    drawn = uniform(1, 2, (DOCUMENTS * tokens + 1,)) * (spec.vocab_size - 2) + 2
    stream = drawn.astype(np.uint16)
    stream[::tokens] = BOS
    ones = np.ones(spec.vocab_size, np.int64)
    table = ByteTable(ones, ones < 0, ones < 0)
    return Validation(
        TokenStream([stream]), None, table, None, "", Protocol(name="docs", seq_len=WINDOW), how
    )


def measure(job: Job) -> dict[str, Any]:
    """The scores are the same. shape: model_dim, rank of the adapters, tokens of a document."""
    backend, (dim, rank, tokens) = job.row.backend, job.shape
    return timed(backend, dim, rank, tokens, job.recipe().precision, job.rules)


def timed(
    backend: str, dim: int, rank: int, tokens: int, precision: str, rules: Rules
) -> dict[str, Any]:
    spec, group = spec_of(dim, WINDOW), load(backend, "distributed").Solo()
    model = load(backend, "evaluate").open_evaluator(init_params(spec, 1), spec, precision)
    learner_of, scores = load(backend, "adapt").Learner, dict[str, float]()

    def form(name: str, docs_batch: int) -> Launch:
        validation = validation_of(spec, docs_batch, rank, tokens)
        learner = learner_of(model.model, validation.adaptation)
        warm_up(learner, validation, spec)

        def launch() -> None:
            tally = open_tally(validation, WINDOW)
            play(learner, validation, WINDOW, DOCUMENTS, tally)
            scores[name] = tally.result().val_bpb

        return launch

    forms = {TOGETHER: form(TOGETHER, DOCUMENTS), APART: form(APART, 1)}
    turns = in_turns(forms, lambda _: None, on_clock(rules, group.device))
    gap = abs(scores[TOGETHER] - scores[APART])
    if gap > GAPS.get(precision, GAP):
        raise ValueError(f"{TOGETHER} and {APART} differ by {gap:.1e} bits per byte")
    return {
        "backend": backend,
        "device": str(group.device),
        "model": f"{spec.num_layers} x {dim}, rank {rank}, {DOCUMENTS} documents of {tokens}",
        "precision": precision,
        "batch": DOCUMENTS,
        "tokens_per_s": DOCUMENTS * tokens / turns.step_s(TOGETHER).median,
        **against(turns, TOGETHER, {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=("torch", "mlx"), nargs="?", default="torch")
    parser.add_argument(
        "--dim", type=int, default=128, help="of the model, whose MLP is twice that"
    )
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=512, help="of a document")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    rules = Rules(blocks=args.rounds, soak_s=0.0)
    found = cells(timed(args.backend, args.dim, args.rank, args.tokens, "fp32", rules))
    print(f"{args.backend}: {', '.join(f'{name} {cell}' for name, cell in found.items())}")
