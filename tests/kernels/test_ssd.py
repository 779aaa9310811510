from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from secateur.kernels.decay import MAX_DECAY_RANGE
from secateur.kernels.reference import ssd_reference
from secateur.kernels.ssd import discretize, ssd_scan

from .compare import assert_same, relative


def inputs(t: int, g: int, decay: float = 1.0, b: int = 2, h: int = 8, p: int = 5, n: int = 6) -> list[Tensor]:
    """x, dt, A, B, C, D and an initial state; ``decay`` is the largest -A, dt lies in (0, 1)."""
    r = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=r, dtype=torch.float64)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=r, dtype=torch.float64)

    x, dt, A = randn(b, t, h, p), rand(b, t, h), -decay * rand(h)
    return [x, dt, A, randn(b, t, g, n), randn(b, t, g, n), randn(h), randn(b, h, p, n)]


def fast(chunk: int):  # type: ignore[no-untyped-def]
    return lambda x, dt, A, B, C, D, s: ssd_scan(x, dt, A, B, C, D=D, initial_state=s, chunk=chunk)


def slow(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return ssd_reference(x, dt, A, B, C, D=D, initial_state=s)


@pytest.mark.parametrize("g", [1, 2, 4, 8])
@pytest.mark.parametrize("decay", [1.0, 30.0, 1000.0])
def test_equals_the_recurrence_in_fp64(g: int, decay: float) -> None:
    assert_same(fast(16), slow, inputs(77, g, decay), tolerance=1e-10)


def test_the_decays_above_reach_both_forms() -> None:
    """Otherwise the test above would not see the pairwise form, or only it."""
    shares = []
    for decay in (1.0, 30.0, 1000.0):
        _, dt, A, *_ = inputs(64, 1, decay)
        cum = (dt * A).view(-1, 16, 8).cumsum(1)
        shares.append((cum[:, 0] - cum[:, -1] > MAX_DECAY_RANGE).double().mean().item())
    assert shares[0] == 0 and 0.1 < shares[1] < 0.9 and shares[2] > 0.8, shares


@pytest.mark.parametrize("t", [1, 2, 15, 16, 17, 32])
def test_lengths_around_the_chunk(t: int) -> None:
    assert_same(fast(16), slow, inputs(t, 2))


@pytest.mark.parametrize("decay", [1.0, 30.0])
def test_fp32(decay: float) -> None:
    assert_same(fast(64), slow, inputs(150, 2, decay), torch.float32, tolerance=3e-5)


@pytest.mark.parametrize("decay", [1.0, 30.0])
def test_bf16_products_stay_at_bf16_rounding(decay: float) -> None:
    """dt and A stay fp32 as in the models; only x, B and C are bf16."""
    x, dt, A, B, C, D, s = inputs(150, 2, decay, p=16, n=16)

    def narrow(x: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
        return ssd_scan(x, dt.float(), A.float(), B, C, D=D.float(), initial_state=s.float())

    def wide(x: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
        return ssd_reference(x, dt, A, B, C, D=D, initial_state=s)

    assert_same(narrow, wide, [x, B, C], torch.bfloat16, tolerance=0.02)


@pytest.mark.parametrize("decay", [1.0, 300.0])
def test_gradcheck(decay: float) -> None:
    args = [v.requires_grad_() for v in inputs(7, 2, decay, b=1, h=4, p=2, n=3)]
    assert torch.autograd.gradcheck(fast(4), args)


def test_state_handed_over_continues_the_sequence() -> None:
    x, dt, A, B, C, D, _ = inputs(50, 2)
    whole, last = ssd_scan(x, dt, A, B, C, D=D)
    first, state = ssd_scan(x[:, :23], dt[:, :23], A, B[:, :23], C[:, :23], D=D)
    second, end = ssd_scan(x[:, 23:], dt[:, 23:], A, B[:, 23:], C[:, 23:], D=D, initial_state=state)
    assert relative(torch.cat([first, second], 1), whole) < 1e-12 and relative(end, last) < 1e-12


def test_one_instant_forgetting_step_does_not_leak() -> None:
    """A step with a decay of exp(-500) cuts the past off; the factored form alone would give inf * 0."""
    x, dt, A, B, C, D, s = inputs(40, 1)
    A = torch.full_like(A, -1.0)
    dt[:, 20] = 500.0
    y, state = ssd_scan(x, dt, A, B, C, D=D, initial_state=s, chunk=16)
    alone, alone_state = ssd_reference(x[:, 20:], dt[:, 20:], A, B[:, 20:], C[:, 20:], D=D)
    assert relative(y[:, 20:], alone) < 1e-12 and relative(state, alone_state) < 1e-12


def test_discretize_adds_bias_then_softplus_then_clamps() -> None:
    dt, bias = torch.tensor([[-3.0, 0.0, 5.0]]), torch.tensor([0.5, 0.0, 1.0])
    raw = [math.log1p(math.exp(d + b)) for d, b in zip(dt[0].tolist(), bias.tolist(), strict=True)]
    want = torch.tensor([[max(0.1, min(4.0, v)) for v in raw]])
    torch.testing.assert_close(discretize(dt, bias, softplus=True, limit=(0.1, 4.0)), want)
    assert discretize(dt).min() == 0
