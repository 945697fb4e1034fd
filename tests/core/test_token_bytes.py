"""Bytes of tokens: exact or refused. The cases B1 to B8 are the ways scores went wrong before."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest

from core.data.decoding import check_decoding
from core.data.documents import read_documents
from core.data.export import tokenize
from core.data.segments import segments
from core.data.shards import TokenStream
from core.data.token_bytes import byte_table, check_table, spill
from core.data.tokenizer import open_tokenizer
from tests.core.tiny_models import CORPUS, KEEP, stream, tiny, with_unused, without_marker
from tests.shared_data import CASEOPS, FINEWEB, OFFICIAL, shared

TEXTS = (*CORPUS, "1984 été 😀", "", "x", "a \u2581 b\r\n\tc \ufeff \uff46", "日本 \x00")


def _ids(tokenizer, kind):
    return [i for i, piece in enumerate(tokenizer.pieces()) if piece.kind == kind]


def _changed(table, field, ids, value):
    array = getattr(table, field).copy()
    array[ids] = value
    return dataclasses.replace(table, **{field: array})


def test_a_space_counts_once_and_not_behind_a_boundary():
    tokenizer = tiny()
    table = byte_table(tokenizer)
    by_text = {piece.text: i for i, piece in enumerate(tokenizer.pieces())}
    the, spaced, marker = by_text["the"], by_text["\u2581the"], by_text["\u2581"]
    cases = [  # previous, target, bytes
        (the, the, 3),
        (the, spaced, 4),
        (tokenizer.bos_id, spaced, 3),
        (the, marker, 1),
        (marker, marker, 1),
        (tokenizer.bos_id, marker, 0),
        (by_text["<0x41>"], spaced, 4),
        (the, by_text["<0xFF>"], 1),
        (the, tokenizer.bos_id, 0),
        (tokenizer.unk_id, spaced, 3),
        (the, tokenizer.unk_id, 0),
    ]
    previous, targets, expected = np.array(cases).T
    counted = table.count(previous.astype(np.uint16), targets.astype(np.uint16))
    assert counted.dtype == np.int64
    assert counted.tolist() == expected.tolist()


EXACT = [
    {},
    {"add_dummy_prefix": True},
    {"remove_extra_whitespaces": False},
    KEEP,
    KEEP | {"user_defined_symbols": "<cap>,été"},
    {"normalization_rule_name": "nmt_nfkc_cf"},
    {"model_type": "unigram", "vocab_size": 307},
]


@pytest.mark.parametrize("settings", EXACT, ids=str)
def test_tables_that_agree_with_the_decoding_pass(settings):
    tokenizer = tiny(**settings)
    table = byte_table(tokenizer)
    check_table(table, tokenizer)
    check_decoding(table, tokenizer, stream(tokenizer, *TEXTS))


DISAGREEING = [
    (KEEP | {"allow_whitespace_only_pieces": True}, "\u2581\u2581"),
    (KEEP | {"split_by_whitespace": False}, "\u2581of\u2581"),
    ({"treat_whitespace_as_suffix": True}, "the\u2581"),
]


@pytest.mark.parametrize(("settings", "piece"), DISAGREEING, ids=str)
def test_pieces_with_spaces_elsewhere_than_in_front_are_refused(settings, piece):
    tokenizer = tiny(**settings)
    table = byte_table(tokenizer)
    with pytest.raises(ValueError, match=r"not those of the decoded text in \d+ pieces") as refusal:
        check_table(table, tokenizer)
    assert piece in str(refusal.value)
    assert str(refusal.value).count("decodes to") <= 5
    with pytest.raises(ValueError, match=r"document \d+: the table counts \d+ bytes"):
        check_decoding(table, tokenizer, stream(tokenizer, *TEXTS, "the  cat of the   of the  "))


def test_b1_a_space_counted_twice_is_refused():
    tokenizer = tiny()
    table = byte_table(tokenizer)
    twice = dataclasses.replace(table, base_bytes=table.base_bytes + table.leading_space)
    with pytest.raises(ValueError, match=r"\d+ pieces: .*counts 3, decodes to 2.* and \d+ more"):
        check_table(twice, tokenizer)
    with pytest.raises(ValueError, match="document 0: the table counts"):
        check_decoding(twice, tokenizer, stream(tokenizer, *TEXTS))


def test_b2_a_lost_space_marker_is_refused():
    tokenizer = tiny()
    table = byte_table(tokenizer)
    lost = dataclasses.replace(table, leading_space=np.zeros_like(table.leading_space))
    with pytest.raises(ValueError, match=r"no piece begins with the space marker U\+2581"):
        check_table(lost, tokenizer)
    one = _changed(table, "leading_space", np.flatnonzero(table.leading_space)[3:4], False)
    with pytest.raises(ValueError, match="flagged wrongly in 1 pieces"):
        check_table(one, tokenizer)


@pytest.mark.parametrize("size", [6, 3, 0])  # B3: its printed name; B6: its U+FFFD
def test_b3_b6_a_byte_piece_is_one_byte(size):
    tokenizer = tiny()
    table = byte_table(tokenizer)
    ids = _ids(tokenizer, "byte")
    assert table.base_bytes[ids].tolist() == [1] * 256
    with pytest.raises(ValueError, match=r"a byte piece stands for 1 byte.*256 pieces: '<0x00>'"):
        check_table(_changed(table, "base_bytes", ids, size), tokenizer)
    with pytest.raises(ValueError, match="<0xFF>"):
        check_table(_changed(table, "base_bytes", ids[255], size), tokenizer)


def test_b4_control_unknown_and_unused_pieces_are_silent_boundaries():
    tokenizer = with_unused()
    table = byte_table(tokenizer)
    check_table(table, tokenizer)
    [unused] = _ids(tokenizer, "unused")
    for i in (unused, tokenizer.bos_id, tokenizer.unk_id):
        assert (table.base_bytes[i], table.boundary[i]) == (0, True)
        with pytest.raises(ValueError, match="stand for 0 bytes, not so 1 pieces"):
            check_table(_changed(table, "base_bytes", i, 4), tokenizer)
        with pytest.raises(ValueError, match="boundaries, not so 1 pieces"):
            check_table(_changed(table, "boundary", i, False), tokenizer)
    with pytest.raises(ValueError, match="boundaries"):
        check_table(_changed(table, "boundary", _ids(tokenizer, "normal")[0], True), tokenizer)


def test_b5_a_vocabulary_without_the_space_piece_is_refused():
    tokenizer = without_marker()
    pieces = tokenizer.pieces()
    assert [pieces[i].text for i in tokenizer.encode("x 1")[0]][1:4] == [
        "<0xE2>",
        "<0x96>",
        "<0x81>",
    ]
    table = byte_table(tokenizer)
    with pytest.raises(ValueError, match=r"U\+2581 is no piece by itself.* three byte pieces"):
        check_table(table, tokenizer)
    with pytest.raises(ValueError, match=r"document 1: a space is spelled in byte pieces"):
        check_decoding(table, tokenizer, stream(tokenizer, "the cat", "x 1"))


def test_b6_bytes_that_are_no_text_are_refused():
    tokenizer = tiny()
    at = _ids(tokenizer, "byte")[0xFF]
    tokens = [tokenizer.bos_id, *tokenizer.encode("the")[0], at, *tokenizer.encode("cat")[0]]
    data = TokenStream([np.array(tokens, np.uint16)])
    with pytest.raises(ValueError, match=r"table counts 7 bytes, the decoded text has 9.*<0xFF>"):
        check_decoding(byte_table(tokenizer), tokenizer, data)


def test_b7_transformed_text_needs_a_sidecar():
    for tokenizer in (open_tokenizer(shared(CASEOPS)), tiny(user_defined_symbols="\ue001")):
        table = byte_table(tokenizer)
        assert table.needs_sidecar
        with pytest.raises(ValueError, match=r"only a sidecar tells: \d pieces: '\\ue001'"):
            check_table(table, tokenizer)
        check_table(table, tokenizer, sidecar=True)
        with pytest.raises(ValueError, match="stands for 1 byte"):
            wrong = _changed(table, "base_bytes", _ids(tokenizer, "byte"), 3)
            check_table(wrong, tokenizer, sidecar=True)
    assert not byte_table(tiny(user_defined_symbols="<cap>")).needs_sidecar


def test_b8_documents_that_do_not_survive_are_counted(tmp_path):
    texts = ["The cat.", "the cat", "a  b", "ﬁne", "the end\n", "été"]
    for settings, changed in (({}, 3), (KEEP, 0), ({"normalization_rule_name": "nmt_nfkc_cf"}, 4)):
        folder = tmp_path / str(changed)
        manifest = tokenize(texts, tiny(**settings), folder, val_docs=len(texts))
        assert manifest["splits"]["val"]["changed_documents"] == changed


def test_unknown_text_is_refused():
    tokenizer = tiny(byte_fallback=False)
    table = byte_table(tokenizer)
    check_table(table, tokenizer)
    check_decoding(table, tokenizer, stream(tokenizer, *CORPUS))
    data = stream(tokenizer, "the cat", "the house 😀 the", "of")
    with pytest.raises(ValueError, match=r"document 1: it holds unknown text.* '<unk>'"):
        check_decoding(table, tokenizer, data)


def test_a_space_behind_bos_that_the_decoding_keeps_is_counted():
    """By a table that takes BOS for a boundary, as the reference's does, it would be refused."""
    tokenizer = tiny(**KEEP)
    table, data = byte_table(tokenizer), stream(tokenizer, "the", " the cat")
    check_decoding(table, tokenizer, data)
    silent = [p.kind in ("control", "unknown", "unused") for p in tokenizer.pieces()]
    wrong = replace(table, boundary=np.array(silent))
    with pytest.raises(ValueError, match=r"document 1: the table counts 7 bytes, .* has 8"):
        check_decoding(wrong, tokenizer, data)


