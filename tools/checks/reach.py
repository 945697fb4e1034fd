"""What a source would reach beside its folder: the network, other programs, paths outside.

The tree is read, never run. What is told is FAIL; what only running would tell is UNDECIDED.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from core.data.findings import Status
from tools.checks.reach_names import Names, bound_names
from tools.checks.reach_paths import Head, head_of, outside, outside_when_read, tails

NETWORK = {
    *("requests", "httpx", "aiohttp", "ftplib", "urllib3", "wget", "smtplib", "paramiko", "gdown"),
    *("urllib.request", "http.client", "boto3", "telnetlib", "pycurl"),
}
PERHAPS_NETWORK = {"socket", "huggingface_hub", "datasets", "kernels", "wandb", "hf_transfer"}
_READERS = {
    *("open", "Path", "PurePath", "PosixPath", "fromfile", "memmap", "load", "loadtxt"),
    *("genfromtxt", "glob", "iglob", "listdir", "scandir", "chdir", "read_text", "read_bytes"),
    *("load_file", "safe_open", "SentencePieceProcessor", "spec_from_file_location", "run_path"),
    *("CDLL", "load_library", "symlink", "copyfile", "realpath", "read_csv", "read_parquet"),
    *("read_table", "urlopen", "urlretrieve", "load_dataset", "FileIO", "mmap", "from_file"),
    *("joinpath", "rglob", "copytree", "unpack_archive"),
}
_PERHAPS_READERS = {  # also of lists and texts: a path with one part may be something else
    *("walk", "run", "Popen", "system", "check_output", "call", "copy", "join", "insert"),
    *("append", "import_module"),
}
_DOWNLOADS = {  # calls that are for nothing else, by their last word
    *("load_state_dict_from_url", "download_url_to_file", "urlretrieve", "urlopen"),
    *("hf_hub_download", "snapshot_download", "cached_download", "download_file"),
}
_HUBS = {"from_pretrained", "load_dataset", "get_kernel"}  # a name on a hub, or a folder
_COMMANDS = re.compile(
    r"os\.(system|popen|exec\w+|spawn\w+|posix_spawnp?|startfile)|"
    r"subprocess\.(run|call|check_call|check_output|Popen|getoutput|getstatusoutput)|"
    r"asyncio\.create_subprocess_\w+|pty\.spawn|platform\.popen"
)
_FETCHERS = re.compile(
    r"\b(curl|wget|aria2c|scp|rsync|sftp|ftp|ssh|gsutil|gdown|huggingface-cli|apt|apt-get|conda)\b|"
    r"\b(pip3?|uv|npm|cargo|brew)\b.*\b(install|download|add)\b|\bgit\b.*\b(clone|pull|fetch)\b|"
    r"\b(aws|hf|kaggle)\b.*\b(s3|cp|download)\b|\b(https?|ftp|s3|gs)://"
)
_ENVIRONMENT = re.compile(r"os\.(get)?env(iron)?b?(\.get|\.pop|\.setdefault)?")
_URL = re.compile(r"(https?|ftp|s3|gs|hf)://", re.I)
_SHOWS = re.compile(r"nvidia-smi\b")  # what every reference script starts, and which only shows
_IMPORTERS = {"__import__", "importlib.import_module", "importlib.__import__", "pkgutil.get_data"}
_HOLDERS = {"os", "subprocess", "importlib", "builtins", "__builtins__", "socket", "sys.modules"}
_LIBRARIES = {"ctypes.CDLL", "ctypes.PyDLL", "ctypes.cdll.LoadLibrary", "ctypes.util.find_library"}


@dataclass(frozen=True, kw_only=True)
class Reach:
    """One thing that a source reaches, as a sentence."""

    status: Status
    said: str


def reaches(tree: ast.Module) -> Iterator[Reach]:
    """Everything that the source of this tree would reach outside of its folder."""
    names = bound_names(tree)
    yield from _imports(tree)
    behind = tails(tree)
    called: set[int] = set()
    read: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called.add(id(node.func))
            name = names.dotted(node.func)
            yield from _call(node, name, names)
            yield from _read(node, name.rsplit(".", 1)[-1], names, behind, read)
    yield from _handed_on(tree, names, called)
    yield from _named(tree, behind, read)


def _imports(tree: ast.Module) -> Iterator[Reach]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from imported(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            for name in (node.module or "", *(f"{node.module}.{x.name}" for x in node.names)):
                yield from imported(name, node.lineno)


def imported(name: str, line: int) -> Iterator[Reach]:
    """What the import of a module of this name reaches."""
    if name in NETWORK or name.split(".")[0] in NETWORK:
        said = f"line {line} imports {name:.80}, which is for the network"
        yield Reach(status="FAIL", said=said)
    elif name in PERHAPS_NETWORK:
        said = f"line {line} imports {name}, which can use the network"
        yield Reach(status="UNDECIDED", said=said)


def _call(node: ast.Call, name: str, names: Names) -> Iterator[Reach]:
    """A call by what it is called; `name` is empty where that cannot be told."""
    line, last = node.lineno, name.rsplit(".", 1)[-1]
    if _COMMANDS.fullmatch(name):
        yield from _command(node, name)
    elif name in _IMPORTERS:
        yield from _dynamic(node, names)
    elif last in _DOWNLOADS or name.startswith("torch.hub.load"):
        yield Reach(status="FAIL", said=f"line {line} calls {name:.80}, which downloads")
    elif last in _HUBS:
        yield _hub(node, last, names)
    elif name in _LIBRARIES:
        yield Reach(status="UNDECIDED", said=f"line {line} loads a library by {name}")
    elif last in ("expanduser", "home", "gethomedir", "expandvars") and "." in name:
        yield from _home(node, name, last, names)
    elif _ENVIRONMENT.fullmatch(name) and node.args and _text(node.args[0]) == "HOME":
        yield Reach(status="UNDECIDED", said=f"line {line} asks for HOME")
    elif name == "getattr" and _takes_anything(node, names):
        held = names.dotted(node.args[0])
        yield Reach(status="UNDECIDED", said=f"line {line} takes from {held} what is not told")


def _takes_anything(node: ast.Call, names: Names) -> bool:
    """Whether getattr takes what is not told from a module that starts or imports things."""
    if len(node.args) < 2 or _text(node.args[1]) is not None:
        return False
    return names.dotted(node.args[0]) in _HOLDERS


def _command(node: ast.Call, name: str) -> Iterator[Reach]:
    words = [text for one in ast.walk(node) if (text := _text(one)) is not None]
    command = " ".join(words)
    if _FETCHERS.search(command):
        said = f"line {node.lineno} runs {command[:120]!r} by {name}, which fetches"
        yield Reach(status="FAIL", said=said)
    elif not _SHOWS.match(command):
        said = f"line {node.lineno} starts another program by {name}: {command[:100]!r}"
        yield Reach(status="UNDECIDED", said=said)


def _dynamic(node: ast.Call, names: Names) -> Iterator[Reach]:
    head = head_of(node.args[0], names) if node.args else Head()
    if head.whole:
        yield from imported(head.text, node.lineno)
    else:
        said = f"line {node.lineno} imports a module whose name is not told"
        yield Reach(status="UNDECIDED", said=said)


def _hub(node: ast.Call, last: str, names: Names) -> Reach:
    """A name as of a hub is fetched; a path with ./ before it is not."""
    head = head_of(node.args[0], names) if node.args else Head()
    if head.text and not head.text.startswith("."):
        said = f"line {node.lineno} calls {last} of {head.text[:80]!r}, which downloads"
        return Reach(status="FAIL", said=said)
    said = f"line {node.lineno} calls {last}, which can download"
    return Reach(status="UNDECIDED", said=said)


def _home(node: ast.Call, name: str, last: str, names: Names) -> Iterator[Reach]:
    if last == "home" and not name.endswith("Path.home"):
        return
    head = head_of(node.args[0], names) if node.args else Head()
    told = last == "home" or head.text.startswith("~")
    if told or not head.whole:
        said = f"line {node.lineno} calls {name:.80}: the user's own folders"
        yield Reach(status="FAIL" if told else "UNDECIDED", said=said)


def _read(
    node: ast.Call, last: str, names: Names, behind: set[int], read: set[int]
) -> Iterator[Reach]:
    """Paths among the arguments of a call that opens, lists or runs what they name."""
    if last not in _READERS and last not in _PERHAPS_READERS:
        return
    arguments = [*node.args, *(word.value for word in node.keywords)]
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    if owner is not None and not isinstance(owner, ast.Constant | ast.Call):
        arguments.append(owner)
    for argument in arguments:
        head = head_of(argument, names)
        if outside_when_read(head.text, last in _READERS) or _URL.match(head.text):
            read.update(id(one) for one in ast.walk(argument))
            said = f"line {node.lineno} reads {head.text[:120]!r}, outside of the folder"
            yield Reach(status="FAIL", said=said)
            continue
        yield from _inside(argument, names, behind, read)


def _inside(argument: ast.expr, names: Names, behind: set[int], read: set[int]) -> Iterator[Reach]:
    """Texts anywhere in an argument; what stands behind another text is no start of a path."""
    for one in ast.walk(argument):
        if isinstance(one, ast.Attribute) and names.dotted(one) == "os.pardir":
            said = f"line {one.lineno} reads os.pardir, outside of the folder"
            yield Reach(status="FAIL", said=said)
        text = _text(one)
        if text is not None and _is_path(text) and outside(text, start=id(one) not in behind):
            read.add(id(one))
            line = getattr(one, "lineno", 0)
            said = f"line {line} reads {text[:120]!r}, outside of the folder"
            yield Reach(status="FAIL", said=said)


def _handed_on(tree: ast.Module, names: Names, called: set[int]) -> Iterator[Reach]:
    """What starts programs, given to something else instead of being called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            name = names.dotted(node)
            if id(node) not in called and _COMMANDS.fullmatch(name):
                said = f"line {node.lineno} hands on {name}, which starts programs"
                yield Reach(status="UNDECIDED", said=said)
        elif _asks_for_home(node, names):
            line = getattr(node, "lineno", 0)
            yield Reach(status="UNDECIDED", said=f"line {line} asks for HOME")


def _asks_for_home(node: ast.AST, names: Names) -> bool:
    if not isinstance(node, ast.Subscript) or _text(node.slice) != "HOME":
        return False
    return _ENVIRONMENT.fullmatch(names.dotted(node.value)) is not None


def _named(tree: ast.Module, behind: set[int], read: set[int]) -> Iterator[Reach]:
    """Paths outside of the folder that stand in the source and are not seen to be read."""
    for node in ast.walk(tree):
        text = _text(node)
        if text is None or id(node) in read or not _is_path(text):
            continue
        if outside(text, start=id(node) not in behind):
            line = getattr(node, "lineno", 0)
            said = f"line {line} names {text[:120]!r}, outside of the folder"
            yield Reach(status="UNDECIDED", said=said)


def _is_path(text: str) -> bool:
    return len(text) <= 400 and "\n" not in text


def _text(node: ast.AST) -> str | None:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str | bytes):
        return None
    return node.value if isinstance(node.value, str) else node.value.decode("latin-1")
