"""The rules about tokens: documents apart, counts, vocabulary, sidecar, tables against decoding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.data.decoding import check_decoding
from core.data.findings import Finding, Scan, Shards, Status, say
from core.data.info import counted_blocks
from core.data.reencoding import check_encoding
from core.data.runs import document_hashes, shard_blocks
from core.data.shards import Tokens, TokenStream, open_shard
from core.data.token_bytes import byte_table, check_table

BLOCK_TOKENS = 1 << 21


def overlap(shards: Shards) -> Iterator[Finding]:
    """Validation's hashes are held, train's go by: 50,000 against any number."""
    absent = [split for split in ("val", "train") if not shards.usable(split)]
    held: dict[int, int] = {}
    met: set[int] = set()
    example = ""
    if "val" not in absent:
        for number, value in enumerate(_scan(shards, "val")):
            held.setdefault(value, number)
    held.pop(0, None)  # documents without tokens
    if "train" not in absent:
        for number, value in enumerate(_scan(shards, "train")):
            if value in held:
                example = example or f"train document {number} is val document {held[value]}"
                met.add(value)
    if absent:
        evidence = f"needs both splits; {absent[0]} is missing or cannot be read"
        yield say("overlap", "UNDECIDED", shards.path, evidence)
    elif met:
        evidence = f"{len(met)} of {shards.scans['val'].documents} val documents; {example}"
        yield say("overlap", "FAIL", "train", evidence)
    else:
        counts = [f"{shards.scans[split].documents} {split}" for split in ("val", "train")]
        yield say("overlap", "PASS", shards.path, f"{' and '.join(counts)} documents, all apart")


def _scan(shards: Shards, split: str) -> Iterator[int]:
    """The hash of every document of a split; its Scan fills on the way."""
    scan = shards.scans[split] = Scan()

    def watched() -> Iterator[Tokens]:
        for block in shard_blocks(shards.files[split], BLOCK_TOKENS):
            scan.first = int(block[0]) if scan.first is None else scan.first
            scan.tokens += len(block)
            scan.largest = max(scan.largest, int(block.max(initial=0)))
            yield block
            shards.progress(block.nbytes)

    for hashes in document_hashes(watched(), shards.tokenizer.bos_id):
        scan.documents += len(hashes)
        yield from hashes.tolist()


def vocabulary(shards: Shards) -> Iterator[Finding]:
    size = shards.tokenizer.vocab_size
    for split, scan in shards.scans.items():
        status: Status = "PASS" if scan.largest < size else "FAIL"
        evidence = f"largest token {scan.largest}, the tokenizer has {size} pieces"
        yield say("vocabulary", status, split, evidence)


def encoding(shards: Shards) -> Iterator[Finding]:
    """What tells another tokenizer's shards where no manifest does."""
    for split, scan in shards.scans.items():
        if scan.largest >= shards.tokenizer.vocab_size:
            yield say("encoding", "UNDECIDED", split, "tokens outside the vocabulary")
            continue
        stream = TokenStream([open_shard(path) for path in shards.files[split]])
        try:
            evidence = check_encoding(shards.tokenizer, stream)
        except ValueError as error:
            yield say("encoding", "FAIL", split, str(error))
            continue
        yield say("encoding", "PASS", split, evidence)


def starts(shards: Shards) -> Iterator[Finding]:
    bos_id = shards.tokenizer.bos_id
    for split, scan in shards.scans.items():
        status: Status = "PASS" if scan.first == bos_id else "FAIL"
        evidence = f"the first token is {scan.first}, BOS is {bos_id}"
        yield say("starts with BOS", status, split, evidence)


def counts(shards: Shards) -> Iterator[Finding]:
    if shards.manifest is None:
        return
    for split, scan in shards.scans.items():
        said = shards.manifest["splits"].get(split, {})
        for name in ("tokens", "documents"):
            found = getattr(scan, name)
            status: Status = "PASS" if found == said.get(name) else "FAIL"
            evidence = f"{found} {name}, the manifest says {said.get(name)}"
            yield say("counts", status, split, evidence)


