"""Ternary and one-bit matrices in a file: what the model multiplies by, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.arch.params import param_table
from core.artifact.container import Artifact, inspect, read, write
from core.artifact.container import weights as unpack
from core.artifact.groups import grouped_levels
from core.artifact.quant import Quant, quantize
from tests.parity.cases import spec_of
from tests.parity.engines import ENGINES, engine, perturbed, to_numpy

FORMS = ("ternary", "binary")


def used(name: str, form: str, weight: np.ndarray, group: int) -> np.ndarray:
    """What an engine's forward pass makes of a weight."""
    modules = engine(name)
    return to_numpy(getattr(modules.linear, form)(modules.array(weight), group))


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("form", FORMS)
def test_the_file_holds_what_the_model_multiplies_by(form: str, name: str) -> None:
    """Unpacked weights, rounded once more in the forward pass, are those of training."""
    spec = spec_of(form)
    quant = Quant(attn=form, mlp=form, keep_below=0, codec="best")
    weights = perturbed(spec)
    file = write(Artifact(spec, tuple(quantize(weights, spec, quant))), quant.codec)
    stored = unpack(read(file))
    for key, weight in weights.items():
        if ".attn." in key and key.endswith(("c_q.weight", "proj.weight")):
            assert stored[key].shape == weight.shape
            before = used(name, form, weight, spec.linear_group)
            after = used(name, form, stored[key], spec.linear_group)
            assert np.array_equal(np.sign(before), np.sign(after)), key
            assert np.allclose(before, after, rtol=1e-3, atol=1e-6), key


@pytest.mark.parametrize(("form", "most"), [("ternary", 1.8), ("binary", 1.2)])
def test_a_weight_takes_few_bits(form: str, most: float) -> None:
    spec = replace(spec_of(form), model_dim=256, mlp_dim=1024, linear_group=128)
    quant = Quant(attn=form, mlp=form, keep_below=0, codec="best")
    file = write(Artifact(spec, tuple(quantize(perturbed(spec), spec, quant))), quant.codec)
    told = {row["name"]: row["bytes"] for row in inspect(file)["tensors"]}
    matrices = [row for row in param_table(spec) if row.role in ("attn", "mlp")]
    stored_bits = 8 * sum(told[row.name] for row in matrices) / sum(row.size for row in matrices)
    assert stored_bits < most


def test_levels_and_scales() -> None:
    weight = np.array([[0.5, -1.5, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    levels, scale = grouped_levels(weight, 4, "ternary")
    assert levels.tolist() == [[0, -1, 0, 1], [0, 0, 0, 0]] and scale.tolist() == [2.0, 0.0]
    levels, scale = grouped_levels(weight, 2, "binary")
    assert levels.tolist() == [[1, -1], [1, 1], [1, 1], [1, 1]]
    assert scale.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_a_dense_model_is_not_stored_so() -> None:
    spec = spec_of("baseline")
    with pytest.raises(ValueError, match="format ternary, but arch.linear is dense"):
        quantize(perturbed(spec), spec, Quant(attn="ternary", keep_below=0))
