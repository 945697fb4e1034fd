"""Byte tables and folders of shards with a known fault each, and honest ones with none.

A row: what was done, the failure that the audit must name, the rules that must FAIL (these and no
others) and those that must be UNDECIDED beside the open questions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.data.case import encode_case
from core.data.case_tokenizer import CaseTokenizer
from core.data.documents import read_documents
from core.data.export import retokenize, tokenize
from core.data.pieces import Tokenizer
from core.data.shards import HEADER_BYTES, ShardWriter, Tokens, open_sidecar, open_split
from core.data.tokenizer import open_tokenizer, train_case_tokenizer
from tests.core.tiny_models import CORPUS, KEEP, tiny, with_unused, without_marker
from tests.shared_data import CASEOPS, FINEWEB, OFFICIAL, shared

VAL_DOCS = 9
DOCUMENTS = [f"{text} {i} \u7532 The End" for i, text in enumerate(CORPUS)]  # one sign in bytes
MARKER = "\u2581"
Arrays = dict[str, NDArray[Any]]


@dataclass(kw_only=True)
class Bench:
    """What lies on the disk: shards, model and documents, and more words for the audit."""

    root: Path
    tokenizer: Tokenizer
    documents: Path | None = None
    val_docs: int = VAL_DOCS
    words: list[str] = field(default_factory=list)

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    @property
    def model(self) -> str:
        if not self.tokenizer.marks_spaces:
            return self.tokenizer.name
        path = self.root / "a.model"
        path.write_bytes(self.tokenizer.model)
        return str(path)

    @property
    def arguments(self) -> list[str]:
        words = [str(self.shards), "--tokenizer", self.model, "--val-docs", str(self.val_docs)]
        return [*words, *self.words]

    def tokens(self, split: Any) -> Tokens:
        found = open_split(self.shards, split)
        return found.slice(0, len(found))

    def sidecar(self) -> Tokens:
        found = open_sidecar(self.shards)
        assert found is not None
        return found.slice(0, len(found))

    def rewrite(self, prefix: str, tokens: Tokens) -> None:
        """A split anew, and no manifest to tell."""
        for path in self.shards.glob(f"{prefix}_0*"):
            path.unlink()
        (self.shards / "manifest.json").unlink(missing_ok=True)
        with ShardWriter(self.shards, prefix) as writer:
            writer.write(tokens.astype(np.uint16))

    def ask_documents(self) -> None:
        path = self.root / "documents.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
        self.words += ["--documents", str(path)]

    def claim(self, arrays: Arrays, name: str = "table.npz") -> None:
        path = self.root / name
        if path.suffix == ".json":
            path.write_text(json.dumps({key: value.tolist() for key, value in arrays.items()}))
        elif path.suffix == ".npy":
            np.save(path, np.stack(list(arrays.values())).astype(np.int16))
        else:
            np.savez(path, **arrays)  # type: ignore[arg-type]
        self.words += ["--table", str(path)]


@dataclass(frozen=True, kw_only=True)
class Planted:
    """One case: `plant` damages what `tokenizer` made honestly."""

    name: str
    names: str  # B1 to B18, or a rule; nothing for an honest one
    plant: Callable[[Bench], object]
    tokenizer: Callable[[], Tokenizer] = tiny
    fails: frozenset[str] = frozenset()
    open: frozenset[str] = frozenset()

    def make(self, root: Path) -> Bench:
        bench = Bench(root=root, tokenizer=self.tokenizer())
        tokenize(DOCUMENTS, bench.tokenizer, bench.shards, val_docs=VAL_DOCS)
        self.plant(bench)
        return bench


@cache
def case() -> CaseTokenizer:
    with TemporaryDirectory() as folder:
        return train_case_tokenizer(DOCUMENTS, 400, Path(folder) / "case.model")


def keep() -> Tokenizer:
    return tiny(**KEEP)


def folding() -> Tokenizer:
    return tiny(normalization_rule_name="nmt_nfkc_cf")


def byte260() -> Tokenizer:
    return open_tokenizer("byte260")


def reference(tokenizer: Tokenizer) -> Arrays:
    """The tables as the reference scripts make them: piece by piece, in plain words."""
    pieces = tokenizer.pieces()
    base = np.zeros(len(pieces), np.int16)
    spaced, limits = np.zeros(len(pieces), np.bool_), np.ones(len(pieces), np.bool_)
    for i, piece in enumerate(pieces):
        if piece.kind in ("control", "unknown", "unused"):
            continue
        limits[i] = False
        text = piece.text
        if piece.kind == "byte":
            base[i] = 1
            continue
        if text.startswith(MARKER):
            spaced[i], text = True, text[1:]
        base[i] = len(text.encode())
    return {"base_bytes": base, "has_leading_space": spaced, "is_boundary_token": limits}


def _of_kind(tokenizer: Tokenizer, kind: str) -> NDArray[np.bool_]:
    return np.array([piece.kind == kind for piece in tokenizer.pieces()])


def table(change: Callable[[Arrays, Tokenizer], object]) -> Callable[[Bench], object]:
    def plant(bench: Bench) -> None:
        arrays = reference(bench.tokenizer)
        change(arrays, bench.tokenizer)
        bench.claim(arrays)

    return plant


def space_twice(held: Arrays, tokenizer: Tokenizer) -> None:
    held["base_bytes"] = held["base_bytes"] + held["has_leading_space"]


def marker_lost(held: Arrays, tokenizer: Tokenizer) -> None:
    """The source compares with "?", so the marker stays in the text, with its three bytes."""
    held["base_bytes"] = held["base_bytes"] + 3 * held["has_leading_space"]
    held["has_leading_space"] = np.zeros_like(held["has_leading_space"])


def flags_dropped(held: Arrays, tokenizer: Tokenizer) -> None:
    held["has_leading_space"] = np.zeros_like(held["has_leading_space"])


def printed_names(held: Arrays, tokenizer: Tokenizer) -> None:
    held["base_bytes"][_of_kind(tokenizer, "byte")] = len("<0x41>")


def replacement_characters(held: Arrays, tokenizer: Tokenizer) -> None:
    for i in np.flatnonzero(_of_kind(tokenizer, "byte")).tolist():
        value = int(tokenizer.pieces()[i].text[3:5], 16)
        held["base_bytes"][i] = len(bytes([value]).decode(errors="replace").encode())


def unused_counts(held: Arrays, tokenizer: Tokenizer) -> None:
    unused = _of_kind(tokenizer, "unused")
    assert unused.any()
    held["base_bytes"][unused] = len("</s>")
    held["is_boundary_token"][unused] = False


def no_boundary(held: Arrays, tokenizer: Tokenizer) -> None:
    held["is_boundary_token"][tokenizer.bos_id] = False


def constant(held: Arrays, tokenizer: Tokenizer) -> None:
    held["base_bytes"] = np.full(tokenizer.vocab_size, 2.436)
    held["has_leading_space"] = np.zeros_like(held["has_leading_space"])


def one_piece(held: Arrays, tokenizer: Tokenizer) -> None:
    texts = [piece.text for piece in tokenizer.pieces()]
    held["base_bytes"][texts.index(f"{MARKER}the")] = 9


def lose_sidecar(bench: Bench) -> None:
    for path in (*bench.shards.glob("fineweb_val_bytes_*"), bench.shards / "manifest.json"):
        path.unlink()


def transformed_sidecar(bench: Bench) -> None:
    """Bytes of the text behind the transform, its markers with three each."""
    inner = bench.tokenizer
    assert isinstance(inner, CaseTokenizer)
    counts = [inner.inner.encode(encode_case(text))[1] for text in DOCUMENTS[:VAL_DOCS]]
    entries = [part for one in counts for part in (np.zeros(1, np.int64), one)]
    bench.rewrite("fineweb_val_bytes", np.concatenate(entries))


def short_sidecar(bench: Bench) -> None:
    bench.rewrite("fineweb_val_bytes", bench.sidecar()[:-1])


def heavy_sidecar(bench: Bench) -> None:
    found = bench.sidecar()
    found[3] += 100
    bench.rewrite("fineweb_val_bytes", found)
    bench.ask_documents()


def fewer_documents(bench: Bench) -> None:
    bench.val_docs = 50


def smaller_split(bench: Bench) -> None:
    """The prep kept 4 of 9 documents for validation; the others are in training."""
    for path in bench.shards.iterdir():
        path.unlink()
    bench.shards.rmdir()
    tokenize(DOCUMENTS, bench.tokenizer, bench.shards, val_docs=4)
    bench.ask_documents()


def shared_document(bench: Bench) -> None:
    val, train = bench.tokens("val"), bench.tokens("train")
    second = np.flatnonzero(val == bench.tokenizer.bos_id)[1]
    bench.rewrite("fineweb_train", np.concatenate([train, val[:second]]))


def no_bos(bench: Bench) -> None:
    val, raw = bench.tokens("val"), bench.sidecar()
    kept = val != bench.tokenizer.bos_id
    bench.rewrite("fineweb_val", val[kept])
    bench.rewrite("fineweb_val_bytes", raw[kept])


def other_order(bench: Bench) -> None:
    for path in bench.shards.iterdir():
        path.unlink()
    bench.shards.rmdir()
    turned = [*reversed(DOCUMENTS[:VAL_DOCS]), *DOCUMENTS[VAL_DOCS:]]
    tokenize(turned, bench.tokenizer, bench.shards, val_docs=VAL_DOCS)
    bench.ask_documents()


def other_tokenizer(bench: Bench) -> None:
    """Of the same size, and no manifest to tell."""
    (bench.shards / "manifest.json").unlink()
    bench.tokenizer = keep()
    assert bench.tokenizer.vocab_size == tiny().vocab_size
    bench.ask_documents()


def told_tokenizer(bench: Bench) -> None:
    bench.tokenizer = keep()


def smaller_vocabulary(bench: Bench) -> None:
    (bench.shards / "manifest.json").unlink()
    bench.tokenizer = tiny(vocab_size=340)


def swapped_tokens(bench: Bench) -> None:
    path = bench.shards / "fineweb_val_000000.bin"
    data = path.read_bytes()
    tokens = np.frombuffer(data[HEADER_BYTES:], "<u2").copy()
    i = next(i for i in range(5, 99) if len({1, *tokens[i : i + 2].tolist()}) == 3)
    tokens[[i, i + 1]] = tokens[[i + 1, i]]
    path.write_bytes(data[:HEADER_BYTES] + tokens.tobytes())


def nothing(bench: Bench) -> None:
    """Honest."""


def _case(
    name: str,
    names: str,
    plant: Callable[[Bench], object],
    fails: str = "",
    open: str = "",
    tokenizer: Callable[[], Tokenizer] = tiny,
) -> Planted:
    """Rules separated by commas."""
    both = [frozenset(x for x in words.split(",") if x) for words in (fails, open)]
    return Planted(
        name=name, names=names, plant=plant, tokenizer=tokenizer, fails=both[0], open=both[1]
    )


PLANTED = (
    _case("a space in the table and in the sum", "B1", table(space_twice), "B1,decoding"),
    _case("the marker eaten by an encoding", "B2", table(marker_lost), "B2,decoding"),
    _case("spaces never counted", "B2", table(flags_dropped), "B2,decoding"),
    _case("byte pieces by their names", "B3", table(printed_names), "B3,decoding"),
    _case("an unused piece with bytes", "B4", table(unused_counts), "B4", tokenizer=with_unused),
    _case("BOS is no boundary", "B4", table(no_boundary), "B4"),
    _case("byte pieces as U+FFFD", "B6", table(replacement_characters), "B6,decoding"),
    _case(
        *("markers with bytes", "B7", table(lambda held, tokenizer: None), "B7,decoding"),
        tokenizer=case,
    ),
    _case("2.436 bytes a token", "B18", table(constant), "B18,decoding"),
    _case("one piece too long", "byte table", table(one_piece), "byte table,decoding"),
    _case(
        *("no piece for a space", "B5", nothing, "B5,byte table,decoding"),
        tokenizer=without_marker,
    ),
    _case("no sidecar", "B7", lose_sidecar, "B7,byte table,sidecar", tokenizer=case),
    _case("the transform's bytes", "B7", transformed_sidecar, "B7", tokenizer=case),
    _case("case is folded", "B8", nothing, open="B8", tokenizer=folding),
    _case("a part of the split", "B9", fewer_documents, "B9"),
    _case("a smaller split", "B10", smaller_split, "B9,B10,whole split"),
    _case("a document in both", "B10", shared_document, "overlap"),
    _case("no BOS", "B13", no_bos, "starts with BOS,B9"),
    _case("another order", "B15", other_order, "B15"),
    _case("tokens changed", "B15", swapped_tokens, "hash"),
    _case("another tokenizer of the size", "B16", other_tokenizer, "B16"),
    _case("another tokenizer than told", "B16", told_tokenizer, "tokenizer"),
    _case("a smaller vocabulary", "B16", smaller_vocabulary, "vocabulary"),
    _case("a sidecar too short", "B7", short_sidecar, "sidecar"),
    _case("a sidecar too heavy", "B7", heavy_sidecar, "B7"),
)


def exact(name: str, padded: int = 0) -> Callable[[Bench], object]:
    """The reference's own table, as a file of this kind, perhaps longer than the vocabulary."""

    def plant(bench: Bench) -> None:
        arrays = reference(bench.tokenizer)
        bench.claim({key: np.pad(value, (0, padded)) for key, value in arrays.items()}, name)
        bench.ask_documents()

    return plant


