"""Sliding windows by the tape against a straightforward loop, in one run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
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
from tools.benching.blocks import Launch, Rules, in_turns
from tools.benching.job import Job
from tools.benching.kernels import against

STRIDE, LOOP_BATCH = 64, 32
BATCHES = (32, 16, 8, 4)
TAPE, LOOP = "this project", "a full window for each stride"
GAPS = {"fp32": 1e-6}  # of the nats
GAP = 1e-3  # where products are rounded to bf16


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


def measure(job: Job) -> dict[str, Any]:
    """Targets and nats are the same. shape: model_dim, seq_len, windows behind the first, batch."""
    backend, (dim, seq_len, windows, batch) = job.row.backend, job.shape
    return timed(backend, spec_of(dim, seq_len), windows, batch, job.recipe().precision, job.rules)


def timed(
    backend: str, spec: ModelSpec, windows: int, batch: int, precision: str, rules: Rules
) -> dict[str, Any]:
    group, evaluate = load(backend, "distributed").Solo(), load(backend, "evaluate")
    model = evaluate.open_evaluator(init_params(spec, 1), spec, precision)
    count = spec.seq_len + windows * STRIDE + 1
    drawn = uniform(1, 2, (count,)) * (spec.vocab_size - 2) + 2
    stream = TokenStream([drawn.astype(np.uint16)])
    nats: dict[str, float] = {}

    def form(name: str, work: Callable[[], float]) -> Launch:
        def launch() -> None:
            nats[name] = work()

        return launch

    forms = {
        TAPE: form(TAPE, lambda: by_the_tape(model, stream, spec, batch)),
        LOOP: form(LOOP, lambda: by_a_loop(model, stream, spec)),
    }
    turns = in_turns(forms, lambda _: None, on_clock(rules, group.device))
    gap = abs(nats[TAPE] / nats[LOOP] - 1)
    if gap > GAPS.get(precision, GAP):
        raise ValueError(f"{TAPE} and {LOOP} differ by {gap:.1e} of the nats")
    return {
        "backend": backend,
        "device": str(group.device),
        "model": f"{spec.num_layers} x {spec.model_dim}, windows of {spec.seq_len}",
        "precision": precision,
        "batch": batch,
        "tokens_per_s": (count - 1) / turns.step_s(TAPE).median,
        **against(turns, TAPE, {}),
    }


def spec_of(dim: int, seq_len: int) -> ModelSpec:
    return ModelSpec(
        num_layers=4,
        model_dim=dim,
        num_heads=4,
        num_kv_heads=2,
        mlp_dim=2 * dim,
        seq_len=seq_len,
    )


def on_clock(rules: Rules, device: Any) -> Rules:
    """Seconds of this process where the device is the processor, whoever else is on the machine."""
    now = time.process_time if "cpu" in str(device) else time.perf_counter
    return replace(rules, steps=1, now=now)


def cells(fields: dict[str, Any]) -> dict[str, str]:
    """Of this, and of adapters."""
    slow = next(name for name in fields["form_ms"] if name != fields["first"])
    low, high = fields["ratio_ranges"][slow]
    counts = "" if fields["counts"][slow] else ", within noise"
    return {
        "model": f"{fields['model']}, {fields['precision']}",
        "batch": str(fields["batch"]),
        "ratio": f"{fields['ratios'][slow]:.2f} ({low:.2f} to {high:.2f}){counts}",
        "A to A": f"±{fields['noise']:.1%}",
        "targets/s": f"{fields['tokens_per_s']:,.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=("torch", "mlx"), nargs="?", default="torch")
    parser.add_argument("--seq-len", type=int, default=1024)
    parser.add_argument("--windows", type=int, default=64, help="behind the first")
    args = parser.parse_args()
    spec, rules = spec_of(256, args.seq_len), Rules(soak_s=0.0)
    for batch in BATCHES:
        found = cells(timed(args.backend, spec, args.windows, batch, "fp32", rules))
        print(f"{args.backend}: {', '.join(f'{name} {cell}' for name, cell in found.items())}")
