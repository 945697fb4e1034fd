"""Shards: the written is read, the damaged is refused, the unfinished leaves no trace."""

import numpy as np
import pytest

from core.data.shards import (
    HEADER_BYTES,
    MAGIC,
    ShardWriter,
    TokenStream,
    check_tokens,
    open_shard,
    open_sidecar,
    open_split,
)

TOKENS = (np.arange(1000) * 7919 % 65_536).astype(np.uint16)


def _write(folder, prefix, tokens, shard_tokens=100_000_000, pieces=1):
    with ShardWriter(folder, prefix, shard_tokens) as writer:
        for piece in np.array_split(tokens, pieces):
            writer.write(piece)
    return writer.files


@pytest.mark.parametrize(("shard_tokens", "pieces"), [(1000, 1), (300, 1), (300, 13), (1, 2)])
def test_written_tokens_are_read_back_from_as_many_shards(tmp_path, shard_tokens, pieces):
    tokens = TOKENS[:40] if shard_tokens == 1 else TOKENS
    files = _write(tmp_path, "fineweb_train", tokens, shard_tokens, pieces)
    assert [f.name for f in files] == [
        f"fineweb_train_{i:06d}.bin" for i in range(-(-len(tokens) // shard_tokens))
    ]
    assert sorted(tmp_path.iterdir()) == files
    stream = open_split(tmp_path, "train")
    assert np.array_equal(stream.slice(0, len(stream)), tokens)


def test_the_bytes_of_a_shard(tmp_path):
    [path] = _write(tmp_path, "fineweb_val", TOKENS)
    data = path.read_bytes()
    header = np.frombuffer(data[:1024], "<i4")
    assert header[:3].tolist() == [20240520, 1, 1000]
    assert not header[3:].any()
    assert data[1024:] == TOKENS.astype("<u2").tobytes()
    shard = open_shard(path)
    assert isinstance(shard, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        shard[0] = 1


DAMAGE = [
    (lambda data: data[:-2], "truncated: header says 1000 tokens, file holds 999"),
    (lambda data: data[:-1], "truncated: header says 1000 tokens, file holds 999.5"),
    (lambda data: data + b"\0\0", "damaged: header says 1000 tokens, file holds 1001"),
    (lambda data: data[:500], "truncated inside its header"),
    (lambda data: data[:2], "not a shard"),
    (lambda data: b"", "not a shard"),
    (lambda data: b"PK\3\4" + data[4:], f"not a shard; expected {MAGIC}"),
    (lambda data: data[:4] + b"\2" + data[5:], "shard version 2; this reads version 1"),
    (lambda data: data[:11] + b"\xff" + data[12:], "damaged: header says -"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_a_damaged_or_foreign_file_is_refused(tmp_path, damage, message):
    [path] = _write(tmp_path, "fineweb_val", TOKENS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        open_shard(path)


@pytest.mark.parametrize("sizes", [(1000,), (1, 0, 500, 499), (0, 3, 997), (10,) * 100])
def test_a_stream_is_its_shards_joined(sizes):
    bounds = np.cumsum(sizes)[:-1]
    stream = TokenStream(np.split(TOKENS, bounds))
    assert len(stream) == 1000
    for start, stop in ((0, 1000), (0, 0), (1000, 1000), (0, 1), (3, 501), (499, 502), (999, 1000)):
        part = stream.slice(start, stop)
        assert part.dtype == np.uint16
        assert np.array_equal(part, TOKENS[start:stop])
    assert np.array_equal(np.concatenate(list(stream.blocks(7))), TOKENS)
    for start, stop in ((-1, 5), (5, 4), (0, 1001)):
        with pytest.raises(ValueError, match="the data holds 1000"):
            stream.slice(start, stop)


def test_an_exception_midway_leaves_no_file(tmp_path):
    with pytest.raises(KeyError), ShardWriter(tmp_path, "fineweb_train", 300) as writer:
        writer.write(TOKENS)
        assert len(list(tmp_path.iterdir())) == 4  # three whole, one partial
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_writer_neither_overwrites_nor_removes_what_was_there(tmp_path):
    [path] = _write(tmp_path, "fineweb_val", TOKENS)
    with (
        pytest.raises(ValueError, match="already exists"),
        ShardWriter(tmp_path, "fineweb_val") as writer,
    ):
        writer.write(TOKENS[:5])
    assert len(open_shard(path)) == 1000
    for size in (0, 2**31):
        with pytest.raises(ValueError, match="shard_tokens"):
            ShardWriter(tmp_path, "x", size)


@pytest.mark.parametrize("shard_tokens", [1, 7, 30, 50, 500])
def test_a_writer_goes_on_behind_what_survived(tmp_path, shard_tokens):
    tokens = TOKENS[:100]
    for mark in (0, 1, 29, 30, 50, 99, 100):
        folder = tmp_path / str(mark)
        folder.mkdir()
        first = ShardWriter(folder, "fineweb_val", shard_tokens)
        first.write(tokens[:mark])
        assert first.sync() == mark
        first.write(tokens[::-1])  # lost: whole shards and a part of one
        first.finish() if mark % 2 else first.leave()
        other = _write(folder, "fineweb_val_bytes", tokens[:9])  # its name begins alike
        again = ShardWriter(folder, "fineweb_val", shard_tokens, resume_tokens=mark)
        again.write(tokens[mark:])
        again.finish()
        stream = open_split(folder, "val")
        assert np.array_equal(stream.slice(0, len(stream)), tokens)
        assert sorted(folder.iterdir()) == sorted([*again.files, *other])


def test_a_writer_does_not_go_on_behind_what_is_not_there(tmp_path):
    _write(tmp_path, "fineweb_val", TOKENS, 300)
    (tmp_path / "fineweb_val_000001.bin").write_bytes(b"short")
    for tokens in (400, 900, 1300):
        with pytest.raises(ValueError, match=r"bytes, \d+ were written before the interruption"):
            ShardWriter(tmp_path, "fineweb_val", 300, resume_tokens=tokens)


def test_an_unfinished_shard_is_not_seen_as_data(tmp_path):
    with ShardWriter(tmp_path, "fineweb_val") as writer:
        writer.write(TOKENS)
        with pytest.raises(ValueError, match="no val data"):
            open_split(tmp_path, "val")


def test_byte_sidecars_are_not_validation_shards(tmp_path):
    _write(tmp_path, "fineweb_val", TOKENS, 600)
    _write(tmp_path, "fineweb_val_bytes", TOKENS // 2, 600)
    assert np.array_equal(open_split(tmp_path, "val").slice(0, 1000), TOKENS)
    sidecar = open_sidecar(tmp_path)
    assert sidecar is not None
    assert np.array_equal(sidecar.slice(0, 1000), TOKENS // 2)


def test_a_sidecar_is_as_long_as_its_tokens_or_absent(tmp_path):
    _write(tmp_path, "fineweb_val", TOKENS)
    assert open_sidecar(tmp_path) is None
    _write(tmp_path, "fineweb_val_bytes", TOKENS[:-1])
    with pytest.raises(ValueError, match=r"counts 999 tokens, .* hold 1000"):
        open_sidecar(tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_data_says_what_was_looked_for_and_what_to_do(tmp_path, split):
    _write(tmp_path, "fineweb_val_bytes", TOKENS)
    looked = rf"fineweb_{split}_\*\.bin .* `golf data tokenize`"
    with pytest.raises(ValueError, match=rf"(?s)no {split} data: .*{looked}"):
        open_split(tmp_path, split)
    with pytest.raises(ValueError, match="no such folder"):
        open_split(tmp_path / "none", split)
    with pytest.raises(ValueError, match="no such shard"):
        open_shard(tmp_path / "none.bin")


def test_tokens_outside_the_vocabulary_are_refused():
    check_tokens(np.array([0, 1023], np.uint16), 1024)
    check_tokens(np.array([], np.uint16), 1024)
    with pytest.raises(ValueError, match=r"token 1024, but the vocabulary has 1024.*not belong"):
        check_tokens(np.array([0, 1024, 3], np.uint16), 1024)


def test_header_length():
    assert HEADER_BYTES == 1024
