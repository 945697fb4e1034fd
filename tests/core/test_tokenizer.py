"""SentencePiece: offsets that sum to the original bytes, pieces by kind, lossless training."""

import hashlib

import numpy as np
import pytest

from core.data.tokenizer import SentencePieceTokenizer, _fields, open_tokenizer, train_tokenizer
from tests.core.tiny_models import CORPUS, KEEP, tiny
from tests.shared_data import OFFICIAL, shared

ODD = {
    "crlf": "a\r\nb\r\n\r\nc",
    "tabs and runs": "a\t\tb   c\n\n\n d",
    "nbsp": "a\u00a0b\u00a0\u00a0c",
    "fullwidth": "\uff21\uff22\uff23\u3000\uff58",
    "half-width kana": "ﾊﾟ ｶﾞ",
    "zero width": "a\u200bb\u200dc\u2060d\ufeff",
    "emoji": "a 😀👩‍👩‍👧 b",
    "replacement": "x \ufffd y\ufffd",
    "space marker": "\u2581a\u2581\u2581b \u2581",
    "growing": "ǅ Ħ ŋ",
    "fused": "e\u0301 \u1100\u1161\u11a8",
    "ligature": "ﬁne ½ ㍿",
    "private use": "\ue001x\U000f0000",
    "controls": "a\x00b\x01\x7fc",
    "look-alikes": "<s>a</s><unk><0x41>",
    "outer spaces": "   a b   ",
    "outer newlines": "\n\na\n",
    "one space": " a",
}
MODELS = [
    {},
    {"add_dummy_prefix": True},
    {"remove_extra_whitespaces": False},
    KEEP,
    KEEP | {"allow_whitespace_only_pieces": True},
    KEEP | {"split_by_whitespace": False},
    {"treat_whitespace_as_suffix": True},
    {"byte_fallback": False},
    {"normalization_rule_name": "nmt_nfkc_cf"},
    {"model_type": "unigram", "vocab_size": 307},
]


def _assert_exact(tokenizer, text):
    ids, raw_bytes = tokenizer.encode(text)
    assert (ids.dtype, raw_bytes.dtype) == (np.uint16, np.int64)
    assert ids.shape == raw_bytes.shape
    assert raw_bytes.min(initial=0) >= 0
    assert raw_bytes.sum() == (len(text.encode()) if ids.size else 0), text
    assert np.array_equal(ids, tokenizer.encode_ids(text))


@pytest.mark.parametrize("settings", MODELS, ids=str)
def test_the_bytes_of_odd_text_sum_to_its_length(settings):
    tokenizer = tiny(**settings)
    for text in [*ODD.values(), "".join(ODD.values()), *CORPUS]:
        assert tokenizer.encode(text)[0].size
        _assert_exact(tokenizer, text)
    for text in ("", " ", "   ", "\n \t"):
        _assert_exact(tokenizer, text)


def test_the_official_model_on_odd_text():
    tokenizer = open_tokenizer(shared(OFFICIAL))
    for text in [*ODD.values(), "", "  "]:
        _assert_exact(tokenizer, text)


WHERE = [  # text, and the bytes of its tokens: whose the stripped and the fused bytes are
    ("  the the  ", [2 + 3, 4 + 2]),
    ("the   the", [3, 3 + 3]),
    ("the\r\nthe", [3, 2 + 3]),
    ("thü", [2, 0, 2]),
    ("the\u3000the", [3, 3 + 3]),
]


@pytest.mark.parametrize(("text", "expected"), WHERE)
def test_each_token_has_the_bytes_up_to_its_end(text, expected):
    assert tiny().encode(text)[1].tolist() == expected


def test_text_without_tokens():
    ids, raw_bytes = tiny().encode("   ")
    assert ids.size == raw_bytes.size == 0


def test_decoding_gives_the_text_back():
    tokenizer = tiny(**KEEP)
    for text in (*CORPUS, "  é 😀\r\n "):
        assert tokenizer.decode(tokenizer.encode(text)[0]) == text
    assert tokenizer.decode([tokenizer.bos_id]) == ""


def test_pieces_by_kind():
    tokenizer = tiny(user_defined_symbols="<x>")
    pieces = tokenizer.pieces()
    assert len(pieces) == tokenizer.vocab_size == 380
    kinds = [piece.kind for piece in pieces]
    assert kinds[:5] == ["control", "control", "control", "unknown", "user_defined"]
    assert kinds.count("byte") == 256
    assert pieces[kinds.index("byte") + 65].text == "<0x41>"
    assert [piece.text for piece in pieces[:5]] == ["<pad>", "<s>", "</s>", "<unk>", "<x>"]
    assert any(piece.text == "\u2581the" and piece.kind == "normal" for piece in pieces)
    ids, _ = tokenizer.encode("the cat")
    assert "".join(pieces[i].text for i in ids) == "the\u2581cat"


