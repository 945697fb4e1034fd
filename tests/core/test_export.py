"""An export: whole or absent, its counts and hashes true, its bytes the documents' own."""

import hashlib
import json

import numpy as np
import pytest

from core.data.decoding import check_decoding
from core.data.documents import read_documents
from core.data.export import MANIFEST, check_manifest, read_manifest, tokenize
from core.data.info import data_info
from core.data.shards import open_sidecar, open_split
from core.data.token_bytes import byte_table
from core.data.tokenizer import open_tokenizer
from tests.core.tiny_models import CORPUS, KEEP, stream, tiny
from tests.shared_data import FINEWEB, OFFICIAL, shared

DOCUMENTS = ["the cat\r\n\r\nof a house", "   ", "", "  ﬁne 😀  ", *CORPUS]
VAL = DOCUMENTS[:6]


def _export(folder, **changes):
    return tokenize(DOCUMENTS, tiny(), folder, **{"val_docs": 6, "shard_tokens": 50, **changes})


def _all(tokens):
    return tokens.slice(0, len(tokens))


def test_the_splits_hold_the_documents_in_order(tmp_path):
    _export(tmp_path / "data")
    for split, texts in (("val", VAL), ("train", DOCUMENTS[6:])):
        expected = _all(stream(tiny(), *texts))
        found = open_split(tmp_path / "data", split)
        assert np.array_equal(_all(found), expected)
        check_decoding(byte_table(tiny()), tiny(), found)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_sidecar_sums_to_every_document(tmp_path):
    _export(tmp_path / "data")
    tokens = _all(open_split(tmp_path / "data", "val"))
    sidecar = open_sidecar(tmp_path / "data")
    assert sidecar is not None
    starts = np.flatnonzero(tokens == tiny().bos_id)
    sums = np.add.reduceat(_all(sidecar).astype(np.int64), starts)
    assert sums.tolist() == [len(text.encode()) for text in VAL]
    assert _all(sidecar)[starts].tolist() == [0, 3, 0, 0, 0, 0]  # only blanks without a token


def test_the_manifest_is_true(tmp_path):
    folder = tmp_path / "data"
    manifest = _export(folder)
    assert manifest == read_manifest(folder) == json.loads((folder / MANIFEST).read_text())
    assert (manifest["version"], manifest["text"]) == (2, "original documents")
    assert manifest["tokenizer"]["sha256"] == tiny().sha256
    assert manifest["tokenizer"]["vocab_size"] == tiny().vocab_size
    files = {path.name: path.read_bytes() for path in folder.glob("*.bin")}
    assert len(files) > 6
    assert manifest["files"] == {n: hashlib.sha256(b).hexdigest() for n, b in files.items()}
    for split, texts in (("val", VAL), ("train", DOCUMENTS[6:])):
        counts = manifest["splits"][split]
        decoded = [tiny().decode(tiny().encode_ids(text)) for text in texts]
        chain = bytes(32)
        for text in texts:
            chain = hashlib.sha256(chain + hashlib.sha256(text.encode()).digest()).digest()
        assert counts == {
            "documents": len(texts),
            "tokens": len(open_split(folder, split)),
            "raw_bytes": sum(len(text.encode()) for text in texts),
            "normalised_bytes": sum(len(text.encode()) for text in decoded),
            "changed_documents": sum(d != t for d, t in zip(decoded, texts, strict=True)),
            "documents_sha256": chain.hex(),
        }


def test_info_of_a_folder_and_of_a_shard(tmp_path):
    folder = tmp_path / "data"
    manifest = _export(folder, shard_tokens=1000)
    info = data_info(folder, tiny())
    assert sorted(info) == ["train", "val"]
    for split, raw in (("train", None), ("val", sum(len(text.encode()) for text in VAL))):
        counts, name = manifest["splits"][split], f"fineweb_{split}_000000.bin"
        assert info[split] == {
            "tokens": counts["tokens"],
            "documents": counts["documents"],
            "bytes_reference": counts["normalised_bytes"],
            "bytes_raw": raw,
            "sha256": hashlib.sha256(
                b"".join(path.read_bytes() for path in sorted(folder.glob(f"fineweb_{split}_0*")))
            ).hexdigest(),
        }
        if split == "val":
            assert data_info(folder / name, tiny()) == info[split]


