"""golf submit: the same runs give the same bytes, what is refused, a clean branch."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.data.tokenizer import train_tokenizer
from core.score.rules import TASK_TOKENIZERS
from core.train.recipe import Recipe
from tests.conftest import Text
from tools.main import main
from tools.submission.runs import without_paths

Capture = pytest.CaptureFixture[str]
SEEDS = (1, 2, 3)
ABOUT = ("--author", "A. Name", "--github-id", "aname", "--date", "2026-03-18")


def train(text: Text, root: Path, name: str, *changes: str) -> Path:
    words = [
        f"arch.vocab_size={text.tokenizer.vocab_size}",
        f"data.path={text.shards}",
        f"data.tokenizer={text.model}",
        *("data.train_batch_tokens=512", "schedule.steps=2", "score.val_every_steps=0"),
        *(*changes, "--backend", "torch", "--runs", str(root), "--run-id", name),
    ]
    assert main(["train", "smoke", *words]) == 0
    return root / name


@pytest.fixture(scope="module")
def runs(text: Text, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("submit")
    return [train(text, root, f"s{seed}", f"seed={seed}") for seed in SEEDS]


def submit(runs: list[Path], *words: object) -> int:
    return main(["submit", *map(str, runs), *ABOUT, *map(str, words)])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_runs_give_the_same_bytes(runs: list[Path], tmp_path: Path) -> None:
    assert submit(runs, "--out", tmp_path / "one") == 0
    assert submit(runs[::-1], "--out", tmp_path / "two") == 0
    files = contents(tmp_path / "one")
    assert files == contents(tmp_path / "two")
    assert set(files) == {
        *("README.md", "submission.json", "train_gpt.py", "requirements.txt", "small.model"),
        *(f"train_seed{seed}.log" for seed in SEEDS),
    }


def test_no_path_of_this_machine(runs: list[Path], text: Text, tmp_path: Path) -> None:
    assert submit(runs, "--out", tmp_path / "out") == 0
    for name, content in contents(tmp_path / "out").items():
        for path in (text.shards, text.model, runs[0], tmp_path, Path.home()):
            for part in (str(path), *(str(parent) for parent in list(path.parents)[:-1])):
                assert part.encode() not in content, (name, part)
    assert b"data.path=data/datasets/shards" in (tmp_path / "out/train_seed1.log").read_bytes()


@pytest.mark.parametrize(
    "line, expected",
    [
        ("set data.path=/home/me/x y from the command line", "set data.path=x y from the"),
        ("from '/home/me/my.json'", "from 'my.json'"),
        ("at C:\\Users\\me\\a.bin and ~/b/c", "at a.bin and c"),
        ("cache:/var/me/cache", "cache:cache"),
        ("step:3/6 tok/s 1/2 int8+zlib ./data/x data/y", "step:3/6 tok/s 1/2 int8+zlib ./data/x"),
    ],
)
def test_paths_in_logs(line: str, expected: str) -> None:
    assert without_paths(line, Recipe()).startswith(expected)


def test_what_it_says(runs: list[Path], tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert submit(runs, "--out", out, "--name", "My try", "--blurb", "New.", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    fields = json.loads((out / "submission.json").read_text())
    assert (fields["author"], fields["github_id"], fields["date"]) == ("A. Name", "aname", ABOUT[5])
    assert fields["name"] == "My try" and fields["track"] == told["track"] == "non_record_16mb"
    assert fields["seeds"] == list(SEEDS) and len(fields["seed_results"]) == len(SEEDS)
    sizes = [(run / "model.bin").stat().st_size for run in runs]
    code = (out / "train_gpt.py").stat().st_size
    assert (fields["bytes_total"], fields["bytes_code"]) == (max(sizes) + code, code)
    assert fields["golf"]["tokenizer"]["shipped"] and fields["golf"]["recipe"]["seed"] == 1337
    text = (out / "README.md").read_text()
    assert "# My try\n\n**val_bpb" in text and "New." in text and "no record" not in text
    needs = (out / "requirements.txt").read_text().split()
    assert [re.split("[>=]", need)[0] for need in needs] == sorted(
        ["numpy", "sentencepiece", "torch"]
    )


def test_the_tasks_tokenizer_stays_at_home(
    runs: list[Path], tmp_path: Path, text: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASK_TOKENIZERS, text.tokenizer.sha256, "fineweb_1024_bpe.model")
    assert submit(runs, "--out", tmp_path / "out") == 0
    fields = json.loads((tmp_path / "out/submission.json").read_text())
    assert fields["golf"]["tokenizer"]["file"] == "fineweb_1024_bpe.model"
    assert not list((tmp_path / "out").glob("*.model"))


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        path = run / name
        text = re.sub(old, new, path.read_text(), flags=re.M)
        assert text != path.read_text()
        path.write_text(text)

    return change


def artifact_of(other: str) -> Callable[[Path], None]:
    return lambda run: shutil.copy(run.parent / other / "model.bin", run / "model.bin") and None


def seed_of_another(run: Path) -> None:
    edit("recipe.json", '"seed": 2', '"seed": 1')(run)
    edit("log.txt", "seed:2 ", "seed:1 ")(run)


SUBSET = r'\1 subset:{"name": "spread-1m"}'
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {  # done to the second run
    "no artifact": (lambda run: (run / "model.bin").unlink(), "not finished"),
    "no log": (lambda run: (run / "log.txt").unlink(), "not finished"),
    "no last line": (edit("log.txt", r"^fits.*\n", ""), "not finished"),
    "no score": (edit("log.txt", r"^final_.*\n", ""), "not finished"),
    "a subset": (edit("log.txt", r"^(final_.*)$", SUBSET), "subset"),
    "a recipe of a subset": (edit("recipe.json", '"full"', '"first-1m"'), "subset"),
    "modified": (edit("log.txt", r"^(final_.*)$", r"\1 modified: x=1"), "modified"),
    "another artifact": (artifact_of("s3"), "not the artifact of this run"),
    "a damaged artifact": (lambda run: (run / "model.bin").write_bytes(b"GOLF"), "model.bin"),
    "another configuration": (
        edit("recipe.json", '"matrix_lr": 0.04', '"matrix_lr": 0.03'),
        "different configurations",
    ),
    "another engine": (edit("log.txt", "backend:torch", "backend:mlx"), "ran differently"),
    "equal seeds": (seed_of_another, "different seeds"),
    "code of another version": (edit("log.txt", r"^(Code size: )\d+", r"\g<1>9"), "toolkit has"),
    "the log of another seed": (edit("log.txt", "seed:2 ", "seed:5 "), "seed 2"),
    "too long": (edit("log.txt", r"^(stopped: .*train_time:)\d+", r"\g<1>900000"), "training time"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, runs: list[Path], tmp_path: Path, capsys: Capture) -> None:
    damage, why = REFUSED[name]
    copies = [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]
    damage(copies[1])
    assert submit(copies, "--out", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert why in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_over_the_cap_is_refused(
    runs: list[Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = int(re.findall(r"^Code size: (\d+)", (runs[0] / "log.txt").read_text(), re.M)[0])
    worst = max((run / "model.bin").stat().st_size for run in runs)
    monkeypatch.setattr("tools.submission.runs.CAP_BYTES", worst + code - 1)
    assert submit(runs, "--out", tmp_path / "out") == 1
    assert "1 over" in capsys.readouterr().err
    monkeypatch.setattr("tools.submission.runs.CAP_BYTES", worst + code)
    assert submit(runs, "--out", tmp_path / "out") == 0


def test_few_and_usage(runs: list[Path], tmp_path: Path, capsys: Capture) -> None:
    assert submit(runs[:2], "--out", tmp_path / "out") == 1
    assert "2 runs" in capsys.readouterr().err
    assert submit(runs[:2], "--out", tmp_path / "out", "--few") == 0
    assert "This is no record: it shows 2 runs" in (tmp_path / "out/README.md").read_text()
    assert submit(runs[:2], "--few", "--track", "track_10min_16mb") == 2
    assert main(["submit", str(runs[0]), "--few", "--date", "today", str(runs[1])]) == 2
    assert submit(runs, "--out", tmp_path / "out") == 1
    assert "there already" in capsys.readouterr().err
    assert submit(runs, "--track", "10min_16mb", "--out", tmp_path / "record") == 1
    assert "implied bytes" in capsys.readouterr().err


def test_only_the_tokenizer_of_the_runs_is_shipped(
    runs: list[Path], text: Text, tmp_path: Path, capsys: Capture
) -> None:
    note, other = tmp_path / "note.model", tmp_path / "other.model"
    note.write_text("no tokenizer\n")
    train_tokenizer(text.documents, 370, other)
    moved = [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]
    gone = str(tmp_path / "gone" / text.model.name)
    for run in moved:  # as where the runs' tokenizer is not at hand
        edit("recipe.json", re.escape(str(text.model)), gone)(run)
    for case, tokenizer, why in (
        (runs, note, "which the runs were trained with"),
        (runs, other, "which the runs were trained with"),
        (moved, note, "note.model"),
        (moved, other, "the shards in"),
    ):
        assert submit(case, "--tokenizer", tokenizer, "--out", tmp_path / "out") == 1
        assert why in capsys.readouterr().err
    assert submit(moved, "--tokenizer", text.model, "--out", tmp_path / "out") == 0
    fields = json.loads((tmp_path / "out/submission.json").read_text())
    assert fields["golf"]["validation"]["tokenizer_sha256"] == text.tokenizer.sha256


def test_a_lossy_score_is_told_and_no_record(
    runs: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    copies = [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]
    for run in copies:
        edit("log.txt", r"^(final_.*)$", r'\1 lossy:"its text is folded to lower case"')(run)
    assert submit(copies, "--out", tmp_path / "out") == 0
    assert "UNDECIDED lossless" in capsys.readouterr().err
    assert "The scores are lossy" in (tmp_path / "out/README.md").read_text()
    assert submit(copies, "--track", "10min_16mb", "--out", tmp_path / "record") == 1
    assert "its score is lossy" in capsys.readouterr().err


@pytest.mark.parametrize("day", ["2026-99-99", "2026-02-30", "2026-3-18", "2026-03-18Z"])
def test_only_days_of_the_calendar(day: str, runs: list[Path], tmp_path: Path) -> None:
    assert submit(runs, "--date", day, "--out", tmp_path / "out") == 2


def git(place: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(place), *words], check=True, capture_output=True)
    return done.stdout.decode()


@pytest.fixture
def fork(tmp_path: Path) -> Path:
    """A clone with something unfinished in its checkout and its index."""
    path = tmp_path / "fork"
    path.mkdir()
    git(path, "init", "-b", "main")
    git(path, "config", "user.name", "me")
    git(path, "config", "user.email", "me@example.org")
    (path / "train_gpt.py").write_text("pass\n")
    (path / ".gitignore").write_text("*.log\n")
    git(path, "add", ".")
    git(path, "commit", "-m", "start")
    git(path, "checkout", "-b", "other")
    (path / "train_gpt.py").write_text("mine\n")
    (path / "staged.txt").write_text("staged\n")
    git(path, "add", "staged.txt")
    return path


def test_a_clean_branch(runs: list[Path], tmp_path: Path, fork: Path, capsys: Capture) -> None:
    before = git(fork, "status", "--porcelain"), git(fork, "rev-parse", "HEAD")
    told: list[dict[str, Any]] = []
    for name in ("2026-03-18_smoke", "again/2026-03-18_smoke"):
        assert submit(runs, "--out", tmp_path / name, "--fork", fork, "--json") == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0]["commit"] == told[1]["commit"]
    assert (git(fork, "status", "--porcelain"), git(fork, "rev-parse", "HEAD")) == before
    assert git(fork, "symbolic-ref", "--short", "HEAD").strip() == "other"
    branch, place = told[0]["branch"], "records/track_non_record_16mb/2026-03-18_smoke"
    assert git(fork, "rev-parse", f"{branch}~1") == git(fork, "rev-parse", "main")
    rows = git(fork, "diff-tree", "-r", "--name-status", "main", branch).splitlines()
    names = sorted(contents(tmp_path / "2026-03-18_smoke"))
    assert sorted(rows) == [f"A\t{place}/{name}" for name in names]
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-b", branch, str(fork), str(clone))
    assert contents(clone / place) == contents(tmp_path / "2026-03-18_smoke")
    assert main(["check", str(clone / place), "--diff", "origin/main", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    assert ("only this folder", "PASS") in {(one["rule"], one["status"]) for one in found}


def test_forks_that_are_none(runs: list[Path], tmp_path: Path, fork: Path, capsys: Capture) -> None:
    assert submit(runs, "--out", tmp_path / "a", "--fork", tmp_path / "nowhere") == 1
    assert submit(runs, "--out", tmp_path / "b", "--fork", tmp_path) == 1
    git(fork, "branch", "c", "main")
    assert submit(runs, "--out", tmp_path / "c", "--fork", fork) == 1
    assert "another branch c" in capsys.readouterr().err
    assert not any((tmp_path / name).exists() for name in "abc")
