"""An export on its way: shards beside the folder they will become, left and taken up again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from core.data.encode import COUNTED, Part, Work
from core.data.shards import ShardWriter, Split

MANIFEST = "manifest.json"
PROGRESS = "progress.json"
ORIGINAL, DECODED = "original documents", "decoded text"  # what was tokenized, by the manifest
SAVE_BYTES = 1 << 24  # of text, between two moments that an interrupted export goes on from


@dataclass
class Position:
    """All that an interrupted export must know: its settings, what was read, what was written."""

    job: dict[str, Any]
    sources: int = 0
    checksum: int = 0
    documents: int = 0
    counts: dict[str, list[int]] = field(default_factory=dict)  # of each split, by COUNTED
    chains: dict[str, str] = field(default_factory=dict)  # of each split, hex
    tokens: dict[str, int] = field(default_factory=dict)  # of each file prefix


class Unfinished:
    """The folder `.NAME.partial`. Leave by an exception: it stays from its last save, or goes."""

    def __init__(self, folder: Path, job: dict[str, Any], *, resumable: bool) -> None:
        self.folder = folder.resolve()
        _need_room(self.folder)
        self.partial = unfinished_folder(self.folder)
        if not resumable:  # of this process alone
            self.partial = self.partial.with_suffix(f".{os.getpid()}.partial")
        self.resumable = resumable
        self.partial.mkdir(parents=True, exist_ok=resumable)
        self._lock = _locked(self.partial)
        try:
            self.position = self._saved(job) or Position(job)
            self._writers = {name: self._writer(name) for name in _prefixes()}
        except BaseException:
            self._writers = {}
            self._give_up()
            raise
        self._unsaved_bytes = 0

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            os.close(self._lock)
        else:
            self._give_up()

    def remaining(self, works: Iterable[Work]) -> Iterator[Work]:
        """What is still to do, once the sources have shown that they begin as they did."""
        done, expected = self.position.sources, self.position.checksum  # they move meanwhile
        checksum, seen = 0, 0
        for work in works:
            if seen == done:
                yield work
                continue
            checksum, seen = work.source.checksum(checksum), seen + 1
            if seen == done and checksum != expected:
                raise self._other_inputs()
        if seen < done:
            raise self._other_inputs()

    def add(self, work: Work, parts: Sequence[Part]) -> None:
        position = self.position
        for part in parts:
            position.documents += part.counts[0]
            held = position.counts.get(part.split, [0] * len(COUNTED))
            position.counts[part.split] = [a + b for a, b in zip(held, part.counts, strict=True)]
            position.chains[part.split] = _chained(position.chains.get(part.split), part.digests)
            self._writers[f"fineweb_{part.split}"].write(part.tokens)
            self._writers["fineweb_val_bytes"].write(part.sidecar)
            self._unsaved_bytes += part.counts[2]
        position.sources += 1
        position.checksum = work.source.checksum(position.checksum)
        if self.resumable and self._unsaved_bytes >= SAVE_BYTES:
            self.save()

    def save(self) -> None:
        self.position.tokens = {name: writer.sync() for name, writer in self._writers.items()}
        _write(self.partial / PROGRESS, asdict(self.position))
        self._unsaved_bytes = 0

    def finish(self, fields: dict[str, Any]) -> dict[str, Any]:
        """`folder` appears, whole, with its manifest, which is returned."""
        if not self.position.documents:
            raise ValueError("no documents to tokenize; expected at least one")
        for writer in self._writers.values():
            writer.finish()
        shards = sorted(self.partial.glob("*.bin"))
        manifest = {
            "version": 2,
            **fields,
            "splits": {split: self._split(split, fields["text"]) for split in get_args(Split)},
            "files": {path.name: sha256_of([path]) for path in shards},
        }
        _write(self.partial / MANIFEST, manifest)
        self.partial.replace(self.folder)
        (self.folder / PROGRESS).unlink(missing_ok=True)
        return manifest

    def _give_up(self) -> None:
        for writer in self._writers.values():
            writer.leave()
        if not (self.resumable and (self.partial / PROGRESS).exists()):
            shutil.rmtree(self.partial, ignore_errors=True)
        os.close(self._lock)

    def _split(self, split: Split, text: str) -> dict[str, Any]:
        """`documents_sha256` is _chained over the SHA-256 of each document's UTF-8 bytes."""
        held = self.position.counts.get(split, [0] * len(COUNTED))
        counts: dict[str, int | None] = dict(zip(COUNTED, held, strict=True))
        if text == DECODED:
            counts |= {"raw_bytes": None, "decoded_bytes": counts["raw_bytes"]}
        chain = self.position.chains.get(split, _chained(None, []))
        return {**counts, "documents_sha256": chain}

    def _writer(self, prefix: str) -> ShardWriter:
        held = self.position.tokens.get(prefix, 0)
        shard_tokens = self.position.job["shard_tokens"]
        return ShardWriter(self.partial, prefix, shard_tokens, resume_tokens=held)

    def _saved(self, job: dict[str, Any]) -> Position | None:
        path = self.partial / PROGRESS
        if not path.exists():
            for left in self.partial.iterdir():  # of one that ended before its first save
                left.unlink()
            return None
        try:
            position = Position(**json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: damaged ({error}); remove {self.partial}") from None
        for name, value in job.items():
            if position.job.get(name) != value:
                raise ValueError(
                    f"{self.partial}: an unfinished export with {name} "
                    f"{position.job.get(name)}, now {value}; repeat its command to finish it, "
                    "or remove that folder to begin anew"
                )
        return position

    def _other_inputs(self) -> ValueError:
        return ValueError(
            f"{self.partial}: an unfinished export of other documents: the first "
            f"{self.position.documents} are not those it began with; name the same inputs in the "
            "same order, or remove that folder to begin anew"
        )


def unfinished_folder(folder: Path) -> Path:
    """Where an export to `folder` lies until it is whole."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.partial")


def sha256_of(files: Sequence[Path]) -> str:
    """Of the files' bytes, one after another."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _prefixes() -> list[str]:
    return [*(f"fineweb_{split}" for split in get_args(Split)), "fineweb_val_bytes"]


def _chained(chain: str | None, digests: Sequence[bytes]) -> str:
    """h = SHA-256(h + digest) for each, from 32 zero bytes: a hash that can be taken up again."""
    value = bytes.fromhex(chain) if chain else bytes(32)
    for digest in digests:
        value = hashlib.sha256(value + digest).digest()
    return value.hex()


def _need_room(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: expected a new or empty folder; choose another or empty it")


def _locked(folder: Path) -> int:
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"{folder}: another process is writing it; wait, or choose another --out"
                ) from None
    except BaseException:
        os.close(handle)
        raise
    return handle


def _write(path: Path, fields: dict[str, Any]) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".new")
    with partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(fields, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
