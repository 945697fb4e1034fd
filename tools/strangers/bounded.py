"""Foreign bytes expanded within a budget: each known compression, and members of zip files."""

from __future__ import annotations

import bz2
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.artifact.codecs import CODECS

Expand = Callable[[bytes, int], bytes]  # data, the most bytes it may give

MAX_MEMBERS = 64  # streams behind each other: what follows a stream is copied for each
MAX_ENTRIES = 65_536  # of a zip file
MAX_LZMA_BYTES = 1 << 27  # what a decoder may keep to point back to
MAX_LZMA_WINDOW = 1 << 26
_PIECE_BYTES = 1 << 24
_ZSTD = b"\x28\xb5\x2f\xfd"
_LZMA_FILTERS = {"id", "preset", "dict_size", "lc", "lp", "pb", "mode", "nice_len", "mf", "depth"}
_LZMA_IDS = {lzma.FILTER_LZMA1, lzma.FILTER_LZMA2, lzma.FILTER_DELTA, lzma.FILTER_X86}


class Budget:
    """How many bytes a reading may still make."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.left = limit_bytes

    def spend(self, count: int) -> None:
        if count > self.left:
            raise OverBudget(f"it unpacks to more than {self.limit_bytes:,} bytes in all")
        self.left -= count

    def expand(self, method: str, data: bytes, with_: Expand | None = None) -> bytes:
        """`data` decompressed. Raises ValueError where it is corrupt or stands for too much."""
        try:
            raw = (with_ or METHODS[method])(data, self.left)
        except OverBudget:
            self.spend(self.left + 1)
            raise
        except ValueError:
            raise
        except Exception as error:  # each library has its own kind
            raise ValueError(f"{method} data are corrupt: {error!s:.100}") from error
        self.spend(len(raw))
        return raw


class OverBudget(ValueError):
    """More bytes than a reading may make; nothing behind it is looked at."""


def _drain(make: Callable[[], Any], data: bytes, limit: int, members: int = MAX_MEMBERS) -> bytes:
    """Streams behind each other; what follows the last is ignored."""
    pieces: list[bytes] = []
    for _ in range(members):
        machine = make()
        try:
            for piece in _pieces(machine, data):
                pieces.append(piece)
                limit -= len(piece)
                if limit < 0:
                    raise OverBudget("it stands for more bytes than are read")
        except OverBudget:
            raise
        except Exception:
            if not pieces:
                raise
            break
        if not machine.eof:
            raise ValueError("it ends too early")
        data = machine.unused_data.lstrip(b"\0")
        if not data:
            break
    return b"".join(pieces)


def _pieces(machine: Any, data: bytes) -> Iterator[bytes]:
    """What one stream gives, a few megabytes at a time: a bomb is left before it is large."""
    while piece := machine.decompress(data, _PIECE_BYTES):
        yield piece
        if machine.eof:
            return
        data = getattr(machine, "unconsumed_tail", b"")  # the others keep it themselves


def zlib_expand(wbits: int) -> Expand:
    """zlib as `wbits` tells: 15 zlib, -15 raw deflate, 31 gzip, 47 zlib or gzip."""
    members = MAX_MEMBERS if wbits > 15 else 1
    return lambda data, limit: _drain(lambda: zlib.decompressobj(wbits), data, limit, members)


def lzma_expand(form: int, filters: Sequence[Mapping[str, int]] | None) -> Expand:
    """lzma as `format` and `filters` of the standard library tell, with a bounded window."""
    for entry in filters or ():
        known = set(entry) <= _LZMA_FILTERS | {"dist"} and entry.get("id") in _LZMA_IDS
        if not known or entry.get("dict_size", 0) > MAX_LZMA_WINDOW:
            raise ValueError(f"lzma filter {dict(entry)} is unknown or asks for too much memory")
    limits = None if form == lzma.FORMAT_RAW else MAX_LZMA_BYTES
    chain = None if filters is None else [dict(entry) for entry in filters]
    return lambda data, limit: _drain(
        lambda: lzma.LZMADecompressor(form, limits, chain), data, limit
    )


def raw_lzma2() -> Expand:
    """LZMA2 without a frame, whatever window up to 64 MiB it was written with."""
    return lzma_expand(lzma.FORMAT_RAW, [{"id": lzma.FILTER_LZMA2, "dict_size": MAX_LZMA_WINDOW}])


def _zstd_expand(data: bytes, limit: int) -> bytes:
    """The library allocates the size that the frame states; so that is read first."""
    flags = data[4]
    one_segment = flags >> 5 & 1
    start = 5 + (1 - one_segment) + (0, 1, 2, 4)[flags & 3]
    width = (one_segment, 2, 4, 8)[flags >> 6]
    if not data.startswith(_ZSTD) or not width:
        raise ValueError("its zstd frame does not state its size")
    stated = int.from_bytes(data[start : start + width], "little") + (256 if width == 2 else 0)
    if stated > limit:
        raise OverBudget(f"its zstd frame states {stated:,} bytes")
    return CODECS["zstd"].unpack(data, stated)


METHODS: dict[str, Expand] = {
    "zlib": zlib_expand(15),
    "deflate": zlib_expand(-15),
    "gzip": zlib_expand(31),
    "lzma": lzma_expand(lzma.FORMAT_AUTO, None),
    "raw lzma": raw_lzma2(),
    "bz2": lambda data, limit: _drain(bz2.BZ2Decompressor, data, limit),
    "brotli": CODECS["brotli"].unpack,
    "zstd": _zstd_expand,
}


def method_of(data: bytes) -> str | None:
    """The compression that the first bytes tell; brotli and raw lzma tell nothing."""
    if data[:3] == b"\x1f\x8b\x08":
        return "gzip"
    if data[:6] == b"\xfd7zXZ\0" or data[:3] == b"\x5d\0\0":
        return "lzma"
    if data[:4] == _ZSTD:
        return "zstd"
    if data[:3] == b"BZh":
        return "bz2"
    known = len(data) > 2 and data[0] & 0x8F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
    return "zlib" if known else None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A member of a zip file; its size is what the directory states."""

    name: str
    size: int
    info: zipfile.ZipInfo


