"""golf score by every protocol: the same number on both engines, and what is kept of a failure."""

from __future__ import annotations

import importlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.score.protocols import ProtocolName
from core.train.keeper import Keeper
from core.train.run_folder import RunFolder
from tests.conftest import Text
from tests.tools.test_score import (
    ENGINES,
    Capture,
    each_engine,
    fields_of,
    golf,
    model,
    without_time,
)
from tools.train import train

__all__ = ["model"]
PROTOCOLS: dict[str, tuple[ProtocolName, int | None, int]] = {  # words: name, stride, seq_len
    "": ("chunked", None, 64),
    "--protocol sliding --stride 16": ("sliding", 16, 64),
    "--protocol sliding --stride 5 --limit-tokens 3000": ("sliding", 5, 64),
    "--protocol docs": ("docs", None, 64),
    "--protocol strided-docs --stride 16": ("strided-docs", 16, 64),
    "--protocol strided-docs --stride 48 --seq-len 200": ("strided-docs", 48, 200),
    "--seq-len 256": ("chunked", None, 256),
    "--seq-len 20": ("chunked", None, 20),
    "--seq-len 128 --set arch.rope_scaling=ntk": ("chunked", None, 128),
}


@pytest.mark.parametrize("words", PROTOCOLS)
def test_both_engines_give_the_same_number(
    capsys: Capture, text: Text, model: Path, words: str
) -> None:
    found = {
        name: fields_of(capsys, text, model, "--backend", name, *words.split()) for name in ENGINES
    }
    assert abs(found["torch"]["val_bpb"] - found["mlx"]["val_bpb"]) <= 1e-6
    name, stride, seq_len = PROTOCOLS[words]
    fields = found["torch"]
    expected = {"windows": name, "seq_len": seq_len, "stride": stride, "batch": 16}
    assert fields["protocol"] == expected
    assert fields["tokens"] == (3000 if "--limit" in words else fields["tokens"])


def test_protocols_differ_in_their_context_alone(capsys: Capture, text: Text, model: Path) -> None:
    found = [fields_of(capsys, text, model, *words.split()) for words in list(PROTOCOLS)[:2]]
    found += [fields_of(capsys, text, model, *words.split()) for words in list(PROTOCOLS)[3:5]]
    assert len({fields["val_bpb"] for fields in found}) == 4
    assert len({(fields["tokens"], fields["bytes"]) for fields in found}) == 1
    same = [fields_of(capsys, text, model, *w) for w in (("--seq-len", 64), ())]
    assert without_time(same[0]) == without_time(same[1])


WRONG = [
    (["--protocol", "strided"], 2, "invalid choice"),
    (["--protocol", "sliding", "--stride", "0"], 2, "score.stride 0 must be at least 1"),
    (["--protocol", "sliding", "--stride", "99"], 1, "score.stride 99 exceeds the 64 tokens"),
    (["--seq-len", "-3"], 2, "score.seq_len -3 must not be negative"),
]


@pytest.mark.parametrize(("words", "code", "sentence"), WRONG)
def test_what_a_user_can_get_wrong(
    capsys: Capture, text: Text, model: Path, words: list[str], code: int, sentence: str
) -> None:
    found, out, err = golf(capsys, text, model, *words)
    assert (found, out, sentence in err) == (code, "", True), err


def fails_in_batch(
    patch: pytest.MonkeyPatch, name: str, number: int, change: Callable[[Any], Any]
) -> None:
    """What the engine gives for its batch of this number, from 0, is changed."""
    evaluate = importlib.import_module(f"backend_{name}.evaluate")
    real, calls = evaluate.Evaluator.nats, iter(range(1000))

    def nats(self: Any, x: Any, y: Any) -> Any:
        found = real(self, x, y).copy()
        return change(found) if next(calls) == number else found

    patch.setattr(evaluate.Evaluator, "nats", nats)


def out_of_memory(nats: Any) -> Any:
    raise RuntimeError("out of memory")


def not_a_number(nats: Any) -> Any:
    nats[3, 5] = math.nan
    return nats


@each_engine
@pytest.mark.parametrize("protocol", ["chunked", "sliding"])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (out_of_memory, "the engine failed behind target {}: out of memory; a smaller --batch"),
        (not_a_number, "is not finite: nan; it is token"),
    ],
)
def test_what_was_scored_before_a_failure_is_kept(
    capsys: Capture,
    text: Text,
    model: Path,
    name: str,
    protocol: str,
    change: Callable[[Any], Any],
    sentence: str,
) -> None:
    words = ("--backend", name, "--protocol", protocol, "--stride", 16)
    whole = fields_of(capsys, text, model, *words)
    targets = {"chunked": 2 * 1024, "sliding": 64 + 16 * 16}[protocol]
    with pytest.MonkeyPatch.context() as patch:
        fails_in_batch(patch, name, 2, change)
        code, out, err = golf(capsys, text, model, *words)
    assert (code, out) == (1, "") and sentence.format(targets) in err, err
    assert f"partial, not a score: {targets / whole['tokens']:4.0%}  {targets:,} of" in err
    (state,) = model.parent.glob("model.bin.*.score-state")
    assert f"kept in {state}: run it again to go on" in err
    resumed = fields_of(capsys, text, model, *words)
    assert without_time(resumed) == without_time(whole) and resumed["resumed_targets"] == targets
    assert list(model.parent.iterdir()) == [model]


def test_a_failure_in_the_first_batch_leaves_nothing(
    capsys: Capture, text: Text, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_in_batch(monkeypatch, "torch", 0, not_a_number)
    code, _, err = golf(capsys, text, model, "--backend", "torch")
    place = "the loss of target 198 is not finite: nan; it is token 198 of document 1"
    assert code == 1 and place in err and "partial" not in err
    assert list(model.parent.iterdir()) == [model]


@each_engine
def test_a_run_is_scored_by_the_protocol_of_its_recipe(
    capsys: Capture, text: Text, tmp_path: Path, name: str
) -> None:
    """In training as by golf score, and every line says how."""
    words = ("score.protocol=strided-docs", "score.stride=16", "score.batch=16")
    recipe = text.recipe("schedule.steps=3", "precision=fp32", *words)
    folder = RunFolder(tmp_path, name)
    finished = train(recipe, name, folder, keeper=Keeper(None, time.perf_counter), quiet=True)
    assert finished is not None
    log = (folder.path / "log.txt").read_text(encoding="utf-8")
    lines = [line for line in log.splitlines() if "val_bpb" in line]
    assert len(lines) == 2 and all('protocol:"strided-docs, stride 16"' in one for one in lines)
    fields = fields_of(
        capsys,
        text,
        folder.model_path,
        *("--backend", name, "--protocol", "strided-docs", "--stride", 16),
    )
    assert fields["val_bpb"] == finished.after.val_bpb
    assert np.isfinite(fields["val_bpb"]) and json.dumps(fields)
