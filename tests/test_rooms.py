"""Who may import whom, read from the code: no framework is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = {"core"}
STDLIB = set(sys.stdlib_module_names)
ALLOWED = {  # package: what it may import beside the standard library and itself
    "core": {"numpy"},
    "backend_torch": CORE | {"numpy", "torch"},
    "backend_mlx": CORE | {"numpy", "mlx"},
    "tools": CORE | {"numpy", "rich"},
}
INSIDE_FUNCTIONS = {  # file: what it may import inside a function
    "core/data/tokenizer.py": {"sentencepiece"},
    "core/train/run_folder.py": {"safetensors"},
    "core/artifact/codecs.py": {"brotli", "zstandard"},
    "tools/strangers/bounded.py": {"brotli", "zstandard"},
    "tools/bundling/decoder.py": {"python_minifier"},
    "tools/bundling/reader.py": {"brotli", "zstandard"},  # code of decoders
    "tools/bundling/script.py": {"python_minifier"},
    "tools/bundling/twins.py": {"sentencepiece"},  # code of bundles
    "tools/compare.py": {"scipy"},
    "tools/lab.py": {"matplotlib"},
    "tools/published/hub.py": {"huggingface_hub"},
}
AT_IMPORT = {  # folder: what its files may import at once, as each is imported inside a function
    "backend_torch/kernels": {"triton"},
}
ROOMS = {  # room of core: the rooms it may import
    "arch": set(),
    "artifact": {"arch"},
    "data": {"arch"},
    "score": {"arch", "data"},
    "train": {"arch", "artifact", "data", "score"},
}
READS_ENVIRONMENT = {
    "backend_torch/distributed.py",
    "backend_mlx/distributed.py",
    "tools/backends.py",
    "tools/bootstrap.py",
    "tools/bundling/script.py",  # in the script that it writes
    "tools/environment.py",
}


def sources(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, package
    return found


def imported(tree: ast.AST) -> set[str]:
    """Dotted names of every module that the tree imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module or "")
    return names


def at_import(tree: ast.Module) -> ast.Module:
    """The statements that run when the module is imported."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return ast.Module([node for node in tree.body if not isinstance(node, functions)], [])


def outsiders(tree: ast.AST, package: str) -> set[str]:
    tops = {name.split(".")[0] for name in imported(tree)}
    return tops - STDLIB - ALLOWED[package] - {package}


@pytest.mark.parametrize("package", ALLOWED)
def test_each_package_imports_only_its_neighbours(package: str) -> None:
    for path in sources(package):
        name = path.relative_to(ROOT).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = AT_IMPORT.get(Path(name).parent.as_posix(), set())
        assert outsiders(at_import(tree), package) <= own, name
        assert outsiders(tree, package) - own <= INSIDE_FUNCTIONS.get(name, set()), name


@pytest.mark.parametrize("room", ROOMS)
def test_the_rooms_of_core_have_no_cycles(room: str) -> None:
    for path in sources(f"core/{room}"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {n.split(".")[1] for n in imported(tree) if n.startswith("core.")}
        assert used - {room} <= ROOMS[room], path.name


def test_every_room_is_listed() -> None:
    assert {path.parent.name for path in (ROOT / "core").glob("*/__init__.py")} == set(ROOMS)


def test_the_environment_is_read_in_one_place_a_backend() -> None:
    for package in ALLOWED:
        for path in sources(package):
            name = path.relative_to(ROOT).as_posix()
            text = path.read_text(encoding="utf-8")
            if "os.environ" in text or "getenv" in text:
                assert name in READS_ENVIRONMENT, name


def test_nothing_is_unpickled_or_executed() -> None:
    banned = {"pickle", "marshal", "shelve", "dill", "joblib"}
    for package in ALLOWED:
        for path in sources(package):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            assert not imported(tree) & banned, path.name
            calls = {
                n.func.id
                for n in ast.walk(tree)
                if isinstance(n, ast.Call) and hasattr(n.func, "id")
            }
            assert not calls & {"eval", "exec"}, path.name


@pytest.mark.parametrize("module", ["core.train.finish", "core.train.recipes", "tools.main"])
def test_importing_loads_no_framework(module: str) -> None:
    heavy = "{'torch', 'mlx', 'sentencepiece', 'safetensors'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
