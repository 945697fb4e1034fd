"""golf audit scorer: each planted cheat is named by its rule, and no honest scorer fails one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.arch.noise import normal
from core.arch.params import init_params
from core.score.conditions import CONDITIONS
from core.train.clock import BudgetClock
from core.train.finish import pack
from tests.audit import conditions, planted_as, rules
from tests.conftest import Text
from tests.planted import ELSEWHERE, SCORERS, Planted, Shards, audited, failed, row, shards
from tests.tools.planted_scorers import CHEATS, COMMON, HONEST
from tools.auditing import stranger
from tools.backends import installed, load
from tools.main import main
from tools.strangers import isolated

DOCS = Path(__file__).resolve().parents[2] / "docs" / "audit.md"
BY_NAME = {planted.name: planted for planted in SCORERS}
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    return shards(tmp_path_factory.mktemp("shards"))


def golf(capsys: Capture, *words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `golf audit`."""
    try:
        code = main(["audit", *map(str, words)])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def statuses(said: dict[str, Any]) -> dict[str, str]:
    return {one["rule"]: one["status"] for one in said["findings"]}


def evidence(said: dict[str, Any], rule: str) -> str:
    found: str = next(one["evidence"] for one in said["findings"] if one["rule"] == rule)
    return found


@pytest.mark.parametrize("planted", SCORERS, ids=lambda planted: planted.name)
def test_what_is_planted_is_named(planted: Planted, tokens: Shards, tmp_path: Path) -> None:
    said = audited(planted, tmp_path, tokens)
    found = failed(said)
    assert (planted.rule in found) if planted.rule else not found, said["findings"]
    if isolated.network_shell()[0] and stranger.landlock_version():
        assert row(planted, found) in DOCS.read_text(), "run python -m tests.audit > docs/audit.md"


def test_every_planted_file_is_in_the_list_and_the_rules_in_the_docs() -> None:
    assert {planted.name for planted in SCORERS} == {*CHEATS, *HONEST}
    assert len(CHEATS) >= 25 and len(HONEST) >= 10
    assert rules() in DOCS.read_text()


def test_every_condition_is_planted_or_says_why_not() -> None:
    """L1 to L12 each; the page is printed from the lists."""
    ids = {one.id for one in CONDITIONS}
    without = {id for id in ids if not planted_as(id)}
    assert without == set(ELSEWHERE) and not without & {f"L{i}" for i in range(1, 13)}
    assert conditions() in DOCS.read_text(), "run python -m tests.audit > docs/audit.md"


def test_the_counter_example_is_the_place(tokens: Shards, tmp_path: Path) -> None:
    """A scorer that sees one token ahead moves at t when t + 1 does, and nowhere before."""
    said = audited(BY_NAME["smoothed with what comes next"], tmp_path, tokens)
    told = evidence(said, "causality")
    found = re.search(r"tokens behind (\d+) changed target (\d+) went from ([\d.]+) to ", told)
    assert found and found[1] == found[2], told
    first = int(found[1])  # token `first` itself changed moves the target before
    assert f"moves, at targets {first - 1}, {first}, " in told and "half precision" not in told
    assert "tolerance 1e-04 nats" in told and said["tolerance_nats"] == 1e-4


def test_equal_bits_can_be_asked_for(tokens: Shards, tmp_path: Path) -> None:
    honest = BY_NAME["sums in float32, whose order follows the shape"]
    strict = Planted(name=honest.name, words=("--tolerance", "0"))
    assert not failed(audited(honest, tmp_path, tokens))
    said = audited(strict, tmp_path, tokens)
    assert "causality" in failed(said) and "half precision" in evidence(said, "causality")


def test_an_honest_scorer_passes_what_can_be_passed(tokens: Shards, tmp_path: Path) -> None:
    """Open questions are never a PASS; on validation text all others are one."""
    said = audited(BY_NAME["three epochs of gradient steps behind each block"], tmp_path, tokens)
    found = statuses(said)
    left = {rule for rule, status in found.items() if status == "UNDECIDED"}
    held = {"before the clock", "no network", "own files"}
    assert left - held == {"isolated documents", "context alone"}
    assert "it adapts" in evidence(said, "score first")
    if isolated.network_shell()[0] and stranger.landlock_version():
        assert not left & held


