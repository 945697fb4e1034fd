"""A scoring that was stopped, as a file that only the same scoring goes on from.

A state file is a line (what it is, and the sha256 of all that follows), a line of JSON (which
scoring it belongs to, its seconds, the tally's numbers) and the tally's counter, by zlib.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

from core.data.shards import TokenStream
from core.score.bpb import Tally
from core.score.scoring import Validation

Task = dict[str, Any]  # plain data: artifact, data and protocol, equal for the same scoring

FORMAT = b"golf score state 1 "
BLOCK_TOKENS = 1 << 22


def data_hash(validation: Validation) -> str:
    """sha256 of all that decides tokens and bytes: shards, sidecar and byte table."""
    digest = hashlib.sha256()
    table, nothing = validation.table, TokenStream([])
    for stream in (validation.stream, validation.sidecar or nothing):
        digest.update(len(stream).to_bytes(8, "little"))
        for block in stream.blocks(BLOCK_TOKENS):
            digest.update(block.astype("<u2").tobytes())
    digest.update(table.base_bytes.astype("<i8").tobytes())
    digest.update(table.leading_space.tobytes() + table.boundary.tobytes())
    digest.update(json.dumps(table.markers).encode())
    return digest.hexdigest()


def state_name(task: Task) -> str:
    """A short name, other for every scoring."""
    canonical = json.dumps(task, sort_keys=True).encode()
    return hashlib.sha256(canonical).hexdigest()[:12]


def save_state(path: Path, task: Task, tally: Tally, seconds: float) -> None:
    """Write the file, whole or not at all. Call it between two batches."""
    numbers, counter = tally.to_state()
    head = json.dumps({"task": task, "seconds": seconds, "tally": numbers}).encode()
    rest = head + b"\n" + zlib.compress(counter, 1)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(FORMAT + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_state(path: Path, task: Task, empty: Tally, num_tokens: int) -> tuple[Tally, float]:
    """The tally and the seconds spent on it; ValueError for another scoring or a damaged file."""
    first, _, rest = path.read_bytes().partition(b"\n")
    if not first.startswith(FORMAT):
        raise ValueError(f"{path}: not the state of a scoring; name another file")
    if first.removeprefix(FORMAT) != hashlib.sha256(rest).hexdigest().encode():
        raise ValueError(f"{path}: damaged, its checksum is another; remove it to start anew")
    head, _, packed = rest.partition(b"\n")
    try:
        state = json.loads(head)
        found, seconds, numbers = state["task"], float(state["seconds"]), dict(state["tally"])
        _require_same(path, found, task)
        unpack = zlib.decompressobj()
        counter = unpack.decompress(packed, num_tokens + 1)
        return empty.from_state(numbers, counter), seconds
    except (KeyError, TypeError, RecursionError, zlib.error) as error:
        raise ValueError(f"{path}: a wrong form ({error}); remove it to start anew") from None


def _require_same(path: Path, found: Task, task: Task) -> None:
    """Name what differs: every number of the sum must be of one scoring."""
    for name in sorted(found.keys() | task.keys()):
        if found.get(name) != task.get(name):
            raise ValueError(
                f"{path} continues another scoring: its {name} is {found.get(name)}, here it is "
                f"{task.get(name)}; name another file, or remove it to start anew"
            )
