"""The whole path: text to tokenizer to shards to three runs to a checked records folder, offline.

Then the folder is damaged in each way of a table, and the check names the rules that fail: these
and no others.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Text
from tools.bundling.script import packed
from tools.checks import script as check_script
from tools.main import main

Capture = pytest.CaptureFixture[str]
Damage = Callable[[Path], object]
SEEDS = (7, 42, 1337)
CAP = 16_000_000


def words_for(text: Text, *changes: str) -> list[str]:
    return [
        "smoke",
        f"arch.vocab_size={text.tokenizer.vocab_size}",
        f"data.path={text.shards}",
        f"data.tokenizer={text.model}",
        "data.train_batch_tokens=512",
        "schedule.steps=4",
        "score.val_every_steps=2",
        *changes,
    ]


def told(capsys: Capture, *words: object, code: int = 0) -> dict[str, Any]:
    """The JSON object that a verb prints."""
    assert main([str(word) for word in (*words, "--json")]) == code
    fields: dict[str, Any] = json.loads(capsys.readouterr().out)
    return fields


@pytest.fixture(scope="module")
def runs(text: Text, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("path") / "runs"
    for seed in SEEDS:
        words = words_for(text, f"seed={seed}", "--backend", "torch")
        assert main(["train", *words, "--runs", str(root), "--run-id", f"s{seed}"]) == 0
    return [root / f"s{seed}" for seed in SEEDS]


@pytest.fixture(scope="module")
def folder(runs: list[Path]) -> Path:
    out = runs[0].parent.parent / "2026-03-18_smoke"
    words = ["--author", "A", "--github-id", "a", "--date", "2026-03-18", "--out", str(out)]
    assert main(["submit", *map(str, runs), *words]) == 0
    return out


def test_every_step_agrees_with_the_one_before(
    runs: list[Path], folder: Path, text: Text, tmp_path: Path, capsys: Capture
) -> None:
    submission = json.loads((folder / "submission.json").read_text())
    row = submission["seed_results"]["42"]
    again = told(capsys, "pack", runs[1])
    assert (again["identity"], again["model_bytes"]) == (row["identity"], row["model_bytes"])
    where = ("--data", text.shards, "--tokenizer", text.model, "--backend", "torch")
    score = told(capsys, "score", runs[1] / "model.bin", *where)
    assert round(score["val_bpb"], 8) == row["val_bpb"] and score["subset"] is None
    compared = told(capsys, "compare", folder, ",".join(map(str, runs)))
    assert compared["difference_bpb"] == 0.0 and compared["n_a"] == len(SEEDS)
    assert round(compared["mean_a"], 8) == submission["val_bpb"]
    words = [runs[0] / "recipe.json", "--out", tmp_path / "train_gpt.py"]
    assert told(capsys, "bundle", *words)["code_bytes"] == submission["bytes_code"]
    assert (tmp_path / "train_gpt.py").read_bytes() == (folder / "train_gpt.py").read_bytes()
    info = told(capsys, "data", "info", text.shards, "--tokenizer", text.model)
    assert row["bytes"] == info["val"]["bytes_reference"]
    assert row["tokens"] == info["val"]["tokens"] - 1


def test_the_folder_passes(folder: Path, capsys: Capture) -> None:
    report = told(capsys, "check", folder)
    assert report["passes"] and not failed(report)
    passed = {one["rule"] for one in report["findings"] if one["status"] == "PASS"}
    open_ = {one["rule"] for one in report["findings"] if one["status"] == "UNDECIDED"}
    assert open_ == {"implied bytes", "only this folder", "starts"}
    assert len(passed) == 21


def test_its_logs_pass_the_audit(folder: Path, runs: list[Path], capsys: Capture) -> None:
    """The folder with its claims, and the runs by themselves, on another text than the task's."""
    for place, claimed in ((folder, {"identity", "numbers", "score"}), (runs[0].parent, set())):
        report = told(capsys, "audit", "logs", place)
        assert report["passes"] and len(report["logs"]) == len(SEEDS), failed(report)
        passed = {one["rule"] for one in report["findings"] if one["status"] == "PASS"}
        assert passed >= {"logs", "whole split", "lossless", "model bytes", "cap"} | claimed
        assert {log["seed"] for log in report["logs"]} == set(SEEDS)


