"""Plays a stranger's scorer over streams, in the stranger's process, and writes what it answers.

It is run by its path and imports nothing of this project. What Python opens, connects to and starts
is written down before it happens; what lies outside of the submission is refused. That is a watch
within one process: what holds a program is the system, where it can (confined.py).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SYSTEM = (
    *("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc", "/opt", "/nix", "/proc", "/sys"),
    "/dev",
)
NETWORK = (
    *("socket.connect", "socket.sendto", "socket.sendmsg"),  # of a socket, to an address
    *("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"),
)
PROGRAMS = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork", "os.forkpty")
HERE = ("localhost", "127.0.0.1", "::1", "", "None", "0.0.0.0")
VALIDATION = "_val_"  # in the names of validation shards
MOST = 8  # times as many nats as targets are read of one play
DEEPEST = 40


class Watch:
    """Writes down what is opened, and refuses what is not the submission's."""

    def __init__(self, events: str, allowed: list[str], refused: list[str]) -> None:
        self.phase = "start"
        self._file = os.open(events, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        own = [str(Path.cwd()), str(Path(__file__).parent)]
        own += [sys.prefix, sys.base_prefix, sys.exec_prefix]
        self._allowed = _real([*own, *SYSTEM, *allowed])
        self._refused = _real(refused)
        self._told: set[str] = set()

    def listen(self, event: str, args: tuple[Any, ...]) -> None:
        """The audit hook."""
        if event == "open" and isinstance(args[0], str | bytes):
            self._opened(os.fsdecode(args[0]))
        elif event in NETWORK:
            place = args[1] if event in NETWORK[:3] else args[0]
            host = str(place[0]) if isinstance(place, tuple) else str(place)
            if not (isinstance(place, str) and place.startswith("/")) and host not in HERE:
                self._tell(event, str(place))
                raise PermissionError(f"golf: no network while a scorer is audited: {place}")
        elif event in PROGRAMS:
            self._tell(event, str(args[0])[:200] if args else "")

    def _opened(self, name: str) -> None:
        path = os.path.realpath(name)
        if VALIDATION in Path(path).name:
            self._tell("validation", path)
        if _below(path, self._refused) or not _below(path, self._allowed):
            self._tell("open" if Path(path).exists() else "missing", path)
            raise PermissionError(f"golf: outside of the submission: {path}")

    def _tell(self, event: str, what: str) -> None:
        line = json.dumps({"phase": self.phase, "event": event, "what": what[:500]})
        if line not in self._told and len(self._told) < 1000:
            self._told.add(line)
            os.write(self._file, line.encode() + b"\n")


def _real(places: list[str]) -> tuple[str, ...]:
    return tuple(os.path.realpath(place) for place in places if place)


def _below(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(place.rstrip("/") + "/") for place in places)


def fingerprint(scorer: object) -> tuple[str, str]:
    """sha256 of all that is reached from a scorer's fields, and what of it could not be read."""
    state = getattr(scorer, "state", None)
    walk = _Walk()
    walk(state() if callable(state) else scorer, 0)
    return walk.digest.hexdigest(), walk.opaque


class _Walk:
    """Numbers, texts, arrays, tensors and what holds them, in one order."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.opaque = ""
        self._seen: dict[int, int] = {}
        self._kept: list[object] = []  # so that no address is used twice

    def __call__(self, one: Any, depth: int) -> None:
        self.digest.update(type(one).__name__.encode() + b"(")
        if one is None or isinstance(one, bool | int | float | complex | str | bytes):
            self.digest.update(repr(one).encode("utf-8", "replace"))
        elif id(one) in self._seen:
            self.digest.update(str(self._seen[id(one)]).encode())
        elif depth > DEEPEST:
            self.opaque = self.opaque or "what is nested too deeply"
        else:
            self._seen[id(one)] = len(self._seen)
            self._kept.append(one)
            self._parts(one, depth + 1)
        self.digest.update(b")")

    def _parts(self, one: Any, depth: int) -> None:
        if (array := _array(one)) is not None:
            self.digest.update(f"{array.dtype} {array.shape} ".encode())
            self.digest.update(np.ascontiguousarray(array).tobytes())
            return
        if not isinstance(one, types.ModuleType | types.FunctionType | type | types.MethodType):
            parts = _inside(one)
            if parts is None:
                self.opaque = self.opaque or f"an object of type {type(one).__name__}"
            for part in parts or ():
                self(part, depth)


def _array(one: Any) -> np.ndarray | None:
    """A numpy array of an array or a tensor of any framework."""
    if isinstance(one, np.ndarray | np.generic):
        return None if one.dtype.hasobject else np.asarray(one)
    try:
        if hasattr(one, "detach"):
            one = one.detach().cpu()
            return (one.float() if one.is_floating_point() else one).numpy()
        if type(one).__module__.startswith("mlx"):
            return np.array(one)
    except Exception:
        return None
    return None


def _inside(one: Any) -> Iterator[Any] | None:
    """What an object is made of; None where it does not tell."""
    if isinstance(one, dict):
        return iter([part for key in sorted(one, key=repr) for part in (key, one[key])])
    if isinstance(one, set | frozenset):
        return iter(sorted(one, key=repr))
    for name in ("bit_generator", "getstate", "__dict__", "__slots__"):
        if not hasattr(one, name):
            continue
        if name == "bit_generator":
            return iter([one.bit_generator.state])
        if name == "getstate" and callable(one.getstate):
            return iter([one.getstate()])
        if name == "__dict__" and vars(one):
            return iter([vars(one), *(one if isinstance(one, list | tuple) else ())])
        if name == "__slots__":
            return iter([getattr(one, slot, None) for slot in one.__slots__])
    if isinstance(one, Iterable) and hasattr(one, "__len__"):
        return iter(list(one))
    return iter([]) if hasattr(one, "__dict__") or type(one) is object else None


def play(module: Any, one: dict[str, Any], watch: Watch) -> tuple[dict, list]:
    """One stream from a fresh start: what is told of it, and the numbers."""
    tokens = np.array(one["tokens"], np.int32)
    told: dict[str, Any] = {"blocks": [], "states": [], "asked": [], "bytes": []}
    told |= {"opaque": "", "error": ""}
    nats: list[np.ndarray] = []
    asked: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    try:
        watch.phase = "start"
        scorer = module.start()
        watch.phase = "score"
        for block in module.score(scorer, tokens.copy(), frozenset(one["ask"])):
            state, opaque = fingerprint(scorer) if one["states"] else ("", "")
            first, scores, given, *more = block
            nats.append(_floats(scores))
            told["blocks"].append([int(first), len(nats[-1])])
            told["states"].append("" if opaque else state)
            told["opaque"] = told["opaque"] or opaque
            _keep(told["asked"], asked, given)
            _keep(told["bytes"], parts, more[0] if more else {})
            if sum(count for _, count in told["blocks"]) > MOST * len(tokens):
                raise ValueError(f"more than {MOST} scores a target")
    except Exception as error:
        told["error"] = f"{type(error).__name__}: {error}"[:300]
    return told, [*nats, *asked, *parts]


def _floats(numbers: Any) -> np.ndarray:
    found = _array(numbers)
    return np.asarray(numbers if found is None else found, np.float64).ravel()


def _keep(told: list, kept: list[np.ndarray], given: Any) -> None:
    for target, numbers in dict(given or {}).items():
        kept.append(_floats(numbers))
        told.append([int(target), len(kept[-1])])


def write(file: Any, told: dict[str, Any], numbers: list[np.ndarray]) -> None:
    """Eight bytes of length, JSON, and the float64 numbers behind it."""
    payload = b"".join(one.astype("<f8").tobytes() for one in numbers)
    head = json.dumps({**told, "floats": len(payload) // 8}).encode()
    file.write(len(head).to_bytes(8, "little") + head + payload)
    file.flush()


def load(path: str) -> Any:
    """The stranger's file as a module."""
    spec = importlib.util.spec_from_file_location("audited_scorer", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["audited_scorer"] = module
    spec.loader.exec_module(module)
    missing = [name for name in ("start", "score") if not callable(getattr(module, name, None))]
    if missing:
        raise AttributeError(
            f"no function {' and '.join(missing)}; golf audit scaffold writes them"
        )
    return module


def main() -> None:
    """script request answers events: the request is read and removed before the script is seen."""
    script, request, answers, events = sys.argv[1:5]
    own = os.path.realpath(Path(__file__).parent)
    sys.path[:] = [str(Path.cwd()), *(p for p in sys.path if os.path.realpath(p) != own)]
    asked = json.loads(Path(request).read_text(encoding="utf-8"))
    Path(request).unlink()
    sys.argv = [script]
    watch = Watch(events, asked["allowed"], asked["refused"])
    with Path(answers).open("wb") as out:
        sys.addaudithook(watch.listen)
        try:
            module = load(script)
        except Exception as error:
            write(out, {"fatal": f"{type(error).__name__}: {error}"[:300]}, [])
            return
        for one in asked["plays"]:
            write(out, *play(module, one, watch))


if __name__ == "__main__":
    main()
