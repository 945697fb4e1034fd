"""attend in spans of queries is attend over all of them; and which kernels CUDA is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.attention
from torch.nn.attention import SDPBackend

import backend_torch.attend as torch_attend
from core.arch.noise import normal
from core.arch.spec import BOS
from core.train.recipes import named
from tests.parity.engines import ENGINES, engine, relative, to_numpy

SAME = 2e-6  # relative: fp32 against float64
HALF = 2e-2  # relative: scores and shares are rounded to bf16 on the way
FLASH, CUDNN = SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION
DEVICE = torch.device("cuda", 0)


def drawn(stream: int, time: int, heads: int) -> Any:
    return normal(5, stream, (2, time, heads, 8)).astype(np.float32)


def in_float64(q: Any, k: Any, v: Any, sees: Any) -> Any:
    """Every pair of positions by itself; a function of torch's, for its gradients."""
    group = q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(group, dim=2) for x in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    shares = torch.softmax(scores.masked_fill(~sees[:, None], -torch.inf), -1)
    return torch.einsum("bhqk,bkhd->bqhd", shares, v)


def gradients(name: str, arrays: list[Any], sees: Any, weight: Any) -> list[Any]:
    """Of sum(attend * weight): the output, and the gradients of q, k and v."""
    attend, array = engine(name).attend.attend, engine(name).array
    mask = None if sees is None else array(sees)
    if name == "torch":
        leaves = [array(a).requires_grad_() for a in arrays]
        y = attend(*leaves, mask)
        return [y, *torch.autograd.grad((y * array(weight)).sum(), leaves)]
    mx: Any = sys.modules["mlx.core"]
    leaves = [array(a) for a in arrays]
    found = mx.grad(lambda *x: (attend(*x, mask) * array(weight)).sum(), (0, 1, 2))(*leaves)
    return [attend(*leaves, mask), *found]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("window", [None, 0, 90])
@pytest.mark.parametrize(("time", "last"), [(150, 150), (128, 128), (600, 600), (150, 70), (65, 1)])
def test_spans_of_queries_are_all_of_them(
    name: str, window: int | None, time: int, last: int
) -> None:
    """Lengths that 64 divides and that it does not; the last queries alone; masks of documents."""
    tokens = np.full((2, time), BOS + 1, np.int32)
    tokens[0, [0, 40, 63, 64]] = tokens[1, 10] = BOS
    sees = None
    if window is not None:
        sees = torch_attend.sees_of(torch.tensor(tokens), window, doc_mask=True)
    whole = torch_attend.last_sees(sees, torch.zeros(2, time, 1), last)
    given = None if sees is None and last == time else whole.numpy()
    arrays = [drawn(1, time, 4)[:, -last:], drawn(2, time, 2), drawn(3, time, 2)]
    weight = drawn(4, last, 4)
    wide = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    expected = in_float64(*wide, whole)
    loss = (expected * torch.tensor(weight)).sum()
    control = [expected, *torch.autograd.grad(loss, wide)]
    for found, right in zip(gradients(name, arrays, given, weight), control, strict=True):
        assert relative(to_numpy(found), to_numpy(right)) <= SAME


@pytest.mark.parametrize("window", [None, 90])
def test_spans_by_mlxs_kernel(monkeypatch: pytest.MonkeyPatch, window: int | None) -> None:
    """As on Metal; here plain products stand in its place."""
    monkeypatch.setattr(engine("mlx").attend, "_products", engine("mlx").attend._whole)
    test_spans_of_queries_are_all_of_them("mlx", window, 150, 70)


def test_the_exponential_of_mlx() -> None:
    """Of what a softmax asks for: nothing above 0."""
    mx: Any = sys.modules["mlx.core"]
    power, steps = engine("mlx").attend._exp, np.linspace(-87, 0, 100_001, dtype=np.float32)
    right = np.exp(steps.astype(np.float64))
    assert np.abs(to_numpy(power(mx.array(steps))) / right - 1).max() <= 2e-7
    far = to_numpy(power(mx.array([-90.0, -1e30, np.nan])))
    assert far[0] <= 1e-38 and far[1] == 0 and np.isnan(far[2])
    slope = mx.grad(lambda x: power(x).sum())(mx.array(steps))
    assert np.array_equal(to_numpy(slope), to_numpy(power(mx.array(steps))))


