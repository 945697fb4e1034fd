"""Documents as text, from .jsonl, .jsonl.gz (one object a line, key `text`) and .txt files."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".jsonl", ".jsonl.gz", ".txt")
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Block:
    """Consecutive lines of a .jsonl file, or a whole .txt file (first_line 0) as its one line."""

    file: str
    first_line: int
    lines: list[bytes]
    read_bytes: int  # of all inputs as they lie on the disk, up to the end of this block

    @property
    def documents(self) -> int:
        """How many it holds: a blank line is none."""
        if not self.first_line:
            return 1
        return sum(not line.isspace() for line in self.lines)

    def texts(self) -> Iterator[str]:
        if not self.first_line:
            yield _whole(self.lines[0], self.file)
            return
        for number, line in enumerate(self.lines, self.first_line):
            if not line.isspace():
                yield _text(line, f"{self.file}:{number}")

    def checksum(self, before: int) -> int:
        """CRC-32 of all blocks so far: `before` is that of the ones before this."""
        for line in self.lines:
            before = zlib.crc32(line, before)
        return before


def read_documents(paths: Sequence[Path]) -> Iterator[str]:
    """Every document of `paths` in order; a folder stands for its files in name order.

    Paths are checked at the call, contents as they are read: ValueError names file and line.
    """
    return (text for block in read_blocks(paths) for text in block.texts())


def read_blocks(paths: Sequence[Path], block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """The same documents unparsed, lines together until they have `block_bytes`.

    Memory holds one block, which is longer where a single document is.
    """
    return _read_all(input_files(paths), block_bytes)


def input_files(paths: Sequence[Path]) -> list[Path]:
    """The files that `paths` stand for; ValueError where there are none."""
    return [file for path in paths for file in _files(Path(path))]


class Sample:
    """The first documents of a source, at most `documents` and at most `text_bytes` (0: all).

    Iterate once; `taken_documents`, `taken_bytes` and `cut` then say what was given.
    """

    def __init__(self, source: Iterable[str], documents: int = 0, text_bytes: int = 0) -> None:
        if documents < 0 or text_bytes < 0:
            raise ValueError(
                f"a sample of {documents} documents and {text_bytes} bytes; expected numbers "
                "above 0, or 0 for all"
            )
        self._source, self._documents, self._bytes = source, documents, text_bytes
        self.taken_documents = self.taken_bytes = 0
        self.cut = False  # the source held more

    def __iter__(self) -> Iterator[str]:
        for text in self._source:
            size = len(text.encode("utf-8"))
            over_documents = self._documents and self.taken_documents == self._documents
            over_bytes = self._bytes and self.taken_bytes + size > self._bytes
            if over_documents or over_bytes:
                self.cut = True
                return
            self.taken_documents += 1
            self.taken_bytes += size
            yield text


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if _readable(file) and file.is_file())
        if not files:
            raise ValueError(f"{path}: a folder without documents; looked for {_kinds()}")
        return files
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; name one that holds {_kinds()}")
    if not _readable(path):
        raise ValueError(f"{path}: expected a file that ends in {_kinds()}")
    return [path]


def _readable(path: Path) -> bool:
    return path.name.endswith(SUFFIXES)


def _kinds() -> str:
    return ", ".join(SUFFIXES)


def _read_all(files: list[Path], block_bytes: int) -> Iterator[Block]:
    before = 0
    for file in files:
        size = file.stat().st_size
        if file.suffix == ".txt":
            yield Block(str(file), 0, [file.read_bytes()], before + size)
        else:
            yield from _lines(file, before, block_bytes)
        before += size


def _lines(file: Path, before: int, block_bytes: int) -> Iterator[Block]:
    """Lines end at a line feed alone: U+2028 and its kin may stand inside a JSON string."""
    number = 1
    try:
        with file.open("rb") as raw:
            opened = gzip.GzipFile(fileobj=raw) if file.suffix == ".gz" else raw
            while lines := opened.readlines(block_bytes):
                yield Block(str(file), number, lines, before + raw.tell())
                number += len(lines)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: not a whole gzip file ({error}); fetch it again") from None


def _whole(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")  # reading as text would turn CRLF into LF
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: expected UTF-8 text, found {error.reason}") from None


def _text(line: bytes, where: str) -> str:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: expected one JSON object a line ({error})") from None
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        found = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"{where}: expected an object with a string `text`, found {found}")
    text: str = row["text"]
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(
            f"{where}: `text` holds half a surrogate pair, which UTF-8 cannot spell"
        ) from None
    return text
