"""Packed documents: attention by their cumulative lengths is attention by the mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

import backend_torch.attend as torch_attend
from core.arch.noise import normal, stream_of
from core.arch.spec import BOS
from core.data.packing import cu_seqlens
from core.data.shards import TokenStream
from core.train.recipe import Recipe
from core.train.schedules import knobs
from tests.parity.cases import recipe_of
from tests.parity.engines import ENGINES, Run, batch_of, distance, engine, perturbed, to_numpy

SAME = 2e-6  # relative: sums over fewer keys, in another order, fp32
HALF = 1e-2  # relative: inputs and output of a kernel in bf16

each_engine = pytest.mark.parametrize("name", ENGINES)


def masked(*, windows: tuple[int, ...] = (), case: str = "baseline") -> Recipe:
    recipe = recipe_of(case)
    return replace(recipe, arch=replace(recipe.arch, doc_mask=True, windows=windows))


def rows_of_documents(recipe: Recipe) -> tuple[Any, Any]:
    """Two rows: documents of one token, of a few, of a whole row, and some that go on in it."""
    x, y = batch_of(recipe.arch, 3)
    x = np.where(x == BOS, BOS + 1, x)
    for row, places in enumerate(((0, 1, 2, 9), (0,), (5, 13))):
        x[row, list(places)] = BOS
    return x, y


@each_engine
@pytest.mark.parametrize("windows", [(), (0, 6), (1, 4)])
@pytest.mark.parametrize("case", ["baseline", "r1061"])
def test_gradients_are_those_of_the_mask(name: str, windows: tuple[int, ...], case: str) -> None:
    recipe = masked(windows=windows, case=case)
    x, y = rows_of_documents(recipe)
    found = []
    for lengths in (None, cu_seqlens(x)):
        run = Run(name, replace(recipe, compile="off"), perturbed(recipe.arch))
        lengths = lengths if lengths is None else run.array(lengths)
        (batch,) = run.put(x, y)
        loss, grads = run.trainer.gradients([batch._replace(cu_seqlens=lengths)])
        found.append((float(loss), run.named(grads)))
    (by_mask, mask_grads), (by_lengths, grads) = found
    assert by_lengths == pytest.approx(by_mask, rel=SAME)
    assert distance(grads, mask_grads) <= SAME
    other = x.copy()
    other[0, 9] = BOS + 1  # the fourth document of the row is now part of the third
    run = Run(name, replace(recipe, compile="off"), perturbed(recipe.arch))
    assert float(run.trainer.gradients(run.put(other, y))[0]) != pytest.approx(by_mask, rel=SAME)


@each_engine
def test_a_step_is_fed_with_lengths_where_attention_packs(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the feeder to the weights after three steps, micro-batches of several shapes."""
    recipe = masked(windows=(0, 6))
    data = replace(recipe.data, micro_batch=3)
    recipe = replace(recipe, compile="off", data=data)
    tokens = np.concatenate([batch_of(recipe.arch, 24, seed)[0].reshape(-1) for seed in (1, 2, 3)])
    stream, modules, found = TokenStream([tokens.astype(np.uint16)]), engine(name), []
    for packs in (False, True):
        monkeypatch.setattr(modules.feeder, "packs", lambda *_, said=packs: said)
        run = Run(name, recipe, perturbed(recipe.arch))
        feeder = run.feeder(stream)
        for step in range(3):
            batches = feeder.batch(step)
            assert len(batches) > 1 and all((b.cu_seqlens is not None) == packs for b in batches)
            run.trainer.step(batches, knobs(recipe, step, 0.0))
        found.append(run.weights())
    assert distance(found[1], found[0]) <= 20 * SAME


def test_only_a_device_with_the_kernel_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    monkeypatch.setattr(torch_attend, "TAKES", frozenset({"window_size"}))
    assert torch_attend.packs(cuda, "cast") and torch_attend.packs(cuda, "autocast")
    assert not torch_attend.packs(cpu, "cast") and not torch_attend.packs(cuda, "fp32")
    monkeypatch.setattr(torch_attend, "TAKES", frozenset({"is_causal"}))
    assert not torch_attend.packs(cuda, "cast"), "torch 2.10 has no windows"