@pytest.mark.parametrize("name", ENGINES)
def test_spans_in_bf16(name: str) -> None:
    modules, arrays = engine(name), [drawn(1, 150, 4), drawn(2, 150, 2), drawn(3, 150, 2)]
    wide = [torch.tensor(a, dtype=torch.float64) for a in arrays]
    expected = in_float64(*wide, torch_attend.last_sees(None, torch.zeros(2, 150, 1), 150))
    dtype = torch.bfloat16 if name == "torch" else sys.modules["mlx.core"].bfloat16
    y = modules.attend.attend(*(modules.array(a, dtype=dtype) for a in arrays))
    assert y.dtype == dtype
    wide_y = y.float() if name == "torch" else y.astype(sys.modules["mlx.core"].float32)
    assert relative(to_numpy(wide_y), to_numpy(expected)) <= HALF


def test_spans() -> None:
    """An eighth, in parts that products are large enough in."""
    for name in ENGINES:
        assert [engine(name).attend.span(t) for t in (1, 64, 512, 600, 4096)] == [
            *(64, 64, 64, 75, 512)
        ]


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """A CUDA device and torch's switch of kernels, by stand-ins; what is put in is importable."""
    found: set[str] = set()

    def activate(name: str) -> None:
        if name not in found:
            raise ModuleNotFoundError(f"No module named '{name} package'")

    monkeypatch.setattr(
        torch.nn.attention, "activate_flash_attention_impl", activate, raising=False
    )
    torch_attend._lacking.cache_clear()
    yield found
    torch_attend._lacking.cache_clear()


NO_FA3, NO_FA4 = (
    "; no FA3: No module named 'FA3 package'",
    "; no FA4: No module named 'FA4 package'",
)


@pytest.mark.parametrize(
    ("capability", "there", "first", "choice"),
    [
        ((9, 0), {"FA3"}, [FLASH, CUDNN], "FA3 first, compute capability 9.0"),
        ((9, 0), {"FA3", "FA4"}, [FLASH, CUDNN], "FA3 first, compute capability 9.0"),
        ((9, 0), {"FA4"}, [FLASH, CUDNN], f"FA4 first, compute capability 9.0{NO_FA3}"),
        (
            *((9, 0), set(), [CUDNN, FLASH]),
            f"cudnn_attention first, compute capability 9.0{NO_FA3}{NO_FA4}",
        ),
        ((10, 0), {"FA3", "FA4"}, [FLASH], "FA4 first, compute capability 10.0"),
        ((10, 0), set(), [FLASH], f"flash_attention first, compute capability 10.0{NO_FA4}"),
        ((8, 6), {"FA3", "FA4"}, [FLASH], "flash_attention first, compute capability 8.6"),
    ],
)
def test_the_newest_kernel_that_is_there_comes_first(
    monkeypatch: pytest.MonkeyPatch,
    packages: set[str],
    capability: tuple[int, int],
    there: set[str],
    first: list[SDPBackend],
    choice: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    packages |= there
    order = torch_attend._cuda_order(DEVICE)
    assert torch_attend.attention_choice(DEVICE) == f"sdpa({choice})"
    assert order[: len(first)] == first and order[-1] == SDPBackend.MATH
    assert len(order) == len(set(order)) == 4  # masks of shared keys: cuDNN's, or all T x T scores


def test_order_that_must_be_kept_is_not_cudnns(
    monkeypatch: pytest.MonkeyPatch, packages: set[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert torch_attend._cuda_order(DEVICE)[0] == FLASH
    told = torch_attend.attention_choice(DEVICE)
    assert told.startswith("sdpa(flash_attention first") and told.endswith("; deterministic)")


def test_documents_apart_are_attended_to_by_another_verb(
    monkeypatch: pytest.MonkeyPatch, packages: set[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch_attend, "TAKES", frozenset({"window_size"}))
    for name, verb in (("r1061", "varlen_attn in training, else sdpa("), ("r1081", "sdpa(")):
        told = torch_attend.attention_choice(DEVICE, named(name))
        assert told.startswith(f"{verb}cudnn_attention first"), told


def test_an_older_torch_says_why(monkeypatch: pytest.MonkeyPatch, packages: set[str]) -> None:
    """2.9 and 2.10 cannot take another package's kernels."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.delattr(torch.nn.attention, "activate_flash_attention_impl")
    assert torch_attend._cuda_order(DEVICE)[0] == CUDNN
    assert "cannot import name 'activate_flash_" in torch_attend.attention_choice(DEVICE)


def test_the_order_is_a_constant_of_a_compiled_graph(
    monkeypatch: pytest.MonkeyPatch, packages: set[str]
) -> None:
    """Asked for at tracing, in one graph; the form for CUDA is the form for CPUs to rounding."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    arrays = [torch.tensor(drawn(*given)) for given in ((1, 70, 4), (2, 70, 2), (3, 70, 2))]
    compiled = torch.compile(torch_attend._whole, backend="eager", fullgraph=True)
    expected = torch_attend._in_spans(*arrays, None)
    assert relative(to_numpy(compiled(*arrays, None)), to_numpy(expected)) <= SAME
