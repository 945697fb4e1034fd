"""The lab: one solve a quantizer, every codec; errors by Hessians that the solver has not seen."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from core.arch.noise import normal
from tests.tools.test_golf import golf
from tools.quantizers import RULES

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two matrices; the Hessians of two halves of their inputs."""
    folder = tmp_path_factory.mktemp("lab")
    shapes = {"a": (128, 64), "b": (64, 96)}
    save_file(
        {n: normal(1, i, s).astype("f4") for i, (n, s) in enumerate(shapes.items())},
        folder / "w.safetensors",
    )
    for half in (0, 1):
        held = {}
        for index, (name, (_, cols)) in enumerate(shapes.items()):
            mix = normal(2, index, (cols, cols)) * np.exp2(normal(3, index, (cols, 1)))
            x = normal(4 + half, index, (8 * cols, cols)) @ mix
            held[name] = x.T @ x
        save_file(held, folder / f"h{half}.safetensors")
    return folder


def lab(capsys: Capture, files: Path, *words: object) -> list[dict[str, Any]]:
    base = ("--tensors", files / "w.safetensors", "quant.mlp_sigmas=12.85", "quant.keep_below=0")
    code, out, err = golf(capsys, "lab", *base, *words, "--json")
    assert code == 0, err
    points: list[dict[str, Any]] = json.loads(out)["points"]
    return points


def test_what_each_rule_is_worth(capsys: Capture, files: Path) -> None:
    seen = ("--hessians", files / "h0.safetensors", "--held-out", files / "h1.safetensors")
    points = lab(capsys, files, *seen, "--formats", "int6,int5", "--codecs", "rans,lzma")
    assert {point["rule"] for point in points} == {rule for rule in RULES if "fisher" not in rule}
    assert len(points) == 2 * (len(RULES) - 2) * 2
    error = {(p["format"], p["rule"]): p["output_error"] for p in points}
    for form in ("int6", "int5"):
        order = ["nearest", "gptq", "trellis4"]
        found = [error[form, rule] for rule in order]
        assert found == sorted(found, reverse=True) and found[0] > 1.3 * found[1]
        assert error[form, "columns+trellis8"] < error[form, "columns"] < error[form, "nearest"]
    assert error["int6", "gptq"] < 0.5 * error["int5", "gptq"]
    by_codec = {(p["rule"], p["codec"]): p["model_bytes"] for p in points if p["format"] == "int6"}
    assert all(
        size < by_codec[rule, "lzma"] for (rule, by), size in by_codec.items() if by == "rans"
    )


def test_formats_of_every_kind(capsys: Capture, files: Path) -> None:
    """Scales of groups cost bytes and lose less; a rule that a format has not is left out."""
    words = ("--hessians", files / "h0.safetensors", "--rules", "nearest,gptq,columns")
    forms = "int4,int4:8,int4:tensor,int4:8:log8,fp8"
    points = lab(capsys, files, *words, "--formats", forms, "quant.mlp_sigmas=0")
    found = {(p["format"], p["rule"]): p for p in points}
    grouped = {(form, rule) for form in forms.split(",")[1:4] for rule in ("nearest", "gptq")}
    plain = {("int4", rule) for rule in ("nearest", "gptq", "columns")}
    assert set(found) == plain | grouped | {("fp8", "nearest")}
    for rule in ("nearest", "gptq"):
        forms = ("int4:8", "int4", "int4:tensor")
        lost = [found[form, rule]["output_error"] for form in forms]
        size = [found[form, rule]["model_bytes"] for form in forms]
        assert lost == sorted(lost) and size == sorted(size, reverse=True)
        assert found["int4:8:log8", rule]["model_bytes"] < found["int4:8", rule]["model_bytes"]
        assert found["int4:8", "gptq"]["output_error"] < found["int4:8", "nearest"]["output_error"]


def test_fisher_steps_are_of_as_many_bytes(capsys: Capture, files: Path, tmp_path: Path) -> None:
    """Whatever unit Fisher weights have, a scale of 1 is that of SDClip's bytes."""
    held = load_file(files / "h0.safetensors")
    worth = {"a": np.exp2(normal(7, 0, (128,)) * 2), "b": np.full(64, 0.3)}
    save_file(
        held | {f"{n}.fisher": 1e-9 * w for n, w in worth.items()}, tmp_path / "f.safetensors"
    )
    words = ("--hessians", tmp_path / "f.safetensors", "--formats", "int5")
    rules = ("gptq", "fisher", "fisher+trellis8")
    found = {p["rule"]: p for p in lab(capsys, files, *words, "--rules", ",".join(rules))}
    assert 0 <= found["gptq"]["model_bytes"] - found["fisher"]["model_bytes"] <= 2000
    assert found["fisher"]["step_scale"] == found["fisher+trellis8"]["step_scale"] < 0.1
    (twice,) = lab(capsys, files, *words, "--rules", "fisher", "--scales", "2")
    assert twice["step_scale"] == 2 * found["fisher"]["step_scale"]


