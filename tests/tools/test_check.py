"""golf check on strangers' folders: what passes, what is open, what no input may do."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from core.score.rules import BY_ID, RULES, VALIDATION_BYTES
from tests.conftest import Text
from tests.tools.records import BYTES, LOSSES, MODEL, log_of, write_record
from tools.bundling.script import bundle
from tools.checks.bytes import itemise
from tools.checks.case import open_case
from tools.checks.folder import MAX_ENTRIES
from tools.checks.plain_json import agrees, parse
from tools.checks.reach_paths import outside
from tools.checks.recipe import other_script
from tools.checks.report import cell, plain
from tools.checks.script import is_named
from tools.checks.settings import unlike
from tools.main import main
from tools.strangers.isolated import network_shell
from tools.strangers.logs import MAX_BYTES, read_text
from tools.strangers.packed import unpack_script

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_record(tmp_path)


def check(capsys: Capture, *words: object) -> tuple[int, dict[str, set[str]]]:
    """The exit code, and the rules by status; a rule counts by its worst finding."""
    code = main(["check", *map(str, words), "--json"])
    order, worst = ["PASS", "UNDECIDED", "FAIL"], dict[str, str]()
    for one in json.loads(capsys.readouterr().out)["findings"]:
        assert one["source"] == BY_ID[one["rule"]].source and one["evidence"]
        worst[one["rule"]] = max(one["status"], worst.get(one["rule"], "PASS"), key=order.index)
    return code, {status: {r for r, s in worst.items() if s == status} for status in order}


def change(folder: Path, **fields: Any) -> None:
    path = folder / "submission.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_strangers_record_passes(folder: Path, capsys: Capture) -> None:
    code, rules = check(capsys, folder)
    assert (code, rules["FAIL"]) == (0, set())
    assert rules["UNDECIDED"] == {"identity", "only this folder", "starts"}
    assert rules["PASS"] | rules["UNDECIDED"] == {rule.id for rule in RULES}


STRANGE = {  # what is done: (log 42, fields of submission.json, files), status, rule
    "a subset of the documents": ({"tokens": 9_662_464}, {}, {}, "FAIL", "implied bytes"),
    "601.1 s of training": ({"train_ms": 601_100}, {}, {}, "FAIL", "training time"),
    "no size of the model": ({"model": "", "total": ""}, {}, {}, "UNDECIDED", "cap"),
    "over the cap as shipped": ({"model": 15_999_999}, {}, {}, "FAIL", "cap"),
    "one seed's score of several": ({}, {"val_bpb": 1.2201}, {}, "FAIL", "score"),
    "one seed's score": ({}, {"val_bpb": 1.2201, "seeds": [1337]}, {}, "UNDECIDED", "score"),
    "a score of no log": ({}, {"val_bpb": 1.2203}, {}, "FAIL", "score"),
    "the score on the way": ({}, {"val_bpb": 1.2150}, {}, "FAIL", "score"),
    "few digits": ({}, {"val_bpb": 1.22}, {}, "UNDECIDED", "score"),
    "code told as less": ({}, {"bytes_code": 100}, {}, "FAIL", "code bytes"),
    "code told before packing": ({}, {"bytes_code": 50_000}, {}, "UNDECIDED", "code bytes"),
    "a p-value": ({}, {"p_value": 0.00123}, {}, "UNDECIDED", "numbers"),
    "a lost step time": ({}, {"step_avg_ms": 12.34}, {}, "FAIL", "numbers"),
    "another's date": ({}, {"date": "yesterday"}, {}, "FAIL", "schema"),
    "a helper, large": ({}, {}, {"more.py": "#" * 300_000}, "UNDECIDED", "cap"),
    "a tokenizer": ({}, {}, {"x.model": "#" * 300_000}, "UNDECIDED", "cap"),
    "two runs": ({}, {"seeds": [1337, 7]}, {"train_seed42.log": None}, "FAIL", "seeds"),
    "seeds as texts": ({}, {"seeds": ["1337", "42", "7", "99"]}, {}, "FAIL", "logs"),
    "no day of the calendar": ({}, {"date": "2026-99-99"}, {}, "FAIL", "schema"),
    "an invented row": ({}, {"seed_results": {"best": {"val_bpb": 1.05}}}, {}, "FAIL", "score"),
    "a plain number for a seed": ({}, {"seed_results": {"42": 1.05}}, {}, "FAIL", "score"),
    "time of a step on the way": ({}, {"train_seconds": 565.0}, {}, "FAIL", "numbers"),
    "a setting of the clock": ({}, {"max_wallclock_seconds": 600}, {}, "PASS", "numbers"),
    "a score to beat": ({}, {"val_bpb_baseline": 1.2244}, {}, "UNDECIDED", "numbers"),
    "another score in the README": (
        *({}, {}, {"README.md": "# Another\n\nval_bpb: 1.0512\n"}),
        *("UNDECIDED", "score"),
    ),
    "a helper that nobody names": (
        *({}, {}, {"prepare.py": "import requests\n"}),
        *("UNDECIDED", "self-contained"),
    ),
    "a large picture that is none": (
        *({}, {}, {"figure.png": "#" * 3_000}),
        *("UNDECIDED", "foreign data"),
    ),
    "a licence that is none": ({}, {}, {"LICENSE.weights": "#" * 300_000}, "UNDECIDED", "cap"),
    "another tokenizer": (
        {},
        {},
        {"train_seed42.log": log_of(42, 2.0612, 300, tokenizer="./b_8192.model")},
        "FAIL",
        "configuration",
    ),
    "the same tokenizer elsewhere": (
        {"tokenizer": "/data/a_1024.model"},
        *({}, {}, "PASS", "configuration"),
    ),
    "a record of four ranks": ({"ranks": 4}, {}, {}, "FAIL", "hardware"),
    "part of the documents": ({"limit": "val_doc_limit:10000 "}, {}, {}, "FAIL", "whole split"),
    "a settings file of another run": (
        {},
        {},
        {"train_seed42.log": log_of(42, 2.0612, 300).replace("iterations:20000", "iterations:9")},
        "FAIL",
        "configuration",
    ),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_strangers_do(name: str, folder: Path, capsys: Capture) -> None:
    log, fields, files, status, rule = STRANGE[name]
    if log:
        code = (folder / "train_gpt.py").stat().st_size
        (folder / "train_seed42.log").write_text(log_of(42, LOSSES[42], code, **log))
    change(folder, **fields)
    for path, content in files.items():
        (folder / path).unlink() if content is None else (folder / path).write_text(content)
    found, rules = check(capsys, folder)
    assert rule in rules[status]
    assert found == int(bool(rules["FAIL"]))


def test_models_of_one_size_are_odd(folder: Path, capsys: Capture) -> None:
    code = (folder / "train_gpt.py").stat().st_size
    for seed, loss in LOSSES.items():
        same = log_of(seed, loss, code, model=MODEL, total=MODEL + code)
        (folder / f"train_seed{seed}.log").write_text(same)
    assert "model bytes" in check(capsys, folder)[1]["UNDECIDED"]


FILES = {  # name: (content, what the script says, share)
    "figure.png": (b"\x89PNG" + bytes(2_000), "x = 1", "not counted"),
    "large.png": (b"\x89PNG" + bytes(1_100_000), "x = 1", "unclear"),
    "loss.png": (b"\x89PNG" + bytes(2_000), "open('loss.png')", "unclear"),
    "table.csv": (b"1,2\n" * 99, "x = 1", "not counted"),
    "used.csv": (b"1,2\n" * 99, "open('data/used.csv')", "unclear"),
    "noise.csv": (bytes(range(256)) * 9, "x = 1", "unclear"),
    "LICENSE": (b"MIT\n", "x = 1", "not counted"),
    "LICENSE.weights": (b"MIT\n", "x = 1", "unclear"),
    "NOTICE": (b"code\n", "exec(open('NOTICE').read())", "unclear"),
    "README.md": (b"# A\n", "'see README.md'", "unclear"),
    "helper.py": (b"x = 1\n", "import helper", "counted"),
    "tools/late.py": (b"x = 1\n", "__import__('tools.late')", "counted"),
    "other.py": (b"x = 1\n", "x = 1", "unclear"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_counts(name: str, folder: Path) -> None:
    content, source, share = FILES[name]
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    (folder / "train_gpt.py").write_text(f"{source}\n")
    items = {item.path: item.share for item in itemise(open_case(folder)[0])}
    assert items[name] == share


def test_logs_are_read_within_bounds(folder: Path, capsys: Capture) -> None:
    line = "step:1/2 train_loss:2.0 train_time:1ms\n"
    for seed in (1, 2, 3):
        text = line * (MAX_BYTES // len(line) - 1)
        (folder / f"train_seed{seed}.log").write_text(text)
    (folder / "train_seed1.log").write_text(line * (MAX_BYTES // len(line) + 1))
    before = time.monotonic()
    code = main(["check", str(folder), "--json"])
    assert time.monotonic() - before < 10
    told = json.loads(capsys.readouterr().out)["findings"]
    unread = {x["subject"]: x["evidence"] for x in told if "not read" in x["evidence"]}
    assert code == 1 and set(unread) == {"train_seed1.log", "train_seed3.log"}


def test_a_helper_is_followed_to_what_it_imports(folder: Path, capsys: Capture) -> None:
    (folder / "train_gpt.py").write_text("import one\n")
    (folder / "one.py").write_text("from pkg import two\n")
    (folder / "pkg").mkdir()
    (folder / "pkg" / "two.py").write_text("import requests\n")
    assert "self-contained" in check(capsys, folder)[1]["FAIL"]
    (folder / "train_gpt.py").write_text("import torch\n")
    assert "self-contained" in check(capsys, folder)[1]["UNDECIDED"]


@pytest.mark.parametrize(
    "name, one, two, same",
    [
        ("tokenizer_path", "./a_1024.model", "/data/a_1024.model", True),
        ("tokenizer_path", "./a_1024.model", "./b_8192.model", False),
        ("train_files", "./x/sp1024/train_*.bin", "/y/sp1024/train_*.bin", True),
        ("train_files", "./x/sp1024/train_*.bin", "./x/sp8192/train_*.bin", False),
        ("bos_id", "1", "2", False),
        ("run_id", "a", "b", True),
        ("logfile", "logs/a.txt", "logs/b.txt", True),
        ("warmup_time", "31ms", "35ms", True),
        ("warmup_time", "5", "6", False),
        ("master_port", "1", "2", True),
        ("report", "1", "2", False),
        ("seed", "1", "2", True),
        ("matrix_lr", "1", "2", False),
    ],
)
def test_settings_that_may_differ(name: str, one: str, two: str, same: bool) -> None:
    assert list(unlike({name: one}, {name: two})) == ([] if same else [name])


def test_no_record_may_be_looser(folder: Path, capsys: Capture) -> None:
    code = (folder / "train_gpt.py").stat().st_size
    long = log_of(42, LOSSES[42], code, train_ms=7_763_000)
    (folder / "train_seed42.log").write_text(long)
    change(folder, track="non_record_16mb")
    assert "training time" in check(capsys, folder)[1]["FAIL"]
    (folder / "README.md").write_text("A submission of unlimited compute.\n")
    part = log_of(1337, LOSSES[1337], code, tokens=9_662_464)  # which says nothing of its bytes
    (folder / "train_seed1337.log").write_text(part)
    assert "implied bytes" in check(capsys, folder)[1]["FAIL"]
    (folder / "train_seed1337.log").write_text(log_of(1337, LOSSES[1337], code))
    (folder / "train_seed7.log").unlink()
    change(folder, seeds=[1337, 42])
    _, rules = check(capsys, folder)
    assert {"training time", "seeds"} <= rules["UNDECIDED"]


HOSTILE = {  # the bytes of submission.json, which nothing may be done by
    "deep": b"[" * 200_000,
    "deep objects": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "many digits": b'{"val_bpb": ' + b"9" * 100_000 + b"}",
    "infinite": b'{"val_bpb": 1e999}',
    "not a number": b'{"val_bpb": NaN}',
    "a list": b"[1, 2]",
    "no text": b"\xff\xfe\x00",
    "large": b" " * (2 << 20),
    "odd fields": b'{"seeds": {"a": [1]}, "seed_results": [[1], {"seed": []}, 3], "val_bpb": []}',
    "ours and hollow": b'{"golf": {"recipe": {"data": {"path": 3}}, "tokenizer": {}}}',
    "ours and hollow too": b'{"golf": {"tokenizer": {}, "validation": {}, "recipe": []}}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_json(name: str, folder: Path, capsys: Capture) -> None:
    (folder / "submission.json").write_bytes(HOSTILE[name])
    code, rules = check(capsys, folder)
    assert code == 1 and rules["FAIL"] & {"json", "schema"}


def test_no_flood_of_findings(folder: Path, capsys: Capture) -> None:
    rows = {str(seed): {"val_bpb": 1.2345} for seed in range(100, 5_000)}
    change(folder, seed_results=rows)
    assert main(["check", str(folder), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert len(findings) < 200
    assert any(x["evidence"].endswith("more findings") and x["status"] == "FAIL" for x in findings)


def test_hostile_folders(folder: Path, capsys: Capture, tmp_path: Path) -> None:
    secret = tmp_path / "secret.log"
    secret.write_text(log_of(5, 2.0, 99))
    (folder / "train_seed5.log").symlink_to(secret)
    os.mkfifo(folder / "train.log")
    (folder / "bad\x1b[31m|name\n@someone").write_text("x")
    code, rules = check(capsys, folder)
    assert code == 1 and "links" in rules["FAIL"] and "seeds" in rules["PASS"]
    assert main(["check", str(folder), "--markdown"]) == 1
    report = capsys.readouterr().out
    assert "\x1b" not in report and "`bad?[31m\\|name?@someone`" in report
    for number in range(MAX_ENTRIES):
        (folder / f"{number}.md").touch()
    code, rules = check(capsys, folder)
    assert code == 1 and "files" in rules["FAIL"]


def test_hostile_logs(folder: Path, capsys: Capture) -> None:
    (folder / "train_seed7.log").write_bytes(
        b"\xff\0" * 10_000 + b"final val_loss:nan val_bpb:inf\n"
    )
    (folder / "train_seed42.log").write_bytes(b"9" * 100_000 + b"," * 100_000)
    code, rules = check(capsys, folder)
    assert code == 1 and {"logs", "score"} <= rules["FAIL"]


def test_the_first_line_of_our_logs_may_end_in_a_sentence() -> None:
    why = "attention:sdpa(flash first, compute capability 9.0)"
    line = f"recipe:baseline hash:0123456789abcdef seed:42 backend:torch device:cuda:0 {why}\n"
    log = read_text(line, "train_seed7.log")
    assert (log.seed, log.hyperparameters["device"]) == (42, "cuda:0")
    assert log.notes == ("its name says seed 7, its text 42",)


@pytest.mark.parametrize(
    "path, source, named",
    [
        ("utils.py", "from torch.utils import data", False),
        ("utils.py", "import os, utils", True),
        ("ngram/state.c", "load('state.c')", True),
        ("ngram/deep.py", "x = 1;from ngram.deep import f", True),
        ("train_gpt_human.py", "import torch", False),
        ("more.py", "print('no more')", False),
    ],
)
def test_code_that_the_script_names(path: str, source: str, named: bool) -> None:
    assert is_named(path, source) is named


@pytest.mark.parametrize("steps, said", [(6, ""), (9, "schedule.steps 9")])
def test_recipes_of_other_versions_are_compared_by_what_they_say(steps: int, said: str) -> None:
    told = f"'schedule':{{'steps':{steps}}},'future':[1,2]"
    source = f"def f():\n\tA={{'name':'}}','seed':B,{told}}};return A['name']\n"
    script = unpack_script(source.encode(), "train_gpt.py")
    recipe = {"name": "}", "schedule": {"steps": 6, "other": 1}, "future": [1, 2], "data": {}}
    assert said in other_script(script, recipe)
    assert bool(other_script(script, recipe)) is bool(said)


def test_usage(tmp_path: Path, folder: Path, capsys: Capture) -> None:
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    assert main(["check", str(folder), "--data", "x"]) == 2
    assert main(["check", str(folder), "--diff=--output=x"]) == 1
    assert "golf:" in capsys.readouterr().err


def test_the_report_for_a_thread(folder: Path, capsys: Capture) -> None:
    change(folder, name="A | name `with` <b>marks</b> @you", bytes_code=100)
    assert main(["check", str(folder), "--markdown"]) == 1
    text = capsys.readouterr().out
    assert text.startswith("## Check of `A \\| name 'with' <b>marks</b> @you`\n")
    assert text.index("### Failed") < text.index("### Not decided") < text.index("### Passed")
    assert "| `train_gpt.py` |" in text and "counted" in text and "Not seen" in text
    assert main(["check", str(folder)]) == 1
    assert "1 FAIL" in capsys.readouterr().out


def git(place: Path, *words: str) -> None:
    who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    subprocess.run(["git", "-C", str(place), *who, *words], check=True, capture_output=True)


def test_diff(folder: Path, capsys: Capture, tmp_path: Path) -> None:
    git(tmp_path, "init", "-b", "main")
    git(tmp_path, "commit", "--allow-empty", "-m", "start")
    git(tmp_path, "checkout", "-b", "mine")
    assert "only this folder" in check(capsys, folder, "--diff", "main")[1]["FAIL"]
    git(tmp_path, "add", str(folder))
    git(tmp_path, "commit", "-m", "add")
    assert "only this folder" in check(capsys, folder, "--diff", "main")[1]["PASS"]
    (tmp_path / "train_gpt.py").write_text("pass\n")
    git(tmp_path, "add", "train_gpt.py")
    git(tmp_path, "commit", "-m", "more")
    assert "only this folder" in check(capsys, folder, "--diff", "main")[1]["FAIL"]
    git(tmp_path, "reset", "--hard", "HEAD~1")
    assert "only this folder" in check(capsys, folder, "--diff", "main")[1]["PASS"]
    git(tmp_path, "rm", "--cached", str(folder / "train_gpt.py"))
    git(tmp_path, "commit", "-m", "without the script")
    assert "only this folder" in check(capsys, folder, "--diff", "main")[1]["FAIL"]
    git(tmp_path, "add", str(folder))
    git(tmp_path, "commit", "-m", "with it")
    assert "only this folder" in check(capsys, folder, "--diff", "main")[1]["PASS"]
    change(folder, blurb="not committed")
    assert "only this folder" in check(capsys, folder, "--diff", "main")[1]["FAIL"]


def test_a_base_that_is_none_is_reported(folder: Path, capsys: Capture, tmp_path: Path) -> None:
    git(tmp_path, "init", "-b", "main")
    git(tmp_path, "commit", "--allow-empty", "-m", "start")
    code = main(["check", str(folder), "--diff", "nothing", "--json"])
    findings = json.loads(capsys.readouterr().out)["findings"]
    told = [x["evidence"] for x in findings if x["rule"] == "only this folder"]
    assert code == 1 and "git merge-base" in told[0] and "name a branch" in told[0]


def test_run_starts_the_script_and_says_how(text: Text, folder: Path, capsys: Capture) -> None:
    isolated = bool(network_shell()[0])
    (folder / "train_gpt.py").write_bytes(bundle(text.recipe(), "torch").script)
    given = ("--data", text.shards, "--tokenizer", text.model)
    main(["check", str(folder), "--run", *map(str, given), "--json"])
    found = [x for x in json.loads(capsys.readouterr().out)["findings"] if x["rule"] == "starts"]
    assert "at most 120 s" in found[0]["evidence"]
    assert found[0]["status"] == ("PASS" if isolated else "UNDECIDED")
    assert not (folder / "runs").exists() and not (folder / "output.txt").exists()
    (folder / "train_gpt.py").write_text("open('fineweb.bin')\n")
    _, rules = check(capsys, folder, "--run", *given)
    assert "starts" in rules["FAIL" if isolated else "UNDECIDED"]


@pytest.mark.parametrize("isolated", [True, False])
def test_without_isolation_nothing_is_decided(
    isolated: bool, folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isolated and not network_shell()[0]:
        pytest.skip("this system lends no isolation of the network")
    if not isolated:
        for module in ("strangers.isolated", "checks.start"):
            monkeypatch.setattr(f"tools.{module}.network_shell", lambda: ([], "no isolation"))
    (folder / "train_gpt.py").write_text("print('step:1/2 train_loss:1.0 train_time:1ms')\n")
    _, rules = check(capsys, folder, "--run")
    assert "starts" in rules["PASS" if isolated else "UNDECIDED"]
    (folder / "train_gpt.py").write_text("import no_such_package_here\n")
    assert "starts" in check(capsys, folder, "--run")[1]["UNDECIDED"]


def test_nothing_starts_without_being_asked(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    assert check(capsys, folder)[0] == 0


@pytest.mark.parametrize(
    "claim, value, holds",
    [
        ("1.0810", 1.08104, True),
        ("1.0810", 1.08106, False),
        ("1.08", 1.0849, True),
        ("1.080", 1.0849, False),
        ("600", 600.4, True),
        ("15991930", 15_991_931, False),
    ],
)
def test_digits(claim: str, value: float, holds: bool) -> None:
    assert agrees(parse(f'{{"x": {claim}}}')["x"], value) is holds


def test_paths() -> None:
    for text in ("/home/me/x", "~/x", "../../x", "a/../../b", "/workspace/data/", "C:\\x"):
        assert outside(text), text
    for text in ("./data/x", "data/x", "/", "/s", "a / b", "/dev/null", "...", "1/2", "see ../ x"):
        assert not outside(text), text


def test_foreign_words_are_made_plain() -> None:
    assert plain("a\x1b[0m\u202eb\nc") == "a?[0m?b?c"
    assert cell("`|`\x00") == "`'\\|'?`"


def test_rules_are_data() -> None:
    assert len(BY_ID) == len(RULES) and all(rule.what and rule.source for rule in RULES)
    assert VALIDATION_BYTES[0] < BYTES < VALIDATION_BYTES[1]