def test_a_table_of_another_tokenizer_is_refused():
    with pytest.raises(ValueError, match="380 entries, the tokenizer 375 pieces"):
        check_table(byte_table(tiny()), tiny(vocab_size=375))
    with pytest.raises(ValueError, match=r"token 1000.*not belong together"):
        data = TokenStream([np.array([1, 1000], np.uint16)])
        check_decoding(byte_table(tiny()), tiny(), data)


@pytest.mark.parametrize("block_tokens", [3, 8, 64, 1 << 20])
def test_decoding_is_checked_whatever_the_blocks(block_tokens):
    tokenizer = tiny()
    table = byte_table(tokenizer)
    texts = ["", " ".join(CORPUS), "😀 é " * 2, "", "the cat"]
    data = stream(tokenizer, *texts)
    check_decoding(table, tokenizer, data, block_tokens=block_tokens)
    i = int(data.slice(0, len(data))[-1])
    wrong = _changed(table, "base_bytes", i, table.base_bytes[i] + 1)
    ends_alone = stream(tokenizer, *["é é 1 "] * 3, "the cat")
    with pytest.raises(ValueError, match="document 3"):
        check_decoding(wrong, tokenizer, ends_alone, block_tokens=block_tokens)


@pytest.mark.parametrize("block_tokens", [3, 8, 64, 1 << 20])
def test_segments_hold_every_token_and_repeat_only_where_a_document_is_cut(block_tokens):
    tokenizer = tiny()
    data = stream(tokenizer, "", " ".join(CORPUS), "the 1984 cat", "of")
    words = [p.kind == "normal" and p.text != "\u2581" for p in tokenizer.pieces()]
    anchors = np.array(words)
    found = list(segments(data, tokenizer.bos_id, anchors, block_tokens))
    assert [last for _, last in found] == [False] * (len(found) - 1) + [True]
    joined = found[0][0]
    for tokens, _ in found[1:]:
        if tokens[0] != tokenizer.bos_id:
            assert anchors[tokens[0]]
            assert tokens[0] == joined[-1]
            joined = joined[:-1]
        joined = np.concatenate([joined, tokens])
    assert np.array_equal(joined, data.slice(0, len(data)))
    assert max(len(tokens) for tokens, _ in found) <= max(5 * block_tokens, 24)


