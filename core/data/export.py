"""Documents to a folder of shards with byte sidecar, counts and hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from core.data.documents import read_blocks
from core.data.encode import Part, Texts, Work, assigned, run_encoder, text_encoder
from core.data.pieces import Tokenizer
from core.data.runs import document_runs
from core.data.shards import (
    SHARD_TOKENS,
    Split,
    sidecar_files,
    split_files,
)
from core.data.token_bytes import byte_table
from core.data.unfinished import DECODED, MANIFEST, ORIGINAL, Unfinished
from core.data.workers import in_order

Progress = Callable[[int, int], None]  # hears bytes read and documents done


def tokenize(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    val_docs: int,
    shard_tokens: int = SHARD_TOKENS,
) -> dict[str, Any]:
    """Write `folder`: the first `val_docs` documents are validation, the others train.

    A document is BOS and its tokens. The folder appears whole, by one rename, or not at all.
    Returns the manifest.
    """
    works = assigned((Texts([text]) for text in documents), _at_least_0(val_docs))
    job = {"shard_tokens": shard_tokens}
    with Unfinished(folder, job, resumable=False) as export:
        encode = (text_encoder, (tokenizer,))
        return _written(export, works, encode, 1, _from_documents(tokenizer, shard_tokens))


def tokenize_files(
    paths: Sequence[Path],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    val_docs: int,
    shard_tokens: int = SHARD_TOKENS,
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """`tokenize` for any amount of text: memory holds a few blocks of 1 MiB a process.

    The bytes written do not depend on `workers`. An interrupted export leaves `.NAME.partial`;
    the same call goes on from there, after it has seen that the inputs begin as they did.
    """
    works = assigned(read_blocks(paths), _at_least_0(val_docs))
    job = {
        "from": "documents",
        "tokenizer": tokenizer.sha256,
        "val_docs": val_docs,
        "shard_tokens": shard_tokens,
    }
    with Unfinished(folder, job, resumable=True) as export:
        encode = (text_encoder, (tokenizer,))
        fields = _from_documents(tokenizer, shard_tokens)
        return _written(export, works, encode, workers, fields, progress)


def retokenize(
    source: Path,
    old: Tokenizer,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    shard_tokens: int = SHARD_TOKENS,
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Shards of `old` to shards of `tokenizer`, document by document; the splits stay as they are.

    What is tokenized is the decoded text, and the manifest says so: `raw_bytes` is null and there
    is no sidecar, since the original bytes are not in the shards.
    """
    _check_source(source, old)
    _check_target(tokenizer)
    works = _work_of_shards(source, old)
    job = {"from": old.sha256, "tokenizer": tokenizer.sha256, "shard_tokens": shard_tokens}
    fields = {
        **_from_documents(tokenizer, shard_tokens),
        "text": DECODED,
        "decoded_with": _describe(old),
    }
    with Unfinished(folder, job, resumable=True) as export:
        encode = (run_encoder, (old, tokenizer))
        return _written(export, works, encode, workers, fields, progress)


def _written(
    export: Unfinished,
    works: Iterable[Work],
    encode: tuple[Callable[..., Callable[[Work], list[Part]]], tuple[Any, ...]],
    workers: int,
    fields: dict[str, Any],
    progress: Progress | None = None,
) -> dict[str, Any]:
    for work, parts in in_order(*encode, export.remaining(works), workers):
        export.add(work, parts)
        if progress is not None:
            progress(work.source.read_bytes, export.position.documents)
    return export.finish(fields)


def _check_source(source: Path, old: Tokenizer) -> None:
    manifest = read_manifest(source)
    if manifest is not None and "tokenizer" in manifest:
        check_manifest(manifest, old)
    if byte_table(old).needs_sidecar and old.transform is None:
        raise ValueError(
            f"{old.name}: its text was transformed before it was encoded (private-use symbols), so "
            "decoding does not give the documents back; tokenize the original documents"
        )


def _check_target(tokenizer: Tokenizer) -> None:
    if byte_table(tokenizer).needs_sidecar:
        raise ValueError(
            f"{tokenizer.name}: text for it is transformed, so its bytes are told by a sidecar of "
            "the original documents alone, which shards cannot give; tokenize the documents"
        )


def _work_of_shards(source: Path, old: Tokenizer) -> Iterator[Work]:
    """Validation first; a split may be absent, not both."""
    both: tuple[Split, ...] = ("val", "train")
    present = [split for split in both if split_files(source, split)]
    first = read_bytes = 0
    for split in present or both[1:]:  # an empty folder gets open_split's sentence
        for run in document_runs(source, split, old, read_bytes):
            yield Work(run, first, run.documents if split == "val" else 0, sidecar=False)
            first += run.documents
        read_bytes += sum(path.stat().st_size for path in split_files(source, split))


def _at_least_0(val_docs: int) -> int:
    if val_docs < 0:
        raise ValueError(f"val_docs {val_docs} must not be negative")
    return val_docs


def _from_documents(tokenizer: Tokenizer, shard_tokens: int) -> dict[str, Any]:
    made_with = {"tokenizer": _describe(tokenizer), "shard_tokens": shard_tokens}
    return {**made_with, "text": ORIGINAL}


def _describe(tokenizer: Tokenizer) -> dict[str, Any]:
    fields = {name: getattr(tokenizer, name) for name in ("name", "vocab_size", "bos_id", "sha256")}
    return fields if tokenizer.transform is None else {**fields, "transform": tokenizer.transform}


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


def check_manifest(manifest: dict[str, Any], tokenizer: Tokenizer) -> None:
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
    if made_with.get("transform") != tokenizer.transform:
        raise ValueError(
            f"the shards hold text under the transform {made_with.get('transform')}, "
            f"{tokenizer.name} gives text under {tokenizer.transform}; tokenize the documents again"
        )


def check_files(manifest: dict[str, Any], folder: Path) -> None:
    """Raise ValueError unless the split's files are those of the manifest, byte for byte."""
    listed = manifest.get("files")
    if not isinstance(listed, dict):
        raise ValueError(
            f"{folder}: its manifest lists no files; make it with `golf data tokenize`"
        )
    found = {path.name: path for path in [*split_files(folder, "val"), *sidecar_files(folder)]}
    wanted = {name: sha for name, sha in listed.items() if name.startswith("fineweb_val_")}
    for name in sorted(found.keys() ^ wanted.keys()):
        state = "is not in the manifest" if name in found else "is missing"
        raise ValueError(f"{folder}: {name} {state}; the split is not the one that was exported")
    for name, path in found.items():
        with path.open("rb") as file:
            sha = hashlib.file_digest(file, "sha256").hexdigest()
        if sha != wanted[name]:
            raise ValueError(
                f"{path} has been changed: sha256 {sha[:12]}, expected {wanted[name][:12]}"
            )
