"""Real text, a tokenizer of it and its shards, made once for all tests that train."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.data.batches import Data
from core.data.export import tokenize
from core.data.tokenizer import SentencePieceTokenizer, train_tokenizer
from core.train.recipe import Recipe, with_changes
from core.train.recipes import smoke
from tools import english

os.environ.setdefault("GOLF_DEVICE", "cpu")  # what is asserted; make device-check prints others
VOCAB_SIZE = 384
DOCUMENTS, VAL_DOCUMENTS, CHARACTERS = 60, 6, 3000


@dataclass(frozen=True)
class Text:
    """Documents, the model trained on them, and the folder of their shards."""

    documents: list[str]
    tokenizer: SentencePieceTokenizer
    model: Path
    shards: Path

    @property
    def data(self) -> Data:
        return Data(path=str(self.shards), tokenizer=str(self.model), train_batch_tokens=512)

    def recipe(self, *changes: str) -> Recipe:
        """The smoke recipe on this text."""
        words = (
            f"arch.vocab_size={self.tokenizer.vocab_size}",
            f"data.path={self.shards}",
            f"data.tokenizer={self.model}",
            "data.train_batch_tokens=512",
            "schedule.steps=6",
            "score.val_every_steps=3",
        )
        return with_changes(smoke(), (*words, *changes))


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    folder = tmp_path_factory.mktemp("text")
    documents = [d[:CHARACTERS] for d in english.documents()[:DOCUMENTS]]
    model = folder / "small.model"
    tokenizer = train_tokenizer(documents, VOCAB_SIZE, model)
    tokenize(documents, tokenizer, folder / "shards", val_docs=VAL_DOCUMENTS)
    return Text(documents, tokenizer, model, folder / "shards")
