"""The .bin shard: 256 little-endian int32 of header, then uint16 tokens; many read as one."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

HEADER_INTS = 256
HEADER_BYTES = 4 * HEADER_INTS
MAGIC = 20240520
VERSION = 1
SHARD_TOKENS = 100_000_000

Tokens = NDArray[np.uint16]
Split = Literal["train", "val"]


def open_shard(path: Path) -> np.memmap[Any, np.dtype[np.uint16]]:
    """The tokens of one shard, memory-mapped and read-only."""
    if not path.is_file():
        raise ValueError(f"{path}: no such shard")
    header = np.fromfile(path, "<i4", HEADER_INTS)
    if not header.size or header[0] != MAGIC:
        found = header[0] if header.size else "nothing"
        raise ValueError(f"{path}: not a shard; expected {MAGIC} as its first int32, found {found}")
    if header.size < HEADER_INTS:
        raise ValueError(f"{path}: truncated inside its header; fetch or write it again")
    if header[1] != VERSION:
        raise ValueError(f"{path}: shard version {header[1]}; this reads version {VERSION}")
    count, data_bytes = int(header[2]), path.stat().st_size - HEADER_BYTES
    if data_bytes != 2 * count:
        state = "truncated" if data_bytes < 2 * count else "damaged"
        raise ValueError(
            f"{path}: {state}: header says {count} tokens, file holds {data_bytes / 2:.10g}; "
            "fetch or write it again"
        )
    return np.memmap(path, "<u2", "r", offset=HEADER_BYTES, shape=(count,))


def check_tokens(tokens: Tokens, vocab_size: int) -> None:
    """Raise ValueError when a token lies outside the vocabulary."""
    largest = int(tokens.max(initial=0))
    if largest >= vocab_size:
        raise ValueError(
            f"the data holds token {largest}, but the vocabulary has {vocab_size} pieces: shards "
            "and tokenizer do not belong together; choose the tokenizer the shards were made with"
        )


class ShardWriter:
    """Writes `<prefix>_000000.bin`, ... in `folder`; leave by an exception and none remains.

    Each shard has a temporary name until it is whole. `files` lists the whole ones. Without
    `with`: `sync` makes all tokens so far survive, and `resume_tokens` goes on behind them.
    """

    def __init__(
        self,
        folder: Path,
        prefix: str,
        shard_tokens: int = SHARD_TOKENS,
        *,
        resume_tokens: int | None = None,
    ) -> None:
        if not 1 <= shard_tokens < 2**31:
            raise ValueError(f"shard_tokens {shard_tokens} must be between 1 and {2**31 - 1}")
        whole, self._held_tokens = divmod(resume_tokens or 0, shard_tokens)
        self._folder, self._prefix, self._shard_tokens = folder, prefix, shard_tokens
        self.files = [self._path(number) for number in range(whole)]
        self._file: BinaryIO | None = None
        if resume_tokens is not None:
            self._take_up()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._discard()
        else:
            self.finish()

    @property
    def tokens(self) -> int:
        return len(self.files) * self._shard_tokens + self._held_tokens

    def write(self, tokens: Tokens) -> None:
        assert tokens.dtype == np.uint16, tokens.dtype
        while tokens.size:
            file = self._file or self._begin()
            part = tokens[: self._shard_tokens - self._held_tokens]
            file.write(part.astype("<u2").tobytes())
            self._held_tokens += part.size
            tokens = tokens[part.size :]
            if self._held_tokens == self._shard_tokens:
                self._close_shard(file)

    def sync(self) -> int:
        """All tokens so far are on the disk; how many."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        return self.tokens

    def finish(self) -> None:
        """The last shard is whole, however short."""
        if self._file is not None:
            self._close_shard(self._file)

    def leave(self) -> None:
        """Close the file and let it lie unfinished."""
        if self._file is not None:
            self._file.close()

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._prefix}_{number:06d}.bin"

    def _partial(self, number: int) -> Path:
        return self._folder / f"{self._prefix}_{number:06d}.bin.partial"

    def _begin(self) -> BinaryIO:
        path = self._path(len(self.files))
        if path.exists():
            raise ValueError(f"{path}: already exists; choose another folder or remove it")
        self._file = self._partial(len(self.files)).open("wb")
        self._file.write(bytes(HEADER_BYTES))
        return self._file

    def _close_shard(self, file: BinaryIO) -> None:
        header = np.zeros(HEADER_INTS, "<i4")
        header[:3] = MAGIC, VERSION, self._held_tokens
        file.seek(0)
        file.write(header.tobytes())
        file.flush()
        os.fsync(file.fileno())
        file.close()
        path = self._path(len(self.files))
        self._partial(len(self.files)).replace(path)
        self.files.append(path)
        self._file, self._held_tokens = None, 0

    def _take_up(self) -> None:
        """Cut what lies behind the tokens that survive; ValueError when they are not all there."""
        for path in self.files:
            _need_bytes(path, HEADER_BYTES + 2 * self._shard_tokens)
        last = len(self.files)
        if self._held_tokens:
            if self._path(last).exists():  # it became whole later
                self._path(last).replace(self._partial(last))
            size = HEADER_BYTES + 2 * self._held_tokens
            _need_bytes(self._partial(last), size)
            self._file = self._partial(last).open("r+b")
            self._file.truncate(size)
            self._file.seek(size)
            last += 1
        while self._path(last).exists() or self._partial(last).exists():
            self._path(last).unlink(missing_ok=True)
            self._partial(last).unlink(missing_ok=True)
            last += 1

    def _discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._partial(len(self.files)).unlink(missing_ok=True)
        for path in self.files:
            path.unlink(missing_ok=True)
        self.files, self._file = [], None


