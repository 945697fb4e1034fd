"""Text and bytes turned into each other, by the few encodings that Python knows without asking."""

from __future__ import annotations

from collections.abc import Sequence

from tools.strangers.script_values import Value, Work

Args = Sequence[Value]
Options = dict[str, Value]

ENCODINGS = {"utf8", "ascii", "latin1", "iso88591", "cp1252"}  # others run code when looked up


def as_bytes(value: Value) -> bytes:
    """Bytes, or text that a decoder takes for them."""
    if isinstance(value, str):
        return value.encode("ascii", "strict")
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} where bytes are expected")
    return value


def encoding_of(args: Args, options: Options, at: int = 0) -> tuple[str, str]:
    """Encoding and error handling; only those that Python has without running anything."""
    name = args[at] if len(args) > at else options.get("encoding", "utf-8")
    errors = args[at + 1] if len(args) > at + 1 else options.get("errors", "strict")
    if str(name).lower().replace("-", "").replace("_", "") not in ENCODINGS:
        raise TypeError(f"encoding {name!r:.30} is not one of {', '.join(sorted(ENCODINGS))}")
    if errors not in ("strict", "ignore", "replace", "surrogateescape", "backslashreplace"):
        raise TypeError(f"error handling {errors!r:.30}")
    return str(name), str(errors)


def decoded(work: Work, data: bytes, args: Args, options: Options) -> str:
    """Bytes as text."""
    encoding, errors = encoding_of(args, options)
    work.budget.spend(len(data))
    text = data.decode(encoding, errors)
    work.made("text", data, text)
    return text


def to_bytes(work: Work, args: Args, options: Options) -> Value:
    value = args[0] if args else b""
    if isinstance(value, str):
        encoding, errors = encoding_of(args, options, 1)
        return work.made("text", value, value.encode(encoding, errors))
    if isinstance(value, list | tuple) and all(type(one) is int for one in value):
        work.budget.spend(len(value))
        return bytes(value)
    return as_bytes(value)


def to_text(work: Work, args: Args, options: Options) -> Value:
    if isinstance(args[0], bytes) and (len(args) > 1 or options):
        return decoded(work, args[0], args[1:], options)
    if not isinstance(args[0], str):
        raise TypeError("str of something that is not text")
    return args[0]


def from_hex(work: Work, args: Args, _: Options) -> Value:
    text = as_bytes(args[0]).decode("ascii")
    work.budget.spend(len(text) // 2)
    return work.made("hex", args[0], bytes.fromhex(text))
