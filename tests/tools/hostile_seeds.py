"""Whole files of strangers, and bombs: what the hostile test breaks in thousands of ways."""

from __future__ import annotations

import base64
import collections
import contextlib
import gzip
import io
import itertools
import lzma
import os
import pickle
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from core.artifact.codecs import encode
from tests.tools.records import log_of, write_record
from tools.check import check, report
from tools.strangers.logs import read_text

SOURCE = "import os\n\n\ndef train(steps):\n    return sum(range(steps))\n\n\nprint(train(10))\n"
CANARY = "canary"  # a file that whatever is executed would make
EVIL = f"import os\nopen({CANARY!r}, 'w').write('x')\nos.system('touch {CANARY}')\n"
RAW = [{"id": lzma.FILTER_LZMA2}]


class Evil:
    """Unpickling it runs a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {CANARY}",)


class EvilState:
    def __reduce__(self) -> tuple[object, tuple[str], dict[str, object]]:
        return eval, (f"open({CANARY!r}, 'w')",), {"weight": np.ones(3, np.float32)}


def scripts() -> list[bytes]:
    """Packed in many ways, each with a source that would leave a trace if it ran."""
    source = (EVIL + SOURCE).encode()
    b85 = base64.b85encode(lzma.compress(source, lzma.FORMAT_RAW, filters=RAW)).decode()
    b64 = base64.b64encode(zlib.compress(source)).decode()
    modules = {"a": base64.b85encode(zlib.compress(source)), "b.c": b"@"}
    twice = f"import zlib\nexec(zlib.decompress({zlib.compress(source)!r}))"
    texts = [
        EVIL + SOURCE,
        "import lzma as L,base64 as B\nexec(L.decompress(B.b85decode("
        f'"{b85}"),format=L.FORMAT_RAW,filters=[{{"id":L.FILTER_LZMA2}}]))',
        f"import zlib,base64\nd=base64.b64decode('{b64}')\n"
        "exec(compile(zlib.decompress(d),'x','exec'))",
        f"import zlib\nexec(zlib.decompress({zlib.compress(twice.encode())!r}))",
        f"import base64,runpy,tempfile,zlib\nwith tempfile.NamedTemporaryFile('wb') as f:\n"
        f"    f.write(zlib.decompress(base64.b64decode('{b64}')))\n    runpy.run_path(f.name)",
        f"import base64,sys,types,zlib\nM={modules!r}\nfor n, s in M.items():\n"
        "    m = types.ModuleType(n)\n    exec(zlib.decompress(base64.b85decode(s)), m.__dict__)",
    ]
    tail = (
        b"import zlib\nexec(zlib.decompress(open(__file__,'rb').read().split(b'#'+b'#',1)[1]))\n##"
    )
    return [*(text.encode() for text in texts), tail + zlib.compress(source)]


def script_bombs() -> list[bytes]:
    """Small files that ask for much: memory, time, or a deep stack."""
    zeros = zlib.compress(b"\0" * 200_000_000, 9)
    packed = base64.b85encode(zeros).decode()
    decode = "zlib.decompress(base64.b85decode(d))"
    doubled = "x = 'ab'\n" + "x = x + x\n" * 80 + "exec(x)"
    return [
        f"import zlib,base64\nd='{packed}'\nexec({decode})".encode(),
        f"import zlib,base64\nd='{packed}'\n{f'exec({decode}){chr(10)}' * 200}".encode(),
        doubled.encode(),
        b"x = 'a' * 10**12\nexec(x)\nexec(bytes(10**12))\nexec(''.join(['a'] * 10**9))",
        b"x = list(range(10**12))\nexec('a'.join(x))",
        b"exec('a'.replace('a', 'b' * 4096).replace('b', 'c' * 4096).replace('c', 'd' * 4096))",
        b"(" * 100_000,
        b"[" * 150 + b"]" * 150,
        b"-" * 200_000 + b"1",
        b"x = a" + b".b" * 100_000,
        b"exec(" + b"'a'+" * 100_000 + b"'b')",
        b"a;" * 249_000,
        b"a;" * 2_000_000,
        b"lambda:" * 3000 + b"1",
        b"def f(x):\n    return f(x) + f(x) + f(x)\nexec(f(f))",
        b"f = lambda g: g(g) + g(g)\nexec(f(f))",
        b"x = []\nx.append(x)\nexec(''.join(x))\nfor y in x:\n    x.append(y)",
        b"".join(b" " * at + b"for a%d in range(9):\n" % at for at in range(18)) + b" " * 18 + b"b",
        b"# coding: punycode\nexec('a')",
        b"exec(b'a'.decode('idna'))\nexec('x'.encode('rot13'))",
        b"import zlib\nexec(zlib.decompress(b'', 99))\nexec(zlib.decompress(b'x', wbits=-1))",
        b"import lzma\nexec(lzma.decompress(b'a', 3, None, [{'id': 33, 'dict_size': 4294967295}]))",
        b"\0" * 100_000,
        b"exec(open('../../etc/passwd').read())",
    ]


def _torch(legacy: bool) -> bytes:
    import torch

    table = {
        "w": {"a.q": torch.ones(4, 8, dtype=torch.int8), "b": torch.zeros(3, dtype=torch.bfloat16)},
        "m": {"a": "gptq (int6)"},
        "p": torch.nn.Parameter(torch.ones(2, 2)),
    }
    file = io.BytesIO()
    torch.save(table, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def blobs() -> list[bytes]:
    """Each format, plain and compressed, with pickles that would run a command."""
    arrays = {"q": {"x": np.ones((2, 3), np.int8)}, "s": np.float32(3), "e": [Evil(), EvilState()]}
    pickles = [pickle.dumps(arrays, protocol=protocol) for protocol in (2, 3, 4, 5)]
    npz, npy = io.BytesIO(), io.BytesIO()
    np.savez_compressed(npz, a=np.ones((20, 3)), b=np.arange(5))
    np.save(npy, np.ones((4, 4), np.float16))
    row = b'{"a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]}}'
    safe = len(row).to_bytes(8, "little") + row + b"\0" * 8
    plain = [_torch(False), _torch(True), *pickles, npz.getvalue(), npy.getvalue(), safe]
    for codec in ("brotli", "zstd"):
        with contextlib.suppress(ValueError):  # the package is not installed
            plain.append(encode(codec, plain[0]))
    plain.append(b"no format that anybody knows " * 4)
    return [*plain, zlib.compress(plain[0]), lzma.compress(plain[1]), gzip.compress(plain[3])]


def _laughs() -> bytes:
    """Lists of lists of lists, each held twice: few bytes, endlessly many paths."""
    return (
        b"\x80\x02]q\x00"
        + b"".join(
            b"]q" + bytes([n]) + b"(h" + bytes([n - 1]) + b"h" + bytes([n - 1]) + b"e"
            for n in range(1, 200)
        )
        + b"."
    )


def blob_bombs() -> list[bytes]:
    zeros = b"\0" * 400_000_000
    machine = zlib.compressobj(9)  # 1.6 GB
    once = b"".join(machine.compress(zeros) for _ in range(4)) + machine.flush()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as members:
        for at in range(3):
            members.writestr(f"{at}.npy", zeros[:200_000_000])
    many = b"\x80\x02(" + b"K\x01" * 200_000 + b"tq\x00" + b"0cos\nsystem\nh\x00R" * 300_000 + b"."
    text = b"\x80\x02X" + (10_000_000).to_bytes(4, "little") + b"a" * 10_000_000 + b"q\x00"
    return [
        once,
        zlib.compress(once),
        lzma.compress(zeros[:300_000_000], preset=0),
        gzip.compress(b"x") * 200_000,
        file.getvalue(),
        many,
        text + b"0c_codecs\nencode\nh\x00\x85R" * 1000 + b".",
        text + b"0h\x00h\x00\x93" * 100_000 + b".",
        _laughs(),
        b"\x80\x02" + b"]" * 5_000_000 + b".",
        b"\x80\x02" + b"(" * 5_000_000 + b".",
        b"\x80\x02" + b"\x85" * 1_000_000 + b".",
        b"\x80\x02N" + b"\x85" * 1_000_000 + b".",
        b"\x80\x02]q\x00h\x00a" + b"}h\x00h\x00s" * 200_000 + b".",
        b"\x80\x02r\xff\xff\xff\xffN" + b".",
        b"\x80\x04\x8d" + b"\xff" * 8,
        b"\x80\x02\x8b\xff\xff\xff\x7f",
        b"\x80\x02I" + b"9" * 100_000 + b"\n.",
        (7_000_000).to_bytes(8, "little") + b'{"a":' + b"[" * 7_000_000,
        b"PK\x03\x04" + b"PK\x01\x02" * 1_000_000,
        b"\x93NUMPY\x01\0\xff\xff" + b"(" * 65_535,
        b"BSHF\xff" + b"\x80\x02" * 1000,
        pickle.dumps(collections.OrderedDict(a=Evil())),
    ]


def logs() -> list[bytes]:
    """In the reference's form, with and without the source that a script prints first."""
    plain = log_of(42, 2.0612, 47_642).encode()
    return [plain, (EVIL + SOURCE + "=" * 100 + "\n").encode() + plain, plain * 3, plain[::-1]]


