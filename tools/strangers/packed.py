"""Packed scripts, unpacked without running them: payloads found, decoded and followed inwards."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath

from tools.strangers.bounded import Budget, OverBudget, Zip
from tools.strangers.loaders import loader_of, shadowed
from tools.strangers.script_source import MAX_CODE, Parsed, parse, parse_start, text_of
from tools.strangers.script_statements import Sink, Statements
from tools.strangers.script_values import Scope, TooLong, Work

MAX_FILE_BYTES = 32_000_000
MAX_DEPTH = 8
LIMIT_BYTES = 64_000_000
MAX_MODULES = 4096
LOADER = 4096  # bytes beside its payload: a script with more is a module itself
_ALL_CODE = 4 * MAX_CODE


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One decoding on the way: which, of how many bytes, to what."""

    depth: int  # of the script that holds it: 1 for the file itself
    module: str
    method: str
    bytes_in: int
    bytes_out: int
    sha256: str  # of what comes out


@dataclass(frozen=True, kw_only=True)
class Module:
    """Source that is not packed any more."""

    name: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """What a script holds; `unresolved` says what only running it would tell."""

    subject: str
    layers: tuple[Layer, ...]
    modules: tuple[Module, ...]
    unresolved: tuple[str, ...]
    loader_bytes: int = 0  # of scripts around the modules, without what they hold packed
    loaders: tuple[Module, ...] = ()  # what these do beside decoding, their literals as marks

    @property
    def sources(self) -> tuple[Module, ...]:
        """All that is code of it: what loaders do, then the modules."""
        return (*self.loaders, *self.modules)


