"""Which logs a word on the command line names."""

from __future__ import annotations

import glob
from pathlib import Path

from tools.strangers.logs import read_log


def find_logs(place: str) -> list[Path]:
    """The logs that a word names: a log, a run folder, a folder with several of either, or a
    pattern; several separated by commas. ValueError for a word that names none.
    """
    if Path(place).exists():
        return _logs_in(Path(place))
    if "," in place:
        parts = [part.strip() for part in place.split(",")]
        return [path for part in parts if part for path in find_logs(part)]
    matches = sorted(glob.glob(place))  # noqa: PTH207 - a pattern may be absolute
    if not matches:
        raise ValueError(f"{place}: no such log, run folder, folder of them, or pattern")
    return [path for match in matches for path in _logs_in(Path(match))]


def _logs_in(path: Path) -> list[Path]:
    if not path.is_dir() or (path / "log.txt").is_file():
        return [path]
    inside = sorted(path.iterdir())
    logs = [p for p in inside if p.is_file() and p.suffix in (".log", ".txt")]
    logs = [p for p in logs if p.suffix == ".log" or read_log(p).finals or read_log(p).steps]
    found = [*logs, *(p for p in inside if (p / "log.txt").is_file())]
    if not found:
        raise ValueError(f"{path}: neither a run (log.txt) nor logs (*.log, *.txt) nor runs in it")
    return found
