"""A decoder of artifacts as one source: reader.py with all that it needs, and nothing else."""

from __future__ import annotations

import ast
import lzma
from collections.abc import Collection
from dataclasses import dataclass

from core.artifact.codecs import CODECS
from core.artifact.header import HEADER_CODECS, unpack_header
from tools.bundling.flatten import flatten
from tools.bundling.script import FILTERS, ROOT
from tools.bundling.shaking import Shaker

ENTRY = "read_weights"
PLAIN = tuple(name for name in CODECS if name not in ("brotli", "zstd"))
HEAD = """\
# A decoder of golf artifacts, of Python's standard library and numpy alone: paste it anywhere.
#     weights = read_weights(open("model.bin", "rb").read())    # name: float32 array
# Codecs: {codecs}. Any byte that is not as it was written is a ValueError.
"""


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """The source, and what it comes to in a script that is compressed."""

    source: str
    codecs: tuple[str, ...]

    @property
    def minified(self) -> str:
        from python_minifier import minify

        small: str = minify(
            self.source, rename_globals=True, preserve_globals=[ENTRY], hoist_literals=False
        )
        return small

    @property
    def compressed_bytes(self) -> int:
        """As the bundler compresses a script."""
        filters = [{**FILTERS, "preset": 9 | lzma.PRESET_EXTREME}]
        return len(lzma.compress(self.minified.encode(), lzma.FORMAT_RAW, filters=filters))


def decoder(codecs: Collection[str] = PLAIN) -> Decoder:
    """Of files of these codecs; raw, and the header's, are always among them."""
    kept = tuple(name for name in CODECS if name in {"raw", *HEADER_CODECS, *codecs})
    ids = {CODECS[name].id for name in kept}
    shaker = Shaker(ROOT, lambda tree: _with_codecs(tree, ids), words=True)
    shaker.reach("tools.bundling.reader", ENTRY)
    source = ast.unparse(flatten(shaker.sources()))
    return Decoder(source=HEAD.format(codecs=", ".join(kept)) + source + "\n", codecs=kept)


def codecs_in(file: bytes) -> set[str]:
    """The codecs of a file's streams, by their names."""
    ids = {stream.codec for stream in unpack_header(file).streams}
    return {name for name, codec in CODECS.items() if codec.id in ids}


def _with_codecs(tree: ast.Module, ids: Collection[int]) -> ast.Module:
    """A module whose table of decoders has these alone."""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "DECODERS":
            table = node.value
            assert isinstance(table, ast.Dict)
            held = zip(table.keys, table.values, strict=True)
            kept = [(key, value) for key, value in held if getattr(key, "value", None) in ids]
            table.keys, table.values = [key for key, _ in kept], [value for _, value in kept]
    return tree
