"""golf score --adapt: the same number on both engines, said how, and that of the run itself."""

from __future__ import annotations

import importlib
import math
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from core.score.adaptation import Lora, Phased, Sgd
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
from tools import scoring
from tools.train import train

__all__ = ["model"]
SGD = ("--protocol", "sliding", "--stride", "16", "--adapt", "sgd")
SGD_NUMBERS = ("--adapt-set", "sgd.chunk_tokens=512", "--adapt-set", "sgd.lr=0.02")
DOCS = ("--protocol", "strided-docs", "--stride", "16")
LORA_NUMBERS = ("--adapt-set", "lora.rank=4", "--adapt-set", "lora.lr=0.001")
PHASES = ("--adapt-set", "phased.prefix_docs=4", "--adapt-set", "lora.docs_batch=2")
LIMIT = ("--limit-tokens", "1500")
FEW = ("--adapt-set", "lora.docs_batch=1")
WORDS: dict[str, tuple[str, ...]] = {
    "sgd": (*SGD, *SGD_NUMBERS, *LIMIT),
    "lora": (*DOCS, "--adapt", "lora", *LORA_NUMBERS, *LIMIT),
    "phased": (*DOCS, "--adapt", "phased", *LORA_NUMBERS, *PHASES, *LIMIT),
}


@pytest.mark.parametrize("name", WORDS)
def test_both_engines_learn_the_same_and_say_how(
    capsys: Capture, text: Text, model: Path, name: str
) -> None:
    words = WORDS[name]
    found = {one: fields_of(capsys, text, model, "--backend", one, *words) for one in ENGINES}
    plain = fields_of(capsys, text, model, *words[:4], *LIMIT)
    torch, mlx = found["torch"], found["mlx"]
    assert abs(torch["val_bpb"] - mlx["val_bpb"]) <= 1e-4
    assert abs(torch["val_bpb"] - plain["val_bpb"]) > 1e-3
    assert (torch["tokens"], torch["bytes"]) == (1500, plain["bytes"])
    assert torch["subset"]["val_bpb_low"] < torch["val_bpb"] < torch["subset"]["val_bpb_high"]
    lora = asdict(Lora(rank=4, lr=0.001, docs_batch=2 if name == "phased" else 64))
    parts: dict[str, Any] = {
        "sgd": {"sgd": asdict(Sgd(chunk_tokens=512, lr=0.02))},
        "lora": {"lora": lora},
        "phased": {"lora": lora, "sgd": asdict(Sgd()), "phased": asdict(Phased(prefix_docs=4))},
    }
    assert torch["protocol"]["adapt"] == {"name": name, **parts[name]}
    assert "adapt" not in plain["protocol"]
    assert list(model.parent.iterdir()) == [model], "nothing is kept to go on from"


WRONG: list[tuple[tuple[str, ...], int, str]] = [
    (("--adapt", "lora"), 2, "score.protocol chunked reaches across them; set score.protocol="),
    (("--adapt", "full"), 2, "invalid choice"),
    (("--adapt-set", "sgd.lr=1"), 2, "expected SECTION.FIELD=value of none: it is off"),
    ((*SGD, "--adapt-set", "lora.rank=2"), 2, "expected SECTION.FIELD=value of sgd"),
    ((*SGD, "--adapt-set", "sgd.rate=2"), 2, "no field 'rate'"),
    ((*SGD, "--adapt-set", "sgd.lr=-1"), 2, "score.sgd.lr -1.0 must be at least 0"),
]


