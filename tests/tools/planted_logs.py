"""Logs and records folders with a known fault each, and honest ones that no fault may be found in.

A row: what was done, the failure or condition that the audit must name, the rules that must FAIL
(these and no others) and those that must be UNDECIDED beside the open questions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.data.shards import ShardWriter
from tests.tools.records import BYTES, LOSSES, TOKENS, log_of, write_record

LOSS = 2.0612
CODE = 40_000


@dataclass(frozen=True, kw_only=True)
class Planted:
    """One case: `make` writes it below a folder and gives the words for the audit."""

    name: str
    names: str  # B1 to B18, L1 to L28, or a rule; nothing for an honest one
    make: Callable[[Path], list[Path]]
    fails: frozenset[str] = frozenset()
    open: frozenset[str] = frozenset()


def log(
    told: dict[str, Any] | None = None,
    edits: dict[str, str] | None = None,
    *,
    counted: float = BYTES,
    tokens: int = TOKENS,
    loss: float = LOSS,
    name: str = "train_seed42.log",
) -> Callable[[Path], list[Path]]:
    """The reference's log of a run whose bytes were counted so."""

    def make(root: Path) -> list[Path]:
        text = log_of(42, loss, CODE, tokens=tokens, **(told or {}))
        honest, shown = (
            loss / math.log(2.0) * n / b for n, b in ((TOKENS, BYTES), (tokens, counted))
        )
        for digits in (8, 4):
            text = text.replace(f"val_bpb:{honest:.{digits}f}", f"val_bpb:{shown:.{digits}f}")
        for old, new in (edits or {}).items():
            assert old in text, old
            text = text.replace(old, new)
        (root / name).write_text(text)
        return [root / name]

    return make


OWN = """recipe:smoke hash:a1a84bd86e0a37e9 seed:1 backend:torch device:cpu precision:fp32
parameters:200000 train_tokens:600000 val_tokens:{held}
world_size:1 train_batch_tokens:1024 seq_len:64
step:55/60 train_loss:3.9847 train_time:4293ms step_avg:78.06ms progress:0.900000 lr_mul:0.2000
step:60/60 train_loss:4.0656 train_time:4688ms step_avg:78.13ms progress:0.983333 lr_mul:0.0333
identity:fc588559659d615986a5b5c11db31ef3e73a3b622db8e3d32a61d269bb100ba1
Serialized model int8+zlib: 149492 bytes
Code size: 15937 bytes
Total submission size int8+zlib: 165429 bytes
final_int8_zlib_roundtrip_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f} val_bpb_raw:{bpb} \
tokens:{tokens} bytes:{counted} bytes_raw:{counted} eval_time:2646ms{rest}
phases {phases}
fits: artifact_bytes:165429 cap:16000000 margin:15834571
"""
PHASES = "warmup:0.19s train:4.69s score:18.65s save:0.00s quantize:0.00s compress:0.02s"


def own(
    tokens: int = 119_187,
    counted: int = 228_653,
    *,
    bpb_bytes: int = 0,
    held: int = 0,
    rest: str = "",
    phases: str = PHASES,
    edits: dict[str, str] | None = None,
) -> Callable[[Path], list[Path]]:
    """A log of ours; `bpb_bytes` is what the score was really divided by."""

    def make(root: Path) -> list[Path]:
        loss = 4.14355367
        told = {"tokens": tokens, "counted": counted, "rest": rest, "phases": phases, "loss": loss}
        bpb = loss / math.log(2.0) * tokens / (bpb_bytes or counted)
        text = OWN.format(held=held or tokens + 1, bpb=bpb, **told)
        for old, new in (edits or {}).items():
            assert old in text, old
            text = text.replace(old, new)
        (root / "own_s1.log").write_text(text)
        return [root / "own_s1.log"]

    return make


def record(
    fields: dict[str, Any] | None = None,
    logs: dict[int, dict[str, Any]] | None = None,
    change: Callable[[Path], object] | None = None,
) -> Callable[[Path], list[Path]]:
    """A stranger's records folder with fields, logs or files of it changed."""

    def make(root: Path) -> list[Path]:
        folder = write_record(root)
        code = (folder / "train_gpt.py").stat().st_size
        for seed, told in (logs or {}).items():
            text = log_of(seed, LOSSES[seed], code, **told)
            (folder / f"train_seed{seed}.log").write_text(text)
        path = folder / "submission.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **(fields or {})}))
        if change is not None:
            change(folder)
        return [folder]

    return make


def _edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text, old
        (folder / name).write_text(text.replace(old, new))

    return change


