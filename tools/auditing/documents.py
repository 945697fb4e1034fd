"""The validation split against the documents that it was made of: which, how many, how long."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from core.data.documents import read_blocks
from core.data.findings import Finding
from core.data.lossy import why_lossy
from core.data.pieces import Tokenizer
from core.data.runs import document_hashes, shard_blocks
from core.score.book import ruled
from core.score.rules import found
from tools.auditing.streams import BLOCK_TOKENS, Stream, hash_of


@dataclass
class Originals:
    """The first documents of the source, as the tokenizer encodes them."""

    raw_bytes: int = 0
    changed: int = 0  # do not come back as they were
    first_changed: int | None = None
    hashes: list[int] = field(default_factory=list)


def read_originals(
    paths: Sequence[Path],
    tokenizer: Tokenizer,
    documents: int,
    progress: Callable[[int, int | None], None],
) -> Originals:
    """The first `documents`; fewer where the source has no more. ValueError for a bad source."""
    held = Originals()
    for block in read_blocks(paths):
        for text in islice(block.texts(), documents - len(held.hashes)):
            ids = tokenizer.encode_ids(text)
            if tokenizer.decode(ids) != text:
                held.changed += 1
                number = len(held.hashes)
                held.first_changed = number if held.first_changed is None else held.first_changed
            held.hashes.append(hash_of(ids))
            held.raw_bytes += len(text.encode("utf-8"))
        progress(block.read_bytes, len(held.hashes))
        if len(held.hashes) == documents:
            break
    return held


def against(
    originals: Originals, val: Stream, train: Sequence[Path], tokenizer: Tokenizer, wanted: int
) -> Iterator[Finding]:
    """Order and identity of the documents, their bytes, those of them in training, what is lost."""
    if len(originals.hashes) < wanted:
        said = f"the source holds {len(originals.hashes):,} documents, {wanted:,} are validation"
        yield ruled("B9", "UNDECIDED", "documents", said)
    yield _same(originals, val, tokenizer)
    yield _bytes(originals, val, tokenizer)
    yield from _in_train(originals, train, tokenizer)
    yield _lost(originals, tokenizer)


def _same(originals: Originals, val: Stream, tokenizer: Tokenizer) -> Finding:
    pairs = enumerate(zip(originals.hashes, val.hashes, strict=False))
    first = next((at for at, (one, two) in pairs if one != two), None)
    if first is not None:
        here = {value: at for at, value in enumerate(originals.hashes)}.get(val.hashes[first])
        where = "no document of the source" if here is None else f"document {here} of it"
        said = f"validation document {first} is not document {first} of the source as "
        said += f"{tokenizer.name} encodes it; it is {where}"
        return ruled("B15" if here is not None else "B16", "FAIL", "validation", said)
    count = min(len(originals.hashes), len(val.hashes))
    said = f"{count:,} documents are those of the source, in its order, by this tokenizer"
    return ruled("B16", "PASS", "validation", said)


def _bytes(originals: Originals, val: Stream, tokenizer: Tokenizer) -> Finding:
    """The scored bytes against the documents' own: by the sidecar, or by a lossless table."""
    counted = val.counted if val.raw is None else val.raw
    whose = "the table counts" if val.raw is None else "the sidecar counts"
    said = f"{whose} {counted:,}, the {len(originals.hashes):,} documents have "
    said += f"{originals.raw_bytes:,} bytes"
    if counted == originals.raw_bytes:
        return found("whole split", "PASS", "validation", said)
    said += f": {counted / max(originals.raw_bytes, 1):.4f} times"
    short = len(val.hashes) < len(originals.hashes)
    if val.raw is None and originals.changed and not short:
        said += f"; {originals.changed:,} documents are normalised, whose bytes a sidecar tells"
        return found("whole split", "UNDECIDED", "validation", said)
    if val.raw is not None and not short:
        return ruled("B7", "FAIL", "validation", said)
    return found("whole split", "FAIL", "validation", said)


def _in_train(
    originals: Originals, train: Sequence[Path], tokenizer: Tokenizer
) -> Iterator[Finding]:
    """Documents of the source's validation part among those of training, by hash."""
    if not train:
        yield ruled("B10", "UNDECIDED", "train", "no training shards to look through")
        return
    wanted = {value: at for at, value in reversed([*enumerate(originals.hashes)]) if value}
    met: set[int] = set()
    example, number = "", 0
    for hashes in document_hashes(shard_blocks(train, BLOCK_TOKENS), tokenizer.bos_id):
        for value in hashes.tolist():
            if value in wanted:
                at = wanted[value]
                example = example or f"train document {number} is document {at} of the source"
                met.add(value)
            number += 1
    if met:
        said = f"{len(met):,} of the first {len(originals.hashes):,} documents, which are "
        yield ruled("B10", "FAIL", "train", f"{said}validation, are in training; {example}")
    else:
        said = f"none of {number:,} documents is one of the first {len(originals.hashes):,}"
        yield ruled("B10", "PASS", "train", said)


def _lost(originals: Originals, tokenizer: Tokenizer) -> Finding:
    count = len(originals.hashes)
    if not originals.changed:
        said = f"all {count:,} documents come back as they were"
        return found("lossless", "PASS", tokenizer.name, said)
    said = f"{originals.changed:,} of {count:,} documents do not come back as they were, "
    said += f"document {originals.first_changed} first"
    if not why_lossy(tokenizer):
        said += ": blanks and compatibility forms alone, as with the task's own tokenizers"
    return ruled("B8", "UNDECIDED", tokenizer.name, said)
