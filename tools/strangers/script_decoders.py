"""The few library functions whose results are worked out while a script is read: decoders."""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import lzma
from collections.abc import Callable
from typing import Any

from tools.strangers.bounded import OverBudget, lzma_expand, zlib_expand
from tools.strangers.script_texts import (
    Args,
    Options,
    as_bytes,
    decoded,
    from_hex,
    to_bytes,
    to_text,
)
from tools.strangers.script_values import PIECE_BYTES, File, Machine, Unknown, Value, Work

Decoder = Callable[[Work, Args, Options], Value]

_MAX_COUNTED = 64  # rounds of a loop: none that unpacks has more, training has
_MAX_JSON_BYTES = 32_000_000
CONSTANTS: dict[str, int] = {
    name: value
    for prefix, module in (("lzma.", lzma),)
    for name, value in ((prefix + key, getattr(module, key)) for key in dir(module))
    if isinstance(value, int) and name.startswith(("lzma.F", "lzma.P", "lzma.M", "lzma.C"))
} | {"zlib.MAX_WBITS": 15}


def call(work: Work, name: str, args: Args, options: Options) -> Value:
    """What the library function of this name gives; Unknown if it is not one of these."""
    if name in MACHINES:
        return Machine(function=MACHINES[name], args=tuple(args), options=options)
    if (decoder := FUNCTIONS.get(name)) is None:
        return Unknown(why=f"{name} is not one of the decoders that are known")
    if name.split(".")[0] in work.poisoned or name in work.poisoned:
        return Unknown(why=f"the script puts something of its own in the place of {name}")
    try:
        return decoder(work, args, options)
    except OverBudget:
        raise
    except (TypeError, LookupError, AttributeError, ValueError, OverflowError) as error:
        return Unknown(why=f"{name} does not take what it is given: {error}")


def _text_decoder(label: str, function: Callable[..., bytes]) -> Decoder:
    def decode(work: Work, args: Args, options: Options) -> Value:
        data = as_bytes(args[0])
        if len(data) > work.text_left:
            return Unknown(why=f"{label} text of more than 20,000,000 characters")
        work.text_left -= len(data)
        plain = [*args[1:], *options.values()]
        if not all(isinstance(one, bytes | str | bool | int | None) for one in plain):
            return Unknown(why=f"the options of {label} are not plain")
        work.budget.spend(4 * len(data) if label == "ascii85" else len(data))
        return work.made(label, args[0], function(data, *args[1:], **options))

    return decode


def _expander(method: str) -> Decoder:
    def decode(work: Work, args: Args, options: Options) -> Value:
        data = as_bytes(args[0] if args else options.get("data", options.get("string")))
        return work.made(method, data, work.budget.expand(method, data))

    return decode


def _zlib(work: Work, args: Args, options: Options) -> Value:
    data, wbits = as_bytes(args[0]), args[1] if len(args) > 1 else options.get("wbits", 15)
    if not isinstance(wbits, int) or not (8 <= abs(wbits) <= 15 or 24 <= wbits <= 47 or not wbits):
        raise TypeError(f"wbits={wbits!r:.20}")
    method = "deflate" if wbits < 0 else "gzip" if 24 <= wbits < 32 else "zlib"
    return work.made(method, data, work.budget.expand(method, data, zlib_expand(wbits)))


def _lzma(work: Work, args: Args, options: Options) -> Value:
    names = ("data", "format", "memlimit", "filters")
    given = dict(zip(names, args, strict=False)) | options
    data, form = as_bytes(given["data"]), given.get("format", lzma.FORMAT_AUTO)
    filters = given.get("filters")
    for entry in filters or ():
        if not isinstance(entry, dict) or not all(isinstance(v, int) for v in entry.values()):
            raise TypeError("filters that are not plain")
    method = "raw lzma" if form == lzma.FORMAT_RAW else "lzma"
    return work.made(method, data, work.budget.expand(method, data, lzma_expand(form, filters)))


def _codecs_decode(work: Work, args: Args, options: Options) -> Value:
    name = str(args[1] if len(args) > 1 else options.get("encoding", "utf-8"))
    kind = name.lower().replace("-", "_").removesuffix("_codec")
    alias = {"zip": "zlib", "base_64": "base64", "bz": "bz2", "hex_": "hex"}.get(kind, kind)
    if alias == "rot13" or alias == "rot_13":
        work.budget.spend(len(args[0]))
        return work.made("rot13", args[0], codecs.decode(args[0], "rot13"))
    target = {"zlib": "zlib.decompress", "bz2": "bz2.decompress", "hex": "bytes.fromhex"}
    if alias in target or alias == "base64":
        return call(work, target.get(alias, "base64.b64decode"), args[:1], {})
    return decoded(work, args[0], args[1:], options)


