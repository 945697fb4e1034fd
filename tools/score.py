"""Score an artifact: bits per byte over every target of a validation split, on either engine."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from core.artifact.container import read, weights
from core.data.batches import Data
from core.score.scoring import Score, open_validation, score
from core.train.events import score_fields
from tools.backends import add_backend, choose, load
from tools.say import note, print_fields, print_json

BATCH = Score().batch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", type=Path, help="a model.bin")
    parser.add_argument("--data", required=True, help="folder of shards")
    parser.add_argument("--tokenizer", required=True, help="the SentencePiece model of the shards")
    add_backend(parser)
    parser.add_argument("--precision", choices=("fp32", "cast", "autocast"), default="fp32")
    parser.add_argument("--batch", type=int, default=BATCH, help="windows a forward pass")
    parser.add_argument(
        "--limit-tokens", type=int, default=0, help="score only the first N targets: a subset"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    fields = score_artifact(
        args.artifact.read_bytes(),
        Data(path=args.data, tokenizer=args.tokenizer),
        Score(batch=args.batch, limit_tokens=args.limit_tokens),
        choose(args.backend),
        args.precision,
    )
    (print_json if args.json else print_fields)(fields)
    return 0


def score_artifact(
    data: bytes, where: Data, settings: Score, backend: str, precision: str
) -> dict[str, Any]:
    """The fields of `golf score`."""
    artifact = read(data)
    spec = artifact.spec
    if spec is None:
        raise ValueError("the artifact names no ModelSpec, so there is no model to score")
    validation = open_validation(where, spec.vocab_size, settings.limit_tokens)
    evaluator = load(backend, "evaluate").open_evaluator(weights(artifact), spec, precision)
    started = time.perf_counter()
    scored = score(evaluator.nats, validation, spec.seq_len, settings.batch, _tell)
    return {
        **score_fields(scored, validation),
        "seconds": time.perf_counter() - started,
        "protocol": {"windows": "chunked", "seq_len": spec.seq_len, "batch": settings.batch},
        "modified": [],
        "backend": backend,
        "precision": precision,
    }


def _tell(done: int, of: int) -> None:
    """A line for every tenth."""
    if done * 10 // of > (done - 1) * 10 // of and done < of and of > 1_000_000:
        note(f"scored {done:,} of {of:,} targets")
