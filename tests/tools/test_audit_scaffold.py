"""golf audit scaffold: an adapter with the two functions, from a script that is never run."""

from __future__ import annotations

import ast
import lzma
from pathlib import Path

import pytest

from tools.main import main

SCRIPT = '''
import os
import pathlib

pathlib.Path("started").touch()


class GPT:
    def forward(self, x):
        return x


class Tokens:
    pass


def eval_val_sliding(args, model, *, stride):
    return 0.0


def load_quantized(path="final_model.int8.ptz"):
    return path


def train_step(batch):
    """Names shards by fineweb_train_*.bin."""


def main():
    os.environ["X"] = "1"


main()
'''
Capture = pytest.CaptureFixture[str]


def golf(capsys: Capture, *words: object) -> tuple[int, str, str]:
    code = main(["audit", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "train_gpt.py"
    path.write_text(SCRIPT)
    return path


def test_it_names_what_the_script_holds(script: Path, capsys: Capture) -> None:
    code, out, _ = golf(capsys, "scaffold", script)
    assert code == 0 and not (script.parent / "started").exists()
    told = [line.strip("# ") for line in out.splitlines() if line.startswith("#")]
    for line in (
        "class GPT, line 8",
        "eval_val_sliding(args, model), line 17",
        "load_quantized(path), line 21",
        "final_model.int8.ptz",
        "fineweb_train_*.bin",
        "main(...), line 33",
    ):
        assert line in told, line
    assert not any("Tokens" in line or "train_step" in line for line in told)


def test_the_file_has_the_two_functions_to_fill(script: Path, capsys: Capture) -> None:
    out = script.with_name("scorer.py")
    code, said, err = golf(capsys, "scaffold", script, "--out", out)
    assert code == 0 and not said and "golf audit scorer" in err
    tree = ast.parse(out.read_text())
    found = {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef)}
    assert {name: len(one.args.args) for name, one in found.items()} == {"start": 0, "score": 3}
    assert "SEEN" not in out.read_text() and len(ast.get_docstring(found["score"]) or "") > 500
    script.unlink()
    code, _, err = golf(capsys, "scorer", out, "--run", "--tokens", 20, "--flips", 1)
    assert code == 1 and "start() of the adapter is not filled in" in err
    assert main(["audit", "scaffold", str(script)]) == 2


def test_what_is_there_is_kept(script: Path, capsys: Capture) -> None:
    code, _, err = golf(capsys, "scaffold", script, "--out", script)
    assert code == 2 and "is there already" in err and script.read_text() == SCRIPT


def test_a_packed_script_is_read_inside(script: Path, capsys: Capture) -> None:
    packed = lzma.compress(SCRIPT.encode())
    script.write_text(f"import lzma\nexec(lzma.decompress({packed!r}))\n")
    code, out, _ = golf(capsys, "scaffold", script)
    assert code == 0 and "It is packed. `golf unpack train_gpt.py --out source`" in out
    assert "eval_val_sliding(args, model), line 17" in out
    assert not (script.parent / "started").exists()


def test_strange_words_stay_on_their_line(script: Path, capsys: Capture) -> None:
    script.write_text('def load_x(a="evil\\n\\u2028import os.bin"): pass\n')
    code, out, _ = golf(capsys, "scaffold", script)
    assert code == 0
    assert all(
        line.startswith("#") for line in out.split("# What")[1].split("\n\n")[0].splitlines()[1:]
    )
    ast.parse(out)