def without_sidecar(bench: Bench) -> None:
    """Tokens made of tokens: the original bytes are gone."""
    new = tiny(vocab_size=340)
    retokenize(bench.shards, bench.tokenizer, new, bench.root / "new")
    for path in bench.shards.iterdir():
        path.unlink()
    bench.shards.rmdir()
    (bench.root / "new").rename(bench.shards)
    bench.tokenizer = new


def real(model: str) -> Callable[[Bench], object]:
    """The task's own tokenizer on real documents."""

    def plant(bench: Bench) -> None:
        for path in bench.shards.iterdir():
            path.unlink()
        bench.shards.rmdir()
        bench.tokenizer = open_tokenizer(shared(model))
        source = shared(FINEWEB)
        documents = read_documents([source])
        tokenize(documents, bench.tokenizer, bench.shards, val_docs=20)
        bench.val_docs = 20
        bench.words += ["--documents", str(source)]
        if bench.tokenizer.transform is None:
            bench.claim(reference(bench.tokenizer))

    return plant


HONEST = (
    _case("the task's settings", "", Bench.ask_documents, open="B8"),
    _case("a lossless tokenizer", "", Bench.ask_documents, tokenizer=keep),
    _case("bytes", "", Bench.ask_documents, tokenizer=byte260),
    _case("cased text with its sidecar", "", Bench.ask_documents, open="B8", tokenizer=case),
    _case("no sidecar, and none needed", "", without_sidecar, open="sidecar"),
    _case("the table as .npz", "", exact("table.npz"), open="B8"),
    _case("the table as .npy", "", exact("table.npy"), open="B8"),
    _case("the table as .json", "", exact("table.json"), open="B8"),
    _case("the table, padded", "", exact("table.npz", padded=4), open="B8"),
    _case("bytes with a table", "", exact("table.npz"), tokenizer=byte260),
    _case("sp1024 on real text", "", real(OFFICIAL), open="B8"),
    _case("the case transform on real text", "", real(CASEOPS), open="B8"),
)