def _shard(folder: Path) -> None:
    with ShardWriter(folder, "fineweb_val") as writer:
        writer.write(np.ones(4_000, np.uint16))


def _other_text(folder: Path) -> None:
    """One seed scored on the data of an earlier export."""
    honest = LOSSES[7] / math.log(2.0) * TOKENS / BYTES
    other = LOSSES[7] / math.log(2.0) * 63_779_840 / 155_769_746
    _edit("train_seed7.log", f"{honest:.8f}", f"{other:.8f}")(folder)
    _edit("train_seed7.log", f"{honest:.4f}", f"{other:.4f}")(folder)
    _edit("train_seed7.log", f"tokens:{TOKENS}", "tokens:63779840")(folder)


def _two_names(root: Path) -> list[Path]:
    """One log, its seed changed in name and text."""
    for seed in (1, 2):
        (root / f"train_seed{seed}.log").write_text(log_of(seed, LOSS, CODE))
    return [root]


def _written(change: Callable[[str], str], encoding: str = "utf-8") -> Callable[[Path], list[Path]]:
    """An honest log as another shell or launcher wrote it."""

    def make(root: Path) -> list[Path]:
        [path] = log()(root)
        lines = path.read_text().splitlines()
        path.write_bytes("\n".join(map(change, lines)).encode(encoding))
        return [path]

    return make


def _no_roundtrip(root: Path) -> list[Path]:
    [path] = log()(root)
    kept = [x for x in path.read_text().splitlines() if not x.startswith("final_")]
    path.write_text("\n".join([*kept, "pre-quantization post-ema val_loss:2.05 val_bpb:1.21"]))
    return [path]


def _case(
    name: str, names: str, make: Callable[[Path], list[Path]], fails: str = "", open: str = ""
) -> Planted:
    """Rules separated by commas."""
    both = [frozenset(x for x in words.split(",") if x) for words in (fails, open)]
    return Planted(name=name, names=names, make=make, fails=both[0], open=both[1])


