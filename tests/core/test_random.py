"""Random matrices: their bits, what is trained beside them, what is counted, what is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from core.arch.fields import changed, override
from core.arch.params import flops_per_token, init_params, num_frozen, num_params, param_table
from core.arch.spec import ModelSpec
from core.arch.start import frozen_matrix
from core.artifact.container import Artifact, read, write
from core.artifact.quant import Quant, quantize
from core.train.recipe import Recipe
from core.train.recipes import named
from core.train.scale import scaled
from tools.costs import state_bytes

TINY = {"num_layers": 2, "model_dim": 16, "num_heads": 2, "num_kv_heads": 1, "mlp_dim": 32}
BITS = {  # sha256 of the matrix of 24 x 16 named a.b from seed 7
    "uniform": "f1026389b59107a5",
    "normal": "a278b52f1c8b72b3",
    "orthogonal": "a278b52f1c8b72b3",  # normal: no bit of it is LAPACK's
}


@pytest.mark.parametrize("init", BITS)
def test_the_bits_are_golden(init: str) -> None:
    spec = ModelSpec(**TINY, linear="random", linear_seed=7, matrix_init=init)
    drawn = frozen_matrix(spec, "a.b", (24, 16))
    assert drawn.dtype == np.float32 and drawn.shape == (24, 16)
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == BITS[init]


def test_a_matrix_has_the_deviation_of_a_first_one() -> None:
    for init, deviation in (("uniform", (3 * 512) ** -0.5), ("normal", 512**-0.5)):
        spec = ModelSpec(linear="random", matrix_init=init)
        drawn = frozen_matrix(spec, "blocks.0.attn.proj", (512, 512))
        assert abs(drawn.std() / deviation - 1) < 0.01
        other = frozen_matrix(spec, "blocks.1.attn.proj", (512, 512))
        assert abs(np.corrcoef(drawn.ravel(), other.ravel())[0, 1]) < 0.01
        seeded = frozen_matrix(replace(spec, linear_seed=1), "blocks.0.attn.proj", (512, 512))
        assert not np.array_equal(seeded, drawn)


def test_what_is_trained_and_packed_is_what_is_counted() -> None:
    dense, alone = ModelSpec(**TINY), ModelSpec(**TINY, linear="random")
    matrices = 2 * (2 * 16 * 16 + 2 * 8 * 16 + 2 * 16 * 32)
    assert num_frozen(alone) == matrices == num_params(dense) - num_params(alone)
    assert num_frozen(dense) == 0
    assert flops_per_token(dense) - flops_per_token(alone) == 2 * matrices, "no gradient of theirs"
    rank = ModelSpec(**TINY, linear="random", adapter_rank=4)
    adapters = [row for row in param_table(rank) if row.rule == "matrix"]
    sides = 2 * (3 * (16 + 16) - 16 + 2 * (8 + 16) - 16 + 2 * (16 + 32))
    assert sum(row.size for row in adapters) == 4 * sides == num_params(rank) - num_params(alone)
    assert flops_per_token(rank) - flops_per_token(alone) == 6 * 4 * sides
    bytes_ = [state_bytes(replace(named("small"), arch=arch)) for arch in (dense, alone)]
    assert bytes_[0] - bytes_[1] == 4 * matrices * (4 - 1), "weight, gradient, momentum and average"


def test_adapters_begin_as_nothing() -> None:
    for init in ("uniform", "normal", "orthogonal"):
        spec = ModelSpec(linear="random", adapter_rank=8, matrix_init=init)
        first = init_params(spec, 1)
        down, up = (first[f"blocks.0.mlp.fc.{way}.weight"] for way in ("down", "up"))
        assert down.shape == (8, 512) and up.shape == (1024, 8) and not up.any()
        scale = 1.0 if init == "orthogonal" else 512**0.5
        assert abs(down.std() * scale - (512**-0.5 if init == "orthogonal" else 1.0)) < 0.05
    gram = down @ down.T
    assert np.allclose(gram, np.eye(8), atol=1e-5)


def test_the_artifact_holds_the_seed_and_no_matrix() -> None:
    spec = ModelSpec(**TINY, linear="random", linear_seed=9)
    weights = init_params(spec, 1)
    file = write(Artifact(spec, tuple(quantize(weights, spec, Quant()))), "zlib")
    back = read(file)
    assert back.spec == spec and changed(spec)["linear_seed"] == 9
    assert not any(".c_q" in packed.name or ".fc" in packed.name for packed in back.tensors)


WRONG = {
    "adapter_rank=8": "adapter_rank 8 with dense matrices, which are trained themselves: "
    "set linear=random, or adapter_rank=0",
    "linear=random adapter_rank=17": "adapter_rank 17 must be at most 16, the shortest side",
    "linear=random adapter_rank=-1": "adapter_rank -1 must not be negative",
    "linear_seed=-1": "linear_seed -1 must not be negative",
    "linear=rnadom": "expected 'dense' or 'ternary' or 'binary' or 'random', found 'rnadom'",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_refused(words: str) -> None:
    spec = ModelSpec(**{**TINY, "num_kv_heads": 2})
    with pytest.raises(ValueError) as error:
        override(spec, words.split(), "arch")
    assert WRONG[words] in str(error.value)


def test_an_adapter_shrinks_with_the_model() -> None:
    recipe = Recipe(arch=ModelSpec(linear="random", adapter_rank=32))
    small = scaled(recipe, named("small")).arch
    assert (small.linear, small.model_dim, small.adapter_rank) == ("random", 256, 16)
