"""The data of a run, opened and checked before anything is trained."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from core.data.batches import Data
from core.data.export import read_manifest
from core.data.shards import HEADER_BYTES, Split, TokenStream, open_split, split_files
from core.data.tokenizer import open_tokenizer
from core.score.scoring import Validation, open_validation
from core.train.recipe import Recipe

END_BYTES = 4096  # of a shard, at either end: two texts do not begin and end alike


@dataclass(frozen=True)
class Corpus:
    train: TokenStream
    validation: Validation


def open_corpus(recipe: Recipe) -> Corpus:
    """Open both splits; what could not be scored at the end is refused here."""
    arch, part = recipe.arch, recipe.score
    validation = open_validation(
        recipe.data,
        arch.vocab_size,
        part.limit_tokens,
        part.subset,
        arch.seq_len,
        part.allow_lossy,
        part.windows_by,
        part.adaptation,
    )
    train = open_split(Path(recipe.data.path), "train")
    if len(train) < recipe.arch.seq_len + 1:
        raise ValueError(
            f"{recipe.data.path}: {len(train)} training tokens are less than one sequence of "
            f"arch.seq_len {recipe.arch.seq_len} and its last target"
        )
    return Corpus(train, validation)


def data_identity(data: Data) -> dict[str, str]:
    """What the training and validation shards and the tokenizer are, wherever they lie.

    Of a shard its size, header, first and last bytes, and the sha256 that a manifest says.
    """
    folder = Path(data.path)
    manifest = read_manifest(folder) or {}
    return {
        "training shards": _shards_hash(folder, "train", manifest.get("files")),
        "validation shards": _shards_hash(folder, "val", manifest.get("files")),
        "tokenizer": open_tokenizer(data.tokenizer).sha256,
    }


def _shards_hash(folder: Path, split: Split, listed: object) -> str:
    digest = hashlib.sha256()
    for path in split_files(folder, split):
        size = path.stat().st_size
        said = listed.get(path.name) if isinstance(listed, dict) else None
        digest.update(json.dumps([path.name, size, said]).encode())
        with path.open("rb") as file:
            digest.update(file.read(HEADER_BYTES + END_BYTES))
            file.seek(max(size - END_BYTES, 0))
            digest.update(file.read(END_BYTES))
    return digest.hexdigest()