class Zip:
    """A zip file in memory: its directory checked first, its members read within a budget."""

    def __init__(self, data: bytes, budget: Budget) -> None:
        # each entry of a directory has this mark, and costs far more memory than its bytes
        if (found := data.count(b"PK\x01\x02")) > MAX_ENTRIES:
            raise ValueError(f"a zip file of {found:,} entries, more than {MAX_ENTRIES:,}")
        self.budget = budget
        try:
            self._file = zipfile.ZipFile(io.BytesIO(data))
        except Exception as error:  # BadZipFile, struct.error, OverflowError, UnicodeDecodeError
            raise ValueError(f"a corrupt zip file: {error!s:.100}") from error
        self.entries = [
            Entry(name=info.filename, size=info.file_size, info=info)
            for info in self._file.infolist()
            if not info.filename.endswith("/")
        ]

    def pieces(self, entry: Entry, piece_bytes: int = 1 << 20) -> Iterator[bytes]:
        """The content of a member, piece by piece, paid for."""
        if entry.info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{entry.name!r:.60}: neither stored nor deflated")
        try:
            with self._file.open(entry.info) as stream:
                while piece := stream.read(min(piece_bytes, self.budget.left + 1)):
                    self.budget.spend(len(piece))
                    yield piece
        except ValueError:
            raise
        except Exception as error:  # each of the libraries beneath has its own kind
            raise ValueError(f"{entry.name!r:.60}: a corrupt member: {error!s:.100}") from error

    def read(self, entry: Entry) -> bytes:
        return b"".join(self.pieces(entry))

    def head(self, entry: Entry, count: int) -> bytes:
        """The first bytes of a member."""
        return next(self.pieces(entry, count), b"")
