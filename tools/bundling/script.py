"""A recipe and the code it reaches as one script: core and one engine, nothing of the toolkit.

The modules are shaken (shaking.py), joined into one (flatten.py), minified by
python-minifier and compressed by LZMA. The script's text is Latin-1: a character for each byte, so
that the code costs what it compresses to, where base85 would add a quarter.
"""

from __future__ import annotations

import ast
import lzma
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from core.artifact.codecs import candidates
from core.artifact.header import HEADER_CODECS
from core.data.batches import Data
from core.train.recipe import Recipe
from tools.bundling.flatten import flatten
from tools.bundling.fold import SECTIONS, Fold, only_used, values_of, without_registries
from tools.bundling.shaking import Shaker

ROOT = Path(__file__).resolve().parents[2]
ENTRY = """
import os
import sys
from dataclasses import replace

from {package}.loop import train
from core.train.standalone import standalone

recipe = RECIPE
data = replace(
    recipe.data,
    path=os.environ.get("DATA_PATH", recipe.data.path),
    tokenizer=os.environ.get("TOKENIZER_PATH", recipe.data.tokenizer),
)
recipe = replace(recipe, seed=int(os.environ.get("SEED", SEED)), data=data)
run_id = os.environ.get("RUN_ID", f"seed{{recipe.seed}}")
sys.exit(standalone(train, recipe, run_id, os.path.getsize(__file__)))
"""
# The packed text has a line of its own, which no traceback shows. The source goes to linecache by
# a name: inspect and so Triton's compiler find it there. Every seed is equally long.
LOADER = """#coding:latin1
import lzma,linecache
SEED='{seed:<10}'
s='{packed}'
if __name__=='__main__':
 s=lzma.decompress(s.encode('latin1'),3,None,[{filters}]).decode();n='<train_gpt>'
 linecache.cache[n]=len(s),None,s.splitlines(1),n;exec(compile(s,n,'exec'))
"""
FILTERS = {"id": lzma.FILTER_LZMA2, "lc": 3, "lp": 0, "pb": 0}  # what a decoder must know


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One script, and the sizes on the way to it."""

    script: bytes
    source_bytes: int  # joined, without comments
    minified_bytes: int


def code_bytes(recipe: Recipe) -> int:
    """What a submission of the recipe counts as code: its torch bundle, whatever the seed."""
    return len(bundle(recipe, "torch").script)


def bundle(recipe: Recipe, backend: str) -> Bundle:
    """The packed script. The same recipe and code give the same bytes."""
    literal_ = literal(elsewhere(recipe))
    small = _minified(settled(recipe), backend).replace("RECIPE", literal_)
    return Bundle(
        script=packed(small, recipe.seed),
        source_bytes=len(_source(settled(recipe), backend).replace("RECIPE", literal_).encode()),
        minified_bytes=len(small.encode()),
    )


def readable(recipe: Recipe, backend: str) -> str:
    """One module of everything that the recipe's run reaches, without comments."""
    source = _source(settled(recipe), backend).replace("RECIPE", literal(elsewhere(recipe)))
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
    """The bytes as characters that may stand between single quotes in a Latin-1 source."""
    escapes = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\0": "\\x00"}
    return "".join(escapes.get(character, character) for character in data.decode("latin-1"))


def literal(value: Any) -> str:
    """The value as an expression; of a dataclass, what is not its default."""
    if isinstance(value, tuple):
        return f"({''.join(f'{literal(part)},' for part in value)})"
    if not is_dataclass(value):
        return repr(value)
    said = {f.name: getattr(value, f.name) for f in fields(value)}
    words = (f"{f.name}={literal(said[f.name])}" for f in fields(value) if _differs(f, said))
    return f"{type(value).__name__}({', '.join(words)})"


@cache
def _source(recipe: Recipe, backend: str) -> str:
    """Everything that a recipe of this model and optimizer reaches."""
    shaker = Shaker(ROOT, Fold(values_of(recipe)))
    shaker.reach_all("__main__", ast.parse(ENTRY.format(package=f"backend_{backend}")))
    shaker.reach("core.train.recipe", "Recipe")  # with its sections: RECIPE names them
    shaker.reach("core.arch.depth", "Phase")
    whole = of_codecs(flatten(shaker.sources()), {*HEADER_CODECS, *candidates(recipe.quant.codec)})
    tree = only_used(without_registries(whole), SECTIONS)
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert classes.issuperset(SECTIONS), set(SECTIONS) - classes
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


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


@cache
def _minified(recipe: Recipe, backend: str) -> str:
    from python_minifier import minify

    kept = list(SECTIONS)  # named by the recipe's literal, which is put in later
    small: str = minify(
        _source(recipe, backend),
        remove_literal_statements=True,
        rename_globals=True,
        preserve_globals=kept,
    )
    return small


def settled(recipe: Recipe) -> Recipe:
    """What decides which code is reached; seed, paths and schedule are told later."""
    return Recipe(
        precision=recipe.precision,
        compile=recipe.compile,
        arch=recipe.arch,
        optim=recipe.optim,
        data=Data(train_batch_tokens=recipe.arch.seq_len),
        quant=recipe.quant,
    )


def _relative(path: str, folder: str) -> str:
    return f"{folder}/{Path(path).name}" if Path(path).is_absolute() else path


def _differs(field: Field[Any], said: Mapping[str, Any]) -> bool:
    default = field.default
    if field.default_factory is not MISSING:
        default = field.default_factory()
    return bool(default != said[field.name])
