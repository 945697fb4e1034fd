"""What a shard or a folder of them holds: tokens, documents, bytes by both counts, hash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np

from core.data.pieces import Tokenizer
from core.data.shards import (
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
from core.data.token_bytes import ByteTable, byte_table
from core.data.unfinished import sha256_of

BLOCK_TOKENS = 1 << 22


def data_info(path: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """Counts and hash of one shard, or of each split that a folder holds."""
    if not path.is_dir():
        return _shard_info(path, tokenizer)
    present = [split for split in get_args(Split) if split_files(path, split)]
    found = {}
    for split in present or ["train"]:  # an empty folder gets open_split's sentence
        sidecar = open_sidecar(path) if split == "val" else None
        found[split] = _info(open_split(path, split), sidecar, tokenizer)
        found[split]["sha256"] = sha256_of(split_files(path, split))
    return found


def _shard_info(path: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    beside = path.with_name(path.name.replace("fineweb_val_", "fineweb_val_bytes_"))
    if "_bytes_" in path.name:
        raise ValueError(f"{path}: a byte sidecar; name the shard of tokens beside it")
    tokens = TokenStream([open_shard(path)])
    sidecar = TokenStream([open_shard(beside)]) if beside in sidecar_files(path.parent) else None
    if sidecar is not None and len(sidecar) != len(tokens):
        raise ValueError(f"{beside}: {len(sidecar)} entries for {len(tokens)} tokens of {path}")
    return {**_info(tokens, sidecar, tokenizer), "sha256": sha256_of([path])}


def _info(tokens: TokenStream, sidecar: TokenStream | None, tokenizer: Tokenizer) -> dict[str, Any]:
    documents = counted = 0
    for block, block_bytes in counted_blocks(byte_table(tokenizer), tokens.blocks(BLOCK_TOKENS)):
        documents += int((block == tokenizer.bos_id).sum())
        counted += block_bytes
    raw = None
    if sidecar is not None:
        raw = sum(int(block.sum(dtype=np.int64)) for block in sidecar.blocks(BLOCK_TOKENS))
    return {
        "tokens": len(tokens),
        "documents": documents,
        "bytes_reference": counted,
        "bytes_raw": raw,
    }


def counted_blocks(table: ByteTable, blocks: Iterable[Tokens]) -> Iterator[tuple[Tokens, int]]:
    """Each block and the bytes of its targets: every token but the very first has one before it."""
    held = np.empty(0, np.uint16)
    for block in blocks:
        check_tokens(block, len(table.base_bytes))
        run = np.concatenate([held, block])
        yield block, int(table.count_run(run)[max(len(held) - 1, 0) :].sum())
        held = table.context(run)