def failed(report: dict[str, Any]) -> set[str]:
    return {one["rule"] for one in report["findings"] if one["status"] == "FAIL"}


# How the folder is damaged. A careful forger makes the hashes fit again.


def edit_json(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "submission.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def set_json(*names: str, value: Any) -> Damage:
    def change(fields: dict[str, Any]) -> None:
        for name in names[:-1]:
            fields = fields[name]
        fields[names[-1]] = value(fields[names[-1]]) if callable(value) else value

    return lambda folder: edit_json(folder, change)


def edit_log(seed: int, pattern: str, new: str | Callable[[re.Match[str]], str]) -> Damage:
    """Change a log, and its hash in submission.json with it."""

    def damage(folder: Path) -> None:
        path = folder / f"train_seed{seed}.log"
        old = path.read_text()
        text, count = re.subn(pattern, new, old, flags=re.M)
        assert count, pattern
        path.write_text(text)
        rehash(folder, seed)

    return damage


def rehash(folder: Path, seed: int) -> None:
    data = (folder / f"train_seed{seed}.log").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    edit_json(folder, lambda f: f["seed_results"][str(seed)].update(log_sha256=digest))


def all_of(*damages: Damage) -> Damage:
    return lambda folder: [damage(folder) for damage in damages]


def write(name: str, content: bytes | str) -> Damage:
    data = content.encode() if isinstance(content, str) else content

    def damage(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)

    return damage


def over_the_cap(folder: Path) -> None:
    """A model of just one byte too many, told alike everywhere."""
    code = len((folder / "train_gpt.py").read_bytes())
    model = CAP + 1 - code
    for pattern, size in (("Serialized model.*", model), ("Total submission.*", CAP + 1)):
        edit_log(42, rf"^({pattern}): \d+ bytes", rf"\1: {size} bytes")(folder)
    edit_log(42, r"^fits: artifact_bytes:\d+", f"fits: artifact_bytes:{CAP + 1}")(folder)
    sizes = {"model_bytes": model, "artifact_bytes": CAP + 1}
    edit_json(folder, lambda f: f["seed_results"]["42"].update(sizes))
    set_json("bytes_total", value=CAP + 1)(folder)


def grown_code(folder: Path) -> None:
    """One byte of code more than is told, with its hash made to fit."""
    path = folder / "train_gpt.py"
    path.write_bytes(path.read_bytes() + b"\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    set_json("golf", "code_sha256", value=digest)(folder)


def script_with(line: str, change: tuple[str, str] = ("", "")) -> Damage:
    """The script with a line more or a change, packed anew; its size and hash told everywhere."""

    def written(old: bytes) -> bytes:
        from tools.strangers.packed import unpack_script

        source = unpack_script(old, "train_gpt.py").modules[0].source
        assert change[0] in source
        return packed(f"{line}\n{source.replace(*change)}", SEEDS[0])

    return rewritten(written)


def loader_with(line: str) -> Damage:
    """A line more in what decodes the script."""
    start = b"import lzma,linecache\n"
    return rewritten(lambda old: old.replace(start, start + line.encode() + b"\n", 1))


def helper_with(source: str) -> Damage:
    """A file beside the script, which imports it."""
    return all_of(write("helper.py", source), script_with("import helper"))


def rewritten(change: Callable[[bytes], bytes]) -> Damage:
    """Another script; its size and hash told everywhere."""

    def damage(folder: Path) -> None:
        path = folder / "train_gpt.py"
        path.write_bytes(change(path.read_bytes()))
        size = sum(one.stat().st_size for one in folder.glob("*.py"))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        fields = json.loads((folder / "submission.json").read_text())
        fields["golf"]["code_sha256"], fields["bytes_code"] = digest, size
        models = {seed: row["model_bytes"] for seed, row in fields["seed_results"].items()}
        for seed, model in models.items():
            fields["seed_results"][seed]["artifact_bytes"] = model + size
        fields["bytes_total"] = max(models.values()) + size
        (folder / "submission.json").write_text(json.dumps(fields))
        for seed, model in models.items():
            edit_log(int(seed), r"^Code size: \d+", f"Code size: {size}")(folder)
            total = rf"\g<1>{model + size}"
            edit_log(int(seed), r"^(Total submission size \S+: )\d+", total)(folder)
            edit_log(int(seed), r"^(fits: artifact_bytes:)\d+", total)(folder)

    return damage


def another_seeds_log(folder: Path) -> None:
    shutil.copy(folder / "train_seed7.log", folder / "train_seed42.log")


def another_seeds_log_renamed(folder: Path) -> None:
    """The log of one seed under the name and the seed of another."""
    text = (folder / "train_seed7.log").read_text().replace("seed:7 ", "seed:42 ")
    (folder / "train_seed42.log").write_text(text.replace("set seed=7 ", "set seed=42 "))
    rehash(folder, 42)


def pre_quantization_score(folder: Path) -> None:
    text = (folder / "train_seed42.log").read_text()
    found = re.search(r"^pre_quantization val_loss:(\S+) val_bpb:(\S+)", text, re.M)
    assert found
    set_json("seed_results", "42", "val_bpb", value=float(found[2]))(folder)


def link_to(target: str) -> Damage:
    return lambda folder: (folder / "notes.md").symlink_to(target)


def cut_before(pattern: str) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "train_seed42.log"
        path.write_text(re.split(pattern, path.read_text(), maxsplit=1, flags=re.M)[0])
        rehash(folder, 42)

    return damage


def tokenizer_swapped(folder: Path) -> None:
    """Another file as tokenizer, with its hash told."""
    write("small.model", b"another")(folder)
    digest = hashlib.sha256(b"another").hexdigest()
    set_json("golf", "tokenizer", "sha256", value=digest)(folder)


def tokenizer_disowned(folder: Path) -> None:
    (folder / "small.model").unlink()
    set_json("golf", "tokenizer", "shipped", value=False)(folder)


def tenth_of_the_split(folder: Path) -> None:
    """A tenth of the targets and of the bytes in every place but the header."""
    fields = json.loads((folder / "submission.json").read_text())
    tokens, size = (fields["golf"]["validation"][name] // 10 for name in ("targets", "bytes"))
    for seed in SEEDS:
        scores = rf"\g<1>{tokens} bytes:{size}"
        edit_log(seed, r"^((?:final|pre)\S* .* tokens:)\d+ bytes:\d+", scores)(folder)
        sizes = {"tokens": tokens, "bytes": size}
        edit_json(folder, lambda f, s=str(seed), n=sizes: f["seed_results"][s].update(n))
    told = {"targets": tokens, "bytes": size}
    edit_json(folder, lambda f: f["golf"]["validation"].update(told))


def shadowed_row(folder: Path) -> None:
    """An invented score under a seed, and the true one under another way to write it."""
    fields = json.loads((folder / "submission.json").read_text())
    true = fields["seed_results"].pop("7")
    fields["seed_results"] |= {"7": {**true, "val_bpb": 1.05}, "07": true}
    (folder / "submission.json").write_text(json.dumps(fields))


def best_headline(folder: Path) -> None:
    fields = json.loads((folder / "submission.json").read_text())
    best = min(fields["seed_results"].values(), key=lambda row: row["val_bpb"])
    edit_json(folder, lambda f: f.update({k: best[k] for k in ("val_bpb", "val_loss")}))


def swapped_deviations(folder: Path) -> None:
    names = ("val_loss_std", "val_bpb_std")
    edit_json(folder, lambda f: f.update({names[0]: f[names[1]], names[1]: f[names[0]]}))


def another_final_line(folder: Path) -> None:
    edit_log(42, r"^(final_\S+ val_loss:)\S+( .*)$", r"\g<1>4.95000000\2\n\g<0>")(folder)


def lossy_record(folder: Path) -> None:
    edit_log(42, r"^(final_.*)$", r'\1 lossy:"its text is folded to lower case"')(folder)
    set_json("track", value="10min_16mb")(folder)


FINAL = r"^(final_\S+ val_loss:\S+ val_bpb:)\S+"
SHARD = struct.pack("<256i", 20240520, 1, 4, *[0] * 253) + bytes(8)

TENSORS = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
CODE = "code bytes, model bytes"
MEANS = "score, numbers"  # of the runs that are left

# damage: what is done, the rules that fail, and those that may fail with them
DAMAGES: dict[str, tuple[Damage, str] | tuple[Damage, str, str]] = {
    "one byte over the cap": (over_the_cap, "cap"),
    "one byte of code untold": (grown_code, "code bytes, model bytes"),
    "wrong code bytes": (set_json("bytes_code", value=9_999), "code bytes"),
    "code changed": (
        lambda folder: (folder / "train_gpt.py").write_bytes(
            (folder / "train_gpt.py").read_bytes().replace(b"SEED='7 ", b"SEED='8 ")
        ),
        "code bytes",
    ),
    "a script that does not parse": (write("train_gpt.py", "def f(:\n"), "script", CODE),
    "a packed script cut short": (
        lambda folder: (folder / "train_gpt.py").write_bytes(
            (folder / "train_gpt.py").read_bytes()[:5_000]
        ),
        "script",
        CODE,
    ),
    "a script that reads outside": (
        script_with("open('/home/other/weights.bin', 'rb').read()"),
        "self-contained",
    ),
    "a script that reads above": (
        script_with("import torch\ntorch.load('../../other/model.pt')"),
        "self-contained",
    ),
    "a script that downloads": (
        script_with("from urllib.request import urlopen"),
        "self-contained",
    ),
    "a script of another recipe": (
        script_with("", ("'schedule':{'steps':4", "'schedule':{'steps':9")),
        "configuration",
    ),
    "no script": (lambda folder: (folder / "train_gpt.py").unlink(), "files, script", CODE),
    "no tokenizer": (lambda folder: (folder / "small.model").unlink(), "files"),
    "another tokenizer": (write("small.model", b"another"), "files"),
    "another validation text told": (
        set_json("golf", "validation", "bytes", value=151_080_363),
        "numbers",
    ),
    "no README": (lambda folder: (folder / "README.md").unlink(), "files"),
    "no submission.json": (
        lambda folder: (folder / "submission.json").unlink(),
        "files, json",
    ),
    "truncated JSON": (
        lambda folder: os.truncate(folder / "submission.json", 700),
        "json",
    ),
    "JSON of a name twice": (
        lambda folder: (folder / "submission.json").write_text(
            '{"val_bpb": 1.0,' + (folder / "submission.json").read_text()[1:]
        ),
        "json",
    ),
    "JSON nested deeply": (write("submission.json", "[" * 100_000), "json"),
    "no author": (lambda folder: edit_json(folder, lambda f: f.pop("author")), "schema"),
    "a score of text": (set_json("val_bpb", value="1.0"), "schema"),
    "a missing log": (
        lambda folder: (folder / "train_seed42.log").unlink(),
        "logs",
        f"{MEANS}, model bytes",
    ),
    "a log cut before its score": (cut_before("^final_"), "logs", MEANS),
    "a log cut before its last line": (cut_before("^(fits|phases)"), "logs"),
    "a log changed": (
        lambda folder: (folder / "train_seed7.log").open("a").write(" \n"),
        "logs",
    ),
    "a log of a seed untold": (
        lambda folder: edit_json(
            folder, lambda f: (f["seeds"].remove(7), f["seed_results"].pop("7"))
        ),
        "logs",
        "identity",
    ),
    "another seed's log": (another_seeds_log, "seeds, logs", f"{MEANS}, identity, model bytes"),
    "another seed's log renamed": (
        another_seeds_log_renamed,
        "seeds, identity, score",
        f"{MEANS}, configuration, model bytes",
    ),
    "equal seeds": (
        edit_log(42, "seed:42 ", "seed:7 "),
        "seeds",
        f"{MEANS}, logs, configuration, identity, model bytes",
    ),
    "two configurations": (
        edit_log(42, r"train_batch_tokens:512 ", "train_batch_tokens:1024 "),
        "configuration",
    ),
    "another recipe's log": (edit_log(42, r"hash:\w+", "hash:0123456789abcdef"), "configuration"),
    "another recipe told": (
        set_json("golf", "recipe", "schedule", "steps", value=5),
        "configuration",
    ),
    "an artifact of another run": (
        set_json("seed_results", "42", "identity", value="0" * 64),
        "identity",
    ),
    "a log of another artifact": (
        edit_log(42, r"^identity:\w{8}", "identity:00000000"),
        "identity",
    ),
    "no identity": (edit_log(42, r"^identity:\w+\n", ""), "identity"),
    "a hand-edited score": (
        set_json("seed_results", "42", "val_bpb", value=lambda old: round(old - 0.01, 8)),
        "score",
    ),
    "a hand-edited mean": (set_json("val_bpb", value=lambda old: round(old - 1e-6, 8)), "score"),
    "a score from before quantization": (pre_quantization_score, "score"),
    "a score edited in the log": (
        edit_log(42, FINAL, r"\g<1>4.00000000"),
        "score, implied bytes",
        MEANS,
    ),
    "wrong implied bytes": (
        edit_log(42, r"^(final_.* tokens:)\d+", r"\g<1>9000"),
        "implied bytes",
        "whole split, numbers",
    ),
    "wrong bytes": (
        edit_log(42, r"^(final_.* bytes:)\d+", r"\g<1>13000"),
        "implied bytes",
        "numbers",
    ),
    "a subset score": (
        edit_log(42, r"^(final_.*)$", r'\1 subset:{"name": "first-1m"}'),
        "whole split",
    ),
    "a modified model": (
        edit_log(42, r"^(final_.*)$", r"\1 modified: arch.rope_dims=0"),
        "whole split",
    ),
    "a model larger than told": (
        edit_log(42, r"^(Serialized model \S+: )\d+", r"\g<1>990000"),
        "model bytes",
        "numbers",
    ),
    "a total smaller than the worst": (
        set_json("bytes_total", value=lambda old: old - 1000),
        "model bytes",
    ),
    "a number from nowhere": (
        set_json("seed_results", "42", "eval_time_s", value=123.456),
        "numbers",
    ),
    "steps from nowhere": (set_json("seed_results", "42", "steps", value=98_765), "numbers"),
    "training over 600 s": (
        all_of(
            edit_log(42, r"^(stopped: .*train_time:)\d+", r"\g<1>600900"),
            set_json("seed_results", "42", "train_time_s", value=600.9),
        ),
        "training time",
    ),
    "a hidden file": (write(".env", "x"), "hidden files"),
    "a hidden folder": (write(".git/config", "x"), "hidden files"),
    "a shard": (write("data/tokens.dat", SHARD), "foreign data"),
    "weights": (write("weights.dat", b"PK\x03\x04" + bytes(99)), "foreign data"),
    "a symlink": (link_to("/etc/hostname"), "links"),
    "a symlink to a folder": (link_to(".."), "links"),
    "a pipe": (lambda folder: os.mkfifo(folder / "train_seed9.log"), "links"),
    "a record on another text": (
        set_json("track", value="10min_16mb"),
        "implied bytes, hardware",
    ),
    "a lossy record": (lossy_record, "lossless, implied bytes, hardware"),
    "a script that fetches": (
        script_with("import os\nos.system('curl -O https://example.com/w.bin')"),
        "self-contained",
    ),
    "a loader that reads outside": (
        loader_with("W=open('/home/other/w.bin','rb').read()"),
        "self-contained",
    ),
    "code behind the payload": (
        rewritten(lambda old: old + b"import requests\nrequests.get('http://a.b/w')\n"),
        "self-contained",
    ),
    "a helper that downloads": (helper_with("import requests\n"), "self-contained", CODE),
    "a helper that does not parse": (helper_with("def f(:\n"), "script", CODE),
    "another tokenizer, told": (tokenizer_swapped, "files"),
    "a tokenizer as if of the task": (tokenizer_disowned, "files"),
    "fewer targets than the header has": (
        tenth_of_the_split,
        "whole split",
        "numbers, implied bytes",
    ),
    "a shadowed row": (shadowed_row, "score", "numbers"),
    "an invented row": (
        lambda folder: edit_json(folder, lambda f: f["seed_results"].update(best={"val_bpb": 1.1})),
        "score",
    ),
    "the best seed as the score": (best_headline, "score"),
    "swapped deviations": (swapped_deviations, "numbers"),
    "no deviation": (set_json("val_bpb_std", value=0.0), "numbers"),
    "the time of a step": (
        set_json("seed_results", "42", "train_time_s", value=0.001),
        "numbers",
    ),
    "steps that are a size": (set_json("seed_results", "42", "steps", value=512), "numbers"),
    "no golf section": (lambda folder: edit_json(folder, lambda f: f.pop("golf")), "configuration"),
    "a pickle by another name": (write("x.dat", pickle.dumps({"w": [1.0] * 99})), "foreign data"),
    "a zlib stream by another name": (
        write("x.dat", zlib.compress(bytes(range(256)) * 9)),
        "foreign data",
    ),
    "safetensors by another name": (
        write("x.dat", struct.pack("<Q", len(TENSORS)) + TENSORS + bytes(8)),
        "foreign data",
    ),
    "a step at 900 s": (
        edit_log(42, r"^(step:4/4 train_loss.*train_time:)\d+", r"\g<1>900000"),
        "training time",
    ),
    "900 s of scoring": (edit_log(42, r"^(phases.*score:)[\d.]+", r"\g<1>900"), "evaluation time"),
    "a log that says that it failed": (
        edit_log(42, "^fits: artifact_bytes", "failed: over the cap: artifact_bytes"),
        "cap",
    ),
    "a last line of another size": (
        edit_log(42, r"^(fits: artifact_bytes:)\d+", r"\g<1>123"),
        "model bytes",
    ),
    "two scores": (another_final_line, "logs"),
    "a loss of nan": (edit_log(42, r"^(step:3/4 train_loss:)\S+", r"\g<1>nan"), "logs"),
    "no day of the calendar": (set_json("date", value="2026-02-30"), "schema"),
    "a blank README": (write("README.md", " \n\n"), "files"),
    "another score in the README": (
        lambda folder: (folder / "README.md").write_text(
            re.sub(r"val_bpb \d\.\d+", "val_bpb 1.05", (folder / "README.md").read_text())
        ),
        "score",
    ),
    "another seed's score in the README": (
        lambda folder: (folder / "README.md").write_text(
            re.sub(r"(?m)^(\| 42 \| )\S", r"\g<1>9", (folder / "README.md").read_text())
        ),
        "score",
    ),
    "another run's log": (
        lambda folder: shutil.copy(folder / "train_seed7.log", folder / "train.log"),
        "logs",
    ),
    "a log longer than is read": (
        edit_log(42, r"\Z", lambda _: "x" * 99 + "\n" + "step:1/2\n" * 2_000_000),
        "logs",
        f"{MEANS}, configuration, identity, model bytes",
    ),
}


@pytest.fixture(scope="module", autouse=True)
def each_script_is_read_once() -> Iterator[None]:
    """Most damages leave the script as it is, and reading it takes most of a check's time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("unpack_script", "parse"):
            patch.setattr(check_script, name, cache(getattr(check_script, name)))
        reaches = check_script.reaches
        patch.setattr(check_script, "reaches", cache(lambda tree: list(reaches(tree))))
        yield


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_named(name: str, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    damage, rules, *also = DAMAGES[name]
    shutil.copytree(folder, tmp_path / "hurt")
    damage(tmp_path / "hurt")
    report = told(capsys, "check", tmp_path / "hurt", code=1)
    expected, found = set(rules.split(", ")), failed(report)
    assert expected <= found and found <= expected | set(", ".join(also).split(", "))
