"""Exports of any size: the same bytes whatever the processes and interruptions, memory bounded."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from core.data.documents import read_blocks
from core.data.export import read_manifest, tokenize, tokenize_files
from core.data.unfinished import PROGRESS, unfinished_folder
from tests.core.tiny_models import CORPUS, tiny

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [f"{text} {i}" for i in range(10) for text in ("", "é 😀 ", *CORPUS)]
VAL_DOCS = 123
SHARD_TOKENS = 2000
BLOCK_BYTES = 1500
SETTINGS = {"val_docs": VAL_DOCS, "shard_tokens": SHARD_TOKENS}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_jsonl(path, texts):
    data = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Many blocks and many saves out of little text."""
    monkeypatch.setattr("core.data.export.read_blocks", partial(read_blocks, block_bytes=1500))
    monkeypatch.setattr("core.data.unfinished.SAVE_BYTES", 4000)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected") / "data"
    tokenize(DOCUMENTS, tiny(), folder, **SETTINGS)
    return contents(folder)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_the_bytes_do_not_depend_on_processes_or_files(tmp_path, expected, workers, name):
    half = len(DOCUMENTS) // 3
    one = write_jsonl(tmp_path / f"1{name}", DOCUMENTS[:half])
    two = write_jsonl(tmp_path / f"2{name}", DOCUMENTS[half:])
    heard = []
    manifest = tokenize_files(
        [one, two],
        tiny(),
        tmp_path / "data",
        workers=workers,
        progress=lambda *news: heard.append(news),
        **SETTINGS,
    )
    assert contents(tmp_path / "data") == expected
    assert manifest == read_manifest(tmp_path / "data")
    assert heard == sorted(heard)
    assert heard[-1] == (one.stat().st_size + two.stat().st_size, len(DOCUMENTS))
    assert not unfinished_folder(tmp_path / "data").exists()


def _stopping(after):
    def progress(read_bytes, documents):
        if documents >= after:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_export_goes_on_and_ends_the_same(tmp_path, expected):
    source = write_jsonl(tmp_path / "x.jsonl", DOCUMENTS)
    begun = []
    for after in (60, 115, 130, 131, 300):  # within validation, about its end, within train
        with pytest.raises(KeyboardInterrupt):
            tokenize_files(
                [source], tiny(), tmp_path / "data", progress=_stopping(after), **SETTINGS
            )
        saved = json.loads((unfinished_folder(tmp_path / "data") / PROGRESS).read_text())
        begun.append(saved["documents"])
        assert not (tmp_path / "data").exists()
    assert begun == sorted(begun)
    assert 0 < begun[0] < begun[-1] < 310
    heard = []
    tokenize_files(
        [source], tiny(), tmp_path / "data", progress=lambda *n: heard.append(n[1]), **SETTINGS
    )
    assert heard[0] > begun[-1]  # it did not begin anew
    assert contents(tmp_path / "data") == expected


KILLED = """
import multiprocessing, os, signal, sys
from functools import partial
from pathlib import Path
from core.data import export, unfinished
from core.data.documents import read_blocks
from core.data.tokenizer import SentencePieceTokenizer
export.read_blocks = partial(read_blocks, block_bytes=1500)
unfinished.SAVE_BYTES = 4000
folder, after, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

def progress(read_bytes, documents):
    if documents >= after:
        print(*[process.pid for process in multiprocessing.active_children()], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

tokenizer = SentencePieceTokenizer("tiny", (folder / "tiny.model").read_bytes())
export.tokenize_files([folder / "x.jsonl"], tokenizer, folder / "data", workers=workers,
                      progress=progress, val_docs=123, shard_tokens=2000)
"""


def test_an_export_that_is_killed_goes_on_and_ends_the_same(tmp_path, expected):
    write_jsonl(tmp_path / "x.jsonl", DOCUMENTS)
    (tmp_path / "tiny.model").write_bytes(tiny().model)
    for after, workers in ((70, 2), (240, 1), (10_000, 2)):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path), str(after), str(workers)],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        killed = after < len(DOCUMENTS)
        assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr
        assert (tmp_path / "data").exists() != killed
        for pid in map(int, done.stdout.split()):
            assert _gone(pid), "a worker outlives the process that it works for"
    assert contents(tmp_path / "data") == expected


def _gone(pid):
    for _ in range(200):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat")
            if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
                return True  # dead; nobody has collected it yet
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def _interrupted(tmp_path, texts=DOCUMENTS, **changes):
    source = write_jsonl(tmp_path / "x.jsonl", texts)
    with pytest.raises(KeyboardInterrupt):
        tokenize_files(
            [source], tiny(), tmp_path / "data", progress=_stopping(200), **SETTINGS | changes
        )
    return source


def test_an_unfinished_export_of_other_documents_or_settings_is_refused(tmp_path, expected):
    source = _interrupted(tmp_path)
    left = contents(unfinished_folder(tmp_path / "data"))
    refused = [
        (DOCUMENTS[1:], {}, "an unfinished export of other documents"),
        (DOCUMENTS[:50], {}, "an unfinished export of other documents"),
        (DOCUMENTS, {"val_docs": 5}, "an unfinished export with val_docs 123, now 5"),
        (DOCUMENTS, {"shard_tokens": 5}, "an unfinished export with shard_tokens 2000, now 5"),
    ]
    for texts, changes, message in refused:
        write_jsonl(source, texts)
        with pytest.raises(ValueError, match=message):
            tokenize_files([source], tiny(), tmp_path / "data", **SETTINGS | changes)
    assert contents(unfinished_folder(tmp_path / "data")).keys() == left.keys()
    write_jsonl(source, DOCUMENTS)
    tokenize_files([source], tiny(), tmp_path / "data", **SETTINGS)
    assert contents(tmp_path / "data") == expected