def test_held_out_errors_are_larger_than_seen_ones(capsys: Capture, files: Path) -> None:
    words = ("--hessians", files / "h0.safetensors", "--formats", "int5", "--rules", "gptq")
    (seen,) = lab(capsys, files, *words)
    (unseen,) = lab(capsys, files, *words, "--held-out", files / "h1.safetensors")
    assert seen["output_error"] < unseen["output_error"]
    assert seen["model_bytes"] == unseen["model_bytes"]


def test_without_hessians_weights_are_compared(capsys: Capture, files: Path) -> None:
    points = lab(capsys, files, "--formats", "int6", "--scales", "0.7,1.4")
    plain = {"nearest", "gptq", "trellis4", "trellis8", "tensor"}
    assert {point["rule"] for point in points} == plain
    found = {(p["rule"], p["step_scale"]): p for p in points}
    assert found["gptq", 0.7]["output_error"] == found["nearest", 0.7]["output_error"]
    step = 0.7 * 12.85 / 31  # uniform errors: a twelfth of its square
    assert found["nearest", 0.7]["output_error"] == pytest.approx(step**2 / 12, rel=0.05)
    assert found["nearest", 0.7]["bits"] > found["nearest", 1.4]["bits"] + 0.8


def test_the_table_for_people(capsys: Capture, files: Path) -> None:
    words = ("--tensors", files / "w.safetensors", "--rules", "nearest", "--formats", "int8")
    code, out, _ = golf(capsys, "lab", *words)
    head, _, line = out.strip().split("\n")
    assert code == 0 and head.startswith("| format | rule |") and "| int8 | nearest | 1 |" in line


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--rules", "gptqq"), "rule 'gptqq' is unknown; choose from nearest"),
        (("--rules", "columns"), "rule columns needs --hessians"),
        (("--rules", "fisher"), "rule fisher needs --hessians with Fisher weights"),
        (("--formats", "int9"), "format 'int9' is unknown"),
        (("--formats", "int6:half"), "'half' is no row, tensor or number of columns"),
        (("--formats", "int6:8:log8:8"), "is unknown"),
        (("--formats", ","), "name at least one format"),
        (("--codecs", "zip"), "codec 'zip' is unknown"),
        (("--scales", "a"), "numbers with commas"),
        (("--data", "x"), "given together"),
        (("--data", "x", "--tokenizer", "y"), "tensors of no recipe have none"),
        (("--plot", "nowhere/x.png"), "there is no folder nowhere"),
    ],
)
def test_what_a_user_can_get_wrong(
    capsys: Capture, files: Path, words: tuple[str, ...], sentence: str
) -> None:
    code, _, err = golf(capsys, "lab", "--tensors", files / "w.safetensors", *words)
    assert code == 2 and sentence in err and "Traceback" not in err


def test_a_picture_needs_matplotlib(
    capsys: Capture, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ("--tensors", files / "w.safetensors", "--plot", tmp_path / "x.png")
    code, _, err = golf(capsys, "lab", *words)
    assert code == 2 and "pip install -e '.[plot]'" in err


def test_a_picture_has_a_line_a_rule(
    capsys: Capture, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a pyplot of ours: the real one is in no environment that tests need."""
    drawn: list[tuple[Any, ...]] = []

    class Axis:
        def plot(self, *series: Any, **words: Any) -> None:
            drawn.append((words["label"], *map(len, series)))

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **words: None

    figure = types.SimpleNamespace(
        tight_layout=lambda: None, savefig=lambda path: Path(path).write_bytes(b"png")
    )
    fake = types.SimpleNamespace(
        subplots=lambda *args, **words: (figure, [[Axis()]]), close=lambda figure: None
    )
    monkeypatch.setattr("tools.lab._pyplot", lambda: fake)
    words = ("--formats", "int6,int5", "--rules", "nearest,gptq", "--codecs", "rans")
    lab(capsys, files, *words, "--plot", tmp_path / "x.png")
    assert drawn == [("gptq rans", 2, 2), ("nearest rans", 2, 2)]
    assert (tmp_path / "x.png").exists()


def test_every_file_is_scored(capsys: Capture, text: Any, tmp_path: Path) -> None:
    from core.arch.params import init_params
    from core.train.run_folder import RunFolder

    recipe = text.recipe("arch.num_layers=1")
    folder = RunFolder(tmp_path, "one")
    folder.create(recipe)
    folder.save_weights(init_params(recipe.arch, 1))
    words = ("--data", text.shards, "--tokenizer", text.model, "--limit-tokens", "500")
    code, out, err = golf(
        capsys, "lab", folder.path, *words, "--formats", "int8", "--rules", "nearest", "--json",
        "--backend", "torch", "--code-bytes", "0", "quant.keep_below=0",
    )  # fmt: skip
    assert code == 0, err
    (point,) = json.loads(out)["points"]
    assert 2 < point["val_bpb"] < 20
