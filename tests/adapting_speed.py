"""Adapters for 16 documents at once against one at a time: python -m tests.adapting_speed."""

from __future__ import annotations

import argparse
import time
from statistics import median
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

DOCUMENTS, WINDOW = 16, 64


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


def timed(
    model: Any, learner_of: Any, spec: ModelSpec, validation: Validation
) -> tuple[float, float]:
    """CPU seconds of this process, whoever else is on the machine, and the score."""
    learner = learner_of(model.model, validation.adaptation)
    warm_up(learner, validation, spec)
    tally, before = open_tally(validation, WINDOW), time.process_time()
    play(learner, validation, WINDOW, DOCUMENTS, tally)
    return time.process_time() - before, tally.result().val_bpb


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
    spec = ModelSpec(
        num_layers=4,
        model_dim=args.dim,
        num_heads=4,
        num_kv_heads=2,
        mlp_dim=2 * args.dim,
        seq_len=WINDOW,
    )
    model = load(args.backend, "evaluate").open_evaluator(init_params(spec, 1), spec, "fp32")
    learner_of = load(args.backend, "adapt").Learner
    together = validation_of(spec, DOCUMENTS, args.rank, args.tokens)
    apart = validation_of(spec, 1, args.rank, args.tokens)
    ratios, spent = [], []
    for round_ in range(args.rounds + 1):
        pair = [together, apart] if round_ % 2 else [apart, together]
        found = {id(one): timed(model, learner_of, spec, one) for one in pair}
        (fast_s, fast), (slow_s, slow) = found[id(together)], found[id(apart)]
        assert abs(fast - slow) < 1e-5, (fast, slow)
        if round_:  # the first one allocates
            ratios.append(slow_s / fast_s)
            spent.append(fast_s)
    targets = DOCUMENTS * args.tokens
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(
        f"{args.backend}, 4 x {args.dim}, rank {args.rank}, {DOCUMENTS} documents of {args.tokens}"
    )
    print(f"tokens, windows of {WINDOW}: {targets / median(spent):,.0f} targets a CPU second,")
    print(f"{median(ratios):.2f} times the speed of one at a time ({spread})")


if __name__ == "__main__":
    main()
