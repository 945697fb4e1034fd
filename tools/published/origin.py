"""Where a folder of published data is from: `source.json` in it, with the SHA-256 of every file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tools.published.hub import SHA256_DIGITS, hashed
from tools.published.variants import MANIFEST, Entry, Listing, Source, entries_below

RECORD = "source.json"


@dataclass(frozen=True, kw_only=True)
class Held:
    """A file as it was when it came."""

    size_bytes: int
    oid: str
    sha256: str

    @staticmethod
    def of(path: Path, entry: Entry) -> Held:
        """Of a file that was compared: where SHA-256 is listed, that is it."""
        sha256 = entry.oid if len(entry.oid) == SHA256_DIGITS else hashed(path)
        return Held(size_bytes=entry.size_bytes, oid=entry.oid, sha256=sha256)


@dataclass(kw_only=True)
class Record:
    """What `source.json` says."""

    source: Source
    commit: str = ""
    bytes_per_s: float | None = None  # of the last transfer
    files: dict[str, Held] = field(default_factory=dict)

    @property
    def listing(self) -> Listing | None:
        """What is known without the network."""
        files = ((self.source.path(p), held.size_bytes, held.oid) for p, held in self.files.items())
        entries = entries_below(self.source, files)
        return Listing(source=self.source, commit=self.commit, entries=entries) if entries else None

    def changed(self, entries: Iterable[Entry]) -> list[str]:
        """The manifest is renewed whenever something is published beside; data stays as it is."""
        files = {entry.path: entry.oid for entry in entries if entry.path != MANIFEST}
        known = {path: self.files[path] for path in files if path in self.files}
        return [path for path, held in known.items() if files[path] not in (held.oid, held.sha256)]

    def save(self, out: Path) -> None:
        """Whole or not at all."""
        new = out / f".{RECORD}.new"
        new.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        new.replace(out / RECORD)


def own_folder(source: Source) -> Path:
    """`data` for the task's own repository, as in its commands; below it, one for any other, and
    one for each remote root of it. A top has a `.`, which is no name of a root.
    """
    names = source.repo_id.split("/")
    if source.remote_root != Source.remote_root:
        names += source.remote_root.split("/") if source.remote_root else ["."]
    elif source.repo_id == Source.repo_id:
        return Path("data")
    return Path("data") / "--".join(map(_without_dashes, names))


def _without_dashes(name: str) -> str:
    """Free of the `--` that parts names: no two sources share a folder."""
    return re.sub("^-|-(?=-)|-$", "%2D", name.replace("%", "%25"))


def _free_folder(source: Source, taken: Path) -> Path:
    """Its own, or the first behind it that nothing was fetched into."""
    own = own_folder(source)
    names = [own, *(own.with_name(f"{own.name}-{number}") for number in range(2, 1000))]
    free = (p for p in names if p.absolute() != taken.absolute() and not (p / RECORD).exists())
    return next(free)


def read_record(out: Path, source: Source) -> Record:
    """Of this source, or empty; ValueError when the folder is another's."""
    path = out / RECORD
    if not path.exists():
        return Record(source=source)
    try:
        fields = json.loads(path.read_bytes())
        files = {name: Held(**held) for name, held in fields.pop("files").items()}
        record = Record(**{**fields, "source": Source(**fields["source"]), "files": files})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: damaged ({error}); remove it, and the files that are as published are "
            "taken over into a new one"
        ) from None
    other = (record.source.repo_id, record.source.remote_root)
    if record.files and other != (source.repo_id, source.remote_root):
        raise ValueError(
            f"{out} is of {other[0]} (folder {other[1]!r}), not of "
            f"{source.repo_id} ({source.remote_root!r}): one folder a source, so that nothing "
            f"mixes; choose another --out, as {_free_folder(source, out)}"
        )
    return replace(record, source=source)
