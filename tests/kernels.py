"""Each Triton kernel against its eager twin, forward and backward: what test_kernels.py runs.

TRITON_INTERPRET=1 python -m pytest tests/kernels.py runs them on a CPU, by Triton's interpreter,
which must be asked for before Triton is imported; without it they run on CUDA.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from backend_torch.kernels import KERNELS, spans
from backend_torch.kernels.entropy import capped_nats
from backend_torch.kernels.squared import squared
from backend_torch.kernels.turned import turned
from backend_torch.ops import cross_entropy, leaky_relu2, relu2, rms_norm, rotate, softcap
from core.arch.noise import normal
from core.train.schedules import PLAIN
from tests.parity.cases import recipe_of
from tests.parity.engines import Run, batch_of, distance, perturbed
from tools.benching.blocks import Rules
from tools.benching.job import Job, Row
from tools.benching.kernels import each

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
SAME = {torch.float32: 5e-6, torch.bfloat16: 1.5e-2}  # relative: bf16 keeps 8 bits, some twice
Form = Callable[..., Tensor]

each_dtype = pytest.mark.parametrize("dtype", SAME)


def drawn(stream: int, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.tensor((scale * normal(7, stream, shape)).astype(np.float32), device=DEVICE)


def both_ways(form: Form, leaves: list[Tensor], weight: Tensor) -> list[Tensor]:
    """Its value, and the gradient of sum(value * weight) by each leaf."""
    held = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    y = form(*held)
    return [y, *torch.autograd.grad((y.float() * weight).sum(), held)]


def assert_same(kernel: Form, twin: Form, leaves: list[Tensor], weight: Tensor) -> None:
    """To the twin's own in fp32 from the same rounded leaves."""
    wide = [leaf.float() for leaf in leaves]
    bound = SAME[leaves[0].dtype]
    expected = both_ways(twin, wide, weight)
    for found, right in zip(both_ways(kernel, leaves, weight), expected, strict=True):
        assert found.shape == right.shape
        assert (found.float() - right).norm() <= bound * right.norm()


@each_dtype
@pytest.mark.parametrize(("kind", "cap"), [("tanh", 30.0), ("poly5", 3.0), ("tanh", 0.0)])
@pytest.mark.parametrize(("rows", "vocab"), [((3, 7), 50), ((1, 3), 1024)])
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_capped_nats(
    dtype: torch.dtype, kind: Any, cap: float, rows: tuple[int, int], vocab: int, z_loss: float
) -> None:
    logits = drawn(1, *rows, vocab, scale=8.0).to(dtype)
    targets = (torch.arange(rows[0] * rows[1], device=DEVICE) * 37 % vocab).view(rows)
    weight = drawn(2, *rows) + 1.0  # rows are worth unlike amounts

    def twin(z: Tensor) -> Tensor:
        return cross_entropy(softcap(z, kind, cap), targets, z_loss)

    assert_same(lambda z: capped_nats(z, targets, kind, cap, z_loss), twin, [logits], weight)


@pytest.mark.parametrize(("kind", "cap"), [("tanh", 30.0), ("poly5", 3.0), ("tanh", 0.0)])
def test_what_is_no_number_stays_none(kind: Any, cap: float) -> None:
    """A cap holds back what is large, not what is broken: a run must see it."""
    logits, targets = drawn(1, 3, 50), torch.zeros(3, dtype=torch.int64, device=DEVICE)
    logits[1, 7] = torch.nan
    nats = capped_nats(logits, targets, kind, cap)
    assert torch.isnan(nats).tolist() == [False, True, False]


@each_dtype
@pytest.mark.parametrize(("kind", "cap"), [("tanh", 30.0), ("poly5", 3.0)])
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_summed_nats(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, kind: Any, cap: float, z_loss: float
) -> None:
    """21 rows in spans of 8, the last of them shorter."""
    monkeypatch.setattr(spans, "SPAN_LOGITS", 8 * 50)
    leaves = [drawn(1, 3, 7, 16).to(dtype), drawn(2, 50, 16).to(dtype)]
    targets = (torch.arange(21, device=DEVICE) * 37 % 50).view(3, 7)

    def twin(x: Tensor, head: Tensor) -> Tensor:
        return cross_entropy(softcap(F.linear(x, head), kind, cap), targets, z_loss).sum()

    def kernel(x: Tensor, head: Tensor) -> Tensor:
        return spans.summed_nats(x, head, targets, kind, cap, z_loss)

    assert_same(kernel, twin, leaves, torch.tensor(0.25, device=DEVICE))


