"""Shards tell their tokenizer: its own documents come back, another's do not."""

import numpy as np
import pytest

from core.data import reencoding
from core.data.reencoding import check_encoding, reencoded
from core.data.shards import TokenStream
from core.data.tokenizer import open_tokenizer
from tests.core.tiny_models import CORPUS, KEEP, stream, tiny


@pytest.mark.parametrize("settings", [{}, KEEP, {"normalization_rule_name": "nmt_nfkc_cf"}])
def test_its_own_documents_come_back(settings):
    tokenizer = tiny(**settings)
    data = stream(tokenizer, *CORPUS)
    assert reencoded(tokenizer, data) == (32, 32)
    assert check_encoding(tokenizer, data) == "32 of 32 documents come back token for token"


def test_those_of_others_do_not():
    smaller, unigram = tiny(vocab_size=340), tiny(model_type="unigram", vocab_size=307)
    for made, asked in ((smaller, tiny()), (unigram, tiny()), (tiny(), open_tokenizer("byte260"))):
        data = stream(made, *CORPUS)
        if asked.vocab_size < made.vocab_size:
            with pytest.raises(ValueError, match="do not belong together"):
                check_encoding(asked, data)
            continue
        same, count = reencoded(asked, data)
        assert (same < 20, count) == (True, 32)  # some need no piece that one of both has alone
        with pytest.raises(ValueError, match=rf"not made with tiny: .* {same} of 32 documents"):
            check_encoding(asked, data)


def test_only_whole_documents_with_text_are_looked_at(monkeypatch):
    tokenizer = tiny(byte_fallback=False)
    data = stream(tokenizer, "the cat", "", "\U0001f600 the", "of a house")
    assert reencoded(tokenizer, data) == (2, 2)  # unknown text cannot come back
    whole = data.slice(0, len(data))
    assert reencoded(tokenizer, TokenStream([whole[1:]])) == (1, 1)
    monkeypatch.setattr(reencoding, "READ_TOKENS", len(whole) - 1)
    assert reencoded(tokenizer, data) == (1, 1)
    assert check_encoding(tokenizer, TokenStream([np.empty(0, np.uint16)])).startswith("0 of 0")
