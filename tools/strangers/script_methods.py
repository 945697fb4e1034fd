"""Methods of text, lists, dicts and files that a loader calls, worked out while it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tools.strangers import script_decoders, script_texts
from tools.strangers.bounded import OverBudget
from tools.strangers.script_values import (
    PIECE_BYTES,
    Bound,
    Each,
    File,
    Instance,
    Machine,
    Ref,
    Unknown,
    Value,
    Work,
    each,
    unknown_in,
)

Args = list[Value]
Options = dict[str, Value]
PLAIN = {
    *("strip", "lstrip", "rstrip", "find", "rfind", "index", "rindex", "startswith", "endswith"),
    *("removeprefix", "removesuffix", "count", "partition", "rpartition", "hex", "upper", "lower"),
}
SPLITS = {"split", "rsplit", "splitlines"}
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_PART = Unknown(why="it is a part of what the script makes as it runs")
_SHIFT = {"getvalue", "read", "readline", "readlines", "read_bytes", "read_text", "getbuffer"}


def method(work: Work, bound: Bound, args: Args, options: Options) -> Value:
    """What `owner.name(*args)` gives."""
    owner, name = bound.owner, bound.name
    if isinstance(owner, Each):
        return each(owner, lambda one: method(work, Bound(owner=one, name=name), args, options))
    given: Callable[[Work, Any, str, Args, Options], Value] | None = _OF.get(type(owner))
    if given is None:
        return Unknown(why=f".{name}() of something that the script makes as it runs")
    try:
        return given(work, owner, name, args, options)
    except OverBudget:
        raise
    except (TypeError, LookupError, AttributeError, ValueError, OverflowError) as error:
        return Unknown(why=f".{name}() does not take what it is given: {error}")


def _text(work: Work, owner: str | bytes, name: str, args: Args, options: Options) -> Value:
    if why := unknown_in(iter([*args, *options.values()])):
        return why
    if name == "encode" and isinstance(owner, str):
        return _encoded(work, owner, args, options)
    if name == "decode" and isinstance(owner, bytes):
        return script_texts.decoded(work, owner, args, options)
    if name == "join":
        return _joined(work, owner, args[0])
    if name == "replace":
        old, new = args[:2]
        work.budget.spend(len(owner) + (owner.count(old) + 1) * max(0, len(new) - len(old)))
        return work.made("text", owner, owner.replace(*args))
    if name in SPLITS:
        work.budget.spend(len(owner) + PIECE_BYTES * _pieces(owner, name, args, options))
        return list(getattr(owner, name)(*args, **options))
    if name in PLAIN:
        work.budget.spend(len(owner))
        return getattr(owner, name)(*args)
    if name == "fromhex":
        return script_decoders.call(work, "bytes.fromhex", args, options)
    return Unknown(why=f".{name}() of text is not one of the methods that are known")


def _encoded(work: Work, owner: str, args: Args, options: Options) -> Value:
    encoding, errors = script_texts.encoding_of(args, options)
    work.budget.spend(4 * len(owner) if not owner.isascii() else len(owner))
    return work.made("text", owner, owner.encode(encoding, errors))


def _pieces(owner: str | bytes, name: str, args: Args, options: Options) -> int:
    """At most so many pieces."""
    most = options.get("maxsplit", args[1] if len(args) > 1 else -1)
    if name == "splitlines":
        return 1 + sum(_count(owner, end) for end in _LINE_ENDS)
    found = 1 + (owner.count(args[0]) if args and args[0] is not None else len(owner) // 2)
    return min(found, most + 1) if isinstance(most, int) and most >= 0 else found


def _count(owner: str | bytes, mark: str) -> int:
    if isinstance(owner, str):
        return owner.count(mark)
    return owner.count(mark.encode()) if mark.isascii() else 0


def _joined(work: Work, owner: str | bytes, parts: Value) -> Value:
    if not isinstance(parts, list | tuple):
        return Unknown(why="it joins what the script makes as it runs")
    if why := unknown_in(iter(parts)):
        return why
    work.budget.spend(sum(len(part) + len(owner) for part in parts))
    whole = owner.join(parts)
    return work.made("joined", max(parts, key=len), whole) if parts else whole


def _list(work: Work, owner: list[Value], name: str, args: Args, _: Options) -> Value:
    work.budget.spend(PIECE_BYTES)
    if name == "append":
        owner.append(args[0])
        return None
    if name == "extend" and isinstance(args[0], list | tuple):
        work.budget.spend(PIECE_BYTES * len(args[0]))
        owner.extend(args[0])
        return None
    if name == "pop":
        return owner.pop(*args)
    if name == "index":
        return owner.index(args[0])
    owner[:] = [Unknown(why=f"a list is changed by .{name}()")]
    return owner[0]


def _dict(work: Work, owner: dict[Any, Value], name: str, args: Args, _: Options) -> Value:
    work.budget.spend(2 * PIECE_BYTES * len(owner))
    if name in ("get", "pop", "__getitem__", "setdefault"):
        return item(owner, args[0], args[1] if len(args) > 1 else None)
    if name == "items":
        return list(owner.items())
    if name == "keys":
        return list(owner)
    if name == "values":
        return list(owner.values())
    if name == "update" and args and isinstance(args[0], dict):
        owner.update(args[0])
        return None
    if name == "copy":
        return owner.copy()
    return Unknown(why=f".{name}() of a dict is not one of the methods that are known")


def item(owner: dict[Any, Value], key: Value, default: Value = None) -> Value:
    """The value of a key; of a key that only a running program knows, each value."""
    if isinstance(key, str | bytes | int | None):
        return owner.get(key, default)
    return Each(values=tuple(owner.values())) if owner else Unknown(why="it is from an empty dict")


def part(owner: Value, key: Value) -> Value:
    if isinstance(owner, dict):
        return item(owner, key)
    if isinstance(owner, Ref):
        return owner if owner.name == "sys.argv" and key == 0 else Ref(name=f"{owner.name}[]")
    if isinstance(owner, list | tuple | bytes | str) and type(key) is int:
        return owner[key] if -len(owner) <= key < len(owner) else _PART
    if isinstance(owner, list | tuple) and owner and not isinstance(key, int):
        return Each(values=tuple(owner))
    return owner if isinstance(owner, Unknown) else _PART


def _file(work: Work, owner: File, name: str, args: Args, _: Options) -> Value:
    if name in ("write", "write_bytes", "write_text"):
        if isinstance(args[0], bytes | str):
            raw = args[0].encode("utf-8", "replace") if isinstance(args[0], str) else args[0]
            work.made("text", args[0], raw)
            owner.written.append(raw)
        return None
    if name == "seek" and len(args) == 1 and isinstance(args[0], int):
        owner.at = args[0]
        return args[0]
    if name in ("close", "flush", "__enter__", "open"):
        return owner if name in ("__enter__", "open") else None
    if name == "resolve" or name == "absolute":
        return owner
    if name not in _SHIFT:
        return Unknown(why=f".{name}() of a file is not one of the methods that are known")
    return _read(work, owner, name, args)


def _read(work: Work, owner: File, name: str, args: Args) -> Value:
    """The rest of a file from where it stands; its methods as text turn line ends to one kind."""
    if owner.content is None:
        return Unknown(why=f"it is read from another file, {_told(owner.path)}")
    if name in ("getvalue", "getbuffer", "read_bytes", "read_text"):
        owner.at = 0
    data = owner.content[owner.at :]
    if name == "readline":
        data = data[: data.find(b"\n") + 1] or data
    if name == "read" and args and isinstance(args[0], int) and args[0] >= 0:
        data = data[: args[0]]
    owner.at += len(data)
    work.budget.spend(len(data))
    whole: bytes | str = data
    if name == "read_text" or (owner.text and name != "read_bytes"):
        whole = data.decode("utf-8", "surrogateescape").replace("\r\n", "\n").replace("\r", "\n")
        work.made("text", data, whole)
    if name != "readlines":
        return whole
    work.budget.spend(PIECE_BYTES * _count(whole, "\n"))
    end: Any = "\n" if isinstance(whole, str) else b"\n"
    lines = [line + end for line in whole.split(end)]
    return [*lines[:-1], *([lines[-1][:-1]] if lines[-1] != end else [])]


def _told(path: Value) -> str:
    return repr(path)[:80] if isinstance(path, str) else "whose name is made as it runs"


def _machine(work: Work, owner: Machine, name: str, args: Args, options: Options) -> Value:
    if name == "flush" or name == "finish":
        return b""
    if name not in ("decompress", "process"):
        return Unknown(why=f".{name}() of a decompressor")
    if owner.function == "lzma.decompress":
        return script_decoders.call(work, owner.function, [args[0], *owner.args], owner.options)
    return script_decoders.call(work, owner.function, [args[0], *owner.args[:1]], owner.options)


def _ref(work: Work, owner: Ref, name: str, args: Args, options: Options) -> Value:
    return script_decoders.call(work, f"{owner.name}.{name}", args, options)


def _instance(_work: Work, _owner: Instance, name: str, _args: Args, _options: Options) -> Value:
    return Unknown(why=f".{name}() of an object that the script makes as it runs")


_OF: dict[type, Callable[[Work, Any, str, Args, Options], Value]] = {
    str: _text,
    bytes: _text,
    list: _list,
    dict: _dict,
    File: _file,
    Machine: _machine,
    Ref: _ref,
    Instance: _instance,
}
