"""What is planted for the audit of scorers: each cheat with the rule that names it, honest ones.

Lists of rows; docs/audit.md shows how each was judged (python -m tests.audit prints it).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from core.data.export import tokenize
from core.data.shards import open_split
from core.data.tokenizer import SentencePieceTokenizer, train_tokenizer
from tests.core.tiny_models import CORPUS
from tests.tools.planted_scorers import CHEATS, COMMON, HONEST
from tools.main import main

VOCAB_SIZE = 64
WORDS = ("--tokens", "250", "--flips", "6", "--asks", "24", "--seconds", "100")


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A scorer; `rule`: the one that names its cheat, "" for an honest one."""

    name: str
    rule: str = ""
    rows: str = ""  # of the reference: which failure it is
    words: tuple[str, ...] = ()  # of the command
    data: bool = False  # on validation shards


SCORERS = (
    Planted(name="adds to the logit of the token to come", rule="blind to the token", rows="L1 L2"),
    Planted(name="SLOT: a delta optimised on the scored block", rule="causality", rows="L23"),
    Planted(name="a gate keyed on the token to come", rule="blind to the token", rows="L2"),
    Planted(
        name="an oracle picks the expert, another one is shown",
        rule="own distribution",
        rows="L2 B14",
    ),
    Planted(name="the best expert for every token at once", rule="normalised", rows="L3"),
    Planted(name="n-gram counts of hash buckets, not normalised", rule="normalised", rows="L3"),
    Planted(name="bytes as p^(1/n), mixed byte by byte", rule="normalised", rows="L4 B14"),
    Planted(
        name="byte nats that are fewer than the token's", rule="own distribution", rows="L4 B14"
    ),
    Planted(name="the lower of two passes", rule="own distribution", rows="L8 B12"),
    Planted(name="three epochs, then the score", rule="score first", rows="L6"),
    Planted(name="trains on a chunk before it scores it", rule="score first", rows="L5"),
    Planted(name="the same with a state that lies", rule="causality", rows="L5"),
    Planted(name="a temperature chosen on the block", rule="causality", rows="L1"),
    Planted(name="a temperature by the token to come", rule="blind to the token", rows="L2"),
    Planted(
        name="a cache keyed by a hash of context and token", rule="blind to the token", rows="L2"
    ),
    Planted(name="a gate that knows whether a word begins", rule="blind to the token", rows="L2"),
    Planted(name="smoothed with what comes next", rule="causality", rows="L1"),
    Planted(name="knows how long the text is", rule="causality", rows="L1"),
    Planted(
        name="a document's cache reaches the next, isolation claimed",
        rule="isolated documents",
        rows="L10",
        words=("--isolated",),
    ),
    Planted(name="a block is scored again, when it is known", rule="once", rows="L6 L8 B12"),
    Planted(name="the last window is dropped", rule="once", rows="B11"),
    Planted(name="windows that overlap by one target", rule="once", rows="B12"),
    Planted(name="the easy blocks last, learning all the way", rule="single pass", rows="L8"),
    Planted(
        name="nats of a sharper distribution than is shown", rule="own distribution", rows="B14"
    ),
    Planted(name="honest where it is asked, else not", rule="repeatable", rows="L3 B14"),
    Planted(name="one token is missing from its distribution", rule="normalised", rows="L3"),
    Planted(name="drops out at random while it scores", rule="repeatable", rows=""),
    Planted(name="remembers the last pass in a global", rule="repeatable", rows="L6"),
    Planted(
        name="a part of the validation text in the artifact, by place",
        rule="no validation inside",
        rows="L17",
        data=True,
    ),
    Planted(
        name="a table of validation text that its context opens",
        rule="no validation inside",
        rows="L17",
        data=True,
    ),
    Planted(
        name="Hessians of validation tokens as it loads",
        rule="before the clock",
        rows="L11",
        data=True,
    ),
    Planted(
        name="reads the validation file before the clock",
        rule="before the clock",
        rows="L7 L15",
        data=True,
    ),
    Planted(
        name="warms up on its own copy of validation tokens", rule="before the clock", rows="L9"
    ),
    Planted(name="asks the network for its counts", rule="no network", rows="L18"),
    Planted(name="trains on files beside the submission", rule="own files", rows="L16"),
    Planted(name="a fixed model"),
    Planted(name="counts that learn behind each block"),
    Planted(name="a mixture whose share is the context's"),
    Planted(name="three epochs of gradient steps behind each block", data=True),
    Planted(name="a cache that is emptied at each BOS, isolation claimed", words=("--isolated",)),
    Planted(name="windows that slide, and no state"),
    Planted(name="documents by length, and no state"),
    Planted(name="bytes by the chain rule"),
    Planted(name="SLOT on the context alone"),
    Planted(name="sums in float32, whose order follows the shape"),
)

