"""Train a tokenizer on documents: the task's settings, text transformed or kept as it is, or bytes.

A model that is trained with --case is opened as one for transformed text wherever it is used.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from core.data.byte_tokenizer import ByteTokenizer
from core.data.documents import Sample, read_documents
from core.data.pieces import Tokenizer
from core.data.token_bytes import byte_table, check_table
from core.data.tokenizer import LOSSLESS_SETTINGS, train_case_tokenizer, train_tokenizer
from tools.say import UsageError, note, print_fields

TRAIN_BYTES = 500_000_000  # the trainer holds about seven times as much
VOCAB_SIZE = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="*", type=Path, help=".jsonl, .jsonl.gz, .txt or folders")
    parser.add_argument("--vocab-size", type=int, help=f"pieces ({VOCAB_SIZE:,})")
    parser.add_argument("--out", required=True, type=Path, help="the .model file to write")
    parser.add_argument(
        "--case",
        action="store_true",
        help="of case-transformed text: lower case, and four controls for what was upper case",
    )
    parser.add_argument(
        "--lossless",
        action="store_true",
        help="without the task's normalization: blanks and characters stay as they are",
    )
    parser.add_argument(
        "--bytes", action="store_true", help="write the file of byte260 instead, from no text"
    )
    add_bounds(parser, TRAIN_BYTES)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.bytes:
        return _write_bytes(args)
    if not args.inputs:
        raise UsageError("nothing to train on; name files or folders of documents")
    wanted = VOCAB_SIZE if args.vocab_size is None else args.vocab_size
    sample = Sample(read_documents(args.inputs), args.train_docs, args.max_bytes)
    settings = LOSSLESS_SETTINGS if args.lossless else {}
    train = train_case_tokenizer if args.case else train_tokenizer
    tokenizer: Tokenizer = train(sample, wanted, args.out, **settings)
    check_table(byte_table(tokenizer), tokenizer, sidecar=args.case)
    say_cut(sample, "trained on")
    if tokenizer.vocab_size != wanted:
        note(f"the text gave {tokenizer.vocab_size} pieces, fewer than --vocab-size")
    counts = {"documents": sample.taken_documents, "bytes": sample.taken_bytes}
    print_fields(_told(tokenizer, args.out, counts))
    return 0


def _write_bytes(args: argparse.Namespace) -> int:
    given = {"documents": args.inputs, "--case": args.case, "--lossless": args.lossless}
    given["--vocab-size"] = args.vocab_size is not None
    if unused := [name for name, value in given.items() if value]:
        raise UsageError(f"--bytes needs no training: leave {', '.join(unused)} away")
    tokenizer = ByteTokenizer()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(tokenizer.model)
    print_fields(_told(tokenizer, args.out, {}))
    return 0


def _told(tokenizer: Tokenizer, out: Path, counts: dict[str, int]) -> dict[str, Any]:
    transform = {} if tokenizer.transform is None else {"transform": tokenizer.transform}
    return {
        "model": str(out),
        "vocab_size": tokenizer.vocab_size,
        **transform,
        **counts,
        "sha256": tokenizer.sha256,
    }


def say_cut(sample: Sample, done: str) -> None:
    if sample.cut:
        note(
            f"{done} the first {sample.taken_documents:,} documents, {sample.taken_bytes:,} bytes; "
            "the rest is left out (--train-docs, --max-bytes)"
        )


def add_bounds(parser: argparse.ArgumentParser, max_bytes: int) -> None:
    parser.add_argument("--train-docs", type=int, default=0, help="the first N documents (0: all)")
    parser.add_argument(
        "--max-bytes",
        type=int,
        default=max_bytes,
        help=f"of text, from the beginning (0: all; default {max_bytes:,})",
    )
