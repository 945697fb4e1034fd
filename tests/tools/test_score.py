"""golf score: subsets and changes are labelled, and what Ctrl-C stops goes on to the same bits."""

from __future__ import annotations

import importlib
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.arch.noise import normal
from core.arch.params import init_params
from core.data.shards import ShardWriter, open_shard
from core.data.tokenizer import train_tokenizer
from core.score.bpb import Tally
from core.score.subsets import SUBSETS, Subset
from core.train.clock import BudgetClock
from core.train.finish import pack
from tests.conftest import VOCAB_SIZE, Text
from tools import scoring
from tools.main import main

ENGINES = ("torch", "mlx")
each_engine = pytest.mark.parametrize("name", ENGINES)
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(text: Text, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact that no weight of is neutral, untrained."""
    recipe = text.recipe()
    weights = {
        name: start + 0.1 * normal(7, index, start.shape).astype(np.float32)
        for index, (name, start) in enumerate(init_params(recipe.arch, 1).items())
    }
    _, data = pack(weights, recipe, BudgetClock(lambda: 0.0))
    path = tmp_path_factory.mktemp("model") / "model.bin"
    path.write_bytes(data)
    return path


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A named subset that is shorter than the tests' text."""
    short = Subset(name="spread-262k", targets=1500, spread=True)
    monkeypatch.setitem(SUBSETS, "spread-262k", short)


def golf(capsys: Capture, text: Text, model: Path, *words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `golf score`."""
    where = ("--data", text.shards, "--tokenizer", text.model)
    given = ["score", model, *where, "--batch", 16, *words]
    try:
        code = main([str(word) for word in given])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def fields_of(capsys: Capture, text: Text, model: Path, *words: object) -> dict[str, Any]:
    code, out, err = golf(capsys, text, model, "--json", *words)
    assert code == 0, err
    fields: dict[str, Any] = json.loads(out)
    return fields


@pytest.mark.usefixtures("spread")
def test_a_subset_is_labelled_wherever_its_score_stands(
    capsys: Capture, text: Text, model: Path
) -> None:
    full = fields_of(capsys, text, model)
    part = fields_of(capsys, text, model, "--subset", "spread-262k")
    assert full["subset"] is None and full["resumed_targets"] == 0
    label = part["subset"]
    assert (label["name"], label["targets"]) == ("spread-262k", 1472)  # 23 windows of 64
    assert part["tokens"] == 1472 and label["of_targets"] == full["tokens"]
    assert label["val_bpb_low"] < full["val_bpb"] < label["val_bpb_high"]
    assert label["val_bpb_low"] < part["val_bpb"] < label["val_bpb_high"]
    _, out, _ = golf(capsys, text, model, "--subset", "spread-262k")
    for line in out.splitlines():
        assert not line.startswith(("val_bpb", "val_loss")) or "(subset spread-262k)" in line
    assert f"spread-262k: 1,472 of {full['tokens']:,} targets, the full split's val_bpb is" in out


def test_too_few_windows_have_no_interval(capsys: Capture, text: Text, model: Path) -> None:
    words = ("--limit-tokens", 50)
    label = fields_of(capsys, text, model, *words)["subset"]
    assert (label["name"], label["val_bpb_low"], label["val_bpb_high"]) == ("first-50", None, None)
    _, out, _ = golf(capsys, text, model, *words)
    assert "first-50: 50 of" in out and "too few windows for an interval" in out


def test_precision_is_chosen_and_named(capsys: Capture, text: Text, model: Path) -> None:
    exact, cast = (fields_of(capsys, text, model, "--precision", p) for p in ("fp32", "cast"))
    assert (exact["precision"], cast["precision"]) == ("fp32", "cast")
    assert 0 < abs(exact["val_bpb"] - cast["val_bpb"]) < 0.01


CHANGES = ("arch.rope_dims=0", "arch.skips=none", "weights.q_gain=1.0", "arch.logit_softcap=0")


def test_changed_models_are_scored_alike_and_labelled(
    capsys: Capture, text: Text, model: Path
) -> None:
    plain = fields_of(capsys, text, model, "--backend", "torch")
    seen = {plain["val_bpb"]}
    for change in CHANGES:
        found = [fields_of(capsys, text, model, "--backend", e, "--set", change) for e in ENGINES]
        assert abs(found[0]["val_bpb"] - found[1]["val_bpb"]) <= 1e-6
        assert found[0]["modified"] == [change.replace("softcap=0", "softcap=0.0")]
        assert found[0]["dropped"] == (["skip_weights"] if "skips" in change else [])
        seen.add(found[0]["val_bpb"])
    assert len(seen) == len(CHANGES) + 1 and plain["modified"] == plain["dropped"] == []


def test_every_line_of_a_changed_model_says_so(capsys: Capture, text: Text, model: Path) -> None:
    words = ("--set", "arch.skips=none", "--set", "weights.q_gain=1", "--limit-tokens", 500)
    code, out, err = golf(capsys, text, model, *words)
    assert code == 0 and "--set drops what the changed model has not: skip_weights" in err
    said = "(subset first-500; modified: arch.skips=none, weights.q_gain=1.0)"
    scores = [line for line in out.splitlines() if line.startswith(("val_bpb", "val_loss"))]
    assert len(scores) == 3 and all(line.endswith(said) for line in scores)


USAGE = [
    (["--set", "arch.qk_gain_init=1"], 2, "--set: arch.qk_gain_init=1 changes nothing"),
    (["--set", "arch.mlp_dim=4"], 2, "only training gives it"),
    (["--set", "rope_dims=0"], 2, "expected arch.FIELD=value or weights.NAME=value"),
    (["--subset", "first-2m"], 2, "invalid choice"),
    (["--subset", "first-1m", "--limit-tokens", "5"], 2, "are two subsets, expected one"),
    (["--resume", "no/such/folder/state"], 1, "no such folder to keep what is scored in"),
]


@pytest.mark.parametrize(("words", "code", "sentence"), USAGE)
def test_what_a_user_can_get_wrong(
    capsys: Capture, text: Text, model: Path, words: list[str], code: int, sentence: str
) -> None:
    found, out, err = golf(capsys, text, model, *words)
    assert (found, out, sentence in err) == (code, "", True), err


def test_data_that_do_not_belong_together_get_a_sentence(
    capsys: Capture, text: Text, model: Path, tmp_path: Path
) -> None:
    """Another tokenizer of the size, told and not told; a sidecar of another length."""
    other = tmp_path / "other.model"
    turned = [document[::-1] for document in text.documents]
    assert train_tokenizer(turned, VOCAB_SIZE, other).vocab_size == text.tokenizer.vocab_size
    code, _, err = golf(capsys, text, model, "--tokenizer", other)
    assert code == 1 and "wrong tokenizer for the shards" in err
    shards = tmp_path / "shards"
    shutil.copytree(text.shards, shards)
    (shards / "manifest.json").unlink()
    code, _, err = golf(capsys, text, model, "--data", shards, "--tokenizer", other)
    assert code == 1 and "the shards were not made with other" in err
    [sidecar] = shards.glob("fineweb_val_bytes_*")
    tokens = open_shard(sidecar)[:-5].copy()
    sidecar.unlink()
    with ShardWriter(shards, "fineweb_val_bytes") as writer:
        writer.write(tokens)
    code, _, err = golf(capsys, text, model, "--data", shards)
    assert code == 1 and f"the byte sidecar counts {len(tokens)} tokens" in err


def interrupt_in_batch(
    monkeypatch: pytest.MonkeyPatch, name: str, number: int, by: int = signal.SIGINT
) -> None:
    """Ctrl-C arrives while the engine computes its batch of this number, from 0."""
    evaluate = importlib.import_module(f"backend_{name}.evaluate")
    real, calls = evaluate.Evaluator.nats, iter(range(1000))

    def nats(self: Any, x: Any, y: Any) -> Any:
        if next(calls) == number:
            signal.raise_signal(by)
        return real(self, x, y)

    monkeypatch.setattr(evaluate.Evaluator, "nats", nats)


def without_time(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in fields.items() if k not in ("seconds", "resumed_targets")}


@each_engine
def test_what_ctrl_c_stops_goes_on_to_the_same_bits(
    capsys: Capture, text: Text, model: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice stopped, with the state beside the artifact; then done, and the state is gone."""
    before = signal.getsignal(signal.SIGINT)  # jobs in the background are started without it
    words = ("--backend", name, "--set", "arch.rope_dims=8")
    whole = fields_of(capsys, text, model, *words)
    for stops, targets in ((1, 2048), (2, 5120)):
        with monkeypatch.context() as patch:
            interrupt_in_batch(patch, name, stops)
            code, out, err = golf(capsys, text, model, *words)
        assert (code, out) == (130, "")
        (state,) = model.parent.glob("model.bin.*.score-state")
        assert f"{targets:,} scored targets kept in {state}: run it again to go on" in err
    other = fields_of(capsys, text, model, *words[:2])  # another scoring, with a state of its own
    assert other["resumed_targets"] == 0 and state.exists()
    resumed = fields_of(capsys, text, model, *words)
    assert without_time(resumed) == without_time(whole)
    assert resumed["resumed_targets"] == 5120
    assert list(model.parent.iterdir()) == [model]
    assert signal.getsignal(signal.SIGINT) == before


def test_sigterm_keeps_what_is_done(
    capsys: Capture, text: Text, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, before = ("--backend", "torch"), signal.getsignal(signal.SIGTERM)
    whole = fields_of(capsys, text, model, *words)
    with monkeypatch.context() as patch:
        interrupt_in_batch(patch, "torch", 1, signal.SIGTERM)
        code, out, err = golf(capsys, text, model, *words)
    assert (code, out) == (143, "") and "2,048 scored targets kept in" in err
    assert signal.getsignal(signal.SIGTERM) is before
    resumed = fields_of(capsys, text, model, *words)
    assert without_time(resumed) == without_time(whole) and resumed["resumed_targets"] == 2048


def test_a_process_that_is_killed_goes_on_from_its_last_save(
    capsys: Capture, text: Text, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a minute at most is lost to what no handler sees."""
    evaluate = importlib.import_module("backend_torch.evaluate")
    real, calls = evaluate.Evaluator.nats, iter(range(1000))

    def dies(self: Any, x: Any, y: Any) -> Any:
        if next(calls) == 3:
            raise MemoryError
        return real(self, x, y)

    assert 0 < scoring.SAVE_EVERY_S <= 30
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "SAVE_EVERY_S", 0.0)
        patch.setattr(evaluate.Evaluator, "nats", dies)
        with pytest.raises(MemoryError):
            golf(capsys, text, model, "--backend", "torch")
    capsys.readouterr()
    assert fields_of(capsys, text, model, "--backend", "torch")["resumed_targets"] == 3072


@pytest.mark.usefixtures("spread")
def test_a_named_state_belongs_to_its_scoring(
    capsys: Capture, text: Text, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "kept"
    words = ("--backend", "torch", "--resume", state)
    with monkeypatch.context() as patch:
        interrupt_in_batch(patch, "torch", 1)
        assert golf(capsys, text, model, *words)[0] == 130
    before = state.read_bytes()
    for more, differs in (
        (("--subset", "spread-262k"), "subset is full, here it is spread-262k"),
        (("--precision", "cast"), "precision is fp32, here it is cast"),
        (("--set", "arch.rope_dims=0"), "modified is [], here it is ['arch.rope_dims=0']"),
        (("--batch", "8"), "its protocol is"),
        (("--backend", "mlx"), "backend is torch, here it is mlx"),
    ):
        code, _, err = golf(capsys, text, model, *words, *more)
        assert code == 1 and "continues another scoring" in err and differs in err, err
        assert "name another file, or remove it" in err
    assert state.read_bytes() == before
    assert golf(capsys, text, model, *words)[0] == 0 and not state.exists()


def test_a_second_ctrl_c_stops_at_once(
    capsys: Capture, text: Text, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_in_batch(monkeypatch, "torch", 1)
    evaluate = importlib.import_module("backend_torch.evaluate")
    once = evaluate.Evaluator.nats

    def twice(self: Any, x: Any, y: Any) -> Any:
        nats = once(self, x, y)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.raise_signal(signal.SIGINT)
        return nats

    monkeypatch.setattr(evaluate.Evaluator, "nats", twice)
    code, _, err = golf(capsys, text, model, "--backend", "torch")
    assert code == 130 and "kept" not in err
    assert list(model.parent.iterdir()) == [model]


def test_it_is_saved_now_and_then_and_a_bad_place_costs_only_the_file(
    capsys: Capture, text: Text, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves: list[int] = []
    real = scoring.save_state

    def counted(path: Path, task: Any, tally: Tally, seconds: float, _: None) -> None:
        saves.append(tally.targets)
        real(path, task, tally, seconds)

    monkeypatch.setattr(scoring, "save_state", counted)
    monkeypatch.setattr(scoring, "SAVE_EVERY_S", 0.0)
    fields = fields_of(capsys, text, model, "--backend", "torch")
    assert saves == [*range(1024, fields["tokens"], 1024), fields["tokens"]]
    state = tmp_path / "state"
    state.with_name("state.tmp").mkdir()  # so that it cannot be written
    code, out, err = golf(capsys, text, model, "--backend", "torch", "--resume", state)
    assert code == 0 and "val_bpb" in out
    assert err.count("nothing is kept to go on from") == 1