BYTES_WRONG = "implied bytes"
DATASET = "dataset:fineweb10B_sp8192"
PLANTED = (
    _case("a space counted twice", "B1", log(counted=176_332_748), BYTES_WRONG),
    _case("a space as three byte pieces", "B5", log(counted=1.25 * BYTES), BYTES_WRONG),
    _case("U+FFFD for bytes", "B6", log(counted=157_319_833), BYTES_WRONG),
    _case("markers counted", "B7", log(counted=164_594_398), BYTES_WRONG),
    _case(
        *("10,000 of 50,000 documents", "B9"),
        *(log(tokens=9_662_464, counted=32_756_252), BYTES_WRONG),
    ),
    _case("3M tokens", "B9", log(tokens=3_000_320, counted=7_308_600), BYTES_WRONG),
    _case("a byte mixture's total", "B14", log(counted=152_570_124), BYTES_WRONG),
    _case(
        *("an earlier export", "B15"),
        *(log(tokens=63_779_840, counted=155_769_746), BYTES_WRONG),
    ),
    _case("2.4 bytes a token", "B18", log(counted=2.4 * TOKENS), f"{BYTES_WRONG},B18"),
    _case("2.436 bytes a token", "B18", log(counted=2.436 * TOKENS), "B18"),
    _case("no score of the packed model", "B17", _no_roundtrip, "logs"),
    _case(
        *("two scores under one label", "B17"),
        log(
            edits={"roundtrip val_loss:2.0612": "roundtrip val_loss:2.0312"},
        ),
        "logs",
    ),
    _case(
        "a score that is no number", "B17", log({}, {"val_loss:2.06120000": "val_loss:nan"}), "logs"
    ),
    _case(
        *("data of another tokenizer", "B16"),
        log({"limit": f"train_loader:{DATASET} train_shards:80\n"}),
        "B16",
    ),
    _case(
        *("the transform's flag is off", "B7"),
        log({"limit": "data_path=d/fineweb10B_caseops_v1 caseops_enabled=False\n"}),
        "B7",
    ),
    _case(
        *("an export of 10,000 documents", "B10"),
        log({"limit": "train_loader:dataset:x train_shards:1499\n"}),
        open="B10",
    ),
    _case("a tail left out", "B11", own(47_851_520, 151_074_499, held=47_853_344), open="B11"),
    _case("part of the documents", "B9", log({"limit": "val_doc_limit:10000 "}), "whole split"),
    _case(
        "a subset of ours",
        "B9",
        own(rest=' subset:{"name": "first-1m"}'),
        "whole split",
        "implied bytes",
    ),
    _case("bytes that do not fit", BYTES_WRONG, own(bpb_bytes=266_000), BYTES_WRONG),
    _case(
        *("the task's tokens with more bytes", "B1"),
        *(own(62_021_700, 176_332_748), BYTES_WRONG),
    ),
    _case(
        *("Hessians behind the clock", "L12"),
        log(edits={"seed:42\n": "seed:42\nGPTQ:collected 67 Hessians in 4.7s\n"}),
        "L12",
    ),
    _case(
        *("packing past the clock", "L13"),
        own(
            phases="train:598.00s calibrate:1.00s quantize:4.00s compress:9.00s",
            edits={"train_time:4688ms": "train_time:598000ms"},
        ),
        open="L13,implied bytes",
    ),
    _case(
        "688 s of evaluation",
        "L14",
        log(edits={"eval_time:1500ms": "eval_time:688000ms"}),
        "evaluation time",
    ),
    _case(
        *("hints outside of the timer", "L15"),
        log({"limit": "ngram_hint_precompute_outside:1\n"}),
        open="L15",
    ),
    _case("601.1 s of training", "L26", log({"train_ms": 601_100}), "training time"),
    _case("over the cap", "L24", log({"total": 16_024_793, "model": 15_984_793}), "cap"),
    _case("a total that is no sum", "L24", log({"total": 15_000_000}), "model bytes"),
    _case("another seed's log", "L25", log({}, {"seed:42": "seed:1337"}), "seeds"),
    _case("one run under two seeds", "L25", _two_names, "seeds"),
    _case("the score before packing", "B17", record({"val_bpb": 1.2150}), "score"),
    _case("the best seed's score", "B17", record({"val_bpb": 1.220107}), "score"),
    _case("another run's time", "B17", record({"train_seconds": 565.0}), "numbers"),
    _case("a smaller size", "L24", record({"bytes_total": 15_000_000}), "model bytes"),
    _case(
        "over the cap as shipped",
        "L24",
        record(logs={42: {"model": 15_999_999, "total": 16_000_183}}),
        "cap",
        "model bytes",
    ),
    _case(
        *("two seeds", "L25"),
        record(
            {"seeds": [1337, 7], "val_loss": 2.0605, "val_bpb": 1.22034416},
            change=lambda x: (x / "train_seed42.log").unlink(),
        ),
        "seeds",
    ),
    _case(
        *("a seed of other settings", "L25"),
        record(change=_edit("train_seed42.log", "iterations:20000", "iterations:9000")),
        "configuration",
    ),
    _case("four ranks", "L26", record(logs={42: {"ranks": 4}}), "configuration,hardware"),
    _case("validation tokens shipped", "L17", record(change=_shard), "foreign data"),
    _case(
        "a seed on another export",
        "B15",
        record(change=_other_text),
        "B15,configuration,implied bytes,score,whole split",
    ),
)

HONEST = (
    _case("the baseline", "", log()),
    _case("sp4096", "", log(tokens=45_508_608, counted=151_074_053)),
    _case("sp8192", "", log(tokens=40_540_160, counted=151_077_300)),
    _case("cased text", "", log(tokens=47_851_520, counted=151_074_499)),
    _case("bytes", "", log(tokens=151_130_112, counted=151_080_114)),
    _case("bytes, one a token", "", log(tokens=151_076_864, counted=151_076_864)),
    _case("long windows", "", log(tokens=61_997_056, counted=151_024_099)),
    _case("the step that crosses the cap", "", log({"train_ms": 600_137})),
    _case(
        *("Hessians within the clock", ""),
        log(
            {"train_ms": 588_000},
            {"seed:42\n": "seed:42\nGPTQ:collected 67 Hessians in 11.9s\n"},
        ),
    ),
    _case(
        *("data and tokenizer named", ""),
        log({"limit": "train_loader:dataset:fineweb10B_sp1024 train_shards:80\nvocab_size:1024\n"}),
    ),
    _case("by a shell of Windows", "", _written(lambda line: line + "\r", "utf-16")),
    _case("behind ranks", "", _written(lambda line: f"[rank0]: {line}")),
    _case("behind times", "", _written(lambda line: f"2026-04-01 10:00:00,1 INFO {line}")),
    _case("ours, on another text", "", own(), open="implied bytes"),
    _case(
        "ours, on a laptop",
        "",
        own(edits={"train_time:4688ms": "train_time:4688000ms"}),
        open="implied bytes,training time",
    ),
    _case("a record", "", record(), open="identity"),
    _case(
        "a record without its code",
        "",
        record(change=lambda x: (x / "train_gpt.py").unlink()),
        open="identity",
    ),
)
