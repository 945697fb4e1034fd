"""Documents as text, from .jsonl, .jsonl.gz (one object a line, key `text`) and .txt files."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

SUFFIXES = (".jsonl", ".jsonl.gz", ".txt")


def read_documents(paths: Sequence[Path]) -> Iterator[str]:
    """Every document of `paths` in order; a folder stands for its files in name order.

    Paths are checked at the call, contents as they are read: ValueError names file and line.
    """
    return _read_all([file for path in paths for file in _files(Path(path))])


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


def _read_all(files: list[Path]) -> Iterator[str]:
    for file in files:
        if file.suffix == ".txt":
            yield _whole(file)
        else:
            yield from _texts(file)


def _whole(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")  # read_text would turn CRLF into LF
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected UTF-8 text, found {error.reason}") from None


def _texts(file: Path) -> Iterator[str]:
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            yield _text(line, f"{file}:{number}")


def _lines(file: Path) -> Iterator[bytes]:
    """Lines end at a line feed alone: U+2028 and its kin may stand inside a JSON string."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
            yield from lines
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: not a whole gzip file ({error}); fetch it again") from None


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