def unpack_script(data: bytes, subject: str, budget: Budget | None = None) -> Unpacked:
    """Layers and innermost source of a script; a plain script is its own only module.

    Nothing is executed. Several scripts may share a budget. Raises ValueError where `data` are no
    Python, or stand for too much.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{subject}: {len(data):,} bytes, more than {MAX_FILE_BYTES:,}")
    reader = _Reader(PurePosixPath(subject).stem or "script", budget or Budget(LIMIT_BYTES))
    try:
        if _zip_start(data):
            reader.archive(data, 1, MAX_CODE)
        else:
            text, parsed = parse_start(data)
            reader.script(text, parsed, data, reader.stem, 1, MAX_CODE, None)
    except RecursionError:
        raise ValueError(f"{subject}: nested too deeply to be read") from None
    except ValueError as error:
        raise ValueError(f"{subject}: {error}") from None
    return Unpacked(
        subject=subject,
        layers=tuple(reader.layers),
        modules=tuple(reader.modules),
        unresolved=tuple(dict.fromkeys(reader.unresolved)),
        loader_bytes=reader.loader_bytes,
        loaders=tuple(reader.loaders),
    )


def _zip_start(data: bytes) -> bool:
    """A zip file, or one behind the line that names its interpreter."""
    line = data.find(b"\n") + 1 if data.startswith(b"#!") else 0
    return data[line : line + 4] == b"PK\x03\x04"


class _Reader:
    """Follows what scripts would run, script by script, inwards."""

    def __init__(self, stem: str, budget: Budget) -> None:
        self.stem = stem
        self.work = Work(budget)
        self.layers: list[Layer] = []
        self.modules: list[Module] = []
        self.loaders: list[Module] = []
        self.unresolved: list[str] = []
        self.loader_bytes = 0
        self._code = 0

    def script(
        self,
        text: str,
        parsed: Parsed,
        file: bytes,
        name: str,
        depth: int,
        room: int,
        names: dict[str, object] | None,
    ) -> None:
        """A script: what it would run, or itself if it runs nothing that is packed."""
        statements = Statements(self.work, file, parsed.literals)
        scope = Scope(None, {**(names or {}), "__name__": "__main__"})
        try:
            statements.module(parsed.tree, scope)
        except (TooLong, OverBudget) as error:
            self.unresolved.append(f"{name}: {error}")
        known = [sink for sink in statements.sinks if sink.content is not None]
        self._tell_unknown(statements.sinks, known, name)
        inner = list({sink.content: sink for sink in known if self._is_payload(sink)}.values())
        if not inner or parsed.own > LOADER:
            self._add(name, text)
        else:
            self.loader_bytes += parsed.own
            self._load(name, parsed, inner)
        for sink in inner:
            self._follow(sink, name, file, depth, room - parsed.code, scope)

    def _load(self, name: str, parsed: Parsed, inner: list[Sink]) -> None:
        """What a loader does beside decoding what is followed from it."""
        made = [step for sink in inner if sink.content for step in self.work.chain(sink.content)]
        decoded = {step.source for step in made} | {sink.content for sink in inner}
        try:
            source = loader_of(parsed.tree, parsed.literals, decoded)
        except (ValueError, RecursionError) as error:
            self.unresolved.append(f"{name}: its loader is not to be shown: {error!s:.100}")
        else:
            if source and len(self.loaders) < MAX_MODULES:
                self.loaders.append(Module(name=f"{name}.loader", source=source))
        if odd := shadowed(parsed.tree):
            self.unresolved.append(f"{name}: {odd}: what it runs may be something else")

    def _is_payload(self, sink: Sink) -> bool:
        """Decoded, or written for another Python to run; a spelled-out line of code is neither."""
        assert sink.content is not None
        made = self.work.chain(sink.content)
        return any(step.method not in ("text", "joined", "slice") for step in made) or (
            bool(made) and sink.how not in ("eval",) and len(sink.content) > 200
        )

    def _tell_unknown(self, sinks: list[Sink], known: list[Sink], name: str) -> None:
        told = {sink.line for sink in known}
        for sink in sinks:
            if sink.content is None and sink.line not in told:
                where = f"line {sink.line}: " if sink.line else ""
                self.unresolved.append(
                    f"{name}: {where}{sink.how} runs what is not told: {sink.why}"
                )

    def _follow(
        self, sink: Sink, outer: str, file: bytes, depth: int, room: int, scope: Scope
    ) -> None:
        """The chain of decodings to what a script runs, and what that is in turn."""
        content = sink.content
        assert content is not None
        name = _module_name(sink.name) or (outer if outer == self.stem else f"{outer}.inner")
        self._add_layers(content, name, depth)
        data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        if depth >= MAX_DEPTH:
            self.unresolved.append(f"{name}: packed more than {MAX_DEPTH} times")
            return
        try:
            if _zip_start(data):
                self.archive(data, depth + 1, room)
                return
            text = content if isinstance(content, str) else text_of(content)
            parsed = self._parsed(text, room)
        except OverBudget:
            raise
        except ValueError as error:
            self.unresolved.append(f"{name}: line {sink.line}: what {sink.how} runs: {error}")
            return
        shared = sink.how in ("exec", "eval")  # it sees the names and the file of the outer one
        names = dict(scope.names) if shared else None
        self.script(text, parsed, file if shared else data, name, depth + 1, room, names)

    def _parsed(self, text: str, room: int) -> Parsed:
        parsed = parse(text, max(0, min(room, _ALL_CODE - self._code)))
        self._code += parsed.code
        return parsed

    def archive(self, data: bytes, depth: int, room: int) -> None:
        """The Python files of a zip file."""
        packed = Zip(data, self.work.budget)
        for entry in packed.entries:
            if not entry.name.endswith(".py"):
                continue
            content = packed.read(entry)
            name = entry.name.removesuffix(".py")
            self._layer(depth, name, "zip", entry.info.compress_size, content)
            text = text_of(content)
            self.script(text, self._parsed(text, room), content, name, depth, room, None)
        if not self.modules:
            raise ValueError("a zip file without a Python file")

    def _add(self, name: str, source: str) -> None:
        if len(self.modules) >= MAX_MODULES:
            raise ValueError(f"more than {MAX_MODULES} modules")
        if all(known.name != name or known.source != source for known in self.modules):
            self.modules.append(Module(name=name, source=source))

    def _add_layers(self, content: bytes | str, name: str, depth: int) -> None:
        for step in self.work.chain(content):
            if step.method not in ("text", "slice"):
                self._layer(depth, name, step.method, len(step.source), step.result)

    def _layer(
        self, depth: int, name: str, method: str, bytes_in: int, result: bytes | str
    ) -> None:
        raw = result.encode("utf-8", "surrogateescape") if isinstance(result, str) else result
        digest = hashlib.sha256(raw).hexdigest()
        self.layers.append(
            Layer(
                depth=depth,
                module=name,
                method=method,
                bytes_in=bytes_in,
                bytes_out=len(raw),
                sha256=digest,
            )
        )


def _module_name(name: str | None) -> str | None:
    return name.removesuffix(".py") if name else None
