"""What a tokenizer makes of a text: exact sums, the first loss named, the unused pieces found."""

import pytest

from core.data.survey import kinds, survey, unused, why_inexact
from tests.core.tiny_models import CORPUS, KEEP, tiny, without_marker

TEXTS = ["the cat", "", "the\ncat", "é 😀"]


def test_sums_are_those_of_the_documents():
    found = survey(tiny(), TEXTS)
    ids = [tiny().encode_ids(text).tolist() for text in TEXTS]
    assert found.documents == 4
    assert found.tokens == sum(map(len, ids))
    assert found.text_bytes == sum(len(text.encode()) for text in TEXTS)
    assert found.bytes_per_token == found.text_bytes / found.tokens
    assert found.tokens_per_document == found.tokens / 4
    flat = [i for document in ids for i in document]
    assert found.used.tolist() == [flat.count(i) for i in range(380)]


def test_what_is_lost_is_counted_and_the_first_shown():
    found = survey(tiny(), TEXTS)
    assert found.lost_documents == 1
    assert found.first_lost == {"document": 2, "at": 3, "text": "the\ncat", "decoded": "the cat"}
    assert survey(tiny(**KEEP), TEXTS).lost_documents == 0
    shorter = survey(tiny(), ["the cat  "]).first_lost
    assert shorter == {"document": 0, "at": 7, "text": "the cat  ", "decoded": "the cat"}


def test_unused_pieces_are_ordinary_ones():
    texts = ["the cat of", "a house"]
    found = survey(tiny(), texts)
    names = unused(tiny(), found)
    pieces = tiny().pieces()
    needed = {pieces[i].text for text in texts for i in tiny().encode_ids(text)}
    assert needed.isdisjoint(names)
    ordinary = {piece.text for piece in pieces if piece.kind == "normal"}
    assert set(names) | (needed & ordinary) == ordinary


def test_pieces_by_kind():
    found = kinds(tiny(user_defined_symbols="<x>"))
    assert found["byte"] == 256
    assert (found["control"], found["unknown"], found["user_defined"]) == (3, 1, 1)
    assert sum(found.values()) == 380


@pytest.mark.parametrize(
    ("tokenizer", "part"),
    [
        (tiny, ""),
        (without_marker, "U+2581 is no piece by itself"),
        (lambda: tiny(user_defined_symbols="\ue001"), "private-use symbols"),
    ],
)
def test_why_a_table_is_inexact(tokenizer, part):
    why = why_inexact(tokenizer())
    assert part in why
    assert bool(why) == bool(part)


def test_text_whose_bytes_cannot_be_counted_is_named():
    assert survey(tiny(), CORPUS).uncounted == ""
    why = survey(without_marker(), ["the", "x 1", "y 1"]).uncounted
    assert why.startswith("number 1 of the text: ")
    assert "a space is spelled in byte pieces" in why
