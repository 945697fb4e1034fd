"""Shards to shards of another tokenizer: the decoded text, document by document, and labelled."""

import numpy as np
import pytest

from core.data import runs
from core.data.decoding import check_decoding
from core.data.export import read_manifest, retokenize, tokenize
from core.data.runs import document_hashes, document_runs
from core.data.shards import ShardWriter, TokenStream, open_split, sidecar_files
from core.data.token_bytes import byte_table
from core.data.unfinished import unfinished_folder
from tests.core.test_streaming import contents
from tests.core.tiny_models import CORPUS, KEEP, stream, tiny

DOCUMENTS = ["the  cat", "", "é 😀", *CORPUS, "", "ﬁne of a house"]
OTHER = {"vocab_size": 340}


def _all(tokens):
    return tokens.slice(0, len(tokens))


def _source(folder, **settings):
    tokenize(DOCUMENTS, tiny(**settings), folder, val_docs=5, shard_tokens=50)
    return folder


def _decoded(texts):
    return [tiny().decode(tiny().encode_ids(text)) for text in texts]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("run_tokens", [1, 40, 1 << 19])
def test_the_decoded_text_is_tokenized_and_the_splits_stay(
    tmp_path, monkeypatch, workers, run_tokens
):
    monkeypatch.setattr(runs, "RUN_TOKENS", run_tokens)
    heard = []
    manifest = retokenize(
        _source(tmp_path / "old"),
        tiny(),
        tiny(**OTHER),
        tmp_path / "new",
        shard_tokens=70,
        workers=workers,
        progress=lambda *news: heard.append(news),
    )
    for split, texts in (("val", DOCUMENTS[:5]), ("train", DOCUMENTS[5:])):
        found = open_split(tmp_path / "new", split)
        assert np.array_equal(_all(found), _all(stream(tiny(**OTHER), *_decoded(texts))))
        check_decoding(byte_table(tiny(**OTHER)), tiny(**OTHER), found)
        assert manifest["splits"][split]["documents"] == len(texts)
    assert heard == sorted(heard)
    assert heard[-1][1] == len(DOCUMENTS)


def test_it_is_labelled_and_has_no_raw_bytes(tmp_path):
    retokenize(_source(tmp_path / "old"), tiny(), tiny(**OTHER), tmp_path / "new")
    manifest = read_manifest(tmp_path / "new")
    assert manifest is not None
    assert manifest["text"] == "decoded text"
    assert manifest["tokenizer"]["sha256"] == tiny(**OTHER).sha256
    assert manifest["decoded_with"]["sha256"] == tiny().sha256
    assert sidecar_files(tmp_path / "new") == []
    for split, texts in (("val", DOCUMENTS[:5]), ("train", DOCUMENTS[5:])):
        counts = manifest["splits"][split]
        assert counts["raw_bytes"] is None
        assert counts["decoded_bytes"] == sum(len(t.encode()) for t in _decoded(texts))


@pytest.mark.parametrize(("split", "kept"), [("val", 5), ("train", len(DOCUMENTS) - 5)])
def test_one_split_alone(tmp_path, split, kept):
    source = _source(tmp_path / "old")
    for path in source.glob("fineweb_*"):
        if not path.name.startswith(f"fineweb_{split}_0"):
            path.unlink()
    manifest = retokenize(source, tiny(), tiny(**OTHER), tmp_path / "new")
    assert manifest["splits"][split]["documents"] == kept
    assert sum(found["documents"] for found in manifest["splits"].values()) == kept


def test_an_interrupted_retokenization_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUN_TOKENS", 40)
    monkeypatch.setattr("core.data.unfinished.SAVE_BYTES", 300)
    source = _source(tmp_path / "old")
    retokenize(source, tiny(), tiny(**OTHER), tmp_path / "whole", shard_tokens=70)

    def progress(read_bytes, documents):
        if documents > 20:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            words = (source, tiny(), tiny(**OTHER), tmp_path / "new")
            retokenize(*words, shard_tokens=70, progress=progress)
        assert (unfinished_folder(tmp_path / "new") / "progress.json").exists()
    retokenize(*words, shard_tokens=70)
    assert contents(tmp_path / "new") == contents(tmp_path / "whole")


def _shards(folder, tokens):
    folder.mkdir()
    with ShardWriter(folder, "fineweb_train") as writer:
        writer.write(np.array(tokens, np.uint16))
    return folder


def test_what_cannot_be_retokenized_says_why(tmp_path):
    source = _source(tmp_path / "old")
    marked, lossy = tiny(user_defined_symbols="\ue001"), tiny(byte_fallback=False)
    unknown = _shards(tmp_path / "unknown", [lossy.bos_id, lossy.unk_id])
    beyond = _shards(tmp_path / "beyond", [tiny().bos_id, 999])
    cases = [
        (source, tiny(**KEEP), "wrong tokenizer for the shards"),
        (tmp_path, tiny(), "no train data: looked for"),
        (_source(tmp_path / "marked", user_defined_symbols="\ue001"), marked, "was transformed"),
        (unknown, lossy, "document 0 of the shards holds unknown text"),
        (beyond, tiny(), "token 999, but the vocabulary has 380"),
    ]
    for folder, old, message in cases:
        with pytest.raises(ValueError, match=message):
            retokenize(folder, old, tiny(**OTHER), tmp_path / "new")
        assert not (tmp_path / "new").exists()


def test_data_that_begins_inside_a_document_keeps_the_rest_of_it(tmp_path):
    ids = _all(stream(tiny(), "the cat of a house", "", "its door"))
    folder = _shards(tmp_path / "old", ids[3:])
    found = list(document_runs(folder, "train", tiny(), run_tokens=2))
    assert np.array_equal(np.concatenate([run.tokens for run in found]), ids[3:])
    assert sum(run.documents for run in found) == 3
    assert [run.tokens[0] for run in found[1:]] == [tiny().bos_id] * (len(found) - 1)


def test_tokens_without_documents_do_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "LONGEST_TOKENS", 50)
    folder = _shards(tmp_path / "old", [7] * 80)
    with pytest.raises(ValueError, match="tokens in which no document begins"):
        list(document_runs(folder, "train", tiny(), run_tokens=10))


@pytest.mark.parametrize("block_tokens", [1, 2, 7, 1000])
def test_the_hash_of_a_document_does_not_depend_on_blocks(block_tokens):
    texts = ["the cat", "", "of", "the cat", "", "ends with nothing", ""]
    tokens = stream(tiny(), *texts)
    found = document_hashes(tokens.blocks(block_tokens), tiny().bos_id)
    hashes = np.concatenate(list(found)).tolist()
    assert len(hashes) == len(texts)
    for i, one in enumerate(texts):
        for j, other in enumerate(texts):
            assert (hashes[i] == hashes[j]) == (one == other)
    assert hashes[1] == 0
    fragment = TokenStream([_all(tokens)[2:]])
    rest = np.concatenate(list(document_hashes(fragment.blocks(block_tokens), tiny().bos_id)))
    assert rest.tolist()[1:] == hashes[1:]
    assert [part.tolist() for part in document_hashes([], 1)] == [[]]
