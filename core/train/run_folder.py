"""runs/<run_id>/: the one home of a run's file names.

recipe.json, log.txt (the lines that other people's tools grep), log.jsonl (every event with all its
fields), weights.safetensors (averaged weights, float32, neutral names), model.bin (the artifact).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.arch.params import Weights
from core.train.events import log_line
from core.train.recipe import Recipe, from_json, to_json


class RunFolder:
    """Writes a run's files; nothing is touched before `create`."""

    def __init__(self, root: str | Path, run_id: str) -> None:
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

    def save_weights(self, weights: Weights) -> None:
        from safetensors.numpy import save

        _write_atomically(self.weights_path, save(dict(sorted(weights.items()))))

    def save_model(self, data: bytes) -> None:
        _write_atomically(self.model_path, data)

    def log(self, kind: str, **fields: Any) -> None:
        """One event: all of it to log.jsonl, and its line to log.txt when it is due."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": kind, **fields}) + "\n")
        line = log_line(kind, fields)
        if line is not None:
            with (self.path / "log.txt").open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def load_recipe(folder: Path) -> Recipe:
    path = folder / "recipe.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds no run: no recipe.json in it")
    return from_json(path.read_text(encoding="utf-8"), str(path))


def load_weights(folder: Path) -> Weights:
    """weights.safetensors of a run, as float32 arrays; parsed as data, nothing is executed."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / "weights.safetensors"
    if not path.is_file():
        raise ValueError(f"{folder} holds no weights: no weights.safetensors in it")
    try:
        return {name: array.astype("float32") for name, array in load(path.read_bytes()).items()}
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from None


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
