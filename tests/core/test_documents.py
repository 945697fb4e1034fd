"""Documents arrive whole and in order; each broken file is named with what is wrong."""

import gzip
import json

import pytest

from core.data.documents import Sample, read_blocks, read_documents

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
    (
        "x.jsonl.gz",
        gzip.compress(_jsonl("a" * 5000).encode(), mtime=0)[:-9],
        "not a whole gzip file",
    ),
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


@pytest.mark.parametrize("block_bytes", [1, 30, 1000, 1 << 20])
def test_blocks_hold_the_documents_whatever_their_size(tmp_path, block_bytes):
    texts = [ODD * (i % 7) for i in range(50)]
    (tmp_path / "a.jsonl").write_bytes(("\n \n" + _jsonl(*texts)).encode())
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(_jsonl(*texts).encode()))
    (tmp_path / "c.txt").write_bytes(b"")
    blocks = list(read_blocks([tmp_path], block_bytes))
    assert [text for block in blocks for text in block.texts()] == [*texts, *texts, ""]
    for block in blocks:
        assert block.documents == len(list(block.texts()))
        assert sum(map(len, block.lines[:-1])) <= block_bytes
    read = [block.read_bytes for block in blocks]
    assert read == sorted(read)
    assert read[-1] == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_the_checksum_is_of_the_content_alone(tmp_path):
    sums = set()
    for name, block_bytes in (("x.jsonl", 10), ("y.jsonl", 1000), ("z.jsonl.gz", 10)):
        data = _jsonl("first", ODD, "third").encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        total = 0
        for block in read_blocks([tmp_path / name], block_bytes):
            total = block.checksum(total)
        sums.add(total)
    assert len(sums) == 1
    (tmp_path / "x.jsonl").write_bytes(data.replace(b"third", b"thirt"))
    [block] = read_blocks([tmp_path / "x.jsonl"])
    assert block.checksum(0) not in sums


SAMPLES = [  # documents, bytes, expected, cut
    (0, 0, ["aa", "é", "cc", ""], False),
    (2, 0, ["aa", "é"], True),
    (4, 0, ["aa", "é", "cc", ""], False),
    (0, 5, ["aa", "é"], True),
    (0, 6, ["aa", "é", "cc", ""], False),
    (1, 6, ["aa"], True),
    (0, 1, [], True),
]


@pytest.mark.parametrize(("documents", "text_bytes", "expected", "cut"), SAMPLES)
def test_a_sample_is_the_beginning_and_says_so(documents, text_bytes, expected, cut):
    sample = Sample(["aa", "é", "cc", ""], documents, text_bytes)
    assert list(sample) == expected
    assert sample.taken_documents == len(expected)
    assert sample.taken_bytes == sum(len(text.encode()) for text in expected)
    assert sample.cut == cut


def test_a_sample_below_nothing_is_refused():
    with pytest.raises(ValueError, match="a sample of -1 documents"):
        Sample([], -1)