def test_info_does_not_depend_on_shards(tmp_path, monkeypatch):
    _export(tmp_path / "one", shard_tokens=100_000)
    _export(tmp_path / "many", shard_tokens=7)
    one = data_info(tmp_path / "one", tiny())
    monkeypatch.setattr("core.data.info.BLOCK_TOKENS", 5)
    many = data_info(tmp_path / "many", tiny())
    for split in ("train", "val"):
        assert one[split].pop("sha256") != many[split].pop("sha256")
    assert one == many


def test_info_refuses_what_is_not_token_data(tmp_path):
    _export(tmp_path / "data", shard_tokens=1000)
    with pytest.raises(ValueError, match="a byte sidecar"):
        data_info(tmp_path / "data" / "fineweb_val_bytes_000000.bin", tiny())
    with pytest.raises(ValueError, match="no train data"):
        data_info(tmp_path, tiny())
    with pytest.raises(ValueError, match="not belong together"):
        data_info(tmp_path / "data", tiny(model_type="unigram", vocab_size=300))


def test_a_wrong_tokenizer_for_the_shards_is_refused_by_hash(tmp_path):
    manifest = _export(tmp_path / "data")
    check_manifest(manifest, tiny())
    with pytest.raises(
        ValueError, match="wrong tokenizer for the shards: they were made with tiny"
    ):
        check_manifest(manifest, tiny(**KEEP))  # of the same name and size
    with pytest.raises(ValueError, match="names no tokenizer"):
        check_manifest({"version": "10B"}, tiny())


def test_manifests_that_cannot_be_read(tmp_path):
    assert read_manifest(tmp_path) is None
    for content, message in ((b"{", "expected JSON"), (b"[1]", "expected an object, found list")):
        (tmp_path / MANIFEST).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_manifest(tmp_path)


def test_an_exception_midway_leaves_nothing(tmp_path):
    def broken():
        yield from DOCUMENTS[:20]
        raise ValueError("x.jsonl:21: expected one JSON object a line")

    with pytest.raises(ValueError, match=r"x\.jsonl:21"):
        tokenize(broken(), tiny(), tmp_path / "data", val_docs=6, shard_tokens=10)
    assert list(tmp_path.iterdir()) == []


REFUSED = [
    ([], {}, "no documents to tokenize"),
    (["a"], {"val_docs": -1}, "val_docs -1"),
    (["a"], {"shard_tokens": 0}, "shard_tokens 0"),
    (["fine", "a" + " " * 65_536], {}, "validation document 1: .* more than its last tokens"),
    (["", " " * 65_536], {}, "validation document 1: a document of 65536 bytes in 1 tokens"),
]


@pytest.mark.parametrize(("documents", "changes", "message"), REFUSED)
def test_what_cannot_be_exported_says_why(tmp_path, documents, changes, message):
    with pytest.raises(ValueError, match=message):
        tokenize(documents, tiny(), tmp_path / "data", **{"val_docs": 2, **changes})
    assert list(tmp_path.iterdir()) == []


def test_an_existing_export_is_left_alone(tmp_path):
    _export(tmp_path)  # an empty folder may exist
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        _export(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_long_run_of_blanks_spills_and_stays_exact(tmp_path):
    text = "the" + "\n" * 70_000 + "cat of a house"
    tokenize([text], tiny(), tmp_path / "data", val_docs=1)
    sidecar = open_sidecar(tmp_path / "data")
    assert sidecar is not None
    assert _all(sidecar).sum(dtype=np.int64) == len(text)
    assert _all(sidecar).max() == 65_535


@pytest.mark.parametrize(
    ("val_docs", "present"), [(0, ["train"]), (99, ["val"]), (1, ["train", "val"])]
)
def test_a_split_without_documents_has_no_files(tmp_path, val_docs, present):
    _export(tmp_path / "data", val_docs=val_docs)
    assert sorted(data_info(tmp_path / "data", tiny())) == present


def test_real_documents_keep_their_bytes(tmp_path):
    tokenizer = open_tokenizer(shared(OFFICIAL))
    documents = list(read_documents([shared(FINEWEB)]))
    manifest = tokenize(documents, tokenizer, tmp_path / "data", val_docs=100, shard_tokens=50_000)
    info = data_info(tmp_path / "data", tokenizer)
    assert info["val"]["bytes_raw"] == sum(len(text.encode()) for text in documents[:100])
    for split in ("train", "val"):
        assert info[split]["bytes_reference"] == manifest["splits"][split]["normalised_bytes"]