def _json(work: Work, args: Args, _: Options) -> Value:
    """A dict of texts, as an importer keeps its modules."""
    text = args[0].decode("utf-8") if isinstance(args[0], bytes) else args[0]
    objects = sum(text.count(mark) for mark in "[{,")
    work.budget.spend(min(len(text), _MAX_JSON_BYTES) + 4 * PIECE_BYTES * objects)
    if len(text) > _MAX_JSON_BYTES:
        raise TypeError(f"JSON of {len(text):,} characters")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Unknown(why=f"what json.loads is given is no JSON: {error}")
    for name, value in found.items() if isinstance(found, dict) else ():
        if isinstance(value, str):
            work.call_it(work.made("json", text, value), name)
    return found


def _length(_work: Work, args: Args, _: Options) -> Value:
    return len(args[0])


def _listed(kind: Callable[[Any], Any]) -> Decoder:
    def make(work: Work, args: Args, _: Options) -> Value:
        if not args:
            return kind(())
        if not isinstance(args[0], list | tuple | dict | range):
            raise TypeError(f"{type(args[0]).__name__} where a list is expected")
        work.budget.spend(PIECE_BYTES * len(args[0]))
        return kind(args[0])

    return make


def _range(work: Work, args: Args, _: Options) -> Value:
    found = range(*args)
    if len(found) > _MAX_COUNTED:
        raise TypeError(f"a range of {len(found):,}")
    work.budget.spend(PIECE_BYTES * len(found))
    return list(found)


def _memory_file(_work: Work, args: Args, _: Options) -> Value:
    first = args[0] if args else b""
    content = first.encode() if isinstance(first, str) else as_bytes(first)
    return File(path=None, content=content, text=isinstance(first, str))


def _expanding_file(method: str) -> Decoder:
    """gzip.GzipFile and its kin over bytes in memory."""

    def make(work: Work, args: Args, options: Options) -> Value:
        inner = options.get("fileobj", args[0] if args else None)
        if not isinstance(inner, File) or inner.content is None:
            raise TypeError("a file that is not in memory")
        raw = work.made(method, inner.content, work.budget.expand(method, inner.content))
        assert isinstance(raw, bytes)
        return File(path=None, content=raw)

    return make


FUNCTIONS: dict[str, Decoder] = {
    "zlib.decompress": _zlib,
    "lzma.decompress": _lzma,
    "codecs.decode": _codecs_decode,
    "json.loads": _json,
    "bytes": to_bytes,
    "bytearray": to_bytes,
    "memoryview": to_bytes,
    "str": to_text,
    "len": _length,
    "range": _range,
    "list": _listed(list),
    "tuple": _listed(tuple),
    "reversed": _listed(lambda items: list(items)[::-1]),
    "dict": _listed(dict),
    "io.BytesIO": _memory_file,
    "io.StringIO": _memory_file,
}
FUNCTIONS |= dict.fromkeys(("bytes.fromhex", "binascii.unhexlify", "binascii.a2b_hex"), from_hex)
FUNCTIONS |= {
    f"{module}.decompress": _expander(method)
    for module, method in (
        *(("gzip", "gzip"), ("bz2", "bz2"), ("brotli", "brotli"), ("brotlicffi", "brotli")),
        *(("zstandard", "zstd"), ("zstd", "zstd"), ("compression.zstd", "zstd")),
    )
}
FUNCTIONS |= {
    f"base64.{name}": _text_decoder(label, getattr(base64, name))
    for name, label in (
        *(("b64decode", "base64"), ("standard_b64decode", "base64"), ("decodebytes", "base64")),
        *(("urlsafe_b64decode", "base64"), ("b32decode", "base32"), ("b16decode", "hex")),
        *(("b85decode", "base85"), ("a85decode", "ascii85")),
    )
}
FUNCTIONS["binascii.a2b_base64"] = _text_decoder("base64", binascii.a2b_base64)
FUNCTIONS |= {
    name: _expanding_file(method)
    for name, method in (
        *(("gzip.GzipFile", "gzip"), ("gzip.open", "gzip"), ("lzma.open", "lzma")),
        *(("lzma.LZMAFile", "lzma"), ("bz2.open", "bz2"), ("bz2.BZ2File", "bz2")),
    )
}
MACHINES = {
    "zlib.decompressobj": "zlib.decompress",
    "lzma.LZMADecompressor": "lzma.decompress",
    "bz2.BZ2Decompressor": "bz2.decompress",
    "brotli.Decompressor": "brotli.decompress",
    "zstandard.ZstdDecompressor": "zstandard.decompress",
}
