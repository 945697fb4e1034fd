"""Shards, tokenizer, sidecar, a claimed byte table, and the documents behind."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.data.findings import Finding
from core.data.lossy import why_lossy
from core.data.pieces import Tokenizer
from core.data.shards import sidecar_files, split_files
from core.data.token_bytes import byte_table
from core.data.tokenizer import open_tokenizer
from core.data.verify import bytes_to_read, verify
from core.score.book import open_questions, ruled
from core.score.rules import VALIDATION_BYTES, found
from tools.auditing.byte_faults import table_findings, vocabulary_findings
from tools.auditing.claimed import ClaimedTable, read_claimed
from tools.auditing.documents import against, read_originals
from tools.auditing.streams import Stream, read_stream
from tools.auditing.verdicts import as_markdown, as_text, failed, in_order
from tools.data import told
from tools.say import UsageError, print_json

VAL_DOCS = 50_000  # the first of the task's documents


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="a folder of shards, or one shard")
    parser.add_argument("--tokenizer", required=True, help="the tokenizer of the shards")
    parser.add_argument(
        "--table", type=Path, help="a claimed byte table (.npz, .npy, .json), read as data"
    )
    parser.add_argument(
        "--documents", nargs="+", type=Path, metavar="FILE", help="what the shards were made of"
    )
    parser.add_argument(
        "--val-docs",
        type=int,
        default=VAL_DOCS,
        help=f"documents of the whole validation split ({VAL_DOCS:,})",
    )
    told_as = parser.add_mutually_exclusive_group()
    told_as.add_argument("--json", action="store_true", help="one JSON object on stdout")
    told_as.add_argument("--markdown", action="store_true", help="a report for a review thread")
    parser.set_defaults(run=run_data)


def run_data(args: argparse.Namespace) -> int:
    if args.val_docs < 1:
        raise UsageError(f"--val-docs {args.val_docs} must be positive")
    tokenizer = open_tokenizer(args.tokenizer)
    findings, fields = audit_data(
        args.path, tokenizer, table=args.table, documents=args.documents, val_docs=args.val_docs
    )
    if args.json:
        print_json(
            {
                "passes": not failed(findings),
                "findings": [asdict(one) for one in findings],
                "validation": fields,
            }
        )
    elif args.markdown:
        title = f"Audit of data: {args.path.name}, {tokenizer.name}"
        print(as_markdown(title, [fields] if fields else [], findings))
    else:
        print(as_text([fields] if fields else [], findings))
    return int(failed(findings))


def audit_data(
    path: Path,
    tokenizer: Tokenizer,
    *,
    table: Path | None = None,
    documents: Sequence[Path] | None = None,
    val_docs: int = VAL_DOCS,
) -> tuple[list[Finding], dict[str, Any]]:
    """Findings, and the sums over validation. ValueError where there is nothing to look at."""
    claim = None
    findings = _verified(path, tokenizer)
    if table is not None:
        claim, entries = read_claimed(table, byte_table(tokenizer))
        findings += table_findings(claim, tokenizer, table.name)
        if entries > tokenizer.vocab_size:
            more = entries - tokenizer.vocab_size
            said = f"{more} entries more than the tokenizer has pieces: no token reaches them"
            findings.append(ruled("vocabulary", "PASS", table.name, said))
    val, train, sidecar = _files(path)
    findings += vocabulary_findings(tokenizer, bool(sidecar))
    findings.append(_lossless(tokenizer))
    fields: dict[str, Any] = {}
    try:
        stream = read_stream(val, sidecar, tokenizer, claim) if val else None
    except ValueError as error:
        stream = None
        findings.append(ruled("B9", "UNDECIDED", "validation", f"not to be read: {error}"))
    if stream is not None:
        fields = _fields(stream, claim)
        findings += [*_whole(stream, val_docs), *_counted(stream, claim, table)]
    if documents and stream is not None:
        total = sum(file.stat().st_size for file in documents if file.is_file())
        with told(total) as tell:
            originals = read_originals(documents, tokenizer, val_docs, tell)
        findings += against(originals, stream, train, tokenizer, val_docs)
        fields["document_bytes"] = originals.raw_bytes
    return in_order([*findings, *open_questions("data")]), fields


def _verified(path: Path, tokenizer: Tokenizer) -> list[Finding]:
    """What `golf data verify` finds."""
    read = 0
    with told(bytes_to_read(path)) as tell:

        def more(count: int) -> None:
            nonlocal read
            read += count
            tell(read, None)

        return verify(path, tokenizer, progress=more)


def _files(path: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Of validation, of training, and the sidecar; one shard is its split, its sidecar beside."""
    if path.is_dir():
        return split_files(path, "val"), split_files(path, "train"), sidecar_files(path)
    if not path.name.startswith("fineweb_val_"):
        return [], [path], []
    beside = path.with_name(path.name.replace("fineweb_val_", "fineweb_val_bytes_"))
    return [path], [], [beside] if beside.is_file() else []


def _lossless(tokenizer: Tokenizer) -> Finding:
    if why := why_lossy(tokenizer):
        return ruled("B8", "UNDECIDED", tokenizer.name, f"{why}: the text itself is another task")
    said = "letters and signs come back as themselves; blanks and compatibility forms apart"
    return found("lossless", "PASS", tokenizer.name, said)


def _whole(stream: Stream, val_docs: int) -> Iterator[Finding]:
    """The assertion that this is the whole split."""
    said = f"{stream.documents:,} documents, {val_docs:,} are the whole split"
    whole = stream.documents == val_docs
    yield ruled("B9", "PASS" if whole else "FAIL", "validation", said)
    low, high = VALIDATION_BYTES
    if val_docs == VAL_DOCS and whole and not low <= stream.counted <= high:
        said = f"{stream.counted:,} bytes; every public log of the whole split implies {low:,} to "
        yield ruled("B15", "UNDECIDED", "validation", f"{said}{high:,}: another text?")


def _counted(stream: Stream, claim: ClaimedTable | None, table: Path | None) -> Iterator[Finding]:
    """The claimed table's total, and the markers of a transform that have bytes."""
    if claim is not None and table is not None:
        ratio = stream.claimed / max(stream.counted, 1)
        said = f"counts {stream.claimed:,.10g} bytes over validation, the exact table "
        said += f"{stream.counted:,}: {ratio:.6f} times"
        if stream.parts:
            yield ruled("decoding", "FAIL", table.name, f"{said}; first at {stream.parts}")
        else:
            yield ruled("decoding", "PASS", table.name, said)
    if stream.marked:
        said = f"{stream.marked:,} markers of the transform have bytes in the sidecar, the first "
        yield ruled("B7", "FAIL", "sidecar", f"{said}at token {stream.first_marked}")


def _fields(stream: Stream, claim: ClaimedTable | None) -> dict[str, Any]:
    return {
        "tokens": stream.tokens,
        "documents": stream.documents,
        "bytes_reference": stream.counted,
        "bytes_raw": stream.raw,
        "bytes_claimed": None if claim is None else stream.claimed,
    }
