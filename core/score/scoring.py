"""A scored validation split: core decides what is scored, a backend gives the nats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.data.batches import Data
from core.data.decoding import character_ends, check_decoding
from core.data.export import check_files, check_manifest, read_manifest
from core.data.lossy import require_text
from core.data.pieces import Tokenizer
from core.data.shards import (
    TokenStream,
    check_tokens,
    open_sidecar,
    open_split,
)
from core.data.token_bytes import ByteTable, byte_table, check_table
from core.data.tokenizer import open_tokenizer
from core.score.adaptation import Adapt, Adaptation, Lora, Phased, Sgd
from core.score.bpb import Ints, Scored, Tally
from core.score.interval import bpb_interval
from core.score.protocols import CHUNKED, ISOLATES, Protocol, ProtocolName
from core.score.scorers import Plain, Ranks
from core.score.subsets import Subset, SubsetName, choose_subset, windows_of
from core.score.tape import Tape
from core.score.windows import Rows, Window

NatsOf = Callable[[Rows, Rows], NDArray[np.float32]]  # inputs (B, T), the last L targets -> (B, L)


@dataclass(frozen=True, kw_only=True)
class Score:
    """The recipe's score section."""

    batch: int = 64  # windows a forward pass
    val_every_steps: int = 1000  # 0: only at the end
    subset: SubsetName = "full"  # or a fixed part of the split, labelled wherever its score is
    limit_tokens: int = 0  # another subset: only the first so many targets; 0: all
    allow_lossy: bool = False  # a tokenizer that loses text; every score of it says `lossy`
    protocol: ProtocolName = "chunked"  # which target is scored with which tokens before it
    stride: int = 64  # targets a window of the protocols that slide
    seq_len: int = 0  # tokens a window, also more than in training; 0: arch.seq_len
    adapt: Adapt = "none"  # to what has been scored, as the next sections say
    sgd: Sgd = field(default_factory=Sgd)
    lora: Lora = field(default_factory=Lora)
    phased: Phased = field(default_factory=Phased)

    def __post_init__(self) -> None:
        for name in ("batch", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"score.{name} {getattr(self, name)} must be at least 1")
        for name in ("val_every_steps", "limit_tokens", "seq_len"):
            if getattr(self, name) < 0:
                raise ValueError(f"score.{name} {getattr(self, name)} must not be negative")
        if self.limit_tokens and self.subset != "full":
            raise ValueError(
                f"score.subset {self.subset} and score.limit_tokens {self.limit_tokens} are two "
                "subsets, expected one; set score.limit_tokens=0 or score.subset=full"
            )
        if self.adapt in ("lora", "phased") and self.protocol not in ISOLATES:
            raise ValueError(
                f"score.adapt {self.adapt} learns by documents, score.protocol {self.protocol} "
                "reaches across them; set score.protocol=strided-docs or docs"
            )

    @property
    def windows_by(self) -> Protocol:
        """The protocol with its numbers."""
        return Protocol(name=self.protocol, stride=self.stride, seq_len=self.seq_len)

    @property
    def adaptation(self) -> Adaptation | None:
        """What learns while it is scored, with its numbers."""
        if self.adapt == "none":
            return None
        return Adaptation(name=self.adapt, sgd=self.sgd, lora=self.lora, phased=self.phased)


@dataclass(frozen=True)
class Validation:
    """The validation tokens with what their bytes are, checked to belong together."""

    stream: TokenStream
    sidecar: TokenStream | None  # original bytes of each token
    table: ByteTable
    subset: Subset | None  # None: the whole split
    lossy: str = ""  # what the tokenizer loses, if that was allowed
    protocol: Protocol = CHUNKED
    adaptation: Adaptation | None = None  # of the model, to what has been scored

    def chunked(self) -> Validation:
        """The same in windows that do not overlap: what a run is watched by, at the least cost."""
        return replace(self, protocol=CHUNKED, adaptation=None)

    def plain(self) -> Validation:
        """The same by a model that learns nothing."""
        return replace(self, adaptation=None)

    def how(self) -> str | None:
        """What stands beside a score; None for the plainest one."""
        said = self.protocol.label()
        if self.adaptation is None:
            return said
        return f"{said or self.protocol.name}, {self.adaptation.label()}"

    @property
    def of_targets(self) -> int:
        """Targets of the whole split."""
        return len(self.stream) - 1

    def windows(self, seq_len: int) -> Sequence[Window]:
        """What is scored, in order, by a model that was trained at this length."""
        return windows_of(self.subset, self.protocol.windows(self.stream, seq_len))