def test_a_mended_line_costs_only_what_follows_it(tmp_path, expected):
    source = write_jsonl(tmp_path / "x.jsonl", DOCUMENTS)
    whole = source.read_bytes()
    lines = whole.splitlines(keepends=True)
    for workers in (1, 2):
        lines[300] = b"not json\n"
        source.write_bytes(b"".join(lines))
        with pytest.raises(ValueError, match=r"x\.jsonl:301: expected one JSON object"):
            tokenize_files([source], tiny(), tmp_path / "data", workers=workers, **SETTINGS)
    source.write_bytes(whole)
    heard = []
    tokenize_files(
        [source], tiny(), tmp_path / "data", progress=lambda *n: heard.append(n[1]), **SETTINGS
    )
    assert heard[0] > 200
    assert contents(tmp_path / "data") == expected


def test_a_failure_before_the_first_save_leaves_nothing(tmp_path):
    (tmp_path / "x.jsonl").write_text("not json\n")
    before = sorted(tmp_path.iterdir())
    for changes in ({}, {"val_docs": -1}, {"shard_tokens": 0}, {"workers": 0}):
        with pytest.raises(ValueError, match=r"x\.jsonl:1|must (not )?be"):
            tokenize_files([tmp_path / "x.jsonl"], tiny(), tmp_path / "data", **SETTINGS | changes)
    (tmp_path / "x.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match="no documents to tokenize"):
        tokenize_files([tmp_path / "x.jsonl"], tiny(), tmp_path / "data", **SETTINGS)
    assert sorted(tmp_path.iterdir()) == before


def test_what_lies_where_nothing_was_saved_is_cleared_away(tmp_path, expected):
    source = write_jsonl(tmp_path / "x.jsonl", DOCUMENTS)
    left = unfinished_folder(tmp_path / "data")
    left.mkdir()
    (left / "fineweb_val_000000.bin.partial").write_bytes(b"x" * 5000)
    tokenize_files([source], tiny(), tmp_path / "data", **SETTINGS)
    assert contents(tmp_path / "data") == expected


def test_a_damaged_note_of_progress_is_named(tmp_path):
    source = _interrupted(tmp_path)
    note = unfinished_folder(tmp_path / "data") / PROGRESS
    for content in ("{", '{"sources": 1}', "[1]"):
        note.write_text(content)
        with pytest.raises(ValueError, match=r"progress\.json: damaged .* remove"):
            tokenize_files([source], tiny(), tmp_path / "data", **SETTINGS)


def test_two_exports_to_one_folder_do_not_mix(tmp_path, expected):
    source = write_jsonl(tmp_path / "x.jsonl", DOCUMENTS)
    refusals = []

    def progress(read_bytes, documents):
        if not refusals:
            with pytest.raises(ValueError, match="another process is writing it") as refusal:
                tokenize_files([source], tiny(), tmp_path / "data", **SETTINGS)
            refusals.append(refusal)

    tokenize_files([source], tiny(), tmp_path / "data", progress=progress, **SETTINGS)
    assert refusals
    assert contents(tmp_path / "data") == expected


MEASURED = """
import json, resource, sys
from pathlib import Path
from core.data.export import tokenize_files
from core.data.tokenizer import SentencePieceTokenizer

if __name__ == "__main__":
    folder, workers = Path(sys.argv[1]), int(sys.argv[2])
    tokenizer = SentencePieceTokenizer("tiny", (folder / "tiny.model").read_bytes())
    tokenize_files([folder / "x.jsonl"], tokenizer, folder / "data", val_docs=100, workers=workers)
    unit = 1024 if sys.platform == "linux" else 1
    status = Path("/proc/self/status")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if status.exists():  # ru_maxrss would count the process that started this one
        own = 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    workers_own = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    print(json.dumps([own, workers_own]))
"""
# Blanks are quick to encode: the size of the text matters here, not its words.
LINE = json.dumps({"text": ("the cat of a house" + " " * 3000) * 4}) + "\n"


def _peaks(folder, text_bytes, workers):
    """Peak resident bytes of the process and of its largest worker."""
    folder.mkdir()
    with (folder / "x.jsonl").open("w") as file:
        for _ in range(text_bytes // len(LINE)):
            file.write(LINE)
    (folder / "tiny.model").write_bytes(tiny().model)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(folder), str(workers)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    (folder / "x.jsonl").unlink()
    return json.loads(done.stdout)


def test_memory_does_not_grow_with_the_input(tmp_path):
    small, large = (_peaks(tmp_path / str(size), size, 1)[0] for size in (4_000_000, 64_000_000))
    assert large < 150_000_000
    assert large - small < 20_000_000  # the text alone is 60 million bytes more


@pytest.mark.slow
def test_two_gigabytes_are_tokenized_in_300_megabytes(tmp_path):
    own, worker = _peaks(tmp_path / "two", 2_000_000_000, 2)
    assert own + 2 * worker < 300_000_000
