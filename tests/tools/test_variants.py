"""Which files of a listing a variant is: pure functions of what strangers wrote."""

from __future__ import annotations

import pytest

from tests.tools.fake_hub import COMMIT
from tests.tools.published_data import (
    MODEL,
    SIDECAR,
    VAL,
    train,
)
from tools.published.variants import Entry, Listing, Source, choose, entries_below

OID = "0" * 64


def listing(*paths: str) -> Listing:
    source = Source()
    rows = [(f"datasets/{path}", 2000, OID) for path in paths]
    return Listing(source=source, commit=COMMIT, entries=entries_below(source, rows))


def test_sidecars_are_no_validation_shards() -> None:
    choice = choose(listing(VAL, SIDECAR, train(0)), {}, "sp384")
    assert [entry.path for entry in choice.val] == [VAL]
    assert [entry.path for entry in choice.sidecars] == [SIDECAR]
    with pytest.raises(ValueError, match="no variant 'sp384', and no shards"):
        choose(listing(SIDECAR), {}, "sp384")
    with pytest.raises(ValueError, match="has no validation shards"):
        choose(listing(train(0), SIDECAR), {}, "sp384")


def test_a_number_that_is_missing() -> None:
    with pytest.raises(ValueError, match="fineweb_train_000001.bin is missing"):
        choose(listing(VAL, train(0), train(2)), {}, "sp384")


def test_names_of_variants_and_tokenizers() -> None:
    """Free names; a tokenizer only by the manifest or, for spN, by its usual name."""
    folder = "datasets/fineweb10B_sp384_caps_v1"
    there = listing(f"{folder}/fineweb_val_000000.bin", MODEL, "tokenizers/caps.model")
    for name in ("sp384_caps_v1", "fineweb10B_sp384_caps_v1"):
        choice = choose(there, {}, name)
        assert choice.folder == folder and choice.tokenizer is None
        assert f"published are tokenizers/caps.model, {MODEL}" in choice.notes[0]
    manifest = {
        "datasets": [7, {"name": "fineweb10B_sp384_caps_v1", "tokenizer_name": "caps"}],
        "tokenizers": [{"name": 1}, {"name": "caps", "path": "tokenizers/caps.model"}],
    }
    assert choose(there, manifest, "sp384_caps_v1").tokenizer == "tokenizers/caps.model"


@pytest.mark.parametrize(
    "path", ["datasets/../x.bin", "elsewhere/x.bin", "datasets//x.bin", "datasets/a\\b"]
)
def test_no_listed_path_leads_out(path: str) -> None:
    with pytest.raises(ValueError, match="no path below"):
        entries_below(Source(), [(path, 1, OID)])
    assert entries_below(Source(), [("datasets/x", 1, OID)]) == {
        "x": Entry(path="x", size_bytes=1, oid=OID)
    }