def kernel_as_documented(takes_gqa: bool) -> Any:
    """varlen_attn as its documentation defines it, by plain sums: (T, H, D) each."""

    def varlen_attn(
        query: Any,
        key: Any,
        value: Any,
        cu_seq_q: Any,
        cu_seq_k: Any,
        max_q: int,
        max_k: int,
        *,
        window_size: tuple[int, int] = (-1, -1),
        enable_gqa: bool = False,
    ) -> Any:
        assert {query.dtype, key.dtype, value.dtype} == {torch.bfloat16}
        assert cu_seq_q.dtype == torch.int32 and torch.equal(cu_seq_q, cu_seq_k)
        assert takes_gqa or (not enable_gqa and query.shape == key.shape)
        left, right = window_size
        y = torch.zeros_like(query)
        for begin, end in pairwise(cu_seq_q.tolist()):
            assert end - begin <= max_q == max_k
            for at in range(begin, end):
                first = begin if left < 0 else max(begin, at - left)
                behind = end if right < 0 else min(end, at + right + 1)
                for head in range(query.shape[1]):
                    shared = head * key.shape[1] // query.shape[1]
                    keys = key[first:behind, shared].float()
                    weights = keys @ query[at, head].float() * query.shape[-1] ** -0.5
                    mixed = torch.softmax(weights, 0) @ value[first:behind, shared].float()
                    y[at, head] = mixed.bfloat16()
        return y

    return varlen_attn


@pytest.fixture(params=[True, False])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    takes = {"window_size", "enable_gqa"} if request.param else {"window_size"}
    monkeypatch.setattr(torch_attend, "VARLEN", kernel_as_documented(request.param))
    monkeypatch.setattr(torch_attend, "TAKES", frozenset(takes))
    yield


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("window", [0, 1, 5])
def test_the_kernel_is_told_what_its_twin_does(window: int) -> None:
    """What varlen_attn is called with, by a stand-in that does as it is documented."""
    heads = {"q": 4, "k": 2, "v": 2}
    q, k, v = (
        torch.from_numpy(normal(1, stream_of(name), (36, count, 8)).astype(np.float32))
        for name, count in heads.items()
    )
    tokens = np.full((3, 12), BOS + 1, np.int32)
    tokens[0, [0, 1, 7]] = tokens[2, 4] = BOS
    lengths = torch.from_numpy(cu_seqlens(tokens))
    found = torch_attend._varlen(q, k, v, lengths, window, 12)
    expected = torch_attend.one_by_one(q, k, v, lengths, window, 12)
    assert found.dtype == v.dtype
    gap = np.abs(to_numpy(found) - to_numpy(expected)).max() / np.abs(to_numpy(expected)).max()
    assert gap <= HALF


@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen_attn runs on CUDA alone")
@pytest.mark.parametrize("window", [0, 100])
def test_the_kernel_itself_is_its_twin(window: int) -> None:
    """Forward and backward, bf16, eight heads on four."""
    gradients = []
    tokens = np.full((2, 512), BOS + 1, np.int32)
    tokens[0, [0, 1, 77, 300]] = BOS
    lengths = torch.from_numpy(cu_seqlens(tokens)).cuda()
    for attention in (torch_attend._varlen, torch_attend.one_by_one):
        torch.manual_seed(0)
        leaves = [
            torch.randn(1024, heads, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            for heads in (8, 4, 4)
        ]
        y = attention(*leaves, lengths, window, 512)
        y.float().square().sum().backward()
        gradients.append([y, *(leaf.grad for leaf in leaves)])
    for found, expected in zip(*gradients, strict=True):
        assert (found - expected).abs().max() <= 5 * HALF * expected.abs().max()
