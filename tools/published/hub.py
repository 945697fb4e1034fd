"""The Hub: what a repository lists, and one file of it, fetched, gone on with and checked.

Large files have their SHA-256 in the listing, small ones git's blob id: what arrives is compared.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tools.published.variants import Entry, Listing, Source, entries_below

TRIES = 3  # around those of huggingface_hub, which gives up on a connection that is reset
SHA256_DIGITS = 64

Tell = Callable[[int], None]  # hears how many bytes more have come


def look(source: Source, known: Listing | None) -> Listing:
    """The files of `source`; with HF_HUB_OFFLINE those `known` and those in the Hub's cache."""
    hub = _library()
    if hub.constants.HF_HUB_OFFLINE:
        return _offline(source, known)
    with _sentences(source):
        api, kind = hub.HfApi(), "dataset"
        commit = api.repo_info(source.repo_id, repo_type=kind, revision=source.revision).sha
        tree = api.list_repo_tree(
            source.repo_id,
            source.remote_root or None,
            recursive=True,
            repo_type=kind,
            revision=commit,
        )
        files = [item for item in tree if hasattr(item, "blob_id")]
    listed = ((f.path, int(f.size), f.lfs.sha256 if f.lfs else f.blob_id) for f in files)
    return Listing(source=source, commit=commit, entries=entries_below(source, listed))


def obtain(listing: Listing, entry: Entry, part: Path, tell: Tell) -> None:
    """`part` is `entry`, every byte as listed, or ValueError.

    A broken connection leaves a beginning in `part`, to go on from. What is wrong is removed.
    """
    if _from_cache(listing.source, entry, part, tell):
        return
    if size(part) < entry.size_bytes or not part.exists():
        _fetch(listing, entry, part, tell)
    if wrong := difference(part, entry):
        part.unlink(missing_ok=True)
        raise ValueError(
            f"{entry.path}: what arrived is not the file that is listed ({wrong}) and was thrown "
            "away. Repeat the command; if that does not help, the server or a proxy on the way is "
            "at fault: try another network or HF_ENDPOINT"
        )


def cached(source: Source, entry: Entry) -> Path | None:
    """The file in the Hub's cache, where what was fetched is named by its content."""
    blob = _cache(source) / "blobs" / entry.oid
    return blob if blob.is_file() and size(blob) == entry.size_bytes else None


def difference(path: Path, entry: Entry) -> str:
    """What sets the file apart from the one that is listed, or nothing."""
    if (found_bytes := size(path)) != entry.size_bytes:
        return f"{found_bytes:,} bytes, {entry.size_bytes:,} expected"
    if (found := hashed(path, len(entry.oid))) != entry.oid:
        return f"its hash is {found[:12]}, {entry.oid[:12]} expected"
    return ""


