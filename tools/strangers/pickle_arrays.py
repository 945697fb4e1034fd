"""What a pickle describes, as inert data: tables, named things, and arrays of numpy and torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

Value = Any

MAX_RANK = 32
MAX_COUNT = 1 << 48
_KINDS = {"i": "int", "u": "uint", "f": "float", "c": "complex"}
_STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in (
        *(
            ("Float", "float32"),
            ("Double", "float64"),
            ("Half", "float16"),
            ("BFloat16", "bfloat16"),
        ),
        *(("Long", "int64"), ("Int", "int32"), ("Short", "int16"), ("Char", "int8")),
        *(("Byte", "uint8"), ("Bool", "bool"), ("Untyped", "uint8")),
        *(("ComplexFloat", "complex64"), ("ComplexDouble", "complex128")),
    )
}
_BYTES = ("builtins.bytes", "builtins.bytearray")
_RECONSTRUCT = re.compile(r"numpy\.(_?core)\.multiarray\._reconstruct")
_SCALAR = re.compile(r"numpy\.(_?core)\.multiarray\.scalar")
_BUFFER = re.compile(r"numpy\.(_?core)\.numeric\._frombuffer")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Named:
    """A function or class that the pickle names; a name and nothing behind it."""

    name: str
    args: tuple[Value, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Table:
    """A dict, as pairs: nothing of a stranger's is hashed."""

    pairs: list[tuple[Value, Value]] = field(default_factory=list)

    @staticmethod
    def of(items: list[Value]) -> Table:
        if len(items) % 2:
            raise ValueError("the pickle has a dict with a key too many")
        return Table(pairs=list(zip(items[::2], items[1::2], strict=True)))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Object:
    """What calling something unknown would make: its name, and what it was to be made of."""

    name: str
    args: tuple[Value, ...] = ()
    held: list[Value] = field(default_factory=list)
    pairs: list[tuple[Value, Value]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Storage:
    """Bytes beside the pickle, by their key."""

    key: str
    dtype: str
    count: int


@dataclass(kw_only=True, slots=True, eq=False)
class Array:
    """An array or tensor: what it is, not its numbers. `size_bytes` is what its numbers take."""

    shape: tuple[int, ...] = ()
    dtype: str = "unknown"
    size_bytes: int = 0
    storage: Storage | None = None


@dataclass(kw_only=True, slots=True, eq=False)
class DType:
    """A numpy dtype."""

    name: str


def item_bytes(dtype: str) -> int:
    """Bytes of one number; 0 for what has no fixed size."""
    if dtype == "bool" or dtype.startswith(("float8", "qint8", "quint8")):
        return 1
    found = re.fullmatch(r"[a-z]+(\d{1,4})", dtype)
    return int(found.group(1)) // 8 if found else 0


def dtype_name(code: str) -> str:
    """float32 for <f4 and its like; other names as they are."""
    found = re.fullmatch(r"[<>=|]?([biufc?])(\d{0,3})", code[:40])
    if found is None:
        return re.sub(r"[^\w.]", "", code[:40]) or "unknown"
    kind, size = found.groups()
    return f"{_KINDS[kind]}{8 * int(size or 0)}" if kind in _KINDS else "bool"


def shape_of(value: Value) -> tuple[int, ...]:
    """A shape, checked."""
    if not isinstance(value, tuple | list) or len(value) > MAX_RANK:
        raise ValueError("an array has a shape that is none")
    if not all(type(size) is int and size >= 0 for size in value):
        raise ValueError("an array has a dimension that is no size")
    if math.prod(value) > MAX_COUNT:
        raise ValueError(f"an array claims {math.prod(value):.3g} elements")
    return tuple(value)


def rebuilt(made: Value, args: tuple[Value, ...]) -> Value:
    """What a call in the pickle stands for. Only names are compared; nothing is called."""
    if not isinstance(made, Named):
        return Object(name="an object", args=(made, args))
    name = made.name
    name = name.replace("__builtin__.", "builtins.", 1)  # as Python 2 calls it
    if name in ("collections.OrderedDict", "builtins.dict", "collections.defaultdict"):
        return Object(name="a dict", args=args) if args else Table()
    if name == "_codecs.encode" and args and isinstance(args[0], str):
        return args[0].encode("latin-1", "replace")
    if name in ("torch.Size", "builtins.tuple", "builtins.list", "builtins.set") and len(args) == 1:
        return args[0]
    if name in _BYTES:
        return as_bytes(args)
    if name == "numpy.dtype" and args:
        code = args[0].name.rsplit(".", 1)[-1] if isinstance(args[0], Named) else args[0]
        return DType(name=dtype_name(code) if isinstance(code, str) else "unknown")
    if name.startswith("torch."):
        return _torch(name, args)
    if _RECONSTRUCT.fullmatch(name):
        return Array()
    if _BUFFER.fullmatch(name) and len(args) >= 3 and isinstance(args[0], bytes):
        return _numpy(args[0], args[1], args[2])
    if _SCALAR.fullmatch(name) and len(args) == 2:
        return _numpy(args[1], args[0], ())
    return Object(name=name, args=args)


def as_bytes(args: tuple[Value, ...]) -> bytes:
    """Of the arguments of bytes and bytearray; older protocols write text and its encoding."""
    raw = args[0] if args else b""
    if isinstance(raw, str):
        return raw.encode("latin-1", "replace")
    return raw if isinstance(raw, bytes) else b""


def _torch(name: str, args: tuple[Value, ...]) -> Value:
    short = name.rsplit(".", 1)[1]
    if short in ("_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_tensor_v3") and len(args) >= 4:
        dtype = args[6] if short.endswith("v3") and len(args) > 6 else None
        return _tensor(args[0], args[2], args[3], args[1], dtype)
    if short in ("_rebuild_parameter", "_rebuild_parameter_with_state", "Parameter") and args:
        return args[0]
    inner = args[0] if args else None
    if short == "_rebuild_from_type_v2" and len(args) >= 3 and isinstance(inner, Named):
        return rebuilt(inner, args[2]) if isinstance(args[2], tuple) else Object(name=name)
    return Object(name=name, args=args)


def storage_of(id_: Value) -> Storage:
    """('storage', class, key, place, count) as torch writes it."""
    if not isinstance(id_, tuple) or len(id_) < 5 or id_[0] != "storage":
        raise ValueError("a tensor's storage is named in an unknown way")
    kind, key, count = id_[1], id_[2], id_[4]
    if not isinstance(kind, Named) or not isinstance(key, str) or type(count) is not int:
        raise ValueError("a tensor's storage is named in an unknown way")
    dtype = _STORAGES.get(kind.name.rsplit(".", 1)[1])
    if dtype is None or not 0 <= count <= MAX_COUNT:
        raise ValueError(f"a tensor's storage is of an unknown kind, {kind.name!r:.60}")
    return Storage(key=key, dtype=dtype, count=count)


def _tensor(stored: Value, shape: Value, stride: Value, offset: Value, dtype: Value) -> Array:
    if not isinstance(stored, Named) or stored.name != "persistent id" or not stored.args:
        raise ValueError("a tensor has no storage")
    storage, sizes = storage_of(stored.args[0]), shape_of(shape)
    steps = stride if isinstance(stride, tuple) and len(stride) == len(sizes) else (None,)
    if any(type(step) is not int or step < 0 for step in (*steps, offset)):
        raise ValueError("a tensor has strides that do not fit its shape")
    name = dtype.name.rsplit(".", 1)[1] if isinstance(dtype, Named) else storage.dtype
    held, each = storage.count * item_bytes(storage.dtype), item_bytes(name)
    count = math.prod(sizes)
    end = offset + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True)) + 1
    if count and end * each > held:
        raise ValueError(f"a tensor ends at byte {end * each:,} of a storage of {held:,}")
    # an expanded tensor has fewer numbers than elements: it takes no more than its storage
    return Array(shape=sizes, dtype=name, size_bytes=min(count * each, held), storage=storage)


def _numpy(raw: Value, dtype: Value, shape: Value) -> Array:
    if not isinstance(dtype, DType):
        raise ValueError("an array has a dtype that is none")
    sizes = shape_of(shape)
    if isinstance(raw, list):
        return Array(shape=sizes, dtype="object")
    if not isinstance(raw, bytes):
        raise ValueError("an array has no bytes")
    expected = math.prod(sizes) * item_bytes(dtype.name)
    if expected and expected != len(raw):
        raise ValueError(f"an array of {len(raw):,} bytes, expected {expected:,}")
    return Array(shape=sizes, dtype=dtype.name, size_bytes=len(raw))


def stated(owner: Value, state: Value) -> None:
    """Gives `owner` the state that the pickle has for it."""
    if isinstance(owner, Array) and owner.dtype == "unknown":
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("an array has a state of an unknown form")
        found = _numpy(state[4], state[2], state[1])
        owner.shape, owner.dtype, owner.size_bytes = found.shape, found.dtype, found.size_bytes
    elif isinstance(owner, Object):
        owner.held.append(state)
