"""Train a SentencePiece tokenizer with the task's settings."""

from __future__ import annotations

import argparse
from pathlib import Path

from core.data.documents import read_documents
from core.data.token_bytes import byte_table, check_table
from core.data.tokenizer import train_tokenizer
from tools.say import note, print_fields


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    make = verbs.add_parser("train", help="documents to a SentencePiece BPE model")
    make.add_argument("inputs", nargs="+", type=Path, help=".jsonl, .jsonl.gz, .txt or folders")
    make.add_argument("--vocab-size", type=int, default=1024)
    make.add_argument("--out", required=True, type=Path, help="the .model file to write")
    make.set_defaults(run=run_train)


def run_train(args: argparse.Namespace) -> int:
    tokenizer = train_tokenizer(read_documents(args.inputs), args.vocab_size, args.out)
    check_table(byte_table(tokenizer), tokenizer)
    if tokenizer.vocab_size != args.vocab_size:
        note(f"the text gave {tokenizer.vocab_size} pieces, fewer than --vocab-size")
    print_fields(
        {"model": str(args.out), "vocab_size": tokenizer.vocab_size, "sha256": tokenizer.sha256}
    )
    return 0
