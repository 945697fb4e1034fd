"""Whether validation text lies in a model, a script or a whole folder: as tokens, or as text."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.data.findings import Finding
from core.data.pieces import Tokenizer
from core.data.runs import shard_blocks
from core.data.shards import split_files
from core.data.tokenizer import open_tokenizer
from core.score.book import ruled
from tools.auditing.copies import Pieces
from tools.auditing.report import as_fields, as_markdown, as_text
from tools.auditing.views import LEAST, contents, tokens_of
from tools.checks.folder import MAX_FOLDER_BYTES, open_folder
from tools.data import told
from tools.say import print_json

BLOCK_TOKENS = 1 << 20
RULE = "no validation inside"
TEXT_BYTES = 32  # of a piece of text
# Tokens side by side as in validation are no chance; a licence or an address may be in any text.
TOKENS_FAIL, TEXT_FAIL_BYTES = 4 * LEAST, 2048
KINDS = (6, 8)  # different tokens and bytes of a piece: blanks and rules are nobody's text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="a model, a script, or a folder with all of it")
    parser.add_argument("--data", type=Path, metavar="DIR", required=True, help="the shards")
    parser.add_argument("--tokenizer", metavar="MODEL", required=True, help="of the shards")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="one JSON object on stdout")
    shown.add_argument("--markdown", action="store_true", help="a report for a review thread")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    findings = check_inside(args.path, args.data, open_tokenizer(args.tokenizer))
    about = {"subject": args.path.name, "text": f"the validation shards of {args.data}"}
    title = f"Audit of what {args.path.name} holds"
    if args.json:
        print_json(as_fields(findings, about))
    else:
        print(as_markdown(findings, title, about) if args.markdown else as_text(findings))
    return int(any(one.status == "FAIL" for one in findings))


@dataclass(frozen=True, kw_only=True)
class Sought:
    """Pieces of validation, as tokens and as text."""

    tokens: Pieces
    text: Pieces
    vocab_size: int


def check_inside(path: Path, shards: Path, tokenizer: Tokenizer) -> list[Finding]:
    """One finding a file. ValueError where there is nothing to look at or to look for."""
    sought = seek(split_files(shards, "val"), tokenizer)
    return [_judged(name, data, sought) for name, data in _files(path)]


def seek(files: list[Path], tokenizer: Tokenizer) -> Sought:
    """All of validation, read once."""
    if not files:
        raise ValueError("no validation shards (fineweb_val_*.bin) to look for; name their folder")
    tokens, text = Pieces(LEAST, KINDS[0]), Pieces(TEXT_BYTES, KINDS[1])
    done = 0
    with told(sum(file.stat().st_size for file in files)) as tell:
        for block in shard_blocks(files, BLOCK_TOKENS):
            tokens.add(block)
            decoded = tokenizer.decode(block).encode("utf-8", "replace")
            text.add(np.frombuffer(decoded, np.uint8))
            done += block.nbytes
            tell(done, None)
    tokens.close()
    text.close()
    return Sought(tokens=tokens, text=text, vocab_size=tokenizer.vocab_size)


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_file():
        if (size := path.stat().st_size) > MAX_FOLDER_BYTES:
            raise ValueError(f"{path}: {size:,} bytes, more than the {MAX_FOLDER_BYTES:,} read")
        yield path.name, path.read_bytes()
        return
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder to look into")
    folder = open_folder(path)
    if folder.excess or not folder.files:
        said = folder.excess or "holds no files to look into"
        raise ValueError(f"{path}: {said}; name a folder of the submission's files")
    for entry in folder.files:
        yield entry.path, folder.read(entry)


def _judged(name: str, data: bytes, sought: Sought) -> Finding:
    tokens, text = _Seen("tokens", LEAST), _Seen("bytes", TEXT_BYTES)
    parts, unread = 0, list[str]()
    for part, held in contents(name, data, unread):
        parts += 1
        for form, numbers in tokens_of(held, sought.vocab_size):
            tokens.look(f"{part}, {form}", numbers, sought.tokens)
        text.look(part, np.frombuffer(held, np.uint8), sought.text)
    said = [one.said for one in (tokens, text) if one.places]
    if tokens.covered >= TOKENS_FAIL or text.covered >= TEXT_FAIL_BYTES:
        return ruled(RULE, "FAIL", name, "; ".join(said))
    if said or unread:
        return ruled(RULE, "UNDECIDED", name, "; ".join(said + unread))
    none = f"no {2 * LEAST - 1} tokens and no {2 * TEXT_BYTES - 1} bytes of validation text, "
    none += f"plain, as lists of numbers or in the {parts} parts that could be unpacked"
    return ruled(RULE, "PASS", name, none)


class _Seen:
    """What of validation was found in one file."""

    def __init__(self, what: str, size: int) -> None:
        self.what, self._size = what, size
        self.places: set[int] = set()
        self._first = ""

    @property
    def covered(self) -> int:
        """So many of validation's tokens or bytes."""
        return len(self.places) * self._size

    @property
    def said(self) -> str:
        return f"{self.covered:,} {self.what} of validation text: {self._first}"

    def look(self, where: str, numbers: np.ndarray, sought: Pieces) -> None:
        """Add what these hold."""
        for at, place in sought.found(numbers):
            if not self._first:
                shown = numbers[at : at + self._size]
                said = repr(bytes(shown)) if shown.itemsize == 1 else " ".join(map(str, shown[:8]))
                self._first = f"{where}, at {at:,}, {self.what[:-1]} {place:,} on: {said}"
            self.places.add(place)
