"""Calls in a script that are no decoders: what runs text, opens files, imports, or passes on."""

from __future__ import annotations

from tools.strangers.script_expressions import OTHER, Expressions
from tools.strangers.script_values import File, Ref, Value

# their first argument is what they give back, as far as a payload goes
_THROUGH = {"compile", "textwrap.dedent", "memoryview", "pathlib.Path", "os.path.abspath"}
_THROUGH |= {"os.path.realpath", "iter", "sorted", "os.fspath"}
_TEMPORARY = {"tempfile.NamedTemporaryFile", "tempfile.TemporaryFile", "tempfile.mktemp"}
_TEMPORARY |= {"tempfile.mkstemp", "tempfile.mkdtemp", "tempfile.TemporaryDirectory"}
_SELF = "__file__"


class Calls(Expressions):
    """Expressions, and the functions of Python by which a loader runs what it holds."""

    def special(self, name: str, args: list[Value], options: dict[str, Value], line: int) -> Value:
        """What is no decoder: what runs, opens, imports or passes on."""
        first = args[0] if args else next(iter(options.values()), None)
        if name in ("exec", "eval", "runpy.run_path"):
            self.sink(first, line, name)
            return OTHER
        if name == "compile":
            self.work.call_it(first, args[1] if len(args) > 1 and _is_name(args[1]) else None)
        if name in _THROUGH:
            return self._path(first) if name == "pathlib.Path" else first
        if name in ("__import__", "importlib.import_module") and isinstance(first, str):
            return Ref(name=first)
        if name == "getattr" and len(args) > 1 and isinstance(args[1], str):
            return self.attribute(first, args[1])
        if name == "setattr" and isinstance(first, Ref):
            self.work.poisoned.add(f"{first.name}.{args[1] if len(args) > 1 else ''}")
        if name in _TEMPORARY:
            return self._temporary(name)
        if name in ("open", "io.open", "os.fdopen", "pathlib.Path.open"):
            return self._open(first, args[1] if len(args) > 1 else options.get("mode", "r"))
        return self.os_call(name, args, line)

    def os_call(self, name: str, args: list[Value], line: int) -> Value:
        """Another program that runs a file which the script wrote."""
        if name == "os.path.join" and args:
            return args[-1]
        if name.split(".")[0] not in ("subprocess", "os"):
            return NotImplemented
        inside = [one for arg in args for one in (arg if isinstance(arg, list) else [arg])]
        for one in inside:
            if isinstance(one, File) and one.written:
                self.sink(one, line, name)
        return NotImplemented

    def _temporary(self, name: str) -> Value:
        file = File(path=None, content=b"")
        self.files.append(file)
        return (OTHER, file) if name.endswith("mkstemp") else file

    def _path(self, path: Value) -> Value:
        return self._open(path, "rb")

    def _open(self, path: Value, mode: Value) -> Value:
        """The script itself, a file that it wrote before, or one that is not at hand."""
        if isinstance(path, File):
            path.text, path.at = isinstance(mode, str) and "b" not in mode, 0
            return path
        text = isinstance(mode, str) and "b" not in mode
        if isinstance(path, Ref) and path.name in (_SELF, "sys.argv"):
            return File(path=None, content=self.file, text=text)
        if isinstance(path, str) and path in self.by_path:
            return self.by_path[path]
        file = File(path=path if isinstance(path, str) else OTHER, text=text)
        self.files.append(file)
        if isinstance(path, str):
            self.by_path[path] = file
        return file


def _is_name(value: Value) -> bool:
    return isinstance(value, str) and not value.startswith("<")