def sidecar(shards: Shards) -> Iterator[Finding]:
    files = shards.files["sidecar"]
    if not shards.usable("val"):
        return
    said = (shards.manifest or {}).get("splits", {}).get("val", {}).get("raw_bytes")
    if not files:
        yield _no_sidecar(shards, said)
        return
    if "sidecar" in shards.broken:
        yield say("sidecar", "UNDECIDED", "val", "a file of it cannot be read")
        return
    entries = sum(len(open_shard(path)) for path in files)
    tokens = shards.scans["val"].tokens
    status: Status = "PASS" if entries == tokens else "FAIL"
    yield say("sidecar", status, "val", f"{entries} entries for {tokens} tokens")
    yield _total(shards, said)
    if entries == tokens:
        wrong = _heavy_bos(shards)
        status = "FAIL" if wrong else "PASS"
        evidence = f"{wrong} documents with text have bytes on their BOS, which counts 0"
        yield say("sidecar", status, "val", evidence)


def _total(shards: Shards, said: int | None) -> Finding:
    """The sidecar's bytes against the documents', and the table's against both."""
    blocks = shard_blocks(shards.files["sidecar"], BLOCK_TOKENS)
    total = sum(int(block.sum(dtype=np.int64)) for block in blocks)
    wrong = said is not None and total != said
    against = "no manifest says how many there were" if said is None else f"of {said} in documents"
    evidence = f"{total} bytes, {against}"
    if shards.scans["val"].largest < shards.tokenizer.vocab_size:
        counted = _counted(shards)
        evidence += f"; the table counts {counted}, a difference of {counted - total}"
        wrong |= counted != total and _is_lossless(shards)
    status: Status = "UNDECIDED" if said is None else "PASS"
    return say("sidecar", "FAIL" if wrong else status, "val", evidence)


def _counted(shards: Shards) -> int:
    """The validation tokens' bytes by the table."""
    blocks = shard_blocks(shards.files["val"], BLOCK_TOKENS)
    found = counted_blocks(byte_table(shards.tokenizer), blocks)
    return sum(block_bytes for _, block_bytes in found)


def _is_lossless(shards: Shards) -> bool:
    """Whether every validation document comes back as it was, as far as is known."""
    said = (shards.manifest or {}).get("splits", {}).get("val", {})
    return not shards.tokenizer.marks_spaces or said.get("changed_documents") == 0


def _no_sidecar(shards: Shards, said: int | None) -> Finding:
    if byte_table(shards.tokenizer).needs_sidecar:
        why = f"none, but {shards.tokenizer.name} encodes transformed text: no true byte count"
        return say("sidecar", "FAIL", "val", why)
    if said is not None:
        why = f"none, but the manifest counts {said} original bytes: its files are missing"
        return say("sidecar", "FAIL", "val", why)
    return say("sidecar", "UNDECIDED", "val", "none: bytes are those of the decoded text")


def _heavy_bos(shards: Shards) -> int:
    """BOS entries above 0; text that has no tokens of its own is what may stand there."""
    bos_id, wrong, carried = shards.tokenizer.bos_id, 0, False
    blocks = shard_blocks(shards.files["val"], BLOCK_TOKENS)
    held = TokenStream([open_shard(path) for path in shards.files["sidecar"]])
    at = 0
    for block in blocks:
        heavy = (block == bos_id) & (held.slice(at, at + len(block)) > 0)
        wrong += int(carried and block[0] != bos_id)
        wrong += int((heavy[:-1] & (block[1:] != bos_id)).sum())
        carried, at = bool(heavy[-1]), at + len(block)
    return wrong


def byte_tables(shards: Shards) -> Iterator[Finding]:
    name = shards.tokenizer.name
    try:
        has_sidecar = shards.usable("sidecar")
        check_table(byte_table(shards.tokenizer), shards.tokenizer, sidecar=has_sidecar)
    except ValueError as error:
        yield say("byte table", "FAIL", name, str(error))
        return
    yield say("byte table", "PASS", name, "every piece counts what it decodes to")


def decoding(shards: Shards, decode_tokens: int) -> Iterator[Finding]:
    """Validation whole, of train the first `decode_tokens`."""
    table = byte_table(shards.tokenizer)
    for split, scan in shards.scans.items():
        if scan.largest >= shards.tokenizer.vocab_size:
            yield say("decoding", "UNDECIDED", split, "tokens outside the vocabulary")
            continue
        stream = TokenStream([open_shard(path) for path in shards.files[split]])
        count = len(stream) if split == "val" else min(decode_tokens, len(stream))
        part = stream if split == "val" else TokenStream([stream.slice(0, count)])
        try:
            check_decoding(table, shards.tokenizer, part)
        except ValueError as error:
            yield say("decoding", "FAIL", split, str(error))
            continue
        evidence = f"{count} of {len(stream)} tokens count what they decode to"
        yield say("decoding", "PASS", split, evidence)
