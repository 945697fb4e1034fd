"""Published data: what a source lists, and which of it a variant, its tokenizer and N shards are.

Pure functions of a listing and a manifest, both written by strangers.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from tools.say import UsageError

MANIFEST = "manifest.json"
DOCUMENTS, DOCUMENTS_SIDECAR = "docs_selected.jsonl", "docs_selected.source_manifest.json"
FAMILY = "fineweb10B_"  # what the names of folders begin with, and those of variants do not
TRAIN_SHARDS = 80  # of a hundred million tokens, unless told otherwise
MANIFEST_BYTES = 1 << 24  # more is no manifest
SHARD = re.compile(r"(?P<folder>.+)/fineweb_(?P<split>train|val|val_bytes)_(?P<number>\d{6})\.bin")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A folder of a dataset repository, at a revision."""

    repo_id: str = "willdepueoai/parameter-golf"  # the task's own
    remote_root: str = "datasets"
    revision: str = "main"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo_id) or ".." in self.repo_id:
            raise UsageError(f"repository {self.repo_id!r}: expected OWNER/NAME")
        if self.remote_root and not _inside(self.remote_root):
            raise UsageError(
                f"remote root {self.remote_root!r}: expected a folder of the repository, as "
                f"{Source.remote_root!r}, or nothing for its top"
            )

    def path(self, below: str) -> str:
        return f"{self.remote_root}/{below}" if self.remote_root else below


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file as it is listed."""

    path: str  # below the remote root
    size_bytes: int
    oid: str  # SHA-256 in 64 digits, or git's blob id in 40


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a source holds: by the Hub, or, offline, by what was fetched before."""

    source: Source
    commit: str
    entries: dict[str, Entry]
    offline: bool = False


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is wanted of a listing."""

    folder: str  # of the shards
    tokenizer: str | None  # its file
    vocab_size: int | None
    train: list[Entry]
    published_train: int  # how many train shards there are
    val: list[Entry]
    sidecars: list[Entry]  # bytes of every validation token; not shards of tokens
    others: list[Entry]  # manifest, tokenizer, documents
    notes: list[str] = field(default_factory=list)

    @property
    def entries(self) -> list[Entry]:
        """Small files first: what is wrong with them is known soon."""
        return [*self.others, *self.sidecars, *self.val, *self.train]


def entries_below(source: Source, listed: Iterable[tuple[str, int, str]]) -> dict[str, Entry]:
    """Entries by their path below the remote root; a path that leads out of it is refused."""
    entries, before = {}, source.path("")
    for path, size_bytes, oid in listed:
        below = path.removeprefix(before)
        if not path.startswith(before) or not _inside(below):
            raise ValueError(f"{source.repo_id} lists {path!r}, which is no path below {before!r}")
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", oid) or size_bytes < 0:
            raise ValueError(
                f"{source.repo_id} lists {path!r} with hash {oid!r}, {size_bytes} bytes"
            )
        entries[below] = Entry(path=below, size_bytes=size_bytes, oid=oid)
    return entries


def read_published_manifest(content: bytes, source: Source) -> dict[str, Any]:
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{MANIFEST} of {source.repo_id}: expected JSON ({error})") from None
    if not isinstance(manifest, dict):
        raise ValueError(f"{MANIFEST} of {source.repo_id}: expected an object")
    return manifest


def choose(
    listing: Listing,
    manifest: dict[str, Any],
    variant: str,
    *,
    train_shards: int | None = None,
    with_docs: bool = False,
) -> Choice:
    """The files of a variant: the first N train shards, all of validation, what belongs to them."""
    folder = _folder(listing, manifest, variant)
    splits = _splits(listing, folder)
    for split, found in splits.items():
        _need_all_numbers(folder, split, found)
    row = _row(manifest, "datasets", PurePosixPath(folder).name)
    tokenizer, notes = _tokenizer(listing, manifest, row, variant)
    docs = _documents(listing) if with_docs else []
    published = len(splits["train"])
    return Choice(
        folder=folder,
        tokenizer=tokenizer[0].path if tokenizer else None,
        vocab_size=row.get("vocab_size") if isinstance(row.get("vocab_size"), int) else None,
        train=splits["train"][: _how_many(train_shards, published, folder, listing)],
        published_train=published,
        val=splits["val"],
        sidecars=splits["val_bytes"],
        others=[*_present(listing, [MANIFEST]), *tokenizer, *docs],
        notes=notes,
    )


def _folder(listing: Listing, manifest: dict[str, Any], variant: str) -> str:
    """Where the shards are, as sp1024 in datasets/fineweb10B_sp1024; else what there is."""
    folders = _folders(listing)
    for folder in folders:
        if PurePosixPath(folder).name in (variant, FAMILY + variant):
            return folder
    names = {PurePosixPath(folder).name: count for folder, count in folders.items()}
    there = [f"{n.removeprefix(FAMILY)} ({count} train shards)" for n, count in names.items()]
    problem = f"{listing.source.repo_id} has no variant {variant!r}"
    problem += f"; it has {', '.join(there)}" if there else ", and no shards at all"
    named = {row["name"] for row in _rows(manifest, "datasets")} - set(names)
    if named:
        without = ", ".join(sorted(name.removeprefix(FAMILY) for name in named))
        problem += f"; {MANIFEST} also names {without}, without files"
    raise ValueError(
        f"{problem}. Choose one with --variant or another repository with --repo-id; `golf data "
        "tokenize` makes any variant from documents"
    )


def _folders(listing: Listing) -> dict[str, int]:
    """Folders with shards of tokens, and how many of them are for training."""
    found: dict[str, int] = defaultdict(int)
    for path in sorted(listing.entries):
        match = SHARD.fullmatch(path)
        if match and match["split"] != "val_bytes":
            found[match["folder"]] += match["split"] == "train"
    return dict(found)


def _splits(listing: Listing, folder: str) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {"train": [], "val": [], "val_bytes": []}
    for path, entry in sorted(listing.entries.items()):
        match = SHARD.fullmatch(path)
        if match and match["folder"] == folder:
            found[match["split"]].append(entry)
    return found


def _need_all_numbers(folder: str, split: str, found: list[Entry]) -> None:
    if split == "val" and not found:
        raise ValueError(f"{folder} has no validation shards; nothing could be scored with it")
    for number, entry in enumerate(found):
        expected = f"fineweb_{split}_{number:06d}.bin"
        if not entry.path.endswith(f"/{expected}"):
            raise ValueError(
                f"{folder}: {expected} is missing where it is published; ask its owner"
            )


def _how_many(wanted: int | None, published: int, folder: str, listing: Listing) -> int:
    if wanted is not None and wanted > published:
        known = "known without the network" if listing.offline else "published"
        raise ValueError(f"{folder}: {wanted} train shards wanted, {published} are {known}")
    return min(published, TRAIN_SHARDS) if wanted is None else wanted


def _tokenizer(
    listing: Listing, manifest: dict[str, Any], row: dict[str, Any], variant: str
) -> tuple[list[Entry], list[str]]:
    """The files of the manifest's tokenizer for this data, the model first; or by their names."""
    made_with = _row(manifest, "tokenizers", row.get("tokenizer_name"))
    named = [made_with.get(key) for key in ("model_path", "path", "vocab_path")]
    paths = [path for path in named if isinstance(path, str)]
    if not paths and (match := re.match(r"sp(\d+)$", variant.removeprefix(FAMILY))):
        paths = [f"tokenizers/fineweb_{match[1]}_bpe.{kind}" for kind in ("model", "vocab")]
    found = _present(listing, paths)
    if found and found[0].path == paths[0]:
        return found, []
    there = sorted(p for p in listing.entries if p.startswith("tokenizers/"))
    return [], [
        f"no tokenizer for {variant}: {paths[0] if paths else MANIFEST + ' names none'}; "
        f"published are {', '.join(there) or 'none'}"
    ]


def _documents(listing: Listing) -> list[Entry]:
    found = _present(listing, [DOCUMENTS, DOCUMENTS_SIDECAR])
    if not found or found[0].path != DOCUMENTS:
        raise ValueError(
            f"{listing.source.repo_id} has no {DOCUMENTS}; leave --with-docs away, or name a "
            "repository that has it with --repo-id"
        )
    return found


def _present(listing: Listing, paths: list[str]) -> list[Entry]:
    return [listing.entries[path] for path in paths if path in listing.entries]


def _row(manifest: dict[str, Any], table: str, name: Any) -> dict[str, Any]:
    return next((row for row in _rows(manifest, table) if row["name"] == name), {})


def _rows(manifest: dict[str, Any], table: str) -> list[dict[str, Any]]:
    """Those that are objects with a name; anything else in a stranger's file is passed over."""
    rows = manifest.get(table)
    rows = rows if isinstance(rows, list) else []
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("name"), str)]


def _inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts and "\\" not in path