def _need_bytes(path: Path, size: int) -> None:
    found = path.stat().st_size if path.exists() else 0
    if found < size:
        raise ValueError(
            f"{path}: {found} bytes, {size} were written before the interruption; remove "
            f"{path.parent} and write the shards again"
        )


class TokenStream:
    """Several shards as one sequence of uint16; nothing is read before it is asked for."""

    def __init__(self, shards: Sequence[Tokens]) -> None:
        self._shards = list(shards)
        self._bounds = [0, *accumulate(len(shard) for shard in self._shards)]

    def __len__(self) -> int:
        return self._bounds[-1]

    def slice(self, start: int, stop: int) -> Tokens:
        """Tokens start <= i < stop, across shard bounds."""
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"tokens {start} to {stop} asked for, the data holds {len(self)}")
        parts = [np.empty(0, np.uint16)]
        shard = bisect_right(self._bounds, start) - 1
        while start < stop:
            low, high = self._bounds[shard], self._bounds[shard + 1]
            parts.append(self._shards[shard][start - low : stop - low])
            start, shard = min(stop, high), shard + 1
        return np.concatenate(parts)

    def blocks(self, block_tokens: int) -> Iterator[Tokens]:
        """The whole sequence in order, at most `block_tokens` at a time."""
        for start in range(0, len(self), block_tokens):
            yield self.slice(start, min(start + block_tokens, len(self)))


def split_files(folder: Path, split: Split) -> list[Path]:
    """The token shards of a split in name order: byte sidecars share their names' beginning."""
    found = sorted(folder.glob(f"fineweb_{split}_*.bin"))
    return [path for path in found if "_bytes_" not in path.name]


def sidecar_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("fineweb_val_bytes_*.bin"))


def open_split(folder: Path, split: Split) -> TokenStream:
    """All shards of a split as one sequence."""
    files = split_files(folder, split)
    if not files:
        state = "it holds none" if folder.is_dir() else "no such folder"
        raise ValueError(
            f"no {split} data: looked for {folder}/fineweb_{split}_*.bin ({state}); "
            "make shards with `golf data tokenize`, or set data.path to where they are"
        )
    return TokenStream([open_shard(path) for path in files])


def open_sidecar(folder: Path) -> TokenStream | None:
    """Original bytes of every validation token, or none; as long as the tokens, or ValueError."""
    files = sidecar_files(folder)
    if not files:
        return None
    sidecar, tokens = TokenStream([open_shard(path) for path in files]), open_split(folder, "val")
    if len(sidecar) != len(tokens):
        raise ValueError(
            f"{folder}: the byte sidecar counts {len(sidecar)} tokens, the validation shards hold "
            f"{len(tokens)}; write both again with `golf data tokenize`"
        )
    return sidecar
