"""What the golf command says when something is wrong, and with which exit code it ends."""

from __future__ import annotations

import pytest

from tests.tools.test_golf import golf
from tools.main import main

USAGE = [
    # words, exit code, part of the sentence on stderr
    (["train", "basline"], 2, "did you mean 'baseline'"),
    (["train", "smoke", "optim.matrx_lr=1"], 2, "did you mean 'matrix_lr'"),
    (["train", "smoke", "small"], 2, "one recipe at a time"),
    (["train", "no/such.json"], 1, "no/such.json"),
    (["trian"], 2, "invalid choice"),
    (["score", "no.bin", "--data", "x", "--tokenizer", "y"], 1, "no.bin"),
    (["score", "no.bin"], 2, "required"),
    (["inspect", __file__], 1, "not an artifact"),
    (["pack", "nowhere"], 2, "no recipe.json"),
    (["data", "info", "nowhere", "--tokenizer", "none.model"], 1, "golf tokenizer train"),
    (["data", "tokenize", "nowhere", "--tokenizer", __file__, "--out", "x"], 1, "SentencePiece"),
    (["bundle", "--table", "--out", "x.py"], 2, "give it alone"),
    (["bundle", "--out", "nowhere/x.py"], 2, "there is no folder nowhere"),
    (["bundle", "--out", "."], 2, "is a folder"),
    ([], 2, "VERB"),
]


@pytest.mark.parametrize(("words", "code", "sentence"), USAGE)
def test_what_a_user_can_get_wrong(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, sentence: str
) -> None:
    found, _, err = golf(capsys, *words)
    assert (found, sentence in err) == (code, True), err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [["train", "basline"], ["train", "--x"]])
def test_one_rank_of_several_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """All of them fail."""
    told = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        code, _, err = golf(capsys, *words)
        told.append((code > 0, err != ""))
    assert told == [(True, True), (True, False)]


def test_a_rank_says_what_went_wrong_with_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its data or its recipe may be missing on its machine alone."""
    monkeypatch.setenv("MLX_RANK", "3")
    assert "golf: rank 3: " in golf(capsys, "train", "no.json")[2]
    assert "golf: rank 3: " in golf(capsys, "train", "basline")[2]
    monkeypatch.delenv("MLX_RANK")
    monkeypatch.setenv("RANK", "9")
    code, _, err = golf(capsys, "train", "smoke", "data.path=nowhere")
    assert code == 1 and err.startswith("golf: rank 9: data/tokenizers/")
    assert golf(capsys, "train", "basline")[2] == ""
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert "golf: rank 9: " in golf(capsys, "train", "basline")[2]


def test_old_variables_are_used_and_wrong_ones_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUM_LAYERS", "four")
    code, _, err = golf(capsys, "train", "smoke")
    assert code == 2 and "NUM_LAYERS=four: expected a whole number" in err
    monkeypatch.setenv("NUM_LAYERS", "3")
    monkeypatch.setenv("ITERATION", "2")
    monkeypatch.setenv("DATA_PATH", "nowhere")
    code, _, err = golf(capsys, "train", "smoke")
    assert code == 1 and "did you mean ITERATIONS?" in err and "Traceback" not in err


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ValueError, match="no such file"):
        main(["inspect", "no.bin", "--debug"])


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.plan.plan", interrupted)
    assert golf(capsys, "plan")[0] == 130
