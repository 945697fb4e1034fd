"""Documents to shards, and what a shard or a folder holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from core.data.documents import read_documents
from core.data.export import data_info, tokenize
from core.data.tokenizer import open_tokenizer
from tools.say import note, print_fields, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    make = verbs.add_parser("tokenize", help="documents (.jsonl, .jsonl.gz, .txt) to shards")
    make.add_argument("inputs", nargs="+", type=Path, help="files or folders")
    make.add_argument("--tokenizer", required=True, help="a SentencePiece model")
    make.add_argument("--out", required=True, type=Path, help="a new folder")
    make.add_argument("--val-docs", type=int, default=50_000, help="the first N are validation")
    make.add_argument("--shard-tokens", type=int, default=100_000_000)
    make.add_argument("--json", action="store_true", help="the manifest on stdout")
    make.set_defaults(run=run_tokenize)
    info = verbs.add_parser("info", help="tokens, documents, bytes and hash")
    info.add_argument("path", type=Path, help="a shard, or a folder of them")
    info.add_argument("--tokenizer", required=True, help="the SentencePiece model of the shards")
    info.add_argument("--json", action="store_true", help="one JSON object on stdout")
    info.set_defaults(run=run_info)


def run_tokenize(args: argparse.Namespace) -> int:
    tokenizer = open_tokenizer(args.tokenizer)
    manifest = tokenize(
        read_documents(args.inputs),
        tokenizer,
        args.out,
        val_docs=args.val_docs,
        shard_tokens=args.shard_tokens,
        progress=_tell,
    )
    if args.json:
        print_json(manifest)
        return 0
    for split, fields in manifest["splits"].items():
        print(f"[{split}]")
        print_fields(fields)
    return 0


def run_info(args: argparse.Namespace) -> int:
    fields = data_info(args.path, open_tokenizer(args.tokenizer))
    if args.json:
        print_json(fields)
        return 0
    for split, found in fields.items() if args.path.is_dir() else [(args.path.name, fields)]:
        print(f"[{split}]")
        print_fields(found)
    return 0


def _tell(done: int) -> None:
    if done % 10_000 == 0:
        note(f"{done:,} documents")
