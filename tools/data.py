"""Documents to shards, and what a shard or a folder holds."""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from core.data.documents import input_files
from core.data.export import (
    check_manifest,
    read_manifest,
    retokenize,
    tokenize_files,
)
from core.data.findings import Finding
from core.data.info import data_info
from core.data.shards import SHARD_TOKENS, split_files
from core.data.tokenizer import open_tokenizer
from core.data.unfinished import unfinished_folder
from core.data.verify import bytes_to_read, verify
from tools import data_get
from tools.say import UsageError, note, print_fields, print_json

EVERY_S = 10.0  # between plain lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    get = verbs.add_parser(
        "get", help="the task's published data from the Hub", description=data_get.__doc__
    )
    data_get.add_arguments(get)
    get.set_defaults(run=lambda args: data_get.run(args, told))
    make = verbs.add_parser("tokenize", help="documents (.jsonl, .jsonl.gz, .txt) to shards")
    make.add_argument("inputs", nargs="*", type=Path, help="files or folders")
    make.add_argument("--from-shards", type=Path, metavar="DIR", help="shards in place of inputs")
    make.add_argument("--old-tokenizer", help="what the shards of --from-shards were made with")
    make.add_argument(
        "--tokenizer",
        required=True,
        help="a file, or byte260; a model with the controls of --case transforms the text itself",
    )
    make.add_argument("--out", required=True, type=Path, help="a new folder")
    make.add_argument("--val-docs", type=int, help="the first N are validation (50,000)")
    make.add_argument("--shard-tokens", type=int, default=SHARD_TOKENS)
    make.add_argument("--workers", type=int, default=_cores(), help="processes (one a core)")
    make.add_argument("--json", action="store_true", help="the manifest on stdout")
    make.set_defaults(run=run_tokenize)
    check = verbs.add_parser("verify", help="whether shards are what they say; 1 if not")
    check.add_argument("path", type=Path, help="a folder of shards, or one")
    check.add_argument("--tokenizer", required=True, help="the tokenizer of the shards")
    check.add_argument("--json", action="store_true", help="the findings on stdout")
    check.set_defaults(run=run_verify)
    info = verbs.add_parser("info", help="tokens, documents, bytes and hash")
    info.add_argument("path", type=Path, help="a shard, or a folder of them")
    info.add_argument("--tokenizer", required=True, help="the tokenizer of the shards")
    info.add_argument("--json", action="store_true", help="one JSON object on stdout")
    info.set_defaults(run=run_info)


def run_tokenize(args: argparse.Namespace) -> int:
    _check_words(args)
    try:
        manifest = _retokenized(args) if args.from_shards else _tokenized(args)
    except BaseException:
        if (left := unfinished_folder(args.out)).exists():
            note(f"what is done is kept in {left}; the same command goes on from there")
        raise
    if args.json:
        print_json(manifest)
        return 0
    for split, fields in manifest["splits"].items():
        print(f"[{split}]")
        print_fields({**fields, **_difference(fields, "normalised_bytes", "raw_bytes")})
    if not manifest["splits"]["train"]["documents"]:
        note("no document is left to train on: all of them are validation; lower --val-docs")
    return 0


def run_verify(args: argparse.Namespace) -> int:
    tokenizer = open_tokenizer(args.tokenizer)
    read = 0
    with told(bytes_to_read(args.path)) as tell:

        def more(count: int) -> None:
            nonlocal read
            read += count
            tell(read, None)

        findings = verify(args.path, tokenizer, progress=more)
    if args.json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        _print_findings(findings)
    return int(any(finding.status == "FAIL" for finding in findings))


def run_info(args: argparse.Namespace) -> int:
    tokenizer = open_tokenizer(args.tokenizer)
    manifest = read_manifest(args.path if args.path.is_dir() else args.path.parent)
    if manifest is not None:
        check_manifest(manifest, tokenizer)
    fields = data_info(args.path, tokenizer)
    if args.json:
        print_json(fields)
        return 0
    for split, found in fields.items() if args.path.is_dir() else [(args.path.name, fields)]:
        print(f"[{split}]")
        print_fields({**found, **_difference(found, "bytes_reference", "bytes_raw")})
    return 0


