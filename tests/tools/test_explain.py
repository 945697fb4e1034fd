"""The table of techniques covers every field, tells the truth about defaults, and is in docs."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from core.arch.spec import ModelSpec
from core.train.recipe import Optim, Recipe
from tests.parity.cases import CASES, recipe_of
from tools.explain import SECTIONS, TECHNIQUES, about, table
from tools.explaining.technique import Technique
from tools.main import main

DOCS = Path(__file__).resolve().parents[2] / "docs" / "techniques.md"
PLAIN = {  # fields that are sizes or settings of what every model and optimizer has
    *("vocab_size", "num_layers", "model_dim", "num_heads", "num_kv_heads", "mlp_dim", "seq_len"),
    *("norm_eps", "matrix_lr", "embed_lr", "head_lr", "scalar_lr", "momentum", "momentum_start"),
    *("path", "tokenizer", "train_batch_tokens", "micro_batch"),
    *("momentum_warmup_steps", "ns_precision", "beta1", "beta2", "adam_eps"),
}


def test_every_field_is_explained() -> None:
    for section in ("arch", "optim", "qat", "data"):
        told = {name for t in TECHNIQUES if t.section == section for name in t.fields}
        names = {field.name for field in fields(SECTIONS[section])}
        assert told <= names, told - names
        assert names - told - PLAIN == set(), f"add a row to tools/explaining: {names - told}"


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda t: t.name)
def test_a_row_is_true(technique: Technique) -> None:
    recipe = Recipe()
    section = getattr(recipe, technique.section) if technique.section else recipe
    off = replace(section, **{technique.fields[0]: technique.off})
    assert getattr(off, technique.fields[0]) == technique.off
    if "/" in technique.case:
        assert (DOCS.parents[1] / technique.case).is_file()
        return
    assert technique.case in CASES, "a case of the ladder tests it"
    if technique.section != "schedule" and technique.case != "baseline":
        held = getattr(recipe_of(technique.case), technique.section)
        value = getattr(held, technique.fields[0])
        assert value != technique.off, "the case has it switched on"


def test_docs_have_the_table() -> None:
    assert table() in DOCS.read_text(encoding="utf-8"), "golf explain --table prints it"


def test_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "arch.xsa_last", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["techniques"]
    assert row["fields"] == ["arch.xsa_last"] and row["default"] == "0" == row["off"]
    assert "y_h" in row["formula"] and row["test"] == "pytest tests/parity -k xsa"
    assert len(about("routing")) == 3
    assert main(["explain", "xsa_lost"]) == 2
    assert "did you mean 'xsa_last'" in capsys.readouterr().err
    assert main(["explain"]) == 0
    assert capsys.readouterr().out == table()


def test_defaults_are_off_or_the_baselines() -> None:
    """What is on by default is what the naive baseline has."""
    on = {t.name for t in TECHNIQUES if t.section == "arch" and t.off != _default(t)}
    assert on == {"U-Net skips", "QK gain", "tied embeddings", "logit softcap"}
    assert all(t.off == _default(t) for t in TECHNIQUES if t.section == "optim")


def _default(technique: Technique) -> object:
    kind = {"arch": ModelSpec, "optim": Optim}[technique.section]
    return getattr(kind(), technique.fields[0])
