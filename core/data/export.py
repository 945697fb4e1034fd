"""Documents to a folder of shards with byte sidecar, counts and hashes; and what a folder holds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np

from core.data.shards import (
    SHARD_TOKENS,
    ShardWriter,
    Split,
    Tokens,
    TokenStream,
    check_tokens,
    open_shard,
    open_sidecar,
    open_split,
    sidecar_files,
    split_files,
)
from core.data.token_bytes import byte_table, spill
from core.data.tokenizer import SentencePieceTokenizer

MANIFEST = "manifest.json"
BLOCK_TOKENS = 1 << 22


def tokenize(
    documents: Iterable[str],
    tokenizer: SentencePieceTokenizer,
    folder: Path,
    *,
    val_docs: int,
    shard_tokens: int = SHARD_TOKENS,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write `folder`: the first `val_docs` documents are validation, the others train.

    A document is BOS and its tokens. The folder appears whole, by one rename, or not at all.
    Returns the manifest. `progress` hears how many documents are done.
    """
    folder = folder.resolve()
    if val_docs < 0:
        raise ValueError(f"val_docs {val_docs} must not be negative")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: expected a new or empty folder; choose another or empty it")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        source = _told(documents, progress or (lambda done: None))
        val = _write_split(partial, "val", islice(source, val_docs), tokenizer, shard_tokens)
        train = _write_split(partial, "train", source, tokenizer, shard_tokens)
        if not val["documents"] + train["documents"]:
            raise ValueError("no documents to tokenize; expected at least one")
        manifest = {
            "version": 1,
            "tokenizer": _describe(tokenizer),
            "shard_tokens": shard_tokens,
            "splits": {"train": train, "val": val},
            "files": {file.name: _sha256([file]) for file in sorted(partial.iterdir())},
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return manifest


def _told(documents: Iterable[str], progress: Callable[[int], None]) -> Iterator[str]:
    for done, text in enumerate(documents, 1):
        yield text
        progress(done)


def _write_split(
    folder: Path,
    split: Split,
    documents: Iterable[str],
    tokenizer: SentencePieceTokenizer,
    shard_tokens: int,
) -> dict[str, Any]:
    """Counts of what was written. Raw bytes are the documents', normalised ones the decoded text's.

    `documents_sha256` is over each document's length (8 bytes, little-endian) and UTF-8 bytes.
    """
    keys = ("documents", "tokens", "raw_bytes", "normalised_bytes", "changed_documents")
    counts, digest = dict.fromkeys(keys, 0), hashlib.sha256()
    with (
        ShardWriter(folder, f"fineweb_{split}", shard_tokens) as shards,
        ShardWriter(folder, "fineweb_val_bytes", shard_tokens) as sidecar,
    ):
        for number, text in enumerate(documents):
            raw = text.encode("utf-8")
            if split == "val":
                tokens, raw_bytes = _with_bytes(text, tokenizer, f"validation document {number}")
                sidecar.write(raw_bytes)
            else:
                tokens = _after_bos(tokenizer.encode_ids(text), tokenizer)
            shards.write(tokens)
            decoded = tokenizer.decode(tokens)
            found = (1, len(tokens), len(raw), len(decoded.encode("utf-8")), int(decoded != text))
            for key, value in zip(keys, found, strict=True):
                counts[key] += value
            digest.update(len(raw).to_bytes(8, "little") + raw)
    return {**counts, "documents_sha256": digest.hexdigest()}


def _after_bos(ids: Tokens, tokenizer: SentencePieceTokenizer) -> Tokens:
    return np.concatenate([np.array([tokenizer.bos_id], np.uint16), ids])


def _with_bytes(text: str, tokenizer: SentencePieceTokenizer, where: str) -> tuple[Tokens, Tokens]:
    """A document's tokens and their sidecar; text without tokens puts its bytes on its BOS."""
    ids, raw_bytes = tokenizer.encode(text)
    bos_bytes = 0 if ids.size else len(text.encode("utf-8"))
    try:
        sidecar = spill(np.concatenate([np.array([bos_bytes], np.int64), raw_bytes]))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return _after_bos(ids, tokenizer), sidecar


def _describe(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    return {name: getattr(tokenizer, name) for name in ("name", "vocab_size", "bos_id", "sha256")}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What `tokenize` wrote beside the shards, or none."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON ({error}); write the shards again") from None
    if not isinstance(manifest, dict):
        raise ValueError(f"{path}: expected an object, found {type(manifest).__name__}")
    return manifest


def check_manifest(manifest: dict[str, Any], tokenizer: SentencePieceTokenizer) -> None:
    """Raise ValueError unless the shards were made with this very tokenizer, by its hash."""
    made_with = manifest.get("tokenizer")
    if not isinstance(made_with, dict) or "sha256" not in made_with:
        raise ValueError(
            f"{MANIFEST} names no tokenizer; write the shards with `golf data tokenize`"
        )
    if made_with["sha256"] != tokenizer.sha256:
        raise ValueError(
            f"wrong tokenizer for the shards: they were made with {made_with.get('name')} "
            f"(sha256 {str(made_with['sha256'])[:12]}), this is {tokenizer.name} "
            f"({tokenizer.sha256[:12]}); set data.tokenizer to the former or tokenize again"
        )


def data_info(path: Path, tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    """Counts and hash of one shard, or of each split that a folder holds."""
    if not path.is_dir():
        return _shard_info(path, tokenizer)
    present = [split for split in get_args(Split) if split_files(path, split)]
    found = {}
    for split in present or ["train"]:  # an empty folder gets open_split's sentence
        sidecar = open_sidecar(path) if split == "val" else None
        found[split] = _info(open_split(path, split), sidecar, tokenizer)
        found[split]["sha256"] = _sha256(split_files(path, split))
    return found


def _shard_info(path: Path, tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    beside = path.with_name(path.name.replace("fineweb_val_", "fineweb_val_bytes_"))
    if "_bytes_" in path.name:
        raise ValueError(f"{path}: a byte sidecar; name the shard of tokens beside it")
    tokens = TokenStream([open_shard(path)])
    sidecar = TokenStream([open_shard(beside)]) if beside in sidecar_files(path.parent) else None
    if sidecar is not None and len(sidecar) != len(tokens):
        raise ValueError(f"{beside}: {len(sidecar)} entries for {len(tokens)} tokens of {path}")
    return {**_info(tokens, sidecar, tokenizer), "sha256": _sha256([path])}


def _info(
    tokens: TokenStream, sidecar: TokenStream | None, tokenizer: SentencePieceTokenizer
) -> dict[str, Any]:
    """`bytes_reference` is over all targets: every token but the first has one before it."""
    table, documents, counted = byte_table(tokenizer), 0, 0
    last = np.empty(0, np.uint16)
    for block in tokens.blocks(BLOCK_TOKENS):
        check_tokens(block, tokenizer.vocab_size)
        documents += int((block == tokenizer.bos_id).sum())
        run = np.concatenate([last, block])
        counted += int(table.count(run[:-1], run[1:]).sum())
        last = block[-1:]
    raw = None
    if sidecar is not None:
        raw = sum(int(block.sum(dtype=np.int64)) for block in sidecar.blocks(BLOCK_TOKENS))
    return {
        "tokens": len(tokens),
        "documents": documents,
        "bytes_reference": counted,
        "bytes_raw": raw,
    }


def _sha256(files: list[Path]) -> str:
    """Of the files' bytes, one after another."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