def test_the_official_model_is_what_the_task_says():
    path = shared(OFFICIAL)
    tokenizer = open_tokenizer(path)
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.unk_id) == (1024, 1, 3)
    assert tokenizer.name == "fineweb_1024_bpe"
    assert tokenizer.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert tokenizer.pieces()[939].text == "\u2581"
    kinds = [piece.kind for piece in tokenizer.pieces()]
    assert {kind: kinds.count(kind) for kind in sorted(set(kinds))} == {
        "byte": 256,
        "control": 3,
        "normal": 764,
        "unknown": 1,
    }


@pytest.mark.parametrize("content", [b"", b"hello world", b"\x80\x05pickle" * 10, bytes(1000)])
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "x.model").write_bytes(content)
    with pytest.raises(ValueError, match="x: not a SentencePiece model"):
        open_tokenizer(tmp_path / "x.model")


def test_a_missing_file_and_a_model_without_bos(tmp_path):
    with pytest.raises(ValueError, match=r"no such tokenizer.*`golf tokenizer train`"):
        open_tokenizer(tmp_path / "none.model")
    with pytest.raises(ValueError, match="no BOS piece"):
        tiny(bos_id=-1)


def test_training_is_repeatable_and_returns_what_it_wrote(tmp_path):
    path = tmp_path / "deep" / "my.model"
    mine = train_tokenizer(iter(CORPUS), 380, path)
    again = train_tokenizer(CORPUS, 380, tmp_path / "other.model")
    assert open_tokenizer(path).sha256 == mine.sha256 == again.sha256 == tiny().sha256
    assert mine.name == "my"
    assert [file.name for file in path.parent.iterdir()] == ["my.model"]


def test_a_model_is_trained_as_the_official_one(tmp_path):
    path = tmp_path / "x.model"
    train_tokenizer(CORPUS, 380, path)
    mine, official = (
        {number: dict(_fields(value)) for number, value in _fields(model) if number != 1}
        for model in (path.read_bytes(), shared(OFFICIAL).read_bytes())
    )
    trainer, normalizer = 2, 3
    for free in (2, 4, 18):  # the model's path, vocab_size, max_sentence_length
        mine[trainer].pop(free, None)
        official[trainer].pop(free, None)
    assert mine[trainer] == official[trainer]
    for found in (mine, official):  # the character map itself varies with the library's version
        assert len(found[normalizer].pop(2)) == 240_007
    assert mine[normalizer] == official[normalizer]


def test_threads_do_not_move_the_pieces():
    pieces = tiny(num_threads=1).pieces()
    assert pieces == tiny(num_threads=4).pieces() == tiny().pieces()


DROPPED_BY_DEFAULT = [
    ("longer than 4192 bytes", "zebra " * 2000),
    ("the trainer's own mark", "zebra \u2585 " * 50),
    ("a null character", "zebra \x00 " * 50),
]


@pytest.mark.parametrize(("why", "document"), DROPPED_BY_DEFAULT)
def test_no_document_is_dropped_in_silence(tmp_path, why, document):
    tokenizer = train_tokenizer([*CORPUS, document], 380, tmp_path / "x.model")
    assert "\u2581zebra" in [piece.text for piece in tokenizer.pieces()], why


FAILURES = [
    ([], 380, "hold no text"),
    (["  "], 380, "hold no text"),
    (CORPUS, 100, "more are needed"),
]


@pytest.mark.parametrize(("documents", "vocab_size", "message"), FAILURES)
def test_training_that_cannot_work_says_why(tmp_path, documents, vocab_size, message):
    with pytest.raises(ValueError, match=f"no tokenizer of {vocab_size} pieces: .*{message}"):
        train_tokenizer(documents, vocab_size, tmp_path / "x.model")
    assert list(tmp_path.iterdir()) == []


def test_what_a_reader_raises_comes_through(tmp_path):
    def documents():
        yield from CORPUS
        raise ValueError("x.jsonl:7: expected one JSON object a line")

    with pytest.raises(ValueError, match=r"x\.jsonl:7"):
        train_tokenizer(documents(), 380, tmp_path / "x.model")
    assert list(tmp_path.iterdir()) == []


def test_an_old_sentencepiece_is_named(monkeypatch):
    import sentencepiece

    monkeypatch.delattr(sentencepiece.SentencePieceProcessor, "EncodeAsOffsetMapping")
    with pytest.raises(ValueError, match=r"tells no byte offsets; `pip install"):
        SentencePieceTokenizer("x", b"\n")