def test_what_the_system_does_not_hold_is_undecided(
    tokens: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a system without namespaces and Landlock: attempts are seen, their absence is not."""
    other = tmp_path / "confined.py"
    other.write_text(isolated.LIMITER.read_text().replace("= 444,", "= -1,"))
    monkeypatch.setattr(isolated, "LIMITER", other)
    for module in (isolated, stranger):
        monkeypatch.setattr(module, "landlock_version", lambda: 0)
        monkeypatch.setattr(module, "network_shell", lambda: ([], "the network within reach"))
    found = statuses(audited(BY_NAME["counts that learn behind each block"], tmp_path, tokens))
    held = ("before the clock", "no network", "own files")
    assert [found[rule] for rule in held] == ["UNDECIDED"] * 3
    assert found["causality"] == "PASS"
    for name in (
        "reads the validation file before the clock",
        "asks the network for its counts",
        "trains on files beside the submission",
    ):
        said = audited(BY_NAME[name], tmp_path, tokens)
        assert BY_NAME[name].rule in failed(said)
        assert "by a trap in its Python alone" in evidence(said, BY_NAME[name].rule)


def scored(capsys: Capture, place: Path, source: str, *words: object) -> tuple[int, str, str]:
    """An audit of a file of this source."""
    folder = place / "own"
    folder.mkdir(exist_ok=True)
    (folder / "scorer.py").write_text(COMMON.replace("VOCAB", "64") + source)
    given = ("--tokens", 100, "--vocab-size", 64, "--flips", 2, "--seconds", 60)
    return golf(capsys, "scorer", folder / "scorer.py", "--run", *given, *words)


BROKEN = {
    "score = None": "no function score; golf audit scaffold writes them",
    "raise OSError('no weights')": "OSError: no weights",
    "def score(scorer, tokens, ask):\n    yield 90, np.ones(30), {}": "targets 90 .. 119 of",
    "def score(scorer, tokens, ask):\n    yield 1": "TypeError: cannot unpack",
    "def score(scorer, tokens, ask):\n    while 1: yield 1, np.ones(50), {}": "more than 8 scores",
    "def score(s, tokens, ask):\n    yield 1, np.ones(30), {}\n    yield 1 / 0": (
        "ZeroDivisionError: division by zero; partial, not a score: 30 of 99 targets, 1.0000 nats"
    ),
    "import os\nos._exit(3)": "it ended with 3",
    "open('golf-request.json')": "FileNotFoundError",  # the streams to come are not lying about
    "open('golf-answers.bin', 'wb').write(bytes(99))\nimport os\nos._exit(0)": "it ended with 0",
}


@pytest.mark.parametrize("source", BROKEN)
def test_a_scorer_that_does_not_answer_gets_a_sentence(
    source: str, tmp_path: Path, capsys: Capture
) -> None:
    code, out, err = scored(capsys, tmp_path, source)
    assert code == 1 and not out and BROKEN[source] in err, err


def test_validation_shards_of_its_own_are_no_pass(tmp_path: Path, capsys: Capture) -> None:
    """A program that it starts could read them, and no trap in Python would see it."""
    found = []
    for name in ("my_table_000000.bin", "my_val_000000.bin"):
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own" / name).write_bytes(b"1234")
        _, out, _ = scored(capsys, tmp_path, HONEST["a fixed model"], "--json")
        found.append(statuses(json.loads(out))["before the clock"])
    held = bool(stranger.landlock_version())
    assert found == ["PASS" if held else "UNDECIDED", "UNDECIDED"]


def test_the_clock_starts_with_the_first_score(tmp_path: Path, capsys: Capture) -> None:
    """What is opened before it and what behind it."""
    reads = """
def start():
    open("my_val_000000.bin").close()
    return Scorer()


def changed(scorer, log_p, tokens, first, stop):
    return log_p
"""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "my_val_000000.bin").write_bytes(b"1234")
    _, out, _ = scored(capsys, tmp_path, reads, "--json")
    told = evidence(json.loads(out), "before the clock")
    assert "validation ./my_val_000000.bin (before the clock)" in told
    opens = '    open("my_val_000000.bin").close()\n'
    later = reads.replace(opens, "").replace("    return log_p", f"{opens}    return log_p")
    code, out, _ = scored(capsys, tmp_path, later, "--json")
    assert code == 0 and statuses(json.loads(out))["before the clock"] == "UNDECIDED"


def test_its_time_is_bounded(tmp_path: Path, capsys: Capture) -> None:
    code, _, err = scored(capsys, tmp_path, "while True: pass", "--seconds", 1)
    assert code == 1 and "stopped after 1 s; --seconds gives it more" in err


def test_one_broken_stream_leaves_its_rules_open(tmp_path: Path, capsys: Capture) -> None:
    source = """
def changed(scorer, log_p, tokens, first, stop):
    if len(tokens) < 100:
        raise ValueError("too short a text")
    return log_p
"""
    code, out, _ = scored(capsys, tmp_path, source, "--json")
    said = json.loads(out)
    assert code == 0 and statuses(said)["causality"] == "UNDECIDED"
    assert "too short a text" in evidence(said, "causality")


OPAQUE = """
def start():
    scorer = Scorer()
    scorer.box = (i for i in range(3))
    return scorer


def changed(scorer, log_p, tokens, first, stop):
    return log_p
"""


def test_a_state_that_cannot_be_read_is_told(tmp_path: Path, capsys: Capture) -> None:
    code, out, _ = scored(capsys, tmp_path, OPAQUE, "--json")
    said = json.loads(out)
    assert code == 0 and statuses(said)["score first"] == "UNDECIDED"
    assert "an object of type generator" in evidence(said, "score first")


def test_a_report_for_a_review_thread(tmp_path: Path, capsys: Capture) -> None:
    code, out, _ = scored(capsys, tmp_path, CHEATS["the best expert for every token at once"])
    assert code == 1 and out.startswith("FAIL       normalised ") and " FAIL, " in out
    code, out, _ = scored(
        capsys, tmp_path, CHEATS["a gate keyed on the token to come"], "--markdown"
    )
    assert code == 1 and out.startswith("## Audit of the scorer scorer.py\n\n**")
    failures = out.split("### Failed")[1].split("###")[0]
    assert re.search(
        r"\*\*blind to the token\*\*: .* the distribution of target \d+ moved", failures
    )
    assert "- isolation: `a process of its own" in out


TORCH = """
import torch

torch.set_num_threads(1)


class Scorer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.emb, self.head = torch.nn.Embedding(V, 16), torch.nn.Linear(16, V)
        self.steps = torch.optim.SGD(self.parameters(), 0.5)

    def log_probs(self, before):
        with torch.no_grad():
            return self(before).double().numpy()

    def forward(self, before):
        return torch.log_softmax(self.head(self.emb(torch.as_tensor(before).long())), -1)

    def learn(self, tokens):
        for _ in range(2):
            self.steps.zero_grad()
            found = self(tokens[:-1])
            torch.nn.functional.nll_loss(found, torch.as_tensor(tokens[1:]).long()).backward()
            self.steps.step()


def changed(scorer, log_p, tokens, first, stop):
    BEFORE
    return scorer.log_probs(tokens[first - 1 : stop - 1])
"""


@pytest.mark.parametrize("before", ["pass", "scorer.learn(tokens[first - 1 : stop])"])
def test_a_framework_in_the_strangers_process(before: str, tmp_path: Path, capsys: Capture) -> None:
    """Parameters and momenta are its state: what learns first is caught by them."""
    pytest.importorskip("torch")
    code, out, err = scored(capsys, tmp_path, TORCH.replace("BEFORE", before), "--json")
    assert out, err
    said = json.loads(out)
    if before == "pass":
        assert code == 0 and "it adapts" in evidence(said, "score first"), said
        assert statuses(said)["score first"] == "PASS"
    else:
        assert {"causality", "score first"} <= set(failed(said))


@pytest.mark.parametrize("backend", ["torch", "mlx"])
@pytest.mark.parametrize("protocol", ["chunked", "sliding", "docs", "strided-docs"])
def test_our_own_models_pass(backend: str, protocol: str, capsys: Capture) -> None:
    if not installed(backend):
        pytest.skip(f"{backend} is not installed")
    words = ("--random", "--tokens", 200, "--vocab-size", 64, "--flips", 3, "--asks", 12)
    code, out, err = golf(
        capsys, "scorer", *words, "--backend", backend, "--protocol", protocol,
        *("--stride", 16, "--json"),
    )  # fmt: skip
    said = json.loads(out)
    found = statuses(said)
    assert code == 0 and err == ""
    for rule in ("causality", "blind to the token", "normalised", "own distribution", "once"):
        assert found[rule] == "PASS", evidence(said, rule)
    isolates = "docs" in protocol
    assert found["isolated documents"] == ("PASS" if isolates else "UNDECIDED")
    moved = "went from" in evidence(said, "isolated documents")
    assert moved == (not isolates), "without isolation what is before a BOS is seen to move it"


ADAPTING = [
    # what learns, its numbers, whether nothing goes from document to document
    ("sgd", ("sgd.chunk_tokens=64",), False),
    ("lora", ("lora.lr=0.001", "lora.warm_a=false"), True),
    ("lora", ("lora.lr=0.001", "lora.docs_batch=3"), False),
    ("phased", ("sgd.chunk_tokens=64", "lora.docs_batch=3", "phased.phases=2"), False),
]


@pytest.mark.parametrize("backend", ["torch", "mlx"])
@pytest.mark.parametrize(("adapt", "numbers", "isolates"), ADAPTING)
def test_our_own_models_that_learn_fail_nothing(
    backend: str, adapt: str, numbers: tuple[str, ...], isolates: bool, capsys: Capture
) -> None:
    """Also where a document's end ahead moves, which once moved the rate of a chunk."""
    if not installed(backend):
        pytest.skip(f"{backend} is not installed")
    words = ["--random", "--tokens", 400, "--vocab-size", 64, "--flips", 4, "--asks", 12]
    words += [part for number in numbers for part in ("--adapt-set", number)]
    code, out, err = golf(
        capsys, "scorer", *words, "--backend", backend, "--protocol", "strided-docs",
        *("--stride", 16, "--adapt", adapt, "--json"),
    )  # fmt: skip
    said = json.loads(out)
    found = statuses(said)
    assert code == 0 and err == "", failed(said)
    for rule in ("blind to the token", "normalised", "own distribution", "once", "single pass"):
        assert found[rule] == "PASS", evidence(said, rule)
    assert found["isolated documents"] == ("PASS" if isolates else "UNDECIDED")
    if adapt == "sgd":
        assert "only the length of the text" in evidence(said, "causality")
    else:
        assert found["causality"] == found["score first"] == "PASS", evidence(said, "causality")
        assert "it adapts" in evidence(said, "score first")


def test_our_engine_that_learns_before_it_scores_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    adapt = load("torch", "adapt")
    honest = adapt.Learner.nats

    def early(self: Any, x: Any, y: Any, marks: Any = None) -> Any:
        nats = honest(self, x, y, marks)
        if marks is None:
            return nats
        self.learn()
        return honest(self, x, y, marks)

    monkeypatch.setattr(adapt.Learner, "nats", early)
    words = ("--random", "--tokens", 200, "--vocab-size", 64, "--flips", 3, "--asks", 12)
    code, out, _ = golf(
        capsys, "scorer", *words, "--backend", "torch", "--protocol", "strided-docs",
        *("--stride", 16, "--adapt", "lora", "--adapt-set", "lora.lr=0.01", "--json"),
    )  # fmt: skip
    assert code == 1 and "score first" in failed(json.loads(out))


def test_our_engine_broken_by_hand_fails(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """An attention that sees one token ahead."""
    evaluate = load("torch", "evaluate")
    honest = evaluate.Evaluator.log_probs

    def ahead(self: Any, x: np.ndarray, last: int) -> np.ndarray:
        return np.roll(honest(self, x, x.shape[1]), -1, 1)[:, -last:]

    monkeypatch.setattr(evaluate.Evaluator, "log_probs", ahead)
    words = ("--random", "--tokens", 100, "--vocab-size", 64, "--backend", "torch", "--json")
    code, out, _ = golf(capsys, "scorer", *words)
    assert code == 1
    assert {"blind to the token", "own distribution"} <= set(failed(json.loads(out)))


def test_an_artifact_is_audited_on_its_data(text: Text, tmp_path: Path, capsys: Capture) -> None:
    recipe = text.recipe()
    weights = {
        name: start + 0.1 * normal(7, index, start.shape).astype(np.float32)
        for index, (name, start) in enumerate(init_params(recipe.arch, 1).items())
    }
    path = tmp_path / "model.bin"
    path.write_bytes(pack(weights, recipe, BudgetClock(lambda: 0.0))[1])
    where = ("--data", text.shards, "--tokenizer", text.model, "--backend", "torch")
    small = ("--tokens", 200, "--flips", 3, "--json")
    code, out, _ = golf(capsys, "scorer", path, *where, *small)
    said = json.loads(out)
    assert code == 0 and statuses(said)["no validation inside"] == "PASS"
    assert said["subject"] == "model.bin" and "validation tokens" in said["text"]
    code, _, err = golf(capsys, "scorer", path, "--backend", "torch")
    assert code == 1 and f"vocabulary of {recipe.arch.vocab_size}, the text one of 1024" in err


USAGE = {
    (): "name one scorer",
    ("x.bin", "--random"): "name one scorer",
    ("x.py",): "x.py is code: --run runs it",
    ("x.bin", "--run"): "--run is for a SCORER.py",
    ("x.py", "--run", "--data", "d"): "--data and --tokenizer belong together",
    ("--random", "--isolated"): "--isolated is a SCORER.py's claim",
    ("--random", "--tolerance", "-1"): "too small",
    ("--random", "--tokens", "3"): "--tokens 3",
    ("--random", "--flips", "0"): "0 places to change",
}


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_wrong_words_are_a_usage_error(words: tuple[str, ...], capsys: Capture) -> None:
    code, out, err = golf(capsys, "scorer", *words)
    assert code == 2 and not out and USAGE[words] in err


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_other_places_find_the_same(seed: int, tokens: Shards, tmp_path: Path) -> None:
    """Which places are changed is drawn: no draw misses a cheat or accuses an honest scorer."""
    for planted in SCORERS:
        drawn = replace(planted, words=(*planted.words, "--seed", str(seed)))
        found = failed(audited(drawn, tmp_path, tokens))
        assert (planted.rule in found) if planted.rule else not found, planted.name
