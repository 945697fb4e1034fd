"""The data of a run, opened and checked before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.data.shards import TokenStream, open_split
from core.score.scoring import Validation, open_validation
from core.train.recipe import Recipe


@dataclass(frozen=True)
class Corpus:
    train: TokenStream
    validation: Validation


def open_corpus(recipe: Recipe) -> Corpus:
    """Open both splits; what could not be scored at the end is refused here."""
    arch, part = recipe.arch, recipe.score
    validation = open_validation(
        recipe.data, arch.vocab_size, part.limit_tokens, part.subset, arch.seq_len
    )
    train = open_split(Path(recipe.data.path), "train")
    if len(train) < recipe.arch.seq_len + 1:
        raise ValueError(
            f"{recipe.data.path}: {len(train)} training tokens are less than one sequence of "
            f"arch.seq_len {recipe.arch.seq_len} and its last target"
        )
    return Corpus(train, validation)
