"""A scoring that was stopped, as a file that only the same scoring goes on from.

A state file is a line (what it is, and the sha256 of all that follows), a line of JSON (which
scoring it belongs to, its seconds, the tally's numbers) and the tally's counter, by zlib. Of a
scorer that adapts the line of JSON also names arrays, which follow the counter, little-endian.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.data.shards import TokenStream
from core.score.adapting import Learned
from core.score.bpb import Tally
from core.score.scoring import Validation

Task = dict[str, Any]  # plain data: artifact, data and protocol, equal for the same scoring

FORMAT = b"golf score state 1 "
BLOCK_TOKENS = 1 << 22
DTYPES = ("<f4", "<i8")  # that arrays may have


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


def save_state(
    path: Path, task: Task, tally: Tally, seconds: float, learned: Learned | None = None
) -> None:
    """Write the file, whole or not at all. Call it between two batches."""
    numbers, counter = tally.to_state()
    packed = zlib.compress(counter, 1)
    head: dict[str, Any] = {"task": task, "seconds": seconds, "tally": numbers}
    parts: list[Any] = [packed]
    if learned is not None:
        arrays = {name: _little(array) for name, array in learned.arrays.items()}
        named = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
        head["learned"] = {"behind_bytes": len(packed), "arrays": named}
        head["learned"]["state_hash"] = learned.state_hash
        parts += [array.tobytes() for array in arrays.values()]
    parts.insert(0, json.dumps(head).encode() + b"\n")
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(FORMAT + digest.hexdigest().encode() + b"\n")
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_state(
    path: Path, task: Task, empty: Tally, num_tokens: int
) -> tuple[Tally, float, Learned | None]:
    """The tally, the seconds spent on it and, of a scorer that adapts, what it had learned.

    ValueError for another scoring or a damaged file.
    """
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
        described = state.get("learned")
        ends = None if described is None else described["behind_bytes"]
        counter = zlib.decompressobj().decompress(packed[:ends], num_tokens + 1)
        learned = None if described is None else _learned(path, described, packed)
        return empty.from_state(numbers, counter), seconds, learned
    except (KeyError, TypeError, RecursionError, zlib.error) as error:
        raise ValueError(f"{path}: a wrong form ({error}); remove it to start anew") from None


def _learned(path: Path, described: dict[str, Any], packed: bytes) -> Learned:
    """What a scorer had learned, from arrays that the head describes; every byte is of one."""
    arrays, at = {}, described["behind_bytes"]
    for name, kind, shape in described["arrays"]:
        if kind not in DTYPES or not all(type(size) is int and size > 0 for size in shape):
            raise ValueError(f"{path}: {name} is {kind} {shape}, expected one of {DTYPES}")
        stop = at + math.prod(shape) * np.dtype(kind).itemsize
        if not 0 < at < stop <= len(packed):
            raise ValueError(f"{path}: {name} ends at byte {stop} of {len(packed)}")
        arrays[name] = np.frombuffer(packed, kind, math.prod(shape), at).reshape(shape).copy()
        at = stop
    if at != len(packed):
        raise ValueError(f"{path}: {len(packed)} bytes, what it describes ends at {at}")
    return Learned(arrays=arrays, state_hash=str(described["state_hash"]))


def _little(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _require_same(path: Path, found: Task, task: Task) -> None:
    """Name what differs: every number of the sum must be of one scoring."""
    for name in sorted(found.keys() | task.keys()):
        if found.get(name) != task.get(name):
            raise ValueError(
                f"{path} continues another scoring: its {name} is {found.get(name)}, here it is "
                f"{task.get(name)}; name another file, or remove it to start anew"
            )