def open_validation(
    data: Data,
    vocab_size: int,
    limit_tokens: int = 0,
    subset: SubsetName = "full",
    seq_len: int = 0,
    allow_lossy: bool = False,
    protocol: Protocol = CHUNKED,
    adaptation: Adaptation | None = None,
) -> Validation:
    """Open the split and refuse a byte count that the tokenizer's own decoding contradicts.

    A subset that is spread depends on its windows: on the protocol, and seq_len in training.
    """
    folder, tokenizer = Path(data.path), open_tokenizer(data.tokenizer)
    require_vocabulary(tokenizer, vocab_size)
    lossy = require_text(tokenizer, allow_lossy)
    manifest = read_manifest(folder)
    if manifest is not None:
        check_manifest(manifest, tokenizer)
        check_files(manifest, folder)
    stream, sidecar = open_split(folder, "val"), open_sidecar(folder)
    if subset.startswith("spread") and seq_len < 1:
        raise ValueError(f"score.subset {subset} needs a seq_len of at least 1, found {seq_len}")
    stride = protocol.window_targets(seq_len)
    chosen = choose_subset(subset, limit_tokens, len(stream), stride)
    if adaptation is not None and chosen is not None and chosen.spread:
        raise ValueError(
            f"score.subset {chosen.name} is of windows far apart, which score.adapt "
            f"{adaptation.name} cannot learn from in turn; set score.limit_tokens or a subset "
            "first-..."
        )
    table = byte_table(tokenizer)
    check_table(table, tokenizer, sidecar=sidecar is not None)
    validation = Validation(stream, sidecar, table, chosen, lossy, protocol, adaptation)
    read = read_tokens(validation, tokenizer, seq_len)
    check_decoding(table, tokenizer, read, allow_unknown=bool(lossy))
    return validation


def read_tokens(validation: Validation, tokenizer: Tokenizer, seq_len: int) -> TokenStream:
    """The tokens that scoring reads, for the check of their bytes.

    The stretches of a spread are joined; where one begins or ends inside a character, spelled in
    byte pieces, those pieces are left out.
    """
    stream, subset = validation.stream, validation.subset
    if subset is None:
        return stream
    if not subset.spread:
        return TokenStream([stream.slice(0, subset.targets + 1)])
    ends = character_ends(tokenizer)
    parts = []
    for window in validation.windows(seq_len):
        tokens = stream.slice(window.first - 1, window.stop)
        check_tokens(tokens, tokenizer.vocab_size)
        text = np.flatnonzero(ends[tokens])
        parts.append(tokens[text[0] : text[-1] + 1] if text.size else tokens[:0])
    return TokenStream([np.concatenate(parts)])


def require_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> None:
    if tokenizer.vocab_size != vocab_size:
        raise ValueError(
            f"tokenizer {tokenizer.name} has {tokenizer.vocab_size} pieces, the model a "
            f"vocab_size of {vocab_size}; set arch.vocab_size or choose the other tokenizer"
        )


def open_tally(
    validation: Validation, seq_len: int, windows: Sequence[Window] | None = None
) -> Tally:
    """Nothing added up yet. windows: those of a subset, where they are not the protocol's."""
    chosen = None
    if validation.subset is not None:
        chosen = validation.windows(seq_len) if windows is None else windows
    return Tally(len(validation.stream), validation.sidecar is not None, chosen)


def score(
    nats_of: NatsOf,
    validation: Validation,
    seq_len: int,
    batch: int,
    after: Callable[[Tally], None] | None = None,
    tally: Tally | None = None,
    ranks: Ranks | None = None,
) -> Scored:
    """Score every target once by the validation's protocol; seq_len: of the model in training.

    `after` is called behind each batch. `tally` is where an earlier scoring stopped, behind one
    of its batches: the same batches follow, and the same sums in the same order. `ranks` share
    the batches, and each returns the score.
    """
    tally = open_tally(validation, seq_len) if tally is None else tally
    open_tape(validation, seq_len, batch, tally).play(Plain(nats_of), after, ranks)
    return with_interval(tally, validation, validation.windows(seq_len))


def open_tape(validation: Validation, seq_len: int, batch: int, tally: Tally) -> Tape:
    """The validation's windows, those behind the tally's."""
    shape = batch, validation.protocol.length(seq_len)
    windows = validation.windows(seq_len)
    return Tape(validation.stream, windows, shape, partial(bytes_of, validation), tally)


def subset_fields(scored: Scored, validation: Validation) -> dict[str, Any] | None:
    """The label of a score that is not of the whole split; None for one that is.

    The interval is 95 %, for val_bpb of the whole split.
    """
    subset = validation.subset
    if subset is None:
        return None
    low, high = scored.interval or (None, None)
    return {
        "name": subset.name,
        "targets": scored.tokens,
        "of_targets": validation.of_targets,
        "val_bpb_low": low,
        "val_bpb_high": high,
        **({} if subset.spread else {"first_targets": scored.tokens}),
    }


def with_interval(tally: Tally, validation: Validation, windows: Sequence[Window]) -> Scored:
    """The result; of a subset, whose windows these are, with the interval of the whole split."""
    scored, subset = tally.result(), validation.subset
    if subset is None:
        return scored
    sampled_frac = scored.tokens / validation.of_targets
    starts = [window.first for window in windows]
    sums = [tally.window_sums[index] for index in np.argsort(starts)]
    return replace(scored, interval=bpb_interval(sums, sampled_frac, subset.spread))


def bytes_of(validation: Validation, window: Window) -> tuple[Ints, Ints | None]:
    """What the window's targets count by the reference tables, and of the original text.

    Where the text was transformed before it was encoded only the sidecar knows either.
    """
    first, stop = window.first, window.stop
    raw = None
    if validation.sidecar is not None:
        raw = validation.sidecar.slice(first, stop).astype(np.int64)
    if validation.table.needs_sidecar:
        assert raw is not None
        return raw, raw
    tokens = validation.stream.slice(first - 1, stop)
    return validation.table.count(tokens[:-1], tokens[1:]), raw
