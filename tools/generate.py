"""Let a packed model write: sample a continuation of a prompt, the same for the same seed."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.arch.noise import stream_of, uniform
from core.artifact.container import Artifact, weights
from core.data.pieces import Tokenizer
from core.data.tokenizer import open_tokenizer
from core.score.scoring import require_vocabulary
from core.train.calibration import NextLogits, drawn
from tools.artifact import open_artifact
from tools.backends import add_backend, choose, load
from tools.say import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", type=Path, help="a model.bin")
    parser.add_argument("--tokenizer", required=True, help="the SentencePiece model")
    parser.add_argument("--prompt", default="", help="text to continue (default: a new document)")
    parser.add_argument(
        "--tokens", type=int, default=100, help="sample at most so many (default 100)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.8, help="0: always the likeliest (default 0.8)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    add_backend(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    tokenizer = open_tokenizer(args.tokenizer)
    if args.tokens < 1 or args.temperature < 0:
        raise UsageError(
            f"--tokens {args.tokens} must be at least 1, "
            f"--temperature {args.temperature} at least 0"
        )
    artifact = open_artifact(args.artifact)
    next_logits, seq_len = open_model(artifact, tokenizer, choose(args.backend))
    print(
        continuation(
            next_logits,
            tokenizer,
            args.prompt,
            seq_len=seq_len,
            tokens=args.tokens,
            temperature=args.temperature,
            seed=args.seed,
        )
    )
    return 0


def open_model(artifact: Artifact, tokenizer: Tokenizer, backend: str) -> tuple[NextLogits, int]:
    """The artifact's model in fp32, and its context length."""
    if artifact.spec is None:
        raise ValueError("the artifact names no ModelSpec, so there is no model to run")
    require_vocabulary(tokenizer, artifact.spec.vocab_size)
    open_evaluator = load(backend, "evaluate").open_evaluator
    evaluator = open_evaluator(weights(artifact), artifact.spec, "fp32")
    return evaluator.next_logits, artifact.spec.seq_len


def continuation(
    next_logits: NextLogits,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    seq_len: int,
    tokens: int,
    temperature: float,
    seed: int,
) -> str:
    """The prompt and what the model adds, up to the start of another document."""
    ids = [tokenizer.bos_id, *tokenizer.encode(prompt)[0].tolist()]
    draws = uniform(seed, stream_of("generate"), (tokens,))
    for draw in draws:
        context = np.array([ids[-seq_len:]], np.int32)
        chosen = sample(next_logits(context)[0], temperature, float(draw))
        if chosen == tokenizer.bos_id:
            break
        ids.append(chosen)
    return tokenizer.decode(ids[1:])


def sample(logits: NDArray[np.float32], temperature: float, draw: float) -> int:
    """The token whose share of the probability line holds `draw`, in [0, 1)."""
    if temperature <= 0:
        return int(logits.argmax())
    return int(drawn(logits.astype(np.float64) / temperature, np.array(draw)))
