"""golf score --adapt: the same number on both engines, said how, and that of the run itself."""

from __future__ import annotations

import importlib
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from core.score.adaptation import Lora, Phased, Sgd
from core.train.keeper import Keeper
from core.train.run_folder import RunFolder
from tests.conftest import Text
from tests.tools.test_score import ENGINES, Capture, each_engine, fields_of, golf, model
from tools.train import train

__all__ = ["model"]
SGD = ("--protocol", "sliding", "--stride", "16", "--adapt", "sgd")
SGD_NUMBERS = ("--adapt-set", "sgd.chunk_tokens=512", "--adapt-set", "sgd.lr=0.02")
DOCS = ("--protocol", "strided-docs", "--stride", "16")
LORA_NUMBERS = ("--adapt-set", "lora.rank=4", "--adapt-set", "lora.lr=0.001")
PHASES = ("--adapt-set", "phased.prefix_docs=4", "--adapt-set", "lora.docs_batch=2")
LIMIT = ("--limit-tokens", "1500")
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
    ((*SGD, "--resume", "state"), 2, "what a model has learned on the way is not kept"),
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
    """A NaN names its token and document; what was scored before is told as what it is."""
    adapt = importlib.import_module(f"backend_{name}.adapt")
    real, blocks = adapt.Learner.nats, iter(range(1000))

    def nats(self: Any, x: Any, y: Any, marks: Any = None) -> Any:
        found = real(self, x, y, marks).copy()
        if next(blocks) == 20:
            found[0, 3] = math.nan
        return found

    monkeypatch.setattr(adapt.Learner, "nats", nats)
    code, out, err = golf(capsys, text, model, "--backend", name, *SGD, *SGD_NUMBERS)
    assert (code, out) == (1, "") and "is not finite: nan; it is token" in err, err
    assert "of document" in err and "partial, not a score: " in err
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
