"""Frozen dataclasses from plain data: typed by annotations, wrong names told with the closest.

Plain data is what JSON holds (dict, list, str, int, float, bool, None) or the right-hand side of
`name=value` on a command line: a list there is JSON, or values with commas between them. Everything
that arrives from a file or a user passes through here.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def closest(name: str, names: Iterable[str]) -> str:
    """A clause that names the nearest of `names`, or lists them all when none is near."""
    names = sorted(names)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names)}"


def to_plain(value: Any) -> dict[str, Any]:
    """The dataclass as JSON data, sections nested."""
    return dataclasses.asdict(value)


def changed(value: Any) -> dict[str, Any]:
    """The fields that are not the class's defaults, as JSON data: a new field changes none."""
    return _unlike(to_plain(value), to_plain(type(value)()))


def _unlike(plain: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """What differs, in sections field by field."""
    found = {name: value for name, value in plain.items() if value != default[name]}
    sections = [name for name, value in found.items() if isinstance(value, dict)]
    return found | {name: _unlike(plain[name], default[name]) for name in sections}


def from_plain(cls: type[T], data: object, where: str) -> T:
    """Build `cls` from JSON data; every field is checked. `where` names the data in messages."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}: expected an object with fields, found {type(data).__name__}")
    hints = get_type_hints(cls)
    for name in data:
        if name not in hints:
            raise ValueError(f"{where}: no field {name!r}; {closest(str(name), hints)}")
    for name in _required(cls):
        if name not in data:
            raise ValueError(f"{where}: {name!r} is missing; it has no default")
    return cls(**{n: _checked(hints[n], v, f"{where}.{n}") for n, v in data.items()})


def override(base: T, changes: Iterable[str], where: str) -> T:
    """A copy of `base` with each `section.field=value` applied; several are checked together."""
    plain = to_plain(base)
    for change in changes:
        path, sign, text = change.partition("=")
        if not sign:
            raise ValueError(f"{change!r}: expected section.field=value")
        target, cls = plain, type(base)
        *sections, name = path.strip().split(".")
        for section in sections:
            cls = _hint(cls, section, path)
            if not dataclasses.is_dataclass(cls):
                raise ValueError(f"{path}: {section!r} is a value, not a section")
            target = target[section]
        hint = _hint(cls, name, path)
        if dataclasses.is_dataclass(hint):
            raise ValueError(f"{path}: a section; name one of its fields, as {path}.field=value")
        target[name] = parse(hint, text.strip(), path)
    return from_plain(type(base), plain, where)


def parse(hint: Any, text: str, where: str) -> Any:
    """The value that `text` spells for a field of type `hint`."""
    for option in _options(hint):
        try:
            return _parse_one(option, text)
        except (ValueError, KeyError):
            continue
    raise ValueError(f"{where}: expected {_describe(hint)}, found {text!r}")


def _required(cls: Any) -> list[str]:
    """The names of the fields that have no default."""
    nothing = dataclasses.MISSING
    held = dataclasses.fields(cls)
    return [f.name for f in held if f.default is nothing and f.default_factory is nothing]


def _hint(cls: type, name: str, where: str) -> Any:
    hints = get_type_hints(cls)
    if name not in hints:
        raise ValueError(f"{where}: no field {name!r}; {closest(name, hints)}")
    return hints[name]


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _parse_one(hint: Any, text: str) -> Any:
    if hint is types.NoneType:
        return {"none": None, "null": None}[text.lower()]
    if hint is bool:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    if get_origin(hint) is Literal:
        return {str(choice): choice for choice in get_args(hint)}[text]
    if get_origin(hint) is tuple:
        return _parse_list(get_args(hint)[0], text)
    if _is_section(hint):
        raise ValueError(f"an object is written as JSON, found {text!r}")
    return hint(text)


def _parse_list(item: Any, text: str) -> Any:
    """[1, 2] or 1,2; what the entries are is checked with the rest of the data."""
    if text.startswith("["):
        return json.loads(text)
    return [_parse_one(item, part.strip()) for part in text.split(",") if part.strip()]


def _checked(hint: Any, value: Any, where: str) -> Any:
    for option in _options(hint):
        if _is_section(option) and type(value) is not option:
            if option is hint or isinstance(value, Mapping):
                return from_plain(option, value, where)
            continue
        if get_origin(option) is Literal and value in get_args(option):
            return value
        if option is float and type(value) is int:
            return float(value)
        if get_origin(option) is tuple and isinstance(value, list | tuple):
            item = get_args(option)[0]
            return tuple(_checked(item, part, f"{where}[{i}]") for i, part in enumerate(value))
        if isinstance(option, type) and type(value) is option:
            return value
    raise ValueError(f"{where}: expected {_describe(hint)}, found {value!r}")


def _is_section(option: Any) -> bool:
    return dataclasses.is_dataclass(option)


def _describe(hint: Any) -> str:
    words = []
    for option in _options(hint):
        if get_origin(option) is Literal:
            words += [repr(choice) for choice in get_args(option)]
        elif get_origin(option) is tuple:
            words.append(f"a list of {_describe(get_args(option)[0])}")
        elif dataclasses.is_dataclass(option):
            words.append("{" + ", ".join(f.name for f in dataclasses.fields(option)) + "}")
        else:
            words.append("none" if option is types.NoneType else option.__name__)
    return " or ".join(words)
