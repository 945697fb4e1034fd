"""Train a SentencePiece tokenizer with the task's settings, look into one, compare several."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from core.arch.params import flops_per_token
from core.artifact.ledger import CAP_BYTES
from core.data.byte_tokenizer import BYTE260
from core.data.documents import Sample, read_documents
from core.data.lossy import why_lossy
from core.data.pieces import Tokenizer
from core.data.survey import kinds, survey, unused, why_inexact
from core.data.tokenizer import open_tokenizer, train_tokenizer
from core.train.recipes import baseline
from tools import tokenizer_train
from tools.say import UsageError, note, print_fields, print_json
from tools.tokenizer_train import add_bounds, say_cut

COMPARE_BYTES = 100_000_000
BASELINE_TOKENS_PER_S = 12.0e6  # 9 x 512, 1,024 pieces, sequences of 1,024, on 8xH100
TASK_S = 600
HELD_OUT = 10  # of so many documents, one is measured and not trained on
SHOWN = 20  # unused pieces in a table
COLUMNS = {
    "name": "tokenizer",
    "vocab_size": "pieces",
    "bytes_per_token": "bytes/token",
    "tokens_per_document": "tokens/doc",
    "embedding_bytes": "embedding",
    "embedding_frac": "of cap",
    "tokens_seen": "tokens in 600 s",
    "bytes_seen": "bytes in 600 s",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    make = verbs.add_parser(
        "train", help="documents to a SentencePiece BPE model", description=tokenizer_train.__doc__
    )
    tokenizer_train.add_arguments(make)
    look = verbs.add_parser("inspect", help="pieces, cost, and what it makes of a text")
    look.add_argument("model", help="a tokenizer's file, or byte260")
    look.add_argument("text", nargs="*", help="files or folders to try it on")
    look.add_argument("--model-dim", type=int, default=512)
    look.add_argument("--json", action="store_true", help="one JSON object on stdout")
    look.set_defaults(run=run_inspect, more_words="text")
    both = verbs.add_parser("compare", help="several tokenizers on one text, side by side")
    both.add_argument("tokenizers", nargs="+", help="files, byte260, or sizes to train on the text")
    both.add_argument("--text", nargs="+", type=Path, required=True, help="files or folders")
    both.add_argument("--model-dim", type=int, default=512)
    both.add_argument("--tokens-per-s", type=float, default=BASELINE_TOKENS_PER_S)
    both.add_argument("--keep", type=Path, metavar="DIR", help="where trained models stay")
    add_bounds(both, COMPARE_BYTES)
    both.add_argument("--json", action="store_true", help="one JSON object on stdout")
    both.set_defaults(run=run_compare)


def run_inspect(args: argparse.Namespace) -> int:
    tokenizer = open_tokenizer(args.model)
    fields = described(tokenizer, _positive(args.model_dim, "--model-dim"))
    if args.text:
        fields["text"] = tried(tokenizer, read_documents([Path(path) for path in args.text]))
    if args.json:
        print_json(fields)
        return 0
    text = fields.pop("text", {})
    counts = fields.pop("kinds")
    print_fields({**fields, **{f"{kind} pieces": count for kind, count in counts.items()}})
    if text:
        names = text.pop("unused_pieces")
        more = " ..." if len(names) > SHOWN else ""
        print("[text]")
        print_fields({**text, "for example": " ".join(names[:SHOWN]) + more})
    return 0


def run_compare(args: argparse.Namespace) -> int:
    _positive(args.model_dim, "--model-dim")
    _positive(args.tokens_per_s, "--tokens-per-s")
    _check_named(args.tokenizers)
    sample = Sample(read_documents(args.text), args.train_docs, args.max_bytes)
    if sum(1 for _ in sample) < 2:
        raise ValueError("one document cannot be trained on and measured apart; name more text")
    say_cut(sample, "used")
    with TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        rows = [_row(_named(word, folder, args), args) for word in args.tokenizers]
    assumed = _assumed(args)
    if args.json:
        print_json({"tokenizers": rows, "assumed": assumed, "text": _text_fields(sample)})
    else:
        _print_rows(rows)
        for line in assumed.values():
            note(line)
    return 0


def described(tokenizer: Tokenizer, model_dim: int) -> dict[str, Any]:
    """A tokenizer without any text."""
    why = why_inexact(tokenizer)
    return {
        "name": tokenizer.name,
        "sha256": tokenizer.sha256,
        "vocab_size": tokenizer.vocab_size,
        "kinds": kinds(tokenizer),
        "model_dim": model_dim,
        **embedding(tokenizer.vocab_size, model_dim),
        "transform": tokenizer.transform,
        "lossy": why_lossy(tokenizer) or None,
        "byte_table_exact": not why,
        "byte_table_problem": why or None,
    }


def tried(tokenizer: Tokenizer, documents: Iterable[str]) -> dict[str, Any]:
    found = survey(tokenizer, documents)
    if not found.documents:
        raise ValueError("no documents in the text; name files that hold some")
    names = unused(tokenizer, found)
    return {
        "documents": found.documents,
        "bytes": found.text_bytes,
        "bytes_decoded": found.decoded_bytes,
        "bytes_difference": found.decoded_bytes - found.text_bytes,
        "tokens": found.tokens,
        "bytes_per_token": round(found.bytes_per_token, 4),
        "tokens_per_document": round(found.tokens_per_document, 1),
        "lossless": not found.lost_documents,
        "lost_documents": found.lost_documents,
        "first_lost": found.first_lost,
        "byte_count_problem": found.uncounted or None,
        "unused": len(names),
        "unused_pieces": names,
    }


def embedding(vocab_size: int, model_dim: int) -> dict[str, Any]:
    """Of a tied table as int8 rows with an fp16 scale each, before compression."""
    table_bytes = vocab_size * (model_dim + 2)
    return {
        "embedding_bytes": table_bytes,
        "embedding_frac": round(table_bytes / CAP_BYTES, 4),
    }


def relative_speed(vocab_size: int) -> float:
    """Of the baseline with this vocabulary, to the baseline's own: a larger head is slower."""
    spec = baseline().arch
    return flops_per_token(spec) / flops_per_token(replace(spec, vocab_size=vocab_size))


