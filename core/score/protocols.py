"""Scoring protocols as data: which target is scored with which tokens before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from core.arch.spec import BOS
from core.data.shards import TokenStream
from core.score.windows import Edges, Windows, one_stretch

ProtocolName = Literal["chunked", "sliding", "docs", "strided-docs"]
SLIDES: tuple[ProtocolName, ...] = ("sliding", "strided-docs")
ISOLATES: tuple[ProtocolName, ...] = ("docs", "strided-docs")
BLOCK_TOKENS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """All N - 1 targets of N tokens once each, each behind at most seq_len tokens.

    chunked: windows of seq_len that do not overlap. sliding: from the second window on only the
    last `stride` targets of a window are scored, so that every target but the first seq_len has
    seq_len - stride tokens or more before it. docs, strided-docs: the same within each document:
    no window reaches across a BOS. A BOS ends the document before it: as a target it is scored
    with that document's tokens, and it is the first input of its own. Tokens before the first BOS
    are a document.
    """

    name: ProtocolName = "chunked"
    stride: int = 64  # of those that slide
    seq_len: int = 0  # tokens of a window, more or fewer than in training; 0: as many

    def windows(self, stream: TokenStream, trained_seq_len: int) -> Windows:
        """The whole plan, in the order in which it is summed."""
        edges = documents(stream) if self.name in ISOLATES else one_stretch(len(stream))
        length, stride = self.length(trained_seq_len), self.window_targets(trained_seq_len)
        return Windows(edges, length, stride)

    def length(self, trained_seq_len: int) -> int:
        """Tokens of a window."""
        return self.seq_len or trained_seq_len

    def window_targets(self, trained_seq_len: int) -> int:
        """How many a window scores at most, but for the first ones."""
        length = self.length(trained_seq_len)
        if self.name not in SLIDES:
            return length
        if 0 < length < self.stride:
            raise ValueError(
                f"score.stride {self.stride} exceeds the {length} tokens of a window: what lies "
                "between two windows would not be scored; set score.stride or score.seq_len"
            )
        return self.stride

    def cost(self, trained_seq_len: int) -> float:
        """Tokens that the model reads for each target, where documents are long."""
        return self.length(trained_seq_len) / self.window_targets(trained_seq_len)

    def described(self, trained_seq_len: int) -> dict[str, Any]:
        """As fields of a report."""
        return {
            "windows": self.name,
            "seq_len": self.length(trained_seq_len),
            "stride": self.stride if self.name in SLIDES else None,
        }

    def label(self) -> str | None:
        """What stands beside a score; None for chunked windows as long as in training."""
        words = [f"stride {self.stride}"] if self.name in SLIDES else []
        words += [f"seq_len {self.seq_len}"] if self.seq_len else []
        return ", ".join([self.name, *words]) if words or self.name in ISOLATES else None


CHUNKED = Protocol()


def documents(stream: TokenStream) -> Edges:
    """Where the inputs of each document begin, and the number of all inputs."""
    ends = one_stretch(len(stream))
    starts, done = [ends[:1]], 0
    for block in stream.blocks(BLOCK_TOKENS):
        starts.append(np.flatnonzero(block == BOS) + done)
        done += len(block)
    found = np.unique(np.concatenate(starts))
    return np.append(found[found < ends[1]], ends[1])
