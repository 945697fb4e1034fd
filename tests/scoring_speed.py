"""Sliding windows against a straightforward loop, in one run: python -m tests.scoring_speed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from core.arch.noise import uniform
from core.arch.params import init_params
from core.arch.spec import ModelSpec
from core.data.shards import TokenStream
from core.score.bpb import Tally
from core.score.protocols import Protocol
from core.score.scorers import Plain
from core.score.tape import Tape
from core.score.windows import Window
from tools.backends import load

STRIDE, LOOP_BATCH, ROUNDS = 64, 32, 5


def by_the_tape(model: Any, stream: TokenStream, spec: ModelSpec, batch: int) -> float:
    """Nats of all targets."""

    def bytes_of(window: Window) -> tuple[Any, None]:
        return np.ones(window.count, np.int64), None

    windows = Protocol(name="sliding", stride=STRIDE).windows(stream, spec.seq_len)
    tally = Tally(len(stream), has_raw=False)
    Tape(stream, windows, (batch, spec.seq_len), bytes_of, tally).play(Plain(model.nats))
    return tally.result().nats


def by_a_loop(model: Any, stream: TokenStream, spec: ModelSpec) -> float:
    """The same: a full window for every 64 targets, 32 at a time, logits of all of them."""
    tokens, total, size = stream.slice(0, len(stream)).astype(np.int32), 0.0, spec.seq_len
    starts = list(range(0, len(tokens) - size, STRIDE))
    for first in range(0, len(starts), LOOP_BATCH):
        rows = [tokens[at : at + size + 1] for at in starts[first : first + LOOP_BATCH]]
        both = np.stack(rows)
        nats = model.nats(np.ascontiguousarray(both[:, :-1]), np.ascontiguousarray(both[:, 1:]))
        for at, row in zip(starts[first : first + LOOP_BATCH], nats, strict=True):
            total += float(row[0 if at == 0 else size - STRIDE :].astype(np.float64).sum())
    return total


def seconds(work: Callable[[], float]) -> float:
    """Of this process, whoever else is on the machine."""
    before = time.process_time()
    work()
    return time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=("torch", "mlx"), nargs="?", default="torch")
    parser.add_argument("--seq-len", type=int, default=1024)
    parser.add_argument("--windows", type=int, default=64, help="behind the first")
    args = parser.parse_args()
    spec = ModelSpec(
        num_layers=4, model_dim=256, num_heads=4, num_kv_heads=2, mlp_dim=512, seq_len=args.seq_len
    )
    model = load(args.backend, "evaluate").open_evaluator(init_params(spec, 1), spec, "fp32")
    count = spec.seq_len + args.windows * STRIDE + 1
    drawn = uniform(1, 2, (count,)) * (spec.vocab_size - 2) + 2
    stream = TokenStream([drawn.astype(np.uint16)])
    expected = by_a_loop(model, stream, spec)
    print(f"{args.backend}, 4 x 256, windows of {spec.seq_len}, stride {STRIDE}, CPU seconds")
    for batch in (32, 16, 8, 4):
        assert abs(by_the_tape(model, stream, spec, batch) / expected - 1) < 1e-6
        ratios = []
        for _ in range(ROUNDS):
            loop_s = seconds(lambda: by_a_loop(model, stream, spec))
            tape_s = seconds(lambda b=batch: by_the_tape(model, stream, spec, b))
            ratios.append(loop_s / tape_s)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"batches of {batch:2}: {median(ratios):.2f} times the loop's speed ({spread})")


if __name__ == "__main__":
    main()