def _row(tokenizer: Tokenizer, args: argparse.Namespace) -> dict[str, Any]:
    found = survey(tokenizer, _documents(args, measured=True))
    tokens_seen = args.tokens_per_s * relative_speed(tokenizer.vocab_size) * TASK_S
    return {
        "name": tokenizer.name,
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": round(found.bytes_per_token, 4),
        "tokens_per_document": round(found.tokens_per_document, 1),
        **embedding(tokenizer.vocab_size, args.model_dim),
        "tokens_seen": round(tokens_seen),
        "bytes_seen": round(tokens_seen * found.bytes_per_token),
        "lost_documents": found.lost_documents,
        "byte_table_exact": not why_inexact(tokenizer),
    }


def _documents(args: argparse.Namespace, *, measured: bool) -> Iterator[str]:
    """Every tenth of the sample, or the nine others."""
    sample = Sample(read_documents(args.text), args.train_docs, args.max_bytes)
    return (text for n, text in enumerate(sample) if (n % HELD_OUT == 0) == measured)


def _check_named(words: list[str]) -> None:
    for word in words:
        if not word.isdigit() and word != BYTE260 and not Path(word).is_file():
            raise UsageError(f"{word}: neither a .model file that exists nor a number of pieces")


def _named(word: str, folder: Path, args: argparse.Namespace) -> Tokenizer:
    if not word.isdigit():
        return open_tokenizer(word)
    note(f"training {int(word):,} pieces")
    texts = _documents(args, measured=False)
    tokenizer = train_tokenizer(texts, int(word), folder / f"bpe_{word}.model")
    if tokenizer.vocab_size != int(word):
        note(f"the text gave {tokenizer.vocab_size:,} pieces, fewer than {int(word):,}")
    return tokenizer


def _assumed(args: argparse.Namespace) -> dict[str, str]:
    speed = f"{args.tokens_per_s:,.0f} tokens/s with 1,024 pieces"
    if args.tokens_per_s == BASELINE_TOKENS_PER_S:
        speed += " (the baseline's on 8xH100)"
    speed += "; with others by the FLOPs of the baseline with so large a head"
    return {
        "speed": speed,
        "embedding": f"tied, model_dim {args.model_dim}, int8 rows, before compression; "
        f"the cap is {CAP_BYTES:,}",
        "text": f"every {HELD_OUT}th document is measured, sizes are trained on the others",
    }


def _text_fields(sample: Sample) -> dict[str, Any]:
    return {
        "documents": sample.taken_documents,
        "bytes": sample.taken_bytes,
        "cut": sample.cut,
    }


def _print_rows(rows: list[dict[str, Any]]) -> None:
    table = [list(COLUMNS.values())]
    for row in rows:
        shown = {**row, "embedding_frac": f"{row['embedding_frac']:.2%}"}
        table.append([_cell(shown[name]) for name in COLUMNS])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        name, *numbers = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        print("  ".join([cells[0].ljust(len(name)), *numbers]))


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _positive(value: float, name: str) -> Any:
    if not value > 0:
        raise UsageError(f"{name} {value} must be above 0")
    return value