@pytest.mark.parametrize(("words", "code", "sentence"), WRONG)
def test_what_a_user_can_get_wrong(
    capsys: Capture, text: Text, model: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    found, out, err = golf(capsys, text, model, *words)
    assert (found, out, sentence in err) == (code, "", True), err


@each_engine
def test_a_failure_on_the_way_leaves_the_score_so_far(
    capsys: Capture, text: Text, model: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN names its token and document; what was scored before is told as what it is.

    And it is gone on with behind the last chunk that was learned from.
    """
    words = ("--backend", name, *WORDS["sgd"])
    whole = fields_of(capsys, text, model, *words)
    adapt = importlib.import_module(f"backend_{name}.adapt")
    real, blocks = adapt.Learner.nats, iter(range(1000))

    def nats(self: Any, x: Any, y: Any, marks: Any = None) -> Any:
        found = real(self, x, y, marks).copy()
        if next(blocks) == 5:
            found[0, 3] = math.nan
        return found

    with monkeypatch.context() as patch:
        patch.setattr(adapt.Learner, "nats", nats)
        code, out, err = golf(capsys, text, model, *words)
    assert (code, out) == (1, "") and "is not finite: nan; it is token" in err, err
    assert "of document" in err and "partial, not a score: " in err
    (state,) = model.parent.glob("model.bin.*.score-state")
    kept = f"targets, those behind which a chunk or batch of documents ended, are kept in {state}"
    assert kept in err, err
    resumed = fields_of(capsys, text, model, *words)
    assert resumed["resumed_targets"] > 0 and without_time(resumed) == without_time(whole)
    assert list(model.parent.iterdir()) == [model]


@each_engine
@pytest.mark.parametrize("adapt", WORDS)
def test_what_ctrl_c_stops_goes_on_to_the_same_bits(
    capsys: Capture,
    text: Text,
    model: Path,
    tmp_path: Path,
    name: str,
    adapt: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From a named file, that no other scoring goes on from, and that is gone behind the score."""
    state = tmp_path / "kept"
    words = ("--backend", name, *WORDS[adapt], *(FEW if adapt == "lora" else ()))
    whole = fields_of(capsys, text, model, *words)
    words = (*words, "--resume", str(state))
    with monkeypatch.context() as patch:
        interrupt_behind(patch, name)
        code, out, err = golf(capsys, text, model, *words)
    assert (code, out) == (130, "") and f"scored targets kept in {state}: run it" in err, err
    before = state.read_bytes()
    number = "lora.lr=0.02" if adapt == "lora" else "sgd.lr=0.01"
    code, _, err = golf(capsys, text, model, *words, "--adapt-set", number)
    assert code == 1 and "continues another scoring: its protocol is" in err, err
    state.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    code, _, err = golf(capsys, text, model, *words)
    assert code == 1 and "damaged, its checksum is another" in err, err
    state.write_bytes(before)
    resumed = fields_of(capsys, text, model, *words)
    assert 0 < resumed["resumed_targets"] < 1500 and not state.exists()
    assert without_time(resumed) == without_time(whole)


def interrupt_behind(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Ctrl-C arrives with the first block behind a part that is whole."""
    learner = importlib.import_module(f"backend_{name}.adapt").Learner
    real, ask, wholes = scoring.Keeper.hold, learner.nats, list[Any]()

    def hold(self: Any, *mark: Any) -> None:
        wholes.append(real(self, *mark))

    def nats(self: Any, *args: Any) -> Any:
        if len(wholes) == 1:
            wholes.append(signal.raise_signal(signal.SIGINT))
        return ask(self, *args)

    monkeypatch.setattr(scoring.Keeper, "hold", hold)
    monkeypatch.setattr(learner, "nats", nats)


def test_within_the_first_documents_nothing_is_kept_and_that_is_said(
    capsys: Capture, text: Text, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = importlib.import_module("backend_torch.adapt").Learner
    real, calls = learner.learn, iter(range(1000))

    def learn(self: Any) -> None:
        if next(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        real(self)

    monkeypatch.setattr(learner, "learn", learn)
    code, _, err = golf(capsys, text, model, "--backend", "torch", *WORDS["lora"])
    assert code == 130 and "nothing is kept: no chunk or batch of documents has ended" in err, err
    assert list(model.parent.iterdir()) == [model]


@each_engine
def test_a_run_ends_with_the_score_of_its_recipe(
    capsys: Capture, text: Text, tmp_path: Path, name: str
) -> None:
    words = ("score.protocol=strided-docs", "score.stride=16", "score.batch=16")
    adapts = ("score.adapt=lora", "score.lora.rank=4", "score.lora.lr=0.001")
    limit = "score.limit_tokens=1500"
    recipe = text.recipe("schedule.steps=3", "precision=fp32", *words, *adapts, limit)
    folder = RunFolder(tmp_path, name)
    finished = train(recipe, name, folder, keeper=Keeper(None, time.perf_counter), quiet=True)
    assert finished is not None
    path = tmp_path / name / "model.bin"
    found = fields_of(capsys, text, path, "--backend", name, *WORDS["lora"])
    assert found["val_bpb"] == finished.after.val_bpb
    plain = fields_of(capsys, text, path, "--backend", name, *DOCS, *LIMIT)
    log = (tmp_path / name / "log.txt").read_text()
    assert f"quantized val_loss:{plain['val_loss']:.8f} val_bpb:{plain['val_bpb']:.8f}" in log
    assert 'protocol:"strided-docs, stride 16, adapted by lora"' in log.splitlines()[-3]
