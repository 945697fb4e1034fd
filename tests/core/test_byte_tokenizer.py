"""byte260: every text comes back, every byte is counted, and only its own file is taken for it."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.byte_tokenizer import ByteTokenizer, canonical_file
from core.data.decoding import check_decoding
from core.data.export import tokenize
from core.data.info import data_info
from core.data.shards import TokenStream, open_sidecar, open_split
from core.data.survey import kinds, survey, unused
from core.data.token_bytes import byte_table, check_table
from core.data.tokenizer import open_tokenizer
from core.data.verify import verify
from tests.core.tiny_models import CORPUS, stream

ODD = ["", " ", "  a\r\n", "\ue001 \u2581 é 😀", "a\x00\x7f", "\ufeffﬁ", "x" * 5000]
BYTES = ByteTokenizer()
APART = [f"{text} {i}" for i, text in enumerate(CORPUS)]


def test_the_layout_is_the_published_one():
    assert (BYTES.vocab_size, BYTES.bos_id, BYTES.unk_id) == (260, 1, 3)
    ids, counts = BYTES.encode("Aé")
    assert ids.tolist() == [4 + 65, 4 + 0xC3, 4 + 0xA9] and ids.dtype == np.uint16
    assert counts.tolist() == [1, 1, 1]
    assert kinds(BYTES) == {"control": 3, "unknown": 1, "byte": 256}
    fields = json.loads(canonical_file())
    assert set(fields) == {"tokenizer_type", "config", "vocab_size"}
    assert (fields["tokenizer_type"], fields["vocab_size"]) == ("pure_byte", 260)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text):
    ids, counts = BYTES.encode(text)
    assert BYTES.decode([0, 1, *ids.tolist(), 2, 3]) == text
    assert counts.sum() == len(ids) == len(text.encode())


def test_a_file_of_it_is_known_by_its_content(tmp_path):
    path = tmp_path / "any.name"
    for content in (canonical_file(), json.dumps(json.loads(canonical_file())).encode()):
        path.write_bytes(content)
        found = open_tokenizer(path)
        assert type(found) is ByteTokenizer and found.name == "any"
        assert found.sha256 == BYTES.sha256 == open_tokenizer("byte260").sha256
    assert pickle.loads(pickle.dumps(found)).sha256 == BYTES.sha256


FOREIGN = [
    (b"{", "not the JSON of a tokenizer"),
    (b"{" * 100_000, "not the JSON of a tokenizer"),
    (b'{"a":' * 10_000 + b"1", "not the JSON of a tokenizer"),
    (b"{}", "tokenizer_type None"),
    (b'{"tokenizer_type": "bpe"}', "tokenizer_type 'bpe'"),
    (b'{"tokenizer_type": "pure_byte", "vocab_size": 259}', "vocab_size 259, but byte260 has 260"),
    (b'{"tokenizer_type": "pure_byte", "config": {"byte_offset": 0}}', "config .*byte_offset"),
]


@pytest.mark.parametrize(("content", "message"), FOREIGN, ids=range(len(FOREIGN)))
def test_another_file_is_refused(tmp_path, content, message):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_tokenizer(tmp_path / "x.json")


@pytest.mark.parametrize("block_tokens", [3, 64, 1 << 20])
def test_bytes_are_checked_whatever_the_blocks(block_tokens):
    table = byte_table(BYTES)
    check_table(table, BYTES)
    assert not table.needs_sidecar and not table.leading_space.any()
    data = stream(BYTES, *ODD, *CORPUS)
    check_decoding(table, BYTES, data, block_tokens=block_tokens)
    whole = data.slice(0, len(data))
    assert table.count_run(whole).sum() == sum(len(text.encode()) for text in (*ODD, *CORPUS))
    broken = whole.copy()
    broken[np.flatnonzero(whole == 4 + 0xC3)[0]] = 4 + 0xFF
    with pytest.raises(ValueError, match=r"document 3: the table counts 15 .* parts at"):
        check_decoding(table, BYTES, TokenStream([broken]), block_tokens=1 << 20)


def test_data_may_begin_and_end_anywhere():
    table, data = byte_table(BYTES), stream(BYTES, "the 😀 cat", "  é日本", "of")
    whole = data.slice(0, len(data))
    for start in range(len(whole)):
        for stop in range(start, len(whole) + 1):
            check_decoding(table, BYTES, TokenStream([whole[start:stop]]), block_tokens=3)


def test_an_export_counts_the_documents_to_the_byte(tmp_path):
    texts = [*ODD, *APART]
    manifest = tokenize(texts, BYTES, tmp_path / "data", val_docs=9)
    info = data_info(tmp_path / "data", BYTES)
    raw = sum(len(text.encode()) for text in texts[:9])
    val = manifest["splits"]["val"]
    assert info["val"]["bytes_reference"] == info["val"]["bytes_raw"] == val["raw_bytes"] == raw
    assert val["normalised_bytes"] == raw and val["changed_documents"] == 0
    train = manifest["splits"]["train"]["raw_bytes"]
    assert info["train"]["bytes_reference"] == train == sum(len(t.encode()) for t in texts[9:])
    assert len(open_split(tmp_path / "data", "val")) == raw + 9
    findings = verify(tmp_path / "data", BYTES)
    assert {f.status for f in findings} == {"PASS"}, findings
    assert "a difference of 0" in " ".join(f.evidence for f in findings)


def test_a_sidecar_that_is_not_the_bytes_fails(tmp_path):
    tokenize(APART, BYTES, tmp_path / "data", val_docs=9)
    (tmp_path / "data" / "manifest.json").unlink()
    path = tmp_path / "data" / "fineweb_val_bytes_000000.bin"
    content = bytearray(path.read_bytes())
    content[1024 + 2 * 5] += 1
    path.write_bytes(content)
    assert open_sidecar(tmp_path / "data") is not None
    failed = {f.rule for f in verify(tmp_path / "data", BYTES) if f.status == "FAIL"}
    assert failed == {"sidecar"}


def test_a_survey_of_bytes():
    found = survey(BYTES, ODD)
    assert found.bytes_per_token == 1.0 and not found.lost_documents and not found.uncounted
    assert found.decoded_bytes == found.text_bytes
    assert unused(BYTES, found) == []