def test_data_may_begin_and_end_anywhere():
    tokenizer = tiny()
    table = byte_table(tokenizer)
    data = stream(tokenizer, "the 😀 cat", "  été 日本", "of")
    whole = data.slice(0, len(data))
    for start in range(len(whole)):
        for stop in range(start, len(whole) + 1):
            check_decoding(table, tokenizer, TokenStream([whole[start:stop]]), block_tokens=3)


def test_a_long_document_is_refused_at_its_fault_alone():
    tokenizer = tiny()
    table = byte_table(tokenizer)
    [rare] = tokenizer.encode("q")[0]
    wrong = _changed(table, "base_bytes", rare, 2)
    text = " ".join(CORPUS)
    with pytest.raises(ValueError, match=r"document 1: .*it parts at .*'<0x71>'"):
        data = stream(tokenizer, "the", text + " q " + text)
        check_decoding(wrong, tokenizer, data, block_tokens=64)


def test_noise_is_not_taken_for_one_long_document():
    tokenizer = tiny()
    noise = np.full(100, _ids(tokenizer, "byte")[0xFF], np.uint16)
    noise[0] = tokenizer.bos_id
    with pytest.raises(ValueError, match="tokens without BOS or text"):
        check_decoding(byte_table(tokenizer), tokenizer, TokenStream([noise]), block_tokens=8)


def test_the_official_model_counts_real_documents_exactly():
    tokenizer = open_tokenizer(shared(OFFICIAL))
    table = byte_table(tokenizer)
    check_table(table, tokenizer)
    assert table.leading_space[939]
    assert table.base_bytes[939] == 0
    documents = list(read_documents([shared(FINEWEB)]))
    data = stream(tokenizer, *documents)
    check_decoding(table, tokenizer, data, block_tokens=10_000)
    tokens = data.slice(0, len(data))
    counted = int(table.count(tokens[:-1], tokens[1:]).sum())
    assert counted == sum(
        len(tokenizer.decode(tokenizer.encode_ids(d)).encode()) for d in documents
    )


SPILLS = [
    ([], []),
    ([0, 3, 65_535], [0, 3, 65_535]),
    ([0, 65_536, 2], [0, 65_535, 3]),
    ([0, 200_000, 0, 5, 6, 7], [0, 65_535, 65_535, 65_535, 3406, 7]),
    ([65_535], [65_535]),
]


@pytest.mark.parametrize(("counts", "expected"), SPILLS)
def test_a_count_too_large_for_its_entry_spills_forward(counts, expected):
    spilled = spill(np.array(counts, np.int64))
    assert spilled.dtype == np.uint16
    assert spilled.tolist() == expected


@pytest.mark.parametrize("counts", [[65_536], [0, 3, 70_000], [0, 140_000, 1]])
def test_a_count_that_no_later_token_can_hold_is_refused(counts):
    with pytest.raises(ValueError, match="bytes more than its last tokens can hold at 65535"):
        spill(np.array(counts, np.int64))
