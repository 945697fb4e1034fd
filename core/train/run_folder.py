"""runs/<run_id>/: the one home of a run's file names.

recipe.json, log.txt (the lines that other people's tools grep), log.jsonl (every event with all its
fields), weights.safetensors (averaged weights, float32, neutral names), model.bin (the artifact),
checkpoint.safetensors (the loop's whole state, while it runs), hessians.safetensors (what was
measured of these weights' inputs, once a command has).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from core.arch.fields import to_plain
from core.arch.params import Weights, check_weights
from core.arch.spec import ModelSpec
from core.train.events import log_line
from core.train.recipe import Recipe, from_json, to_json

UNTRAINED = {  # what changes no number of training, by section
    "": ("name", "compile", "deterministic", "kernels", "score"),
    "data": ("path", "tokenizer", "micro_batch"),
    "schedule": ("log_every_steps",),
}


class RunFolder:
    """Writes a run's files; nothing is touched before `create`."""

    def __init__(self, root: str | Path, run_id: str) -> None:
        if Path(run_id).name != run_id:
            raise ValueError(f"run id {run_id!r} must be one plain name, without folders")
        self.path = Path(root) / run_id

    def create(self, recipe: Recipe) -> None:
        """Make the folder and save the recipe; one that already holds a run is refused."""
        if self.recipe_path.exists():
            raise ValueError(f"{self.path} already holds a run; choose another run id or move it")
        self.path.mkdir(parents=True, exist_ok=True)
        _write_atomically(self.recipe_path, to_json(recipe).encode())

    @property
    def recipe_path(self) -> Path:
        return self.path / "recipe.json"

    @property
    def weights_path(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def model_path(self) -> Path:
        return self.path / "model.bin"

    @property
    def state_path(self) -> Path:
        return self.path / "checkpoint.safetensors"

    def reopen(self, recipe: Recipe) -> None:
        """Go on with an unfinished run of the same training; recipe.json is this recipe's then."""
        held = load_recipe(self.path)
        if training_hash(held) != training_hash(recipe):
            raise ValueError(
                f"{self.path} holds a run of another recipe: {differing(held, recipe)}; resume "
                f"with its recipe.json or choose another run id"
            )
        if self.model_path.exists():
            raise ValueError(f"{self.path} is finished: it has its {self.model_path.name}")
        _write_atomically(self.recipe_path, to_json(recipe).encode())

    def save_weights(self, weights: Weights) -> None:
        from safetensors.numpy import save

        _write_atomically(self.weights_path, save(dict(sorted(weights.items()))))

    def save_model(self, data: bytes) -> None:
        _write_atomically(self.model_path, data)

    def save_state(
        self, arrays: dict[str, NDArray[Any]], data: dict[str, str] | None = None
    ) -> None:
        """The loop's flat state, numbers as arrays without a shape; the identity of its data."""
        from safetensors.numpy import save

        _write_atomically(self.state_path, save(dict(sorted(arrays.items())), data or None))

    def check_data(self, data: dict[str, str]) -> None:
        """Raise ValueError unless the checkpoint was made on this data, where it says on which."""
        from safetensors import safe_open

        with safe_open(self.state_path, "numpy") as file:
            held = file.metadata() or {}
        other = [name for name in data if held.get(name, data[name]) != data[name]]
        if other:
            raise ValueError(
                f"{self.state_path} was made on other data: {' and '.join(other)} differ; set "
                f"data.path and data.tokenizer to what the run began with, or choose another run id"
            )

    def log(self, kind: str, **fields: Any) -> None:
        """One event: all of it to log.jsonl, and its line to log.txt when it is due."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": kind, **fields}) + "\n")
        line = log_line(kind, fields)
        if line is not None:
            with (self.path / "log.txt").open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def training_hash(recipe: Recipe) -> str:
    """sha256 of what decides the numbers of training: equal where a run may go on."""
    canonical = json.dumps(_trained(recipe), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def differing(held: Recipe, recipe: Recipe) -> str:
    """The first fields of training in which two recipes differ, as a clause."""
    old, new = _trained(held), _trained(recipe)
    found = [f"{name} is {old[name]}, here {new[name]}" for name in old if old[name] != new[name]]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more


def _trained(recipe: Recipe) -> dict[str, Any]:
    """Its fields by section.field, without the UNTRAINED."""
    plain = to_plain(recipe)
    for name in UNTRAINED[""]:
        del plain[name]
    flat: dict[str, Any] = {}
    for name, value in plain.items():
        section = value if isinstance(value, dict) else {"": value}
        for field, inner in section.items():
            if field not in UNTRAINED.get(name, ()):
                flat[f"{name}.{field}".rstrip(".")] = inner
    return flat


def load_recipe(folder: Path) -> Recipe:
    path = folder / "recipe.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds no run: no recipe.json in it")
    return from_json(path.read_text(encoding="utf-8"), str(path))


def load_weights(folder: Path) -> Weights:
    """weights.safetensors of a run, as float32 arrays; parsed as data, nothing is executed."""
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise ValueError(f"{folder} holds no weights: no weights.safetensors in it")
    return {name: array.astype("float32") for name, array in _load(path).items()}


def save_hessians(folder: Path, arrays: dict[str, NDArray[Any]]) -> Path:
    """hessians.safetensors, with the sha256 of the weights that they are of; where it is now."""
    from safetensors.numpy import save

    path = folder / "hessians.safetensors"
    told = {"weights": _weights_hash(folder)}
    _write_atomically(path, save(dict(sorted(arrays.items())), told))
    return path


def kept_hessians(folder: Path) -> Path | None:
    """The file, where there is one of the weights that the folder holds."""
    from safetensors import SafetensorError, safe_open

    path = folder / "hessians.safetensors"
    if not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as file:
            told = (file.metadata() or {}).get("weights")
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from None
    return path if told == _weights_hash(folder) else None


def _weights_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()


def load_state(folder: Path, spec: ModelSpec) -> dict[str, Any] | None:
    """The checkpoint of a run: arrays, and the numbers step and elapsed_s; None without one."""
    path = folder / "checkpoint.safetensors"
    if not path.is_file():
        return None
    arrays = _load(path)
    weights = {k.removeprefix("weight/"): a for k, a in arrays.items() if k.startswith("weight/")}
    check_weights(weights, spec, str(path))
    return {k: array if "/" in k or array.shape else array.item() for k, array in arrays.items()}


def _load(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from None


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
