from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secateur.kernels.reference import selective_scan_reference
from secateur.kernels.selective_scan import selective_scan

from .compare import assert_same, relative


def inputs(t: int, b: int = 2, d: int = 5, n: int = 3, decay: float = 1.0) -> list[Tensor]:
    """x, dt, A, B, C and an initial state."""
    r = torch.Generator().manual_seed(0)
    shapes = [(b, t, d), (b, t, d), (d, n), (b, t, n), (b, t, n), (b, d, n)]
    x, dt, A, B, C, s = (torch.randn(*shape, generator=r, dtype=torch.float64) for shape in shapes)
    return [x, dt.abs(), -decay * A.abs(), B, C, s]


def fast(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return selective_scan(x, dt, A, B, C, initial_state=s, chunk=8)


def slow(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return selective_scan_reference(x, dt, A, B, C, initial_state=s)


@pytest.mark.parametrize("t", [1, 7, 8, 9, 30])
@pytest.mark.parametrize("decay", [1.0, 200.0])
def test_equals_the_recurrence_in_fp64(t: int, decay: float) -> None:
    assert_same(fast, slow, inputs(t, decay=decay))


def test_fp32() -> None:
    assert_same(fast, slow, inputs(60), torch.float32, tolerance=1e-5)


def test_bf16_inputs_are_computed_in_fp32() -> None:
    args = [v.bfloat16() for v in inputs(60)]
    y, state = fast(*args)
    want, want_state = slow(*(v.double() for v in args))
    assert y.dtype == state.dtype == torch.float32
    assert relative(y, want) < 1e-5 and relative(state, want_state) < 1e-5


def test_gradcheck() -> None:
    args = [v.requires_grad_() for v in inputs(5, b=1, d=2, n=2)]
    assert torch.autograd.gradcheck(lambda *a: selective_scan(*a[:5], initial_state=a[5], chunk=2), args)


def test_stores_chunk_starts_only() -> None:
    """The states of all positions would be t * n / chunk times what is kept."""
    kept: list[int] = []
    x, dt, A, B, C, _ = (v.requires_grad_() for v in inputs(64, d=16, n=16))
    with torch.autograd.graph.saved_tensors_hooks(lambda v: (kept.append(v.numel()), v)[1], lambda v: v):
        selective_scan(x, dt, A, B, C, chunk=16)
    assert max(kept) < 2 * 64 * 16 * 16 / 8, kept
