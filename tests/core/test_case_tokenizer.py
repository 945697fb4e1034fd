"""Transformed text end to end: the bytes of the documents, whatever the model in it does."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.case import CONTROLS, encode_case
from core.data.case_tokenizer import CaseTokenizer
from core.data.decoding import check_decoding
from core.data.documents import read_documents
from core.data.export import check_manifest, read_manifest, retokenize, tokenize
from core.data.info import data_info
from core.data.pieces import Piece, Tokenizer
from core.data.shards import TokenStream, open_sidecar, open_split
from core.data.survey import survey
from core.data.token_bytes import byte_table, check_table
from core.data.tokenizer import (
    LOSSLESS_SETTINGS,
    SentencePieceTokenizer,
    open_tokenizer,
    tokenizer_of,
    train_case_tokenizer,
)
from core.data.verify import verify
from tests.core.tiny_models import CORPUS, stream, tiny
from tests.shared_data import CASEOPS, WEBGOV, shared

CASED = [f"{text.title() if i % 2 else text.upper()} {i}" for i, text in enumerate(CORPUS)]
ODD = [
    "The CAT of iPhone McDonald A",
    " Leading NASA",
    "\ue001 \ue004\ue002The\ue004",
    "\ue004\ue004\ue004A \ue004",
    "",
    "ÉÀ ǅ Ωm 😀\r\n\tX",
]
LETTERS = st.sampled_from([*"aAbBtThHeE", *CONTROLS, " ", "é", "É", "\n", "😀"])


@pytest.fixture(scope="module", params=["task", "lossless"])
def case(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("case") / "case.model"
    settings = LOSSLESS_SETTINGS if request.param == "lossless" else {}
    return train_case_tokenizer(CASED, 380, path, **settings)


@pytest.fixture(scope="module")
def lossless(tmp_path_factory):
    path = tmp_path_factory.mktemp("lossless") / "case.model"
    return train_case_tokenizer(CASED, 380, path, **LOSSLESS_SETTINGS)


def total(texts):
    return sum(len(text.encode()) for text in texts)


def test_a_model_with_the_controls_is_opened_as_one(case, tmp_path):
    assert [piece.text for piece in case.pieces()[4:8]] == list(CONTROLS)
    path = tmp_path / "x.model"
    path.write_bytes(case.model)
    found = open_tokenizer(path)
    assert type(found) is CaseTokenizer and found.transform == "lossless_caps_caseops_v1"
    assert (found.sha256, found.vocab_size, found.bos_id) == (case.sha256, case.vocab_size, 1)
    assert type(tokenizer_of("x", tiny(user_defined_symbols="\ue001").model)) is (
        SentencePieceTokenizer
    )


def test_a_model_that_cannot_hold_it_is_refused():
    with pytest.raises(ValueError, match="no symbols of it.*`golf tokenizer train --case`"):
        CaseTokenizer(tiny())
    with pytest.raises(ValueError, match="join a control"):
        CaseTokenizer(tiny(user_defined_symbols=",".join([*CONTROLS, "\ue001x"])))


def test_the_bytes_of_any_text_are_its_own(case):
    for text in [*ODD, *CASED]:
        ids, counts = case.encode(text)
        assert np.array_equal(ids, case.encode_ids(text))
        assert counts.min(initial=0) >= 0
        assert counts.sum() == (len(text.encode()) if len(ids) else 0)


@given(st.text(LETTERS))
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back_and_counts_by_table_and_sidecar(lossless, text):
    table, bos = byte_table(lossless), [lossless.bos_id]
    ids, counts = lossless.encode(text)
    assert lossless.decode(ids) == text
    document = np.array([*bos, *ids.tolist()], np.uint16)
    assert counts.sum() == table.count_run(document).sum() == len(text.encode())
    pieces = lossless.pieces()
    at = [i for i, t in enumerate(ids.tolist()) if pieces[t].kind == "user_defined"]
    literals = sum(text.count(control) for control in CONTROLS)
    assert sorted(counts[at].tolist(), reverse=True)[:literals] == [3] * literals
    assert counts[at].sum() == 3 * literals


def test_a_letter_is_one_byte_and_a_control_none(lossless):
    ids, counts = lossless.encode("The\ue003 NASA")
    pieces = lossless.pieces()
    named = [(pieces[t].text, n) for t, n in zip(ids.tolist(), counts.tolist(), strict=True)]
    assert named[0] == ("\ue001", 0) and ("\ue004", 0) in named and ("\ue003", 3) in named
    assert sum(n for _, n in named) == 3 + 3 + 5


def test_the_table_needs_a_sidecar_and_agrees_with_the_decoding(case):
    table = byte_table(case)
    assert table.needs_sidecar
    with pytest.raises(ValueError, match="only a sidecar tells.*`golf data tokenize`"):
        check_table(table, case)
    check_table(table, case, sidecar=True)
    for block_tokens in (3, 16, 1 << 20):
        check_decoding(table, case, stream(case, *ODD, *CASED), block_tokens=block_tokens)
    whole = stream(case, *ODD).slice(0, len(stream(case, *ODD)))
    for start in range(len(whole)):
        check_decoding(table, case, TokenStream([whole[start:]]), block_tokens=3)


def test_an_export_has_the_documents_bytes(lossless, tmp_path, monkeypatch):
    texts = [*ODD, *CASED]
    manifest = tokenize(texts, lossless, tmp_path / "data", val_docs=9, shard_tokens=50)
    assert manifest["tokenizer"]["transform"] == lossless.transform
    raw = total(texts[:9])
    for block_tokens in (1 << 20, 5, 2, 1):
        monkeypatch.setattr("core.data.info.BLOCK_TOKENS", block_tokens)
        info = data_info(tmp_path / "data", lossless)
        assert info["val"]["bytes_reference"] == info["val"]["bytes_raw"] == raw
        assert info["train"]["bytes_reference"] == total(texts[9:])
    assert manifest["splits"]["val"]["changed_documents"] == 0
    findings = verify(tmp_path / "data", lossless)
    assert {f.status for f in findings} == {"PASS"}, findings


def test_with_the_task_s_normalization_the_sidecar_still_has_them(tmp_path):
    tokenizer = train_case_tokenizer(CASED, 380, tmp_path / "x.model")
    texts = [*ODD, "ﬁne  Text\n", *CASED]
    manifest = tokenize(texts, tokenizer, tmp_path / "data", val_docs=9)
    info, counts = data_info(tmp_path / "data", tokenizer)["val"], manifest["splits"]["val"]
    assert info["bytes_raw"] == counts["raw_bytes"] == total(texts[:9])
    assert info["bytes_reference"] == counts["normalised_bytes"] < info["bytes_raw"]
    findings = verify(tmp_path / "data", tokenizer)
    assert {f.status for f in findings} == {"PASS"}, findings
    less = info["bytes_reference"] - info["bytes_raw"]
    assert f"a difference of {less}" in " ".join(f.evidence for f in findings)


def test_shards_of_untransformed_text_are_not_taken_for_it(lossless, tmp_path):
    tokenize(CASED, lossless.inner, tmp_path / "plain", val_docs=3)
    manifest = read_manifest(tmp_path / "plain")
    assert manifest is not None
    with pytest.raises(ValueError, match="under the transform None"):
        check_manifest(manifest, lossless)
    failed = {f.rule for f in verify(tmp_path / "plain", lossless) if f.status == "FAIL"}
    assert "tokenizer" in failed


def test_transformed_shards_give_their_text_to_another_tokenizer(lossless, tmp_path):
    texts = [*ODD, *CASED]
    tokenize(texts, lossless, tmp_path / "case", val_docs=9)
    retokenize(tmp_path / "case", lossless, tiny(), tmp_path / "plain")
    found = open_split(tmp_path / "plain", "val")
    expected = stream(tiny(), *texts[:9])
    assert np.array_equal(found.slice(0, len(found)), expected.slice(0, len(expected)))
    with pytest.raises(ValueError, match="a sidecar of the original documents alone"):
        retokenize(tmp_path / "plain", tiny(), lossless, tmp_path / "again")


def test_a_survey_of_transformed_text(lossless):
    found = survey(lossless, [*ODD, *CASED])
    assert not found.lost_documents and not found.uncounted
    assert found.decoded_bytes == found.text_bytes == total([*ODD, *CASED])


class Words(Tokenizer):
    """A tokenizer that nobody here has heard of: words of a fixed list, each with its space."""

    def __init__(self, name: str, model: bytes) -> None:
        words = json.loads(model)
        self.name, self.model, self.sha256 = name, model, f"{len(model):064}"
        self._pieces = [Piece("<unk>", "unknown"), Piece("<s>", "control")]
        self._pieces += [Piece(word.replace(" ", "\u2581"), "normal") for word in words]
        self.vocab_size, self.bos_id, self.unk_id = len(self._pieces), 1, 0
        self._ids = {word: i for i, word in enumerate(words, 2)}

    def encode(self, text):
        words = [part for part in text.replace(" ", "\0 ").split("\0") if part]
        counts = np.array([len(word.encode()) for word in words], np.int64)
        return np.array([self._ids[word] for word in words], np.uint16), counts

    def decode(self, ids):
        kept = [self._pieces[i].text for i in np.asarray(ids).tolist() if i > 1]
        return "".join(kept).replace("\u2581", " ")

    def pieces(self):
        return self._pieces


@pytest.mark.parametrize("workers", [1, 2])
def test_any_tokenizer_joins_by_three_functions(tmp_path, workers):
    from core.data.export import tokenize_files

    words = ["the", " ", " the", " cat", "é", " é"]
    mine = Words("words", json.dumps(words).encode())
    texts = ["the cat", " the é é", "the  cat", "é cat"]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    check_table(byte_table(mine), mine)
    tokenize_files([tmp_path / "x.jsonl"], mine, tmp_path / "data", val_docs=2, workers=workers)
    info = data_info(tmp_path / "data", mine)
    assert info["val"]["bytes_reference"] == info["val"]["bytes_raw"] == total(texts[:2])
    assert info["train"]["bytes_reference"] == total(texts[2:])
    assert {f.status for f in verify(tmp_path / "data", mine)} == {"PASS"}


def test_the_published_model_on_real_documents(tmp_path):
    """Its normalization is the task's: blanks become one, and the sidecar keeps their bytes."""
    tokenizer = open_tokenizer(shared(CASEOPS))
    assert type(tokenizer) is CaseTokenizer
    texts = list(read_documents([shared(WEBGOV)]))[:100]
    manifest = tokenize(texts, tokenizer, tmp_path / "data", val_docs=100)
    counts = manifest["splits"]["val"]
    sidecar = open_sidecar(tmp_path / "data")
    assert sidecar is not None
    assert sidecar.slice(0, len(sidecar)).sum(dtype=np.int64) == counts["raw_bytes"] == total(texts)
    info = data_info(tmp_path / "data", tokenizer)["val"]
    assert info["bytes_reference"] == counts["normalised_bytes"] < counts["raw_bytes"]
    assert all(len(encode_case(text)) >= len(text) for text in texts)
