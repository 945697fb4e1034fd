"""Fetch the task's published data from the Hub: planned, parallel, gone on with, checked."""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from core.data.shards import open_sidecar
from tools.environment import hub_source, variables
from tools.published.fetched import Plan, alone, carry_out, compare, need_space, survey
from tools.published.hub import difference, look, obtain, size
from tools.published.origin import own_folder, read_record
from tools.published.remarks import beyond, remarks, replaced
from tools.published.variants import (
    MANIFEST,
    MANIFEST_BYTES,
    TRAIN_SHARDS,
    Choice,
    Entry,
    Listing,
    Source,
    choose,
    read_published_manifest,
)
from tools.say import UsageError, note, print_fields, print_json

ASSUMED_BYTES_PER_S = 50e6  # where nothing was fetched before
WORKERS = 8

Told = Callable[[int], AbstractContextManager[Callable[[int, None], None]]]  # of so many bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", nargs="?", type=int, help="as --train-shards")
    parser.add_argument("--variant", default="sp1024", help="sp1024, sp8192, byte260, ...")
    parser.add_argument("--train-shards", type=int, metavar="N", help=f"({TRAIN_SHARDS})")
    parser.add_argument("--with-docs", action="store_true", help="the documents too: 48 GB")
    parser.add_argument("--out", type=Path, help="(data; another repository's: a folder in it)")
    parser.add_argument("--repo-id", help="or MATCHED_FINEWEB_REPO_ID")
    parser.add_argument("--remote-root", help="or MATCHED_FINEWEB_REMOTE_ROOT_PREFIX")
    parser.add_argument("--revision", default="main", help="a branch, a tag or a commit")
    parser.add_argument("--workers", type=int, default=WORKERS, help="files at once")
    parser.add_argument("--plan", action="store_true", help="say what would be done, and end")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace, told: Told) -> int:
    """`told` shows how far it is."""
    source, wanted = _source(args), _train_shards(args)
    out = args.out or own_folder(source)
    listing = look(source, read_record(out, source).listing)
    choice = choose(
        listing,
        _manifest(listing, out),
        args.variant,
        train_shards=wanted,
        with_docs=args.with_docs,
    )
    for remark in choice.notes:
        note(remark)
    if args.plan:
        plan = survey(out, listing, choice, read_record(out, source))
        fields = _fields(plan, args.variant)
        _remark(plan)
        (print_json if args.json else print_fields)(fields)
        need_space(plan)
        return 0
    begun_s = time.monotonic()
    try:
        fields = _brought(out, listing, choice, args, told)
    except KeyboardInterrupt:
        note(f"what has come is kept in {out}; the same command goes on from there")
        raise
    if args.json:
        print_json({**fields, "took_s": round(time.monotonic() - begun_s, 3)})
    else:
        print("\n".join(_words(fields)))
    return 0


def _brought(
    out: Path, listing: Listing, choice: Choice, args: argparse.Namespace, told: Told
) -> dict[str, Any]:
    """All of it in its place; what was planned."""
    with alone(out):
        plan = survey(out, listing, choice, read_record(out, listing.source))
        there_bytes = sum(entry.size_bytes for entry in plan.here)
        if plan.here:
            note(f"comparing {len(plan.here)} files that are here, {there_bytes:,} bytes")
        with told(there_bytes) as tell:
            plan = compare(plan, args.workers, _summed(tell, 0))
        fields = _fields(plan, args.variant)
        note(_sentence(fields))
        _remark(plan)
        need_space(plan)
        to_come = sum(entry.size_bytes for entry in plan.coming)
        begun = sum(size(plan.part(entry)) for entry in plan.from_network)
        with told(to_come) as tell:
            carry_out(plan, args.workers, _summed(tell, begun))
    open_sidecar(out / choice.folder)  # as long as the tokens it belongs to
    return fields


def _remark(plan: Plan) -> None:
    for sentence in remarks(plan):
        note(sentence)


def _source(args: argparse.Namespace) -> Source:
    given = {"repo_id": args.repo_id, "remote_root": args.remote_root}
    fields = {name: value for name, value in given.items() if value is not None}
    fields = {**hub_source(variables()), **fields, "revision": args.revision}
    if "remote_root" in fields:
        fields["remote_root"] = fields["remote_root"].strip("/")
    return Source(**fields)


