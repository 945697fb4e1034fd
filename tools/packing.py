"""What is packed: a run's weights or a file's tensors, by which quantizer, to how many bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.arch.fields import override
from core.arch.params import Param, Weights, param_table
from core.artifact.allocation import anisotropy
from core.artifact.container import Artifact, write
from core.artifact.packed import matrix_shape
from core.artifact.quant import Quant
from core.artifact.solving import (
    Calibration,
    rows_of,
    solvable,
    solve,
    solve_tensors,
    solver_name,
    unknown,
)
from core.artifact.sums import REFERENCE, Solver
from core.artifact.target import SLACK_BYTES, Sizes, meet
from core.train.recipe import Recipe, with_changes
from core.train.run_folder import load_recipe, load_weights
from tools.backends import load
from tools.bundling.script import code_bytes
from tools.calibrating import known_of, measured_and_kept
from tools.say import UsageError, note
from tools.tensors import read_calibration, read_tensors


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """Weights, the quantizer they are to have, and what is known of them."""

    weights: Weights
    quant: Quant
    known: Calibration
    recipe: Recipe | None = None  # none: no recipe of ours made them
    code_bytes: int | None = None  # what is counted beside them, where it is told
    solver: Solver = REFERENCE  # where its sums are done

    @property
    def rows(self) -> list[Param]:
        """The parameters, sorted by name."""
        if self.recipe is None:
            return rows_of(self.weights)
        return sorted(param_table(self.recipe.arch), key=lambda row: row.name)

    def artifact(self, quant: Quant) -> Artifact:
        if self.recipe is None:
            tensors = solve_tensors(self.weights, quant, self.known, self.solver)
        else:
            tensors = solve(self.weights, self.recipe.arch, quant, self.known, self.solver)
        blind = not self.known.hessians and not quant.trellis
        name = solver_name(replace(quant, solver="nearest", steps="rows") if blind else quant)
        return Artifact(self.recipe.arch if self.recipe else None, tuple(tensors), name)

    def code(self, quant: Quant) -> int:
        """Of a submission of the recipe with this quantizer; none where there is no recipe."""
        if self.code_bytes is not None:
            return self.code_bytes
        return 0 if self.recipe is None else code_bytes(replace(self.recipe, quant=quant))


def of_run(
    folder: Path,
    changes: Sequence[str],
    hessians: Path | None,
    code: int | None,
    backend: str = "",
) -> Subject:
    """A run's weights by its recipe, changed in the quant section alone.

    backend: which engine measures their inputs; none: what is known of them is what a file says.
    """
    _require_quant(changes)
    try:
        recipe = with_changes(load_recipe(folder), changes)
    except ValueError as error:
        raise UsageError(str(error)) from None
    weights = load_weights(folder)
    known = (
        measured_and_kept(folder, recipe, weights, backend)
        if backend
        else known_of(folder, hessians)
    )
    return Subject(
        weights=weights,
        quant=recipe.quant,
        known=known,
        recipe=recipe,
        code_bytes=code,
    )


def of_tensors(
    file: Path, changes: Sequence[str], hessians: Path | None, code: int | None
) -> Subject:
    """A file's tensors; its matrices are stored as quant.mlp and its like say."""
    _require_quant(changes)
    try:
        quant = override(_Section(), changes, "pack").quant
    except ValueError as error:
        raise UsageError(str(error)) from None
    weights = {name: np.asarray(a, np.float32) for name, a in read_tensors(file).items()}
    if not weights:
        raise ValueError(f"{file} holds no tensors")
    known = read_calibration(hessians)
    return Subject(weights=weights, quant=quant, known=known, code_bytes=code)


@dataclass(frozen=True, kw_only=True)
class _Section:
    quant: Quant = field(default_factory=Quant)


def solver_of(backend: str | None) -> Solver:
    """numpy where no engine is named, else that of the engine's device."""
    if backend is None:
        return REFERENCE
    device = load(backend, "distributed").Solo().device
    found: Solver = load(backend, "solve").Solver(device)
    return found


def met(subject: Subject, target_bytes: int) -> tuple[Quant, bytes]:
    """The quantizer, its step scale chosen, and the file: with the code, the target from below.

    The code names the step scale, so its bytes are counted anew once that is known.
    """
    quant, files = subject.quant, {}

    def make(scale: float) -> bytes:
        files[scale] = write(subject.artifact(replace(quant, step_scale=scale)), quant.codec)
        note(f"step scale {scale:g}: a model of {len(files[scale]):,} bytes")
        return files[scale]

    sizes, code = Sizes(make), subject.code(quant)
    for _ in range(5):
        if target_bytes <= code:
            raise ValueError(f"{target_bytes:,} bytes are too few: the code alone has {code:,}")
        scale, file = meet(sizes, target_bytes - code, quant.step_scale)
        found = replace(quant, step_scale=scale)
        code = subject.code(found)
        if 0 <= target_bytes - code - len(file) <= SLACK_BYTES:
            return found, file
    raise ValueError(f"the code's own bytes move it past {target_bytes:,}; try some bytes less")


def why(subject: Subject) -> list[dict[str, Any]]:
    """For each matrix that is solved, what its inputs and outputs offer, in bits a weight."""
    found = []
    for row in subject.rows:
        if solvable(row, subject.quant):
            rows, cols = matrix_shape(row.shape)
            weight = np.asarray(subject.weights[row.name], np.float32).reshape(rows, cols)
            gains = anisotropy(weight, subject.known.worth(row.name, cols))
            found.append({"name": row.name, "shape": list(row.shape), **gains})
    return found


def say_unknown(subject: Subject) -> None:
    """Which matrices have no Hessian, where the solver would use one."""
    missing = unknown(subject.rows, subject.quant, subject.known)
    if subject.quant.solver != "gptq" or not missing:
        return
    said = "no matrix has a Hessian"
    if subject.known.hessians:
        said = f"{len(missing)} of the matrices have no Hessian, as {missing[0]}"
    how = "" if subject.recipe is None else "--calibrate measures them, "
    note(f"{said}: to the nearest level; {how}--hessians FILE tells them")


def _require_quant(changes: Sequence[str]) -> None:
    if wrong := [change for change in changes if not change.startswith("quant.")]:
        raise UsageError(f"pack changes only the quant section, found {wrong[0]!r}")
