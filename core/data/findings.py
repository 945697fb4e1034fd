"""What is known about some shards, and what the rules have to say about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.data.pieces import Tokenizer

Status = Literal["PASS", "FAIL", "UNDECIDED"]

RULES = {  # rule: where it comes from
    "header": "shard format: 256 int32, magic 20240520, version 1, token count; then uint16",
    "sequence": "shard format: numbered from 000000, all but the last equally long",
    "manifest": "manifest.json of `golf data tokenize`",
    "hash": "manifest.json: SHA-256 of every file",
    "tokenizer": "manifest.json: SHA-256 of the tokenizer; pull request 2071",
    "vocabulary": "shard format: every token is a piece of the tokenizer",
    "encoding": "tokens are what the tokenizer makes of their own text; pull request 2071",
    "starts with BOS": "shard format: one BOS before each document",
    "counts": "manifest.json: tokens and documents of every split",
    "overlap": "no document may be in train and validation; pull request 2127",
    "sidecar": "one entry a validation token, together the documents' own bytes; pull request 2138",
    "byte table": "the reference tables against the tokenizer's decoding; pull request 1545",
    "decoding": "the tables' bytes are those of the decoded text; pull requests 1545 and 1271",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one rule says about one subject, and why."""

    rule: str
    status: Status
    subject: str
    evidence: str
    source: str


@dataclass
class Scan:
    """One split, read once."""

    tokens: int = 0
    largest: int = 0
    first: int | None = None
    documents: int = 0


@dataclass
class Shards:
    """The files at hand, and those of them that can be read."""

    path: Path
    tokenizer: Tokenizer
    progress: Callable[[int], None]  # hears how many bytes more are done
    files: dict[str, list[Path]]
    manifest: dict[str, Any] | None = None
    broken: set[str] = field(default_factory=set)  # names of `files` with one that cannot be read
    scans: dict[str, Scan] = field(default_factory=dict)

    def usable(self, name: str) -> bool:
        return bool(self.files[name]) and name not in self.broken


def say(rule: str, status: Status, subject: str | Path, evidence: str) -> Finding:
    return Finding(
        rule=rule, status=status, subject=str(subject), evidence=evidence, source=RULES[rule]
    )
