"""A stranger's records folder as data: what lies in it, within bounds, links never followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from core.data.findings import Finding
from core.score.rules import found
from tools.checks.kinds import START_BYTES, data_kind, odd_kind

MAX_ENTRIES = 500
MAX_DEPTH = 6
MAX_FILE_BYTES = 64 << 20
MAX_FOLDER_BYTES = 256 << 20

_BLANK = b" \t\r\n\0\x0b\x0c"
REQUIRED = ("README.md", "submission.json", "train_gpt.py")
OWN_KIND = {".py", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".so", ".model", ".vocab"}
_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
LEAVINGS = ("__pycache__", "__MACOSX", "Thumbs.db", "desktop.ini")

Kind = Literal["file", "folder", "link", "special"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Something in the folder; `path` is relative to it."""

    path: str
    kind: Kind
    size: int

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.path).suffix.lower()

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What was found; `excess` says which bound was passed, and then the rest was not read."""

    root: Path
    entries: tuple[Entry, ...]
    excess: str = ""

    @property
    def files(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.kind == "file"]

    def file(self, path: str) -> Entry | None:
        return next((entry for entry in self.files if entry.path == path), None)

    def read(self, entry: Entry, limit: int = MAX_FILE_BYTES) -> bytes:
        """The bytes of a file, `limit` at most; ValueError where it has become a link."""
        with os.fdopen(os.open(self.root / entry.path, _FLAGS), "rb") as file:
            return file.read(limit)

    def ends(self, entry: Entry) -> tuple[bytes, bytes]:
        """The first and the last bytes of a file."""
        with os.fdopen(os.open(self.root / entry.path, _FLAGS), "rb") as file:
            start = file.read(START_BYTES)
            file.seek(max(0, entry.size - 16))
            return start, file.read(16)


def open_folder(root: Path) -> Folder:
    """Everything below `root`, in the order of names. ValueError where it is no folder."""
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        raise ValueError(f"{root}: {what}; expected a records folder")
    entries: list[Entry] = []
    for entry in _walk(root, root, 1):
        entries.append(entry)
        if excess := _excess(entries):
            return Folder(root=root, entries=tuple(entries), excess=excess)
    return Folder(root=root, entries=tuple(sorted(entries, key=lambda e: e.path)))


def _excess(entries: list[Entry]) -> str:
    last = entries[-1]
    if len(entries) > MAX_ENTRIES:
        return f"more than {MAX_ENTRIES} files and folders"
    if last.kind == "file" and last.size > MAX_FILE_BYTES:
        return f"{last.path} has {last.size:,} bytes, more than {MAX_FILE_BYTES:,}"
    if last.path.count("/") >= MAX_DEPTH:
        return f"folders more than {MAX_DEPTH} deep"
    if sum(entry.size for entry in entries) > MAX_FOLDER_BYTES:
        return f"more than {MAX_FOLDER_BYTES:,} bytes"
    return ""


def _walk(root: Path, folder: Path, depth: int) -> Iterator[Entry]:
    with os.scandir(folder) as found_:
        for one in found_:
            held = one.stat(follow_symlinks=False)
            kind = _kind(held.st_mode)
            path = Path(one.path).relative_to(root).as_posix()
            yield Entry(path=path, kind=kind, size=held.st_size if kind == "file" else 0)
            if kind == "folder" and depth <= MAX_DEPTH:
                yield from _walk(root, Path(one.path), depth + 1)


def _kind(mode: int) -> Kind:
    if stat.S_ISLNK(mode):
        return "link"
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "special"


def check_folder(folder: Folder) -> Iterator[Finding]:
    """The rules about files, before any of them is understood."""
    absent = [name for name in REQUIRED if folder.file(name) is None]
    if folder.excess:
        yield found("files", "FAIL", ".", f"{folder.excess}: the rest was not looked at")
    for name in absent:
        yield found("files", "FAIL", name, "missing")
    empty = [name for name in REQUIRED if _is_blank(folder, folder.file(name))]
    for name in empty:
        yield found("files", "FAIL", name, "empty")
    if not (absent or empty or folder.excess):
        size = sum(entry.size for entry in folder.files)
        yield found("files", "PASS", ".", f"{len(folder.files)} files, {size:,} bytes")
    yield from _links(folder)
    yield from _hidden(folder)
    yield from _foreign_data(folder)


def _is_blank(folder: Folder, entry: Entry | None) -> bool:
    """Whether nobody can read anything in a file."""
    if entry is None or not entry.size:
        return entry is not None
    try:
        return entry.size < START_BYTES and not folder.read(entry, START_BYTES).strip(_BLANK)
    except OSError:
        return False


def _links(folder: Folder) -> Iterator[Finding]:
    odd = [entry for entry in folder.entries if entry.kind in ("link", "special")]
    for entry in odd:
        what = "a symbolic link" if entry.kind == "link" else "a device, pipe or socket"
        yield found("links", "FAIL", entry.path, f"{what}: not followed and not read")
    if not odd:
        yield found("links", "PASS", ".", "files and folders alone")


def _hidden(folder: Folder) -> Iterator[Finding]:
    names = {entry.path: PurePosixPath(entry.path).parts for entry in folder.entries}
    bad = [
        path
        for path, parts in names.items()
        if any(part.startswith(".") or part in LEAVINGS for part in parts)
        or path.endswith((".pyc", "~", ".swp"))
    ]
    for path in bad:
        yield found("hidden files", "FAIL", path, "hidden, or left by a tool; take it out")
    if not bad:
        yield found("hidden files", "PASS", ".", "none")


def _foreign_data(folder: Folder) -> Iterator[Finding]:
    bad = 0
    for entry in folder.files:
        try:
            start, end = folder.ends(entry)
        except OSError as error:
            yield found("foreign data", "UNDECIDED", entry.path, f"not readable: {error.strerror}")
            continue
        if what := data_kind(entry.name, entry.suffix, entry.size, start, end):
            bad += 1
            evidence = f"{what}, {entry.size:,} bytes; it does not belong into a records folder"
            yield found("foreign data", "FAIL", entry.path, evidence)
        elif entry.suffix not in OWN_KIND and (odd := odd_kind(entry.suffix, entry.size, start)):
            bad += 1
            evidence = f"{odd}, {entry.size:,} bytes: weights, or what is it for?"
            yield found("foreign data", "UNDECIDED", entry.path, evidence)
    if not bad:
        yield found("foreign data", "PASS", ".", "no weights, shards or archives")
