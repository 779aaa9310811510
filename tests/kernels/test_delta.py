from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secateur.kernels import delta
from secateur.kernels.delta import chunk_for, gated_delta_rule
from secateur.kernels.reference import delta_rule_reference

from .compare import assert_same, relative


def inputs(
    t: int, j: int = 2, h: int = 4, dk: int = 6, dv: int = 5, per_channel: bool = False, speed: float = 1.0
) -> list[Tensor]:
    """Unit keys and queries, decays of ``speed`` nats a step on average, beta in (0, 1), an initial state."""
    r = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=r, dtype=torch.float64)

    q, k = (v / v.norm(dim=-1, keepdim=True) for v in (randn(2, t, j, dk), randn(2, t, j, dk)))
    shape = (2, t, h, dk) if per_channel else (2, t, h)
    return [q, k, randn(2, t, h, dv), -speed * randn(*shape).abs(), randn(2, t, h).sigmoid(), randn(2, h, dk, dv)]


def fast(chunk: int):  # type: ignore[no-untyped-def]
    return lambda q, k, v, g, beta, s: gated_delta_rule(q, k, v, g, beta, initial_state=s, chunk=chunk)


def slow(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    return delta_rule_reference(q, k, v, g, beta, initial_state=s)


@pytest.mark.parametrize("t", [1, 15, 16, 50])
@pytest.mark.parametrize("j", [1, 2, 4])
@pytest.mark.parametrize("per_channel", [False, True])
def test_equals_the_recurrence_in_fp64(t: int, j: int, per_channel: bool) -> None:
    assert_same(fast(16), slow, inputs(t, j, per_channel=per_channel), tolerance=1e-10)


def test_decay_per_head_may_be_arbitrarily_strong() -> None:
    assert_same(fast(16), slow, inputs(50, speed=100.0), tolerance=1e-10)


@pytest.mark.parametrize("per_channel", [False, True])
def test_fp32(per_channel: bool) -> None:
    assert_same(fast(16), slow, inputs(60, per_channel=per_channel), torch.float32, tolerance=3e-5)


def test_gradcheck() -> None:
    args = [v.requires_grad_() for v in inputs(5, 1, 2, 2, 2)]
    assert torch.autograd.gradcheck(fast(3), args)


def test_chunk_is_the_longest_that_can_be_factored() -> None:
    def steady(nats: float) -> int | None:
        return chunk_for(torch.full((1, 200, 2, 3), -nats))

    limit = delta.MAX_DECAY_RANGE
    assert [steady(limit / 64), steady(limit / 32), steady(limit / 16), steady(limit)] == [64, 32, 16, None]
    once = torch.zeros(1, 200, 2, 3)
    once[0, 70, 1, 2] = -2 * limit
    assert chunk_for(once) is None


def test_state_handed_over_continues_the_sequence() -> None:
    q, k, v, g, beta, _ = inputs(50)
    whole, last = gated_delta_rule(q, k, v, g, beta)
    first, state = gated_delta_rule(*(x[:, :23] for x in (q, k, v, g, beta)))
    second, end = gated_delta_rule(*(x[:, 23:] for x in (q, k, v, g, beta)), initial_state=state)
    assert relative(torch.cat([first, second], 1), whole) < 1e-12 and relative(end, last) < 1e-12
