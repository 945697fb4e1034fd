"""A neutral start: an option whose own parameters are as they begin changes no number yet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.arch.params import init_params
from core.arch.spec import BOS
from tests.parity.cases import recipe_of
from tests.parity.engines import ENGINES, Run, batch_of, perturbed

NEUTRAL: dict[str, dict[str, object]] = {
    "smear by content": {"smear": "content"},
    "hashed bigrams": {"bigram_buckets": 50, "bigram_dim": 16},
    "step embeddings": {"step_embed": True},
    "scales of visits": {"visit_scale": True},
    "value embeddings": {"value_embed_dim": 8, "value_embed_last": 2},
    "head bias": {"head_bias": True},
    "open gates": {"attn_gate_dims": 12, "attn_gate_gain": 2.0},
    "open dense gates": {"attn_gate_dims": 32, "attn_gate_gain": 2.0},
}
APART = {  # how a document knows nothing of the one before it
    "plain": {},
    "smear by content": {"smear": "content"},
    "smear, static": {"smear": "static"},
    "hashed bigrams": {"bigram_buckets": 50, "bigram_dim": 16},
    "all of it, looped": {
        "smear": "content",
        "bigram_buckets": 50,
        "value_embed_dim": 8,
        "value_embed_last": 2,
        "value_residual": True,
        "windows": (0, 6),
        "xsa_last": 2,
        "attn_gate_dims": 12,
        "skip_gates": True,
    },
}


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("option", NEUTRAL)
def test_an_option_starts_as_nothing(option: str, name: str) -> None:
    """All other weights are moved off their zeros: what it reads and writes matters."""
    plain = recipe_of("baseline")
    recipe = replace(plain, arch=replace(plain.arch, **NEUTRAL[option]))
    held = perturbed(plain.arch)
    first = init_params(recipe.arch, recipe.seed)
    assert first.keys() - held.keys(), "it has parameters of its own"
    batch = batch_of(plain.arch, 4)
    found = Run(name, recipe, {**first, **held}).nats(*batch)
    expected = Run(name, plain, held).nats(*batch)
    assert np.abs(found - expected).max() <= 2e-6
    moved = Run(name, recipe, perturbed(recipe.arch)).nats(*batch)
    assert np.abs(moved - expected).max() > 2e-5, "moved, it is something"


@pytest.mark.parametrize("name", ENGINES)
def test_an_adapter_starts_as_nothing(name: str) -> None:
    alone = recipe_of("random_alone")
    recipe = replace(alone, arch=replace(alone.arch, adapter_rank=4))
    held, first = perturbed(alone.arch), init_params(recipe.arch, recipe.seed)
    batch = batch_of(alone.arch, 4)
    expected = Run(name, alone, held).nats(*batch)
    assert np.array_equal(Run(name, recipe, {**first, **held}).nats(*batch), expected)
    moved = Run(name, recipe, perturbed(recipe.arch)).nats(*batch)
    assert np.abs(moved - expected).max() > 2e-5


@pytest.mark.parametrize("name", ENGINES)
def test_a_random_matrix_is_in_no_state(name: str) -> None:
    """Neither averaged, nor in a snapshot: the seed in the spec is all there is of it."""
    recipe = recipe_of("random_alone")
    run = Run(name, recipe)
    sizes = [value.size for key, value in run.trainer.snapshot().items() if "/" in key]
    assert len(sizes) == 4 * len(init_params(recipe.arch, recipe.seed)), "w, two of Adam, average"
    assert max(sizes) == recipe.arch.vocab_size * recipe.arch.model_dim
    reseeded = replace(recipe, arch=replace(recipe.arch, linear_seed=1))
    batch, weights = batch_of(recipe.arch, 4), perturbed(recipe.arch)
    gap = Run(name, reseeded, weights).nats(*batch) - Run(name, recipe, weights).nats(*batch)
    assert np.abs(gap).max() > 1e-3, "another seed is another model"


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("option", APART)
def test_a_document_knows_nothing_of_the_one_before(option: str, name: str) -> None:
    """The last token of a document flipped: no nat of the next document moves."""
    plain = recipe_of("baseline")
    spec = replace(plain.arch, doc_mask=True, **APART[option])
    run = Run(name, replace(plain, arch=spec), perturbed(spec))
    x, y = batch_of(spec, 2)
    x = np.where(x == BOS, 7, x)
    x[:, 11] = BOS
    flipped = x.copy()
    flipped[:, 10] = 90
    before, after = run.nats(x, y), run.nats(flipped, y)
    assert np.array_equal(before[:, 11:], after[:, 11:])
    assert not np.array_equal(before[:, 10], after[:, 10])
