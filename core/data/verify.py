"""Are these shards what they say? Every rule gives findings, and nothing stops at the first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from core.data import verify_tokens
from core.data.export import check_manifest, read_manifest
from core.data.findings import RULES, Finding, Shards, Status, say
from core.data.pieces import Tokenizer
from core.data.shards import open_shard, sidecar_files, split_files
from core.data.unfinished import MANIFEST, sha256_of

DECODE_TOKENS = 10_000_000  # of train; validation is decoded whole
NUMBERED = re.compile(r"_(\d{6})\.bin$")


def verify(
    path: Path,
    tokenizer: Tokenizer,
    *,
    decode_tokens: int = DECODE_TOKENS,
    progress: Callable[[int], None] | None = None,
) -> list[Finding]:
    """Findings about a folder of shards, or one shard.

    Memory: a shard's map, a few blocks, and about 100 bytes a validation document.
    """
    shards = Shards(path, tokenizer, progress or (lambda more: None), _files(path))
    findings = [*_headers(shards), *_sequence(shards), *_manifest(shards), *_hashes(shards)]
    findings += verify_tokens.overlap(shards)  # reads both splits
    findings += verify_tokens.vocabulary(shards)
    findings += verify_tokens.encoding(shards)
    findings += verify_tokens.starts(shards)
    findings += verify_tokens.counts(shards)
    findings += verify_tokens.sidecar(shards)
    findings += verify_tokens.byte_tables(shards)
    findings += verify_tokens.decoding(shards, decode_tokens)
    order = list(RULES)
    return sorted(findings, key=lambda finding: order.index(finding.rule))


def bytes_to_read(path: Path) -> int:
    """What `progress` will have heard in the end, or more."""
    files = _files(path)
    tokens = sum(file.stat().st_size for name in ("train", "val") for file in files[name])
    return tokens + sum(file.stat().st_size for found in files.values() for file in found)


def _files(path: Path) -> dict[str, list[Path]]:
    if path.is_dir():
        return {
            "val": split_files(path, "val"),
            "train": split_files(path, "train"),
            "sidecar": sidecar_files(path),
        }
    if not path.is_file():
        raise ValueError(f"{path}: no such shard or folder; make one with `golf data tokenize`")
    if "_bytes_" in path.name:
        raise ValueError(f"{path}: a byte sidecar; name the shard of tokens or their folder")
    split = "val" if path.name.startswith("fineweb_val_") else "train"
    return {"val": [], "train": [], "sidecar": [], split: [path]}


def _headers(shards: Shards) -> Iterator[Finding]:
    count = 0
    for name, files in shards.files.items():
        for file in files:
            try:
                open_shard(file)
                count += 1
            except ValueError as error:
                shards.broken.add(name)
                yield say("header", "FAIL", file, str(error))
    if shards.path.is_dir():
        for file in sorted(shards.path.glob("*.bin.partial")):
            yield say("header", "FAIL", file, "an unfinished shard; write or fetch it again")
    if not any(shards.files.values()):
        looked = "looked for fineweb_train_*.bin and fineweb_val_*.bin"
        yield say("header", "FAIL", shards.path, f"no shards; {looked}")
    elif not shards.broken:
        yield say("header", "PASS", shards.path, f"{count} files as long as they say")


def _sequence(shards: Shards) -> Iterator[Finding]:
    if not shards.path.is_dir():
        return
    for name, files in shards.files.items():
        if not files:
            continue
        numbers = [int(match[1]) for file in files if (match := NUMBERED.search(file.name))]
        absent = sorted(set(range(len(files))) - set(numbers))
        sizes = {file.stat().st_size for file in files[:-1]}
        problem = ""
        if absent:
            problem = f"{len(files)} files, but number {absent[0]:06d} is missing"
        elif len(sizes) > 1 or (sizes and files[-1].stat().st_size > max(sizes)):
            problem = f"files of {len(sizes)} sizes before the last; from different exports?"
        status: Status = "FAIL" if problem else "PASS"
        yield say("sequence", status, name, problem or f"{len(files)} files, none missing")


def _manifest(shards: Shards) -> Iterator[Finding]:
    where = shards.path / MANIFEST
    try:
        found = read_manifest(shards.path) if shards.path.is_dir() else None
    except ValueError as error:
        yield say("manifest", "FAIL", where, str(error))
        return
    if found is None or not _is_ours(found):
        what = "there is none" if found is None else "it was not written by `golf data tokenize`"
        yield say("manifest", "UNDECIDED", where, f"{what}: no hashes and counts to compare with")
        return
    shards.manifest = found
    yield say("manifest", "PASS", where, f"version {found.get('version')}, {found.get('text')}")
    try:
        check_manifest(found, shards.tokenizer)
    except ValueError as error:
        yield say("tokenizer", "FAIL", shards.tokenizer.name, str(error))
        return
    evidence = f"SHA-256 {shards.tokenizer.sha256[:12]}, as when the shards were made"
    yield say("tokenizer", "PASS", shards.tokenizer.name, evidence)


def _is_ours(manifest: dict[str, Any]) -> bool:
    files, splits = manifest.get("files"), manifest.get("splits")
    if not isinstance(files, dict) or not isinstance(splits, dict):
        return False
    return all(isinstance(fields, dict) for fields in splits.values())


def _hashes(shards: Shards) -> Iterator[Finding]:
    if shards.manifest is None:
        return
    expected = dict(shards.manifest["files"])
    wrong = 0
    for file in [file for files in shards.files.values() for file in files]:
        made = expected.pop(file.name, None)
        found = sha256_of([file])
        shards.progress(file.stat().st_size)
        if found != made:
            wrong += 1
            why = f"SHA-256 {found[:12]}, the manifest says {str(made)[:12]}"
            evidence = why if made else "not in the manifest: a file of another export?"
            yield say("hash", "FAIL", file, evidence)
    for name in expected:
        yield say("hash", "FAIL", shards.path / name, "in the manifest, not in the folder")
    if not wrong and not expected:
        count = len(shards.manifest["files"])
        yield say("hash", "PASS", shards.path, f"{count} files as they were written")