# Conditions without a scorer, a log or a folder of their own: where they are looked at, or why not.
ELSEWHERE = {
    "L19": "not here: `golf check` reads a folder's code (`code bytes`, `self-contained`)",
    "L20": "not to be planted: how many seeds were tried stands in no file of one submission",
    "L21": "as B1 to B7 of docs/audit-bytes.md, whose byte tables are of tokenizers of one's own",
    "L22": "as B7 and B8 of docs/audit-bytes.md; cased text with its sidecar is honest there",
    "L27": "not to be planted: an open question, UNDECIDED in every report on logs",
    "L28": "not to be planted: the day of a pull request stands in no file of it",
}


@dataclass(frozen=True, kw_only=True)
class Shards:
    """A text for those that are audited on validation tokens."""

    folder: Path
    tokenizer: Path
    vocab_size: int


def shards(place: Path) -> Shards:
    """A small tokenizer and its shards."""
    model, folder = place / "tiny.model", place / "shards"
    tokenizer: SentencePieceTokenizer = train_tokenizer(CORPUS, 380, model)
    tokenize([text[:150] for text in CORPUS], tokenizer, folder, val_docs=8)
    return Shards(folder=folder, tokenizer=model, vocab_size=tokenizer.vocab_size)


def audited(planted: Planted, place: Path, text: Shards) -> dict[str, Any]:
    """The JSON that golf prints about it."""
    words = ["audit", "scorer", str(_write(planted, place, text)), "--run", "--json"]
    words += [*WORDS, *planted.words]
    if planted.data:
        words += ["--data", str(text.folder), "--tokenizer", str(text.tokenizer)]
    else:
        words += ["--vocab-size", str(VOCAB_SIZE)]
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    said: dict[str, Any] = json.loads(out.getvalue() or "{}")
    assert said, err.getvalue()
    assert code == (0 if said["passes"] else 1)
    return said


def failed(said: dict[str, Any]) -> list[str]:
    """The rules that FAIL, each once."""
    return [*dict.fromkeys(x["rule"] for x in said["findings"] if x["status"] == "FAIL")]


def row(planted: Planted, rules: Sequence[str]) -> str:
    """A line of the confusion table."""
    want = planted.rule or "none"
    return f"| {planted.name} | {planted.rows} | {want} | {', '.join(rules) or 'none'} |"


def _write(planted: Planted, place: Path, text: Shards) -> Path:
    """Its folder, with the one file, and whatever it would like to read beside."""
    folder, outside = place / "submission", place / "train_000000.bin"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    np.arange(500, dtype="<u2").tofile(outside)
    validation = next(iter(sorted(text.folder.glob("*_val_0*.bin"))))
    prefix = open_split(text.folder, "val").slice(0, 80).tolist()
    if "warm_val" in CHEATS.get(planted.name, ""):
        np.arange(500, dtype="<u2").tofile(folder / "warm_val_000000.bin")
    source = COMMON + {**CHEATS, **HONEST}[planted.name]
    source = source.replace("V = VOCAB", f"V = {text.vocab_size if planted.data else VOCAB_SIZE}")
    source = source.replace("PREFIX = PAID", f"PREFIX = {prefix}")
    source = source.replace('"VALIDATION"', repr(str(validation)))
    source = source.replace('"OUTSIDE"', repr(str(outside)))
    script = folder / "scorer.py"
    script.write_text(source, encoding="utf-8")
    return script
