"""A recipe and the code it reaches as one script: core and one engine, nothing of the toolkit.

The modules are shaken (shaking.py), joined into one (flatten.py), minified by
python-minifier and compressed by LZMA. The script's text is Latin-1: a character for each byte, so
that the code costs what it compresses to, where base85 would add a quarter.
"""

from __future__ import annotations

import ast
import lzma
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import get_args

from core.arch.params import Role
from core.artifact.codecs import candidates
from core.artifact.header import HEADER_CODECS
from core.data.byte_tokenizer import ByteTokenizer
from core.data.tokenizer import open_tokenizer
from core.score.protocols import CHUNKED
from core.train.recipe import Recipe
from tools.bundling import twins
from tools.bundling.closed import settle, unused
from tools.bundling.counted import counted
from tools.bundling.flatten import flatten
from tools.bundling.fold import SECTIONS, Fold, literal, values_of, without_registries
from tools.bundling.shaking import Shaker, bare
from tools.bundling.world import World

ROOT = Path(__file__).resolve().parents[2]
# Classes that constants of a recipe may be made of.
MADE_OF = (
    *(("core.arch.depth", "Phase"), ("core.arch.depth", "Pair")),
    ("core.data.batches", "BatchPhase"),
)
ENTRY = """
import os
import sys

from {package}.loop import train
from core.train.standalone import standalone

SEED = int(os.environ.get("SEED", SEED))
DATA_PATH = os.environ.get("DATA_PATH", {path!r})
TOKENIZER_PATH = os.environ.get("TOKENIZER_PATH", {tokenizer!r})
{sections}
run_id = os.environ.get("RUN_ID", f"seed{{SEED}}")
sys.exit(standalone(train, RECIPE, run_id, os.path.getsize(__file__)))
"""
# The packed text has lines of its own, which no traceback shows. The source goes to linecache by
# a name: inspect and so Triton's compiler find it there. Every seed is equally long.
LOADER = """#coding:latin1
import lzma,linecache
SEED='{seed:<10}'
s='''{packed}'''
if'__main__'==__name__:
 s=lzma.decompress(s.encode('latin1'),3,None,[{filters}]).decode();n='<train_gpt>';linecache.cache[n]=0,None,s.splitlines(1),n;exec(compile(s,n,'exec'))
"""
FILTERS = {"id": lzma.FILTER_LZMA2, "pb": 0}  # what a decoder must know


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One script, and the sizes on the way to it."""

    script: bytes
    source_bytes: int  # joined, without comments
    minified_bytes: int


def code_bytes(recipe: Recipe) -> int:
    """What a submission of the recipe counts as code: its torch bundle, whatever the seed."""
    carried, kind = elsewhere(recipe), kind_of(recipe.data.tokenizer)
    return counted(carried, kind, lambda: len(bundle(recipe, "torch").script))


def bundle(recipe: Recipe, backend: str) -> Bundle:
    """The packed script. The same recipe and code give the same bytes."""
    kind = kind_of(recipe.data.tokenizer)
    small = _minified(elsewhere(recipe), backend, kind)
    return Bundle(
        script=packed(small, recipe.seed),
        source_bytes=len(_source(elsewhere(recipe), backend, kind).encode()),
        minified_bytes=len(small.encode()),
    )


def readable(recipe: Recipe, backend: str) -> str:
    """One module of everything that the recipe's run reaches, without comments."""
    source = _source(elsewhere(recipe), backend, kind_of(recipe.data.tokenizer))
    return f"SEED = {recipe.seed}\n{source}"


def elsewhere(recipe: Recipe) -> Recipe:
    """The recipe as a script may carry it: its seed apart, no path of this machine in it."""
    data = replace(
        recipe.data,
        path=_relative(recipe.data.path, "data/datasets"),
        tokenizer=_relative(recipe.data.tokenizer, "data/tokenizers"),
    )
    return replace(recipe, seed=Recipe().seed, data=data)


def packed(source: str, seed: int) -> bytes:
    """A script that holds `source` compressed and runs it."""
    filters = [{**FILTERS, "preset": 9 | lzma.PRESET_EXTREME}]
    small = lzma.compress(source.encode(), lzma.FORMAT_RAW, filters=filters)
    words = ",".join(f"{name!r}:{value}" for name, value in FILTERS.items())
    script = LOADER.format(seed=seed, packed=quoted(small), filters="{" + words + "}")
    return script.encode("latin-1")