def log_bombs() -> list[bytes]:
    line = b"step:1/2 train_loss:1.0 train_time:1ms\n"
    return [line * 400_000, b"9" * 20_000_000, b"step:" * 4_000_000, b"\0" * 30_000_000]


def records() -> list[bytes]:
    """The files of a whole records folder, in the order of RECORD_FILES."""
    with tempfile.TemporaryDirectory() as name:
        folder = write_record(Path(name))
        return [(folder / file).read_bytes() for file in RECORD_FILES]


def record_bombs() -> list[bytes]:
    deep = b"[" * 100_000 + b"]" * 100_000
    return [deep, b'{"a":' * 50_000, b"{" + b'"x":1,' * 500_000 + b'"y":1}', b"1" * 5_000_000]


def read_log(data: bytes, subject: str) -> object:
    """The log reader as a target; it refuses nothing."""
    return read_text(data.decode("utf-8", "replace"), subject)


def check_with(data: bytes, subject: str) -> object:
    """`golf check` on a folder one of whose files is `data`, each in turn.

    The folder lies beside the working one. Written without `open`, which is listened for.
    """
    folder = Path.cwd().parent / "record"
    if not folder.exists():
        folder.mkdir()
        for at, name in enumerate(RECORD_FILES):
            _write(folder / name, (folder.parent / f"seed{at:03}").read_bytes())
    at = next(_TURN) % len(RECORD_FILES)
    _write(folder / RECORD_FILES[at], data)
    case, findings = check(folder)
    assert report(case, findings)["findings"]
    _write(folder / RECORD_FILES[at], (folder.parent / f"seed{at:03}").read_bytes())
    return findings


RECORD_FILES = ("submission.json", *(f"train_seed{s}.log" for s in (1337, 42, 7)), "train_gpt.py")
_TURN = itertools.count()


def _write(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    while data:
        data = data[os.write(file, data) :]
    os.close(file)
