"""golf unpack: many ways to pack a script, one source out of each, and nothing is executed."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import io
import json
import lzma
import zipfile
import zlib
from pathlib import Path

import pytest

from tools.main import main
from tools.strangers.packed import MAX_DEPTH, unpack_script
from tools.unpack import safe_name

brotli = pytest.importorskip("brotli")
zstandard = pytest.importorskip("zstandard")

SOURCE = '"""Trains."""\nimport torch\n\nprint("µ", torch.__version__)\n' + "x = 1\n" * 30
RAW_SOURCE = SOURCE.encode()
RAW = [{"id": lzma.FILTER_LZMA2}]
Z = zlib.compress(RAW_SOURCE, 9)
L = lzma.compress(RAW_SOURCE, lzma.FORMAT_RAW, filters=RAW)
ZSTD = zstandard.ZstdCompressor(level=19).compress(RAW_SOURCE)
DEFLATED = zlib.compressobj(9, zlib.DEFLATED, -15)
DEFLATE = DEFLATED.compress(RAW_SOURCE) + DEFLATED.flush()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def b85(data: bytes) -> str:
    return base64.b85encode(data).decode()


IMPORTS = "import base64, bz2, gzip, io, lzma, zlib, sys, os, types, runpy, tempfile, brotli\n"
HALF = len(b64(Z)) // 2
# Each of these, run by Python, runs SOURCE.
CASES = {
    "zlib, bytes": f"import zlib\nexec(zlib.decompress({Z!r}))",
    "raw lzma, base85": "import lzma as L,base64 as B\nexec(L.decompress(B.b85decode("
    f"{b85(L)!r}),format=L.FORMAT_RAW,filters=[{{'id':L.FILTER_LZMA2}}]))",
    "filters by place": f"{IMPORTS}exec(lzma.decompress({L!r}, lzma.FORMAT_RAW, None, "
    "[dict(id=33)] if 0 else [{'id': 0x21}]))".replace("[dict(id=33)] if 0 else ", ""),
    "xz": f"{IMPORTS}exec(lzma.decompress({lzma.compress(RAW_SOURCE)!r}).decode('utf-8'))",
    "lzma alone": IMPORTS
    + f"exec(lzma.decompress({lzma.compress(RAW_SOURCE, lzma.FORMAT_ALONE)!r}))",
    "brotli, base64": f"{IMPORTS}exec(brotli.decompress(base64.b64decode({b64(brotli.compress(RAW_SOURCE))!r})))",  # noqa: E501
    "zstd": f"import zstandard\nexec(zstandard.decompress({ZSTD!r}))",
    "zstd object": f"import zstandard\nexec(zstandard.ZstdDecompressor().decompress({ZSTD!r}))",
    "bz2": f"{IMPORTS}exec(bz2.decompress({bz2.compress(RAW_SOURCE)!r}))",
    "gzip": f"{IMPORTS}exec(gzip.decompress({gzip.compress(RAW_SOURCE, mtime=0)!r}))",
    "gzip file": f"{IMPORTS}exec(gzip.GzipFile(fileobj=io.BytesIO({gzip.compress(RAW_SOURCE, mtime=0)!r})).read())",  # noqa: E501
    "deflate": f"{IMPORTS}exec(zlib.decompress({DEFLATE!r}, -15))",
    "wbits by name": f"{IMPORTS}exec(zlib.decompress({DEFLATE!r}, wbits=-zlib.MAX_WBITS))",
    "object": f"{IMPORTS}d = zlib.decompressobj()\nexec(d.decompress({Z!r}))",
    "ascii85": f"{IMPORTS}exec(zlib.decompress(base64.a85decode({base64.a85encode(Z)!r})))",
    "base32": f"{IMPORTS}exec(zlib.decompress(base64.b32decode({base64.b32encode(Z)!r})))",
    "hex": f"{IMPORTS}exec(zlib.decompress(bytes.fromhex({Z.hex()!r})))",
    "binascii": f"import binascii,zlib\nexec(zlib.decompress(binascii.unhexlify({Z.hex()!r})))",
    "codecs": f"import codecs\nexec(codecs.decode({Z!r}, 'zlib'))",
    "no imports": f"exec(__import__('zlib').decompress(__import__('base64').b64decode({b64(Z)!r})))",  # noqa: E501
    "importlib": f"import importlib as i\nexec(i.import_module('zlib').decompress({Z!r}))",
    "getattr": f"import zlib\ngetattr(__builtins__, 'exec')(getattr(zlib, 'decompress')({Z!r}))",
    "from import": f"from zlib import decompress as d\nfrom base64 import *\nexec(d(b64decode({b64(Z)!r})))",  # noqa: E501
    "aliases": f"import zlib\ne, d = exec, zlib.decompress\ne(d({Z!r}))",
    "compile": f"{IMPORTS}exec(compile(zlib.decompress({Z!r}), 'train_gpt', 'exec'), globals())",
    "eval": f"{IMPORTS}eval(compile(zlib.decompress({Z!r}), '<string>', 'exec'))",
    "two literals": f"{IMPORTS}D = ({b64(Z)[:HALF]!r}\n {b64(Z)[HALF:]!r})\nexec(zlib.decompress(base64.b64decode(D)))",  # noqa: E501
    "sum": f"{IMPORTS}D = {b64(Z)[:HALF]!r}\nD += {b64(Z)[HALF:]!r}\nexec(zlib.decompress(base64.b64decode(D)))",  # noqa: E501
    "join": f"{IMPORTS}exec(zlib.decompress(b''.join([{Z[:9]!r}, {Z[9:]!r}])))",
    "latin-1": f"{IMPORTS}exec(zlib.decompress({Z.decode('latin-1')!r}.encode('latin-1')))",
    "slices": f"{IMPORTS}exec(zlib.decompress(({b'..' + Z!r})[2:][::-1][::-1]))",
    "replace": f"{IMPORTS}exec(zlib.decompress(base64.b64decode({b64(Z).replace('A', '!')!r}.replace('!', 'A'))))",  # noqa: E501
    "docstring": f'"""{b64(Z)}"""\n{IMPORTS}exec(zlib.decompress(base64.b64decode(__doc__)))',
    "function": f"{IMPORTS}def u(s):\n    t = base64.b85decode(s)\n    return zlib.decompress(t)\nexec(u({b85(Z)!r}))",  # noqa: E501
    "lambda": f"{IMPORTS}u = lambda s: zlib.decompress(s)\nexec(u({Z!r}))",
    "called lambda": f"{IMPORTS}(lambda z: exec(z.decompress({Z!r})))(zlib)",
    "main": f"{IMPORTS}def main():\n    exec(zlib.decompress({Z!r}))\nif __name__ == '__main__':\n    main()",  # noqa: E501
    "try": f"try:\n    import zlib\nexcept ImportError:\n    zlib = None\nexec(zlib.decompress({Z!r}))",  # noqa: E501
    "loop": f"{IMPORTS}x = {zlib.compress(Z)!r}\nfor _ in range(2):\n    x = zlib.decompress(x)\nexec(x)",  # noqa: E501
    "walrus": f"{IMPORTS}if (s := zlib.decompress({Z!r})):\n    exec(s)",
    "temporary file": f"{IMPORTS}with tempfile.NamedTemporaryFile('wb', suffix='.py', delete=False) as f:\n"  # noqa: E501
    f"    f.write(zlib.decompress({Z!r}))\nrunpy.run_path(f.name, run_name='__main__')",
    "path": f"{IMPORTS}from pathlib import Path\np = Path('train_gpt.py')\n"
    f"p.write_bytes(zlib.decompress({Z!r}))\nrunpy.run_path(str(p))".replace("str(p)", "p"),
    "subprocess": f"{IMPORTS}import subprocess\nopen('train_gpt.py', 'wb').write(zlib.decompress({Z!r}))\n"  # noqa: E501
    "subprocess.run([sys.executable, 'train_gpt.py'])",
    "lines of itself": f"{IMPORTS}exec(zlib.decompress(base64.b64decode(open(__file__).readlines()[-1][1:])))\n#{b64(Z)}",  # noqa: E501
    "split of itself": f"{IMPORTS}exec(zlib.decompress(base64.b64decode(open(__file__).read().split('#MA' + 'RK#')[1])))\n#MARK#{b64(Z)}",  # noqa: E501
    "nested": f"{IMPORTS}exec(zlib.decompress({zlib.compress(f'exec(zlib.decompress({Z!r}))'.encode())!r}))",  # noqa: E501
    "nested, imported": f"import zlib\nexec(zlib.decompress({zlib.compress(f'import brotli as b{chr(10)}exec(b.decompress({brotli.compress(RAW_SOURCE)!r}))'.encode())!r}))",  # noqa: E501
    "crlf": f"import zlib\r\nexec(zlib.decompress({Z!r}))\r\n",
    "async": f"{IMPORTS}async def go():\n    exec(zlib.decompress({Z!r}))\nimport asyncio\nasyncio.run(go())",  # noqa: E501
    "condition": f"{IMPORTS}if sys.version_info > (3,):\n    s = zlib.decompress({Z!r})\nelse:\n    s = zlib.decompress({Z!r})\nexec(s)",  # noqa: E501
}
SEEK = b"import zlib,sys\nf=open(sys.argv[0],'rb')\nf.seek(100)\nexec(zlib.decompress(f.read()))\n"
BINARY = {
    "binary after a mark": b"import zlib\nexec(zlib.decompress(open(__file__,'rb').read()"
    b".split(b'#MARK'+b'\\n',1)[1]))\n#MARK\n" + Z,
    "binary by its place": SEEK.ljust(100, b"#") + Z,
    "latin-1 script": b"# -*- coding: latin-1 -*-\nimport zlib\nexec(zlib.decompress('''"
    + repr(Z)[2:-1].encode("latin-1").replace(b"'''", b"\\'\\'\\'")
    + b"'''.encode('latin-1')))",
    "with a mark of order": b"\xef\xbb\xbf" + CASES["xz"].encode(),
}


@pytest.mark.parametrize("name", [*CASES, *BINARY])
def test_each_way_of_packing(name: str) -> None:
    data = BINARY[name] if name in BINARY else CASES[name].encode()
    found = unpack_script(data, "train_gpt.py")
    assert found.unresolved == ()
    assert [(module.name, module.source) for module in found.modules] == [("train_gpt", SOURCE)]
    assert found.layers[-1].sha256 == hashlib.sha256(RAW_SOURCE).hexdigest()
    assert found.layers[-1].bytes_out == len(RAW_SOURCE)


PACKED = {
    "golf_core": b85(zlib.compress(b"A = 1\n")),
    "golf_core.deep": b85(zlib.compress(b"B = 2\n")),
}
EXEC = "exec(zlib.decompress(base64.b85decode(M[m.__name__])), m.__dict__)"
WHOLE = zlib.compress(json.dumps({"golf_core": "A = 1\n", "golf_core.deep": "B = 2\n"}).encode())
IMPORTERS = {
    "loop": f"M = {PACKED!r}\nfor n, s in M.items():\n    m = types.ModuleType(n)\n"
    "    exec(zlib.decompress(base64.b85decode(s)), m.__dict__)\n    sys.modules[n] = m",
    "finder": f"M = {PACKED!r}\nclass F:\n    def find_spec(self, n, p=None, t=None):\n"
    f"        return n in M\n    def exec_module(self, m):\n        {EXEC}\n"
    "sys.meta_path.insert(0, F())",
    "source loader": f"M = {PACKED!r}\nclass F:\n    def get_source(self, n):\n"
    "        return zlib.decompress(base64.b85decode(M[n])).decode()",
    "held by the object": "class F:\n    def __init__(self, mods):\n        self.mods = mods\n"
    "    def exec_module(self, m):\n        s = self.mods[m.__name__]\n"
    f"        exec(zlib.decompress(base64.b85decode(s)), m.__dict__)\nF({PACKED!r})",
    "one stream of JSON": f"import json\nM = json.loads(zlib.decompress({WHOLE!r}))\n"
    "class F:\n    def exec_module(self, m):\n        exec(M[m.__name__], m.__dict__)",
    "comprehension": f"M = {{n: zlib.decompress(base64.b85decode(s)) for n, s in {PACKED!r}.items()}}\n"  # noqa: E501
    "def load(n):\n    exec(M[n])",
    "pairs": f"for n, s in {list(PACKED.items())!r}:\n"
    "    exec(zlib.decompress(base64.b85decode(s)), types.ModuleType(n).__dict__)",
}


@pytest.mark.parametrize("name", IMPORTERS)
def test_importers_give_each_module(name: str) -> None:
    found = unpack_script((IMPORTS + IMPORTERS[name]).encode(), "train_gpt.py")
    assert found.unresolved == ()
    assert {module.name: module.source for module in found.modules} == {
        "golf_core": "A = 1\n",
        "golf_core.deep": "B = 2\n",
    }


def test_a_zip_application() -> None:
    file = io.BytesIO(b"")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("__main__.py", SOURCE)
        members.writestr("data.bin", b"\0")
    found = unpack_script(b"#!/usr/bin/env python3\n" + file.getvalue(), "run.pyz")
    assert [(one.name, one.source) for one in found.modules] == [("__main__", SOURCE)]


def test_a_plain_script_is_printed_as_it_is() -> None:
    for text in (SOURCE, Path(__file__).read_text(encoding="utf-8"), "exec('x = 1')\n"):
        found = unpack_script(text.encode(), "plain.py")
        assert [one.source for one in found.modules] == [text] and found.layers == ()


def test_the_code_of_this_toolkit_is_plain() -> None:
    for path in sorted(Path(__file__).parents[2].glob("core/**/*.py")):
        found = unpack_script(path.read_bytes(), path.name)
        assert (found.unresolved, found.layers, len(found.modules)) == ((), (), 1), path


def test_a_large_payload_is_no_code_of_the_loader() -> None:
    source = "\n".join(f"name_{at} = {hash((at, at))}" for at in range(2000))
    payload = repr(zlib.compress(source.encode()).decode("latin-1")).encode("latin-1")
    assert len(payload) > 10_000 and payload.count(b" ") > 10
    script = b"#coding:latin1\nimport zlib\ns=" + payload
    found = unpack_script(script + b"\nexec(zlib.decompress(s.encode('latin1')))", "train_gpt.py")
    assert [one.source for one in found.modules] == [source]
    assert 0 < found.loader_bytes < 100


def test_a_script_with_code_of_its_own_is_shown_too() -> None:
    own = SOURCE * 30
    found = unpack_script(f"{IMPORTS}{own}\nexec(zlib.decompress({Z!r}))".encode(), "train_gpt.py")
    assert [own in one.source for one in found.modules] == [True, False]


OPEN = {  # what only running would tell: (script, part of the sentence)
    "another file": ("exec(open('other.py').read())", "another file, 'other.py'"),
    "network": ("import urllib.request as u\nexec(u.urlopen('https://x').read())", "line 2"),
    "argument": ("import sys, zlib\nexec(zlib.decompress(sys.argv[1]))", "line 2"),
    "cipher": (f"exec(bytes(b ^ 1 for b in {Z!r}))", "comprehension"),
    "marshal": ("import marshal\nexec(marshal.loads(b'x'))", "marshal.loads"),
    "pickle": ("import pickle\nexec(pickle.loads(b'x'))", "pickle.loads"),
    "broken": (f"import zlib\nexec(zlib.decompress({Z[:-9]!r}))", "ends too early"),
    "not Python": (f"import zlib\nexec(zlib.decompress({zlib.compress(b'if')!r}))", "not Python"),
    "while": (
        f"import zlib\nx = {Z!r}\nwhile len(x) < 9:\n    x = x[1:]\nexec(x)",
        "loop in line 3",
    ),
    "replaced": (f"import zlib\nzlib.decompress = len\nexec(zlib.decompress({Z!r}))", "of its own"),
    "condition": (
        f"import os, zlib\nx = {Z!r}\nif os.getenv('A'):\n    x = b''\nexec(zlib.decompress(x))",
        "condition in line 3",
    ),
    "codec": ("exec(b'a'.decode('utf_7'))", "encoding 'utf_7'"),
    "window": (
        f"import lzma\nexec(lzma.decompress({L!r}, 3, None, [{{'id': 33, 'dict_size': 1 << 31}}]))",
        "line 2",
    ),
}


@pytest.mark.parametrize("name", OPEN)
def test_what_stays_open_is_said(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, sentence = OPEN[name]
    (tmp_path / "s.py").write_text(script)
    assert main(["unpack", str(tmp_path / "s.py")]) == 1
    _, err = capsys.readouterr()
    assert sentence in err and "s: line" in err


def test_depth_and_output_are_limited() -> None:
    source = SOURCE.encode()
    for _ in range(MAX_DEPTH + 1):
        source = f"import zlib\nexec(zlib.decompress({zlib.compress(source)!r}))".encode()
    assert "more than 8 times" in unpack_script(source, "deep.py").unresolved[0]
    bomb = zlib.compress(b"#" * 70_000_000, 9)
    found = unpack_script(f"import zlib\nexec(zlib.decompress({bomb!r}))".encode(), "bomb.py")
    assert found.unresolved == ("bomb: it unpacks to more than 64,000,000 bytes in all",)


REFUSED = {
    "no Python": (b"\x89PNG\r\n\x1a\n", "utf-8"),
    "nul": (b"x = 1\0", "null bytes"),
    "nested": (b"(" * 5000, "too many nested"),
    "minus": (b"-" * 100_000 + b"1", "nested too deeply"),
    "too much": (b"a;" * 400_000, "more than 500,000"),
    "encoding": (b"# coding: idna\nx = 1", "encoding idna"),
    "no Python in it": (b"PK\x03\x04", "zip"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_script_is_refused(name: str) -> None:
    data, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=sentence):
        unpack_script(data, "odd.py")


@pytest.fixture
def records(tmp_path: Path) -> Path:
    folder = tmp_path / "records"
    folder.mkdir()
    (folder / "train_gpt.py").write_text(CASES["raw lzma, base85"])
    (folder / "train.log").write_text("step:1")
    return folder


def test_a_folder_and_json(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unpack", str(records)]) == 0
    assert capsys.readouterr().out == SOURCE
    assert main(["unpack", str(records), "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in fields["layers"]] == ["base85", "raw lzma"]
    assert [(row["bytes_in"], row["bytes_out"]) for row in fields["layers"]] == [
        (len(b85(L)), len(L)),
        (len(L), len(RAW_SOURCE)),
    ]
    (records / "helper.py").write_text("y = 2\n")
    assert main(["unpack", str(records)]) == 0
    out = capsys.readouterr().out
    assert out == f"# --- helper ---\ny = 2\n# --- train_gpt ---\n{SOURCE}"


LOADERS = {  # what stands around the payload: (lines before, lines behind, part that is shown)
    "a request": ("import requests\nW = requests.get('http://a').content", "", "requests.get"),
    "a file": ("W = open('/home/w.bin').read()", "", "open('/home/w.bin')"),
    "code behind it": ("", "def train(x):\n    return x", "def train"),
    "a line to run": ("exec('import os; os.system(\\'curl x\\')')", "", "curl x"),
    "a line that is kept": ("w = 'import evil'\nexec(w)", "", "import evil"),
    "a name for it": ("SEED = '7'", "", "SEED = '7'"),
    "another payload": (f"W = {'x' * 300!r}", "", "300 characters, SHA-256"),
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_that_does_more_is_shown(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, behind, shown = LOADERS[name]
    plain, more = tmp_path / "plain.py", tmp_path / "more.py"
    plain.write_text(f"import zlib\nexec(zlib.decompress({Z!r}))\n")
    more.write_text(f"import zlib\n{before}\nexec(zlib.decompress({Z!r}))\n{behind}\n")
    assert unpack_script(plain.read_bytes(), "plain.py").loaders == ()
    found = unpack_script(more.read_bytes(), "more.py")
    assert [one.source for one in found.modules] == [SOURCE] and repr(Z) not in repr(found.loaders)
    assert shown in found.loaders[0].source
    assert main(["unpack", str(more)]) == 0
    assert shown in capsys.readouterr().out
    assert main(["unpack", "--diff", str(plain), str(more)]) == 1
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize("line", ["def compile(*words): pass", "for lzma in (): pass"])
def test_a_loader_that_replaces_what_runs_stays_open(line: str) -> None:
    found = unpack_script(
        f"import zlib, lzma\n{line}\nexec(zlib.decompress({Z!r}))".encode(), "s.py"
    )
    assert any("puts something else in the place of" in said for said in found.unresolved)


def test_a_folder_below_a_folder(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (records / "pkg").mkdir()
    (records / "pkg" / "deep.py").write_text("z = 3\n")
    (records / ".git").mkdir()
    (records / ".git" / "hook.py").write_text("hidden = 1\n")
    assert main(["unpack", str(records)]) == 0
    out = capsys.readouterr().out
    assert "# --- pkg/deep ---\nz = 3\n" in out and "hidden" not in out


def test_diff_as_data(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.py"
    other.write_text("y = 2\n")
    words = ["unpack", "--diff", str(records / "train_gpt.py"), str(other)]
    assert main([*words, "--json"]) == 1
    fields = json.loads(capsys.readouterr().out)
    assert not fields["same"] and "+y = 2\n" in fields["diff"]
    assert fields["a"]["scripts"] == ["train_gpt.py"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert main(["unpack", str(other), "--json", "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert (tmp_path / "out" / "other.py").read_text() == "y = 2\n"


def test_diff(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, other = records / "train_gpt.py", tmp_path / "plain.py"
    other.write_text(SOURCE, encoding="utf-8")
    assert main(["unpack", "--diff", str(script), str(other)]) == 0
    assert capsys.readouterr().out == ""
    other.write_text(SOURCE.replace("import torch", "import mlx"), encoding="utf-8")
    assert main(["unpack", "--diff", str(records), str(other)]) == 1
    assert "-import torch\n+import mlx\n" in capsys.readouterr().out


def test_modules_are_written_within_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["../../up", "/etc/passwd", "a.b", "A.B", "", "..", "con\n", "x" * 300]
    modules = {name: zlib.compress(f"n = {at}\n".encode()) for at, name in enumerate(names)}
    script = f"{IMPORTS}for n, s in {modules!r}.items():\n    exec(zlib.decompress(s))"
    (tmp_path / "s.py").write_text(script)
    assert main(["unpack", str(tmp_path / "s.py"), "--out", str(tmp_path / "out")]) == 0
    written = list((tmp_path / "out").iterdir())
    assert len(written) == len(names) + 1  # and the loader, for its odd names
    assert {path.suffix for path in written} == {".py"}
    assert {path.name for path in tmp_path.iterdir()} == {"s.py", "out"}
    assert len(capsys.readouterr().out.splitlines()) == len(names) + 1
    assert main(["unpack", str(tmp_path / "s.py"), "--out", str(tmp_path / "out")]) == 1
    assert "new or empty folder" in capsys.readouterr().err
    for name in [*names, ".hidden", "-", "\u202e"]:
        assert Path(safe_name(name)).name == safe_name(name) and safe_name(name) != ".py"


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unpack"]) == 2
    assert main(["unpack", str(tmp_path / "none.py")]) == 1
    assert main(["unpack", str(tmp_path)]) == 1
    assert "a folder without a .py file" in capsys.readouterr().err