def _train_shards(args: argparse.Namespace) -> int | None:
    if args.workers < 1:
        raise UsageError(f"--workers {args.workers} must be at least 1")
    if args.shards is not None and args.train_shards is not None:
        raise UsageError(f"{args.shards} and --train-shards {args.train_shards}: name one of them")
    wanted: int | None = args.shards if args.train_shards is None else args.train_shards
    if wanted is not None and wanted < 0:
        raise UsageError(f"{wanted} train shards must not be negative")
    return wanted


def _manifest(listing: Listing, out: Path) -> dict[str, Any]:
    """What is published says more than file names; nothing is put in its place yet."""
    entry = listing.entries.get(MANIFEST)
    if entry is None:
        return {}
    if entry.size_bytes > MANIFEST_BYTES:
        raise ValueError(
            f"{MANIFEST}: {entry.size_bytes:,} bytes; at most {MANIFEST_BYTES:,} are read"
        )
    local = out / MANIFEST
    if local.exists() and not difference(local, entry):
        return read_published_manifest(local.read_bytes(), listing.source)
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / MANIFEST
        obtain(listing, entry, part, lambda more: None)
        return read_published_manifest(part.read_bytes(), listing.source)


def _fields(plan: Plan, variant: str) -> dict[str, Any]:
    source, choice = plan.listing.source, plan.choice
    tokenizer = None if choice.tokenizer is None else str(plan.out / choice.tokenizer)
    speed = plan.record.bytes_per_s or ASSUMED_BYTES_PER_S
    return {
        "repo_id": source.repo_id,
        "remote_root": source.remote_root,
        "commit": plan.listing.commit,
        "variant": variant,
        "out": str(plan.out),
        "train_shards": len(choice.train),
        "train_shards_read": len(choice.train) + len(beyond(plan)),  # by training: all there are
        "published_train_shards": choice.published_train,
        "val_shards": len(choice.val),
        "sidecars": len(choice.sidecars),
        **_counted("here", plan.here),
        **_counted("coming", plan.coming),
        "cached_files": len(plan.coming) - len(plan.from_network),
        "fetch_bytes": plan.fetch_bytes,
        "replaced": replaced(plan),
        "disk_bytes": plan.disk_bytes,
        "free_bytes": plan.free_bytes,
        "seconds": round(plan.fetch_bytes / speed, 1),
        "bytes_per_s": round(speed),
        "speed": "measured last time" if plan.record.bytes_per_s else "assumed",
        "data_path": str(plan.out / choice.folder),
        "tokenizer": tokenizer,
        "vocab_size": choice.vocab_size,
    }


def _counted(name: str, entries: list[Entry]) -> dict[str, int]:
    return {f"{name}_files": len(entries), f"{name}_bytes": sum(e.size_bytes for e in entries)}


def _sentence(fields: dict[str, Any]) -> str:
    return (
        "{repo_id} at {commit:.12}: {variant}, {train_shards} of {published_train_shards} train "
        "shards; {here_files} files are here, {coming_files} to come: {fetch_bytes:,} bytes to "
        "fetch, {free_bytes:,} free, about {seconds:.0f} s at {mb_per_s:.0f} MB/s ({speed})"
    ).format(**fields, mb_per_s=fields["bytes_per_s"] / 1e6)


def _words(fields: dict[str, Any]) -> list[str]:
    """For a recipe: what differs from its defaults, and the two paths in any case."""
    words = [f"data.path={fields['data_path']}"]
    if fields["tokenizer"] is not None:
        words.append(f"data.tokenizer={fields['tokenizer']}")
    if fields["vocab_size"] is not None:
        words.append(f"arch.vocab_size={fields['vocab_size']}")
    return words


def _summed(tell: Callable[[int, None], None], begun: int) -> Callable[[int], None]:
    """News of more bytes, from any thread, as the bytes there are."""
    lock, done = threading.Lock(), begun

    def more(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            tell(done, None)

    return more
