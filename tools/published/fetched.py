"""A folder of published data: what is here, what is still to come, and how that comes in whole.

Every file waits in `.partial` until all its bytes are there and checked.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from core.data.shards import open_shard
from tools.published.hub import Tell, cached, difference, obtain, size
from tools.published.origin import Held, Record
from tools.published.variants import SHARD, Choice, Entry, Listing

STAGING = ".partial"
MEASURED_BYTES = 10_000_000  # less says little about a connection
SHOWN = 3  # of many files with one problem


class Stopped(BaseException):
    """Another file failed, or Ctrl-C: this one is left as it is."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done to a folder."""

    out: Path
    listing: Listing
    choice: Choice
    record: Record
    here: list[Entry]  # as long as listed; the hashes are compared before anything is fetched
    coming: list[Entry]

    def part(self, entry: Entry) -> Path:
        """Where it waits: bytes of another state of the file are never gone on from."""
        return self.out / STAGING / f"{entry.path.replace('/', '__')}.{entry.oid[:16]}.part"

    @property
    def from_network(self) -> list[Entry]:
        return [entry for entry in self.coming if cached(self.listing.source, entry) is None]

    @property
    def fetch_bytes(self) -> int:
        return sum(entry.size_bytes - size(self.part(entry)) for entry in self.from_network)

    @property
    def disk_bytes(self) -> int:
        """What the disk must take: links to the Hub's cache are free."""
        device = _existing(self.out).stat().st_dev
        blobs = [cached(self.listing.source, entry) for entry in self.coming]
        copied = [blob for blob in blobs if blob is not None and blob.stat().st_dev != device]
        return self.fetch_bytes + sum(map(size, copied))

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(_existing(self.out)).free


def survey(out: Path, listing: Listing, choice: Choice, record: Record) -> Plan:
    """Look at names and lengths alone."""
    if changed := record.changed(choice.entries):
        raise ValueError(
            f"{listing.source.repo_id} has replaced {some(changed)} since {out} was fetched: "
            f"--revision {record.commit} stays with what is there; for the new state choose "
            "another --out"
        )
    wanted = {entry.path for entry in choice.entries}
    folder = f"{choice.folder}/"  # training reads all of it, wanted or not
    here, coming, strange = [], [], []
    for path, entry in sorted(listing.entries.items()):
        local = out / path
        if path not in wanted and not (path.startswith(folder) and local.exists()):
            continue
        if local.exists() and size(local) == entry.size_bytes:
            here.append(entry)
        elif path in record.files or not local.exists():
            coming.append(entry)
        else:
            strange.append((local, difference(local, entry)))
    listed = {Path(path).name for path in listing.entries if path.startswith(folder)}
    extra = sorted(path for path in (out / choice.folder).glob("*.bin") if path.name not in listed)
    strange += [(path, "not published there, and training would read it") for path in extra]
    _refuse(strange, listing)
    order = {entry: rank for rank, entry in enumerate(choice.entries)}
    coming.sort(key=lambda entry: order.get(entry, len(order)))
    return Plan(out=out, listing=listing, choice=choice, record=record, here=here, coming=coming)


def compare(plan: Plan, workers: int, tell: Tell) -> Plan:
    """Hashes of what is here: what this command put there and is damaged comes once more."""
    damaged: list[Entry] = []
    strange: list[tuple[Path, str]] = []

    def look_at(entry: Entry) -> None:
        wrong = difference(plan.out / entry.path, entry)
        tell(entry.size_bytes)
        if wrong and entry.path in plan.record.files:
            damaged.append(entry)
        elif wrong:
            strange.append((plan.out / entry.path, wrong))

    _all_of(plan.here, look_at, workers, threading.Event())
    _refuse(sorted(strange), plan.listing)
    here = [entry for entry in plan.here if entry not in damaged]
    return replace(plan, here=here, coming=[*damaged, *plan.coming])


def need_space(plan: Plan) -> None:
    missing = plan.disk_bytes - plan.free_bytes
    if missing <= 0:
        return
    fewer = _that_fit(plan, missing)
    advice = "" if fewer is None else f"--train-shards {fewer} would fit; else "
    raise ValueError(
        f"{plan.out}: {plan.disk_bytes:,} bytes are to come, {plan.free_bytes:,} are free there; "
        f"{advice}make room, or choose another disk with --out"
    )


def _that_fit(plan: Plan, missing: int) -> int | None:
    """How many train shards, when the last ones stay away."""
    coming = set(plan.coming)
    for number, entry in reversed([*enumerate(plan.choice.train)]):
        if entry in coming:
            missing -= entry.size_bytes - size(plan.part(entry))
        if missing <= 0:
            return number
    return None


def carry_out(plan: Plan, workers: int, tell: Tell) -> None:
    """Every file of the plan is whole, checked and in its place, or an error says which is not."""
    stop, lock = threading.Event(), threading.Lock()

    def told(more_bytes: int) -> None:
        if stop.is_set():
            raise Stopped
        with lock:
            tell(more_bytes)

    def bring(entry: Entry) -> None:
        part = plan.part(entry)
        obtain(plan.listing, entry, part, told)
        _check_header(part, entry)
        held = Held.of(part, entry)
        local = plan.out / entry.path
        local.parent.mkdir(parents=True, exist_ok=True)
        with lock:
            part.replace(local)
            plan.record.files[entry.path] = held
            plan.record.save(plan.out)

    plan.record.commit = plan.listing.commit
    for entry in plan.here:
        _check_header(plan.out / entry.path, entry)
        plan.record.files[entry.path] = Held.of(plan.out / entry.path, entry)
    plan.record.save(plan.out)
    begun_s, fetch_bytes = time.monotonic(), plan.fetch_bytes
    _all_of(plan.coming, bring, workers, stop)
    if fetch_bytes >= MEASURED_BYTES:
        plan.record.bytes_per_s = fetch_bytes / (time.monotonic() - begun_s)
        plan.record.save(plan.out)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """No other process writes the folder meanwhile. What is unfinished waits for the next time."""
    staging = out / STAGING
    staging.mkdir(parents=True, exist_ok=True)
    handle = os.open(staging, os.O_RDONLY)
    try:
        _lock(handle, out)
        yield
        shutil.rmtree(staging)
    finally:
        os.close(handle)
        with suppress(OSError):  # not empty, or gone
            staging.rmdir()
            out.rmdir()


def _lock(handle: int, out: Path) -> None:
    with suppress(OSError):  # a file system without locks
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{out}: another process fetches into it; wait for it") from None


def _all_of(
    entries: Iterable[Entry], work: Callable[[Entry], None], workers: int, stop: threading.Event
) -> None:
    """The first error ends all: nothing new begins, and `stop` tells what is under way."""
    with ThreadPoolExecutor(workers) as pool:
        try:
            for future in as_completed([pool.submit(work, entry) for entry in entries]):
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _check_header(path: Path, entry: Entry) -> None:
    if not SHARD.fullmatch(entry.path):
        return
    try:
        open_shard(path)
    except ValueError as error:
        raise ValueError(
            f"{entry.path}: it is what the repository holds, yet {str(error).split(': ', 1)[1]}. "
            "Tell its owner, or choose another repository with --repo-id"
        ) from None


def _refuse(strange: list[tuple[Path, str]], listing: Listing) -> None:
    if strange:
        raise ValueError(
            f"{some([f'{path} ({why})' for path, why in strange])}: not the data of "
            f"{listing.source.repo_id}, and not fetched by this command; move it away, or choose "
            "another --out"
        )


def some(names: list[str]) -> str:
    """The first of them by name."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())
