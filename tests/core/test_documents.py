"""Documents arrive whole and in order; each broken file is named with what is wrong."""

import gzip
import json

import pytest

from core.data.documents import read_documents

ODD = "one\r\ntwo\u2028three\x00 \u2019é\ufeff"


def _jsonl(*texts):
    return "".join(
        json.dumps({"text": text, "src": "x"}, ensure_ascii=False) + "\n" for text in texts
    )


def test_every_kind_of_file_gives_its_documents_in_order(tmp_path):
    (tmp_path / "b.jsonl").write_bytes((_jsonl("first", ODD) + "\n").encode())
    (tmp_path / "a.txt").write_bytes(ODD.encode())
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(_jsonl("third", "").encode()))
    (tmp_path / "notes.md").write_text("not a document")
    (tmp_path / "sub.txt").mkdir()
    expected = [ODD, "first", ODD, "third", ""]
    assert list(read_documents([tmp_path])) == expected
    assert list(read_documents([tmp_path / "c.jsonl.gz", tmp_path / "a.txt"])) == ["third", "", ODD]


BROKEN = [
    ("x.jsonl", b'{"text": "a"}\nnot json\n', r"x\.jsonl:2: expected one JSON object a line"),
    ("x.jsonl", b'{"txt": "a"}\n', r"x\.jsonl:1: expected .* `text`, found \['txt'\]"),
    ("x.jsonl", b'{"text": 5}\n', r"x\.jsonl:1: expected an object with a string `text`"),
    ("x.jsonl", b'["text"]\n', r"x\.jsonl:1: .* found list"),
    ("x.jsonl", b'\n{"text": "\\ud800"}\n', r"x\.jsonl:2: .* surrogate"),
    ("x.jsonl", b'{"text": "\xff"}\n', r"x\.jsonl:1: expected one JSON object"),
    ("x.jsonl", b"[" * 100_000, r"x\.jsonl:1: expected one JSON object"),
    ("x.jsonl.gz", b"plain", r"x\.jsonl\.gz: not a whole gzip file"),
    ("x.jsonl.gz", gzip.compress(_jsonl("a" * 5000).encode())[:-9], "not a whole gzip file"),
    ("x.txt", b"caf\xe9", r"x\.txt: expected UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_a_broken_file_is_named_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_documents([tmp_path / name]))


def test_paths_are_checked_at_the_call(tmp_path):
    (tmp_path / "x.csv").write_text("a,b")
    for path, message in (
        (tmp_path / "none.jsonl", "no such file"),
        (tmp_path / "x.csv", r"expected a file that ends in \.jsonl"),
        (tmp_path, "a folder without documents"),
    ):
        with pytest.raises(ValueError, match=message):
            read_documents([path])