def quoted(data: bytes) -> str:
    """The bytes as characters that may stand between three single quotes in a Latin-1 source."""
    text = data.decode("latin-1").replace("\\", "\\\\").replace("\r", "\\r")
    text = re.sub("'(?=''|$)", r"\\'", text)
    return re.sub("\0(?![0-7])", r"\\0", text).replace("\0", "\\000")


@cache
def _source(recipe: Recipe, backend: str, kind: str) -> str:
    """Everything that a run of this recipe reaches."""
    values = values_of(recipe)
    fold = Fold(values)
    shaker = Shaker(ROOT, fold.visit, values, twins_for(recipe, kind))
    shaker.reach_all("__main__", ast.parse(_entry(recipe, backend)))
    for module, name in MADE_OF:
        shaker.reach(module, name)
    kept = [name for _, name in MADE_OF]
    joined = flatten(shaker.sources())
    codecs = {*HEADER_CODECS, *candidates(recipe.quant.codec)}
    if has_wide_levels(recipe):
        codecs |= {*candidates(recipe.quant.codec, "int16")}
    tree = of_codecs(joined, codecs)
    for names in (kept, ()):  # what a first round has not named is not needed
        tree = settle(tree, lambda tree: without_registries(fold.visit(tree)), names)
    unused(World(bare(tree)))  # what annotations alone named
    return ast.unparse(tree) + "\n"


def of_codecs(tree: ast.Module, names: Collection[str]) -> ast.Module:
    """The registry of codecs with those alone that the recipe's artifacts may have."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CODECS":
            table = node.value
            assert isinstance(table, ast.Dict)
            held = zip(table.keys, table.values, strict=True)
            kept = [(key, value) for key, value in held if getattr(key, "value", None) in names]
            table.keys, table.values = [key for key, _ in kept], [value for _, value in kept]
    return tree


def _entry(recipe: Recipe, backend: str) -> str:
    data = recipe.data
    told = replace(data, path="DATA_PATH", tokenizer="TOKENIZER_PATH")
    parts = [*vars(replace(recipe, data=told)).values(), recipe]
    parts += [recipe.quant.grid("mlp")]
    lines = [
        f"{SECTIONS[kind]} = {literal(part)}"
        for part in parts
        if (kind := type(part).__name__) in SECTIONS
    ]
    sections = "\n".join(lines).replace(f"{told.path!r}", told.path)
    return ENTRY.format(
        package=f"backend_{backend}",
        path=data.path,
        tokenizer=data.tokenizer,
        sections=sections.replace(f"{told.tokenizer!r}", told.tokenizer),
    )


@cache
def _minified(recipe: Recipe, backend: str, kind: str) -> str:
    from python_minifier import minify

    small: str = minify(
        _source(recipe, backend, kind),
        remove_literal_statements=True,
        prefer_single_line=True,
        hoist_literals=False,  # what is said twice costs LZMA next to nothing
        rename_globals=True,
        preserve_globals=["SEED"],  # which the lines in front of it set
    )
    return small


def kind_of(tokenizer: str) -> str:
    """What a bundle is to read: bytes, transformed text or text, by the file where there is one."""
    try:
        found = open_tokenizer(tokenizer)
    except ValueError:
        return "text"
    if isinstance(found, ByteTokenizer):
        return "bytes"
    return "text" if found.transform is None else "case"


def twins_for(recipe: Recipe, kind: str) -> twins.Twins:
    """What this recipe's bundle has in place of the toolkit's own."""
    found = {**twins.ALWAYS, **twins.OF_KIND[kind]}
    quant = recipe.quant
    first = not (quant.has_fp8 or quant.has_scale_groups or quant.lqer_rank)
    nearest = quant.solver == "nearest"
    plain = nearest and first and quant.scale_format == "fp16"
    one = plain and quant.codec in ("zlib", "lzma") and not has_wide_levels(recipe)
    if plain:
        found |= twins.NEAREST
    elif first and not nearest and not quant.has_signs:
        found |= twins.SOLVED
    found |= twins.OF_ONE_CODEC if one else twins.OF_MANY_CODECS
    if recipe.score.subset == "full" and not recipe.score.limit_tokens:
        found |= twins.WHOLE_SPLIT
        found |= twins.CHUNKED_WHOLE if recipe.score.windows_by == CHUNKED else {}
    return found if recipe.score.allow_lossy else found | twins.NOT_LOSSY


def has_wide_levels(recipe: Recipe) -> bool:
    """Whether some levels of its artifacts need int16: steps finer than eight bits."""
    return any(recipe.quant.grid(role).last > 127 for role in get_args(Role))


def _relative(path: str, folder: str) -> str:
    return f"{folder}/{Path(path).name}" if Path(path).is_absolute() else path
