"""golf score on tokenizers that lose or transform text or are bytes, and its lines of progress."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.live import Live

from core.arch.params import init_params
from core.data.export import tokenize
from core.data.tokenizer import open_tokenizer, train_case_tokenizer, train_tokenizer
from core.score.bpb import Tally
from core.score.subsets import SUBSETS, Subset
from core.train.clock import BudgetClock
from core.train.corpus import open_corpus
from core.train.finish import pack
from core.train.recipe import with_changes
from tests.conftest import Text
from tests.tools.test_score import Capture
from tools.main import main
from tools.scoring import Progress, duration
from tools.terminal import Terminal


def test_the_progress_says_how_long_how_far_and_of_what(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock of one second a call; a line when one is due, none at the end."""
    ticks = iter(range(101))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    tally, progress = Tally(10_001, has_raw=False), Progress(10_000, " (subset first-10000)")
    with progress:
        for first in range(1, 10_001, 100):
            tally.add(first, np.full(100, 2.0, np.float32), np.full(100, 4), None)
            progress(tally)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "1 min 36 s left (596 of the task's 600 s)  100 tokens/s    4%  400 of 10,000 targets  "
        "BPB so far 0.7213 (subset first-10000)"
    )
    assert len(lines) == 20 and lines[-1].startswith("5 s left (505 of")


def test_a_terminal_gets_one_live_line() -> None:
    screen = StringIO()
    tally, progress = Tally(5, has_raw=False), Progress(4, " (modified: arch.skips=none)")
    console = Console(file=screen, force_terminal=True, width=200)
    progress.live, progress.shows_live = Live(console=console, auto_refresh=False), True
    tally.add(1, np.ones(2, np.float32), np.full(2, 4), None)
    with progress:
        progress(tally)
    assert (
        "? left (600 of" in screen.getvalue() and "(modified: arch.skips=none)" in screen.getvalue()
    )


def test_durations() -> None:
    said = [duration(s) for s in (0.4, 59.6, 61, 3599.6, 11_520)]
    assert said == ["0 s", "1 min 0 s", "1 min 1 s", "1 h 0 min", "3 h 12 min"]


def test_a_lossy_tokenizer_is_scored_with_its_name_alone(
    capsys: Capture, text: Text, tmp_path: Path
) -> None:
    """Refused; allowed, every number of it says lossy; in training as in golf score."""
    tokenizer = tmp_path / "lossy.model"
    vocab = train_tokenizer(text.documents, 300, tokenizer, byte_fallback=False).vocab_size
    tokenize(text.documents, open_tokenizer(tokenizer), tmp_path / "shards", val_docs=6)
    words = (f"arch.vocab_size={vocab}", f"data.path={tmp_path / 'shards'}")
    recipe = text.recipe(*words, f"data.tokenizer={tokenizer}")
    with pytest.raises(ValueError, match=r"lossy is lossy: .*score\.allow_lossy=true"):
        open_corpus(recipe)
    allowed = with_changes(recipe, ["score.allow_lossy=true"])
    assert open_corpus(allowed).validation.lossy.startswith("no byte fallback")
    weights = init_params(recipe.arch, 1)
    artifact = tmp_path / "model.bin"
    artifact.write_bytes(pack(weights, recipe, BudgetClock(lambda: 0.0))[1])
    words = ("score", artifact, "--data", tmp_path / "shards", "--tokenizer", tokenizer)
    assert main([str(word) for word in words]) == 1
    assert "`golf score --allow-lossy`" in capsys.readouterr().err
    assert main([str(word) for word in (*words, "--allow-lossy", "--json")]) == 0
    assert json.loads(capsys.readouterr().out)["lossy"].startswith("no byte fallback")
    assert main([str(word) for word in (*words, "--allow-lossy")]) == 0
    out = capsys.readouterr().out
    numbers = [line for line in out.splitlines() if line.startswith(("val_bpb", "val_loss"))]
    assert len(numbers) == 3 and all(line.endswith("(lossy)") for line in numbers)


def test_transformed_text_is_scored_by_its_sidecar_or_not_at_all(
    capsys: Capture, text: Text, tmp_path: Path
) -> None:
    model, shards = tmp_path / "case.model", tmp_path / "shards"
    case = train_case_tokenizer(text.documents, 384, model)
    tokenize(text.documents, case, shards, val_docs=6)
    recipe = text.recipe(f"arch.vocab_size={case.vocab_size}")
    artifact = tmp_path / "model.bin"
    weights = init_params(recipe.arch, 1)
    artifact.write_bytes(pack(weights, recipe, BudgetClock(lambda: 0.0))[1])
    words = ["score", str(artifact), "--data", str(shards), "--tokenizer", str(model), "--json"]
    assert main(words) == 0
    fields = json.loads(capsys.readouterr().out)
    raw = sum(len(d.encode()) for d in text.documents[:6])
    assert fields["bytes"] == fields["bytes_raw"] == raw and fields["lossy"] is None
    for path in (*shards.glob("fineweb_val_bytes_*"), shards / "manifest.json"):
        path.unlink()
    assert main(words) == 1
    assert "only a sidecar tells" in capsys.readouterr().err


def test_bytes_are_scored(capsys: Capture, text: Text, tmp_path: Path) -> None:
    shards, artifact = tmp_path / "shards", tmp_path / "model.bin"
    tokenize(text.documents, open_tokenizer("byte260"), shards, val_docs=6)
    recipe = text.recipe("arch.vocab_size=260")
    weights = init_params(recipe.arch, 1)
    artifact.write_bytes(pack(weights, recipe, BudgetClock(lambda: 0.0))[1])
    where = ("--data", str(shards), "--tokenizer", "byte260", "--json")
    for subset, targets in (("full", None), ("spread-262k", 1472)):
        with pytest.MonkeyPatch.context() as patch:
            short = Subset(name="spread-262k", targets=1500, spread=True)
            patch.setitem(SUBSETS, "spread-262k", short)
            assert main(["score", str(artifact), *where, "--subset", subset]) == 0
        fields = json.loads(capsys.readouterr().out)
        assert fields["bytes"] == fields["bytes_raw"] <= fields["tokens"]
        assert targets in (None, fields["tokens"])


def test_the_live_line_says_lossy(text: Text) -> None:
    terminal = Terminal(text.recipe(), 0)
    step = {"progress": 0.5, "step": 3, "steps": 6, "step_avg_ms": 1.0, "train_ms": 3.0}
    for subset, lossy, said in (
        (None, None, "val BPB 2.0000  "),
        (None, "no byte fallback", "val BPB 2.0000 (lossy)  "),
        ({"name": "first-9"}, "folds", "val BPB 2.0000 (subset first-9; lossy)  "),
    ):
        terminal.val_bpb, terminal.subset, terminal.lossy = 2.0, subset, bool(lossy)
        assert said in terminal.status({**step, "tokens_per_s": 1.0})