if DEVICE.type == "cuda":  # it would take the interpreter hours

    def test_rows_of_a_record() -> None:
        """A vocabulary of 8,192, and more numbers than 31 bits count."""
        logits = drawn(1, 1024, 8192).bfloat16().repeat(300, 1)
        targets = torch.arange(len(logits), device=DEVICE) * 37 % 8192
        nats = capped_nats(logits, targets, "tanh", 30.0)
        last = softcap(logits[-64:][None], "tanh", 30.0)
        assert (nats[-64:] - cross_entropy(last, targets[-64:][None])[0]).abs().max() <= 1e-3

    def test_an_mlp_of_a_record() -> None:
        """A micro-batch of 98,304 tokens; what the interpreter's tests leave out is tiles."""
        leaves = [drawn(7, 98_304, 512), drawn(8, 2048, 512, scale=0.05)]
        leaves = [leaf.bfloat16() for leaf in (*leaves, drawn(9, 512, 2048, scale=0.05))]

        def twin(x: Tensor, fc: Tensor, proj: Tensor) -> Tensor:
            return F.linear(leaky_relu2(F.linear(x, fc), 0.5), proj)

        assert_same(lambda *held: squared(*held, 0.5), twin, leaves, drawn(10, 98_304, 512))


@each_dtype
@pytest.mark.parametrize("gained", [True, False])
@pytest.mark.parametrize(
    ("shape", "half"),
    [((2, 5, 3, 8), 4), ((2, 9, 4, 64), 8), ((1, 7, 2, 20), 6), ((1, 3, 1, 8), 0)],
)
def test_turned(
    dtype: torch.dtype, gained: bool, shape: tuple[int, int, int, int], half: int
) -> None:
    """Whole heads and parts of them turned, heads of 20 dims, none turned; rows left over."""
    angles, eps = drawn(3, shape[1], half), 1e-3
    cos, sin = torch.cos(angles), torch.sin(angles)
    leaves = [drawn(4, *shape).to(dtype)] + [drawn(5, shape[2]) + 1.5] * gained

    def twin(x: Tensor, gain: Tensor | None = None) -> Tensor:
        y = rotate(rms_norm(x, eps), cos, sin)
        return y if gain is None else y * gain[:, None]

    def kernel(x: Tensor, gain: Tensor | None = None) -> Tensor:
        return turned(x, gain, cos, sin, eps)

    assert_same(kernel, twin, leaves, drawn(6, *shape))


@each_dtype
@pytest.mark.parametrize("slope", [0.0, 0.3])
@pytest.mark.parametrize("sizes", [(10, 8, 20, 8), (70, 48, 70, 33)])
def test_squared(dtype: torch.dtype, slope: float, sizes: tuple[int, int, int, int]) -> None:
    rows, in_dims, hidden, out_dims = sizes
    leaves = [drawn(7, 1, rows, in_dims), drawn(8, hidden, in_dims, scale=0.2)]
    leaves = [leaf.to(dtype) for leaf in (*leaves, drawn(9, out_dims, hidden, scale=0.2))]

    def twin(x: Tensor, fc: Tensor, proj: Tensor) -> Tensor:
        act = leaky_relu2 if slope else relu2
        return F.linear(act(F.linear(x, fc), slope), proj)

    assert_same(
        lambda x, fc, proj: squared(x, fc, proj, slope), twin, leaves, drawn(10, 1, rows, out_dims)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["baseline", "leaky_relu2", "ternary", "untied", "factored", "head_bias"]
)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_model_with_kernels_is_the_model(case: str, compiled: bool) -> None:
    """Loss and every gradient in fp32; in one graph, where it is compiled."""
    recipe = replace(recipe_of(case), compile="off")
    x, y = batch_of(recipe.arch, 2)
    found = []
    for kernels in ("off", "on"):
        run = Run("torch", replace(recipe, kernels=kernels), perturbed(recipe.arch))
        if compiled and kernels == "on":
            nats = run.trainer._nats
            run.trainer._nats_of = torch.compile(nats, backend="aot_eager", fullgraph=True)
        loss, grads = run.trainer.gradients(run.put(x, y), PLAIN)
        found.append((float(loss), run.named(grads)))
    (eager_loss, eager), (loss, grads) = found
    assert loss == pytest.approx(eager_loss, rel=2e-6)
    assert distance(grads, eager) <= 2e-5


@pytest.mark.slow
def test_the_bench_puts_each_into_a_step_by_itself() -> None:
    row = Row(title="each", kind="kernels", words=("baseline",))
    rules = Rules(blocks=1, steps=1, soak_s=0.0)
    found = each(Job(row=row, rules=rules, tiny=True))
    assert [*found["form_ms"]] == ["none", *KERNELS] and not found["not_measured"]