def hashed(path: Path, digits: int = SHA256_DIGITS) -> str:
    """SHA-256, or for 40 digits git's blob id."""
    digest = hashlib.sha256()
    if digits != SHA256_DIGITS:
        digest = hashlib.sha1(f"blob {size(path)}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch(listing: Listing, entry: Entry, part: Path, tell: Tell) -> None:
    if listing.offline:
        raise ValueError(
            f"{entry.path}: HF_HUB_OFFLINE is set, and the Hub's cache does not hold it; unset it"
        )
    with _sentences(listing.source, entry, part):
        for last in (*(False,) * (TRIES - 1), True):
            try:
                _append(listing, entry, part, tell)
                return
            except Exception as error:
                status = _status(error)
                if last or (status and status < 500):
                    raise
                time.sleep(1)


def _append(listing: Listing, entry: Entry, part: Path, tell: Tell) -> None:
    """What `part` lacks, as an HTTP range: hf_hub_download begins a file anew at every start."""
    hub, source = _library(), listing.source
    where = {"repo_type": "dataset", "revision": listing.commit}
    url = hub.hf_hub_url(source.repo_id, source.path(entry.path), **where)
    # A range of a file that is compressed on the way would be another.
    headers = {**hub.utils.build_hf_headers(), "Accept-Encoding": "identity"}
    with part.open("ab") as file:
        told = _Told(file, tell)
        hub.file_download.http_get(url, told, resume_size=file.tell(), headers=headers)
        file.flush()
        os.fsync(file.fileno())


class _Told:
    """What http_get needs of a file, with an ear for what is written."""

    def __init__(self, file: BinaryIO, tell: Tell) -> None:
        self._file, self._tell = file, tell
        self.tell, self.seek, self.truncate = file.tell, file.seek, file.truncate

    def write(self, data: bytes) -> int:
        self._tell(len(data))  # may stop it here
        return self._file.write(data)


def _from_cache(source: Source, entry: Entry, part: Path, tell: Tell) -> bool:
    """Link or copy it; not, where the cache has nothing or something damaged."""
    blob = cached(source, entry)
    if blob is None or difference(blob, entry):
        return False
    part.unlink(missing_ok=True)
    try:
        part.hardlink_to(blob.resolve())
    except OSError:  # another file system, or one without links
        shutil.copyfile(blob, part)
    tell(entry.size_bytes)
    return True


def _offline(source: Source, known: Listing | None) -> Listing:
    cache, commit = _cache(source), source.revision
    with suppress(OSError):  # a commit has no such file
        commit = (cache / "refs" / commit).read_text().strip()
    top = cache / "snapshots" / commit
    links = [p for p in (top / source.remote_root).rglob("*") if p.is_symlink() and p.is_file()]
    listed = ((p.relative_to(top).as_posix(), size(p), p.resolve().name) for p in links)
    entries = entries_below(source, listed)
    if known is not None:
        commit, entries = known.commit, entries | known.entries
    if not entries:
        raise ValueError(
            f"HF_HUB_OFFLINE is set, and nothing of {source.repo_id} was fetched before (looked "
            f"in {top}); unset it to ask the Hub"
        )
    return Listing(source=source, commit=commit, entries=entries, offline=True)


def _cache(source: Source) -> Path:
    folder = f"datasets--{source.repo_id.replace('/', '--')}"
    return Path(_library().constants.HF_HUB_CACHE) / folder


@contextmanager
def _sentences(
    source: Source, entry: Entry | None = None, part: Path | None = None
) -> Iterator[None]:
    """The library's errors, of many kinds and shapes, as ValueError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno and not _status(error):
            raise  # of this machine's disk
        what = source.repo_id if entry is None else entry.path
        problem = f"{what}: {_problem(error, source, entry)}"
        if part is not None and entry is not None and size(part):
            kept = f"{size(part):,} of {entry.size_bytes:,} bytes"
            problem += f"; {kept} are kept, and the same command goes on from there"
        raise ValueError(problem) from error


def _problem(error: Exception, source: Source, entry: Entry | None) -> str:
    hub, status = _library(), _status(error)
    kinds, where = hub.errors, hub.constants.ENDPOINT
    if isinstance(error, kinds.GatedRepoError):
        return f"{where} shows it only to those its owner lets in: ask there, and set HF_TOKEN"
    if isinstance(error, kinds.RepositoryNotFoundError):
        return (
            f"{where} has no such dataset repository, or it is private (HTTP {status}); check "
            "--repo-id and MATCHED_FINEWEB_REPO_ID, or set HF_TOKEN"
        )
    if isinstance(error, kinds.RevisionNotFoundError):
        return f"no revision {source.revision!r}; name a branch, a tag or a commit"
    if isinstance(error, kinds.EntryNotFoundError) and entry is None:
        return (
            f"no folder {source.remote_root!r} at {source.revision}; set --remote-root or "
            "MATCHED_FINEWEB_REMOTE_ROOT_PREFIX to the folder of its manifest.json"
        )
    if status:
        return f"{where} answered HTTP {status}; repeat the command later"
    found = " ".join(str(error).split())[:200] or type(error).__name__
    return f"no answer from {where}, or a broken one ({found}); check the network and HF_ENDPOINT"


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _library() -> Any:
    """huggingface_hub, silenced. It reads HF_HOME, HF_ENDPOINT, HF_TOKEN as it is loaded."""
    try:
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.file_download
        import huggingface_hub.utils
    except ImportError:
        raise ImportError("huggingface_hub is not installed; pip install -e '.[tools]'") from None
    if huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        huggingface_hub.utils.disable_progress_bars()
    huggingface_hub.utils.logging.set_verbosity_error()  # else addresses with signatures
    return huggingface_hub
