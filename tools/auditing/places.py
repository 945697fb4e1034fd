"""Which logs and records folders lie behind the words of a command line."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.checks.plain_json import NAME
from tools.checks.seed_logs import SeedLog, read_seed_log
from tools.strangers.logs import MAX_BYTES, read_log

MAX_ENTRIES = 20_000  # files and folders below one word
RUN_LOG = "log.txt"  # of a run folder of ours


@dataclass(frozen=True, kw_only=True)
class Places:
    """Records folders (submission.json beside logs), and logs by themselves."""

    records: tuple[Path, ...]
    logs: tuple[Path, ...]


def find_places(words: Iterable[str]) -> Places:
    """Every folder is looked through, links apart; ValueError for a word that names nothing."""
    records: dict[Path, None] = {}
    logs: dict[Path, None] = {}
    for word in words:
        for path in _named(word):
            for found in _below(path) if path.is_dir() else (path,):
                (records if found.is_dir() else logs)[found] = None
    return Places(records=tuple(records), logs=tuple(logs))


def open_log(path: Path) -> SeedLog:
    """A log within bounds; that of a run folder with the settings of its recipe."""
    run = path.name == RUN_LOG and (path.parent / "recipe.json").is_file()
    name = str(path.parent if run else path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            said = f"not read: {size:,} bytes, {MAX_BYTES:,} are the most that is read of a log"
            return read_seed_log(name, b"", said)
        log = read_seed_log(name, path.read_bytes())
    except OSError as error:
        return read_seed_log(name, b"", f"not readable: {error.strerror}")
    if not run:
        return log
    return SeedLog(**{**vars(log), "log": read_log(path.parent)})


def is_log(log: SeedLog) -> bool:
    """Whether a text file in a folder has anything of a log; a .log is one by its name."""
    named = Path(log.name).suffix != ".txt"
    return bool(named or log.log.finals or log.log.steps or log.log.vals)


def _named(word: str) -> list[Path]:
    if Path(word).exists():
        return [Path(word)]
    matches = sorted(glob.glob(word))  # noqa: PTH207 - a pattern may be absolute
    if not matches:
        raise ValueError(f"{word}: no such log, folder or pattern")
    return [Path(match) for match in matches]


def _below(root: Path) -> Iterator[Path]:
    """Records folders, which nobody looks into, and the logs of all other folders."""
    seen = 0
    for folder, inside, files in os.walk(root):
        seen += len(inside) + len(files)
        if seen > MAX_ENTRIES:
            raise ValueError(f"{root}: more than {MAX_ENTRIES} files; name a smaller folder")
        here = Path(folder)
        if NAME in files:
            inside.clear()
            yield here
            continue
        inside.sort()
        if RUN_LOG in files and not (here / RUN_LOG).is_symlink():
            yield here / RUN_LOG
            continue
        logs = [here / name for name in sorted(files) if name.endswith((".log", ".txt"))]
        yield from (path for path in logs if not path.is_symlink())