def _difference(fields: dict[str, Any], counted: str, raw: str) -> dict[str, int]:
    """Bytes that the tokens stand for beyond the documents' own; fewer, where it is below 0."""
    if fields[raw] is None:
        return {}
    return {"bytes_difference": fields[counted] - fields[raw]}


def _check_words(args: argparse.Namespace) -> None:
    if args.from_shards and args.inputs:
        raise UsageError(f"documents ({args.inputs[0]}, ...) and --from-shards: name one of them")
    if not args.from_shards and not args.inputs:
        raise UsageError("nothing to tokenize; name files or folders of documents")
    if bool(args.from_shards) != bool(args.old_tokenizer):
        raise UsageError("--from-shards DIR and --old-tokenizer MODEL go together")
    if args.from_shards and args.val_docs is not None:
        raise UsageError("--val-docs: shards keep their own split; leave it away")


def _tokenized(args: argparse.Namespace) -> dict[str, Any]:
    tokenizer = open_tokenizer(args.tokenizer)
    with told(sum(file.stat().st_size for file in input_files(args.inputs))) as tell:
        return tokenize_files(
            args.inputs,
            tokenizer,
            args.out,
            val_docs=50_000 if args.val_docs is None else args.val_docs,
            shard_tokens=args.shard_tokens,
            workers=args.workers,
            progress=tell,
        )


def _retokenized(args: argparse.Namespace) -> dict[str, Any]:
    old, new = open_tokenizer(args.old_tokenizer), open_tokenizer(args.tokenizer)
    files = [*split_files(args.from_shards, "val"), *split_files(args.from_shards, "train")]
    with told(sum(file.stat().st_size for file in files)) as tell:
        return retokenize(
            args.from_shards,
            old,
            new,
            args.out,
            shard_tokens=args.shard_tokens,
            workers=args.workers,
            progress=tell,
        )


class Told:
    """Hears bytes read (and documents done): a bar on a terminal, else a line now and then."""

    def __init__(self, total_bytes: int, bar: Progress | None) -> None:
        self.total_bytes, self.bar = total_bytes, bar
        self.first: tuple[float, int] | None = None  # seconds and bytes of the first news
        self.last_s = time.monotonic()
        if bar is not None:
            self.task = bar.add_task("", total=total_bytes)

    def __call__(self, read_bytes: int, documents: int | None) -> None:
        now_s = time.monotonic()
        said = "" if documents is None else f"{documents:,} documents"
        if self.bar is not None:
            if self.first is None:  # what an earlier start had read is not this one's speed
                self.bar.reset(self.task, completed=read_bytes)
            self.bar.update(self.task, completed=read_bytes, description=said)
        elif now_s - self.last_s >= EVERY_S:
            self.last_s = now_s
            note(self.line(read_bytes, said, now_s))
        self.first = self.first or (now_s, read_bytes)

    def line(self, read_bytes: int, said: str, now_s: float) -> str:
        parts = [f"{read_bytes:,} of {self.total_bytes:,} bytes", said]
        if self.first is not None and read_bytes > self.first[1]:
            per_s = (read_bytes - self.first[1]) / max(now_s - self.first[0], 1e-9)
            left_s = (self.total_bytes - read_bytes) / per_s
            parts += [f"{per_s / 1e6:.1f} MB/s", f"{left_s:.0f} s left"]
        return ", ".join(part for part in parts if part)


@contextmanager
def told(total_bytes: int) -> Iterator[Told]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Told(total_bytes, None)
        return
    columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    text = TextColumn("{task.description}")
    with Progress(BarColumn(), *columns, text, console=console, transient=True) as bar:
        yield Told(total_bytes, bar)


def _print_findings(findings: list[Finding]) -> None:
    for finding in findings:
        print(f"{finding.status:<9}  {finding.rule:<15}  {finding.subject}: {finding.evidence}")
    counts = Counter(finding.status for finding in findings)
    print(", ".join(f"{counts[status]} {status}" for status in ("PASS", "FAIL", "UNDECIDED")))


def _cores() -> int:
    """Those this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
