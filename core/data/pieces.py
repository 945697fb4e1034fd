"""What any tokenizer gives: ids with the bytes of the text behind each, its pieces, its hash."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["normal", "unknown", "control", "user_defined", "unused", "byte"]
Ids = Sequence[int] | NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; `text` keeps U+2581 where a space is meant."""

    text: str
    kind: Kind


class Tokenizer(ABC):
    """Everything that reads documents or shards asks this much and no more.

    `encode` splits the bytes of a text among its tokens, `pieces` is what `byte_table` is made of,
    `sha256` says which tokenizer shards were made with.
    """

    name: str  # for people
    model: bytes  # the file
    sha256: str  # for machines
    vocab_size: int
    bos_id: int
    unk_id: int
    marks_spaces: ClassVar[bool] = True  # a U+2581 in the decoded text was a space
    transform: ClassVar[str | None] = None  # what happens to a text before it is split

    @abstractmethod
    def encode(self, text: str) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        """Ids (N,) and the bytes of the original text each stands for (N,), without BOS.

        The bytes sum to len(text.encode()) whenever N > 0.
        """

    def encode_ids(self, text: str) -> NDArray[np.uint16]:
        """Ids (N,) alone."""
        return self.encode(text)[0]

    @abstractmethod
    def decode(self, ids: Ids) -> str:
        """The text of any ids; control pieces are silent."""

    @abstractmethod
    def pieces(self) -> list[Piece]:
        """The vocabulary by id."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process makes it again from the bytes of its file."""
        return type(self), (self.name, self.model)
