"""Selective scan of Mamba-1 (arXiv 2312.00752), forward and hand-written backward with bounded memory.

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t        y_t = <h_t, C_t> over the state

b batch, t time, d channels, n state. The decay differs per channel *and* state, so there is no matrix-product form.
Time runs in chunks small enough for the cache: within a chunk everything but the recurrence itself is one tensor
operation, and the recurrence is one fused multiply-add a step. Only the states at chunk starts are stored, b t n d /
CHUNK numbers; the backward pass recomputes each chunk from its start. Decays and states are fp32 (fp64 for fp64
inputs), laid out (time, b, n, d).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 16
"""Positions per chunk. 8, 16, 32 and 64 are equally fast at d 1536, n 16; short chunks keep the temporaries small."""


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    initial_state: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """Mamba-1 scan of a whole sequence, without the D skip and the gate (plain elementwise terms outside).

    x and dt (b, t, d), dt already discretized; A (d, n), negative; B and C (b, t, n); initial_state (b, d, n). Returns
    y (b, t, d)
    and the final state (b, d, n), both in the accumulation dtype: fp32, or fp64 when x is fp64.
    """
    acc = torch.promote_types(x.dtype, torch.float32)
    b, _, d = x.shape
    start = x.new_zeros(b, A.shape[1], d, dtype=acc) if initial_state is None else initial_state.to(acc).mT
    steps = dt.to(acc)
    y, state = _Scan.apply(steps * x.to(acc), steps, A.to(acc).t(), B.to(acc), C.to(acc), start, chunk)  # type: ignore[no-untyped-call]
    return y, state.mT


def _time_major(v: Tensor, dim: int) -> Tensor:
    """(b, L, w) as (L, b, 1, w) for channels (dim 2) or (L, b, w, 1) for states (dim 3)."""
    return v.transpose(0, 1).unsqueeze(dim)


def _run(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """One chunk: decays (L, b, n, d) and states (L + 1, b, n, d), the first of which is ``start``."""
    decay = (_time_major(dt, 2) * A).exp_()
    states = decay.new_empty(len(decay) + 1, *start.shape)
    states[0] = start
    torch.mul(_time_major(u, 2), _time_major(B, 3), out=states[1:])
    rows = states.unbind()
    for i, a in enumerate(decay.unbind()):
        rows[i + 1].addcmul_(a, rows[i])
    return decay, states


class _Scan(torch.autograd.Function):
    """u = dt x (b, t, d), dt (b, t, d), A (n, d), B and C (b, t, n), start (b, n, d), all in one dtype."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, start: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        A = A.contiguous()
        y = torch.empty_like(u)
        starts = []
        for s in range(0, u.shape[1], chunk):
            starts.append(start)
            part = slice(s, s + chunk)
            _, states = _run(u[:, part], dt[:, part], A, B[:, part], start)
            y[:, part] = (C[:, part].transpose(0, 1).unsqueeze(2) @ states[1:]).squeeze(2).transpose(0, 1)
            start = states[-1].clone()
        ctx.save_for_backward(u, dt, A, B, C, torch.stack(starts))
        ctx.chunk = chunk
        return y, start

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dfinal: Tensor) -> tuple[Tensor | None, ...]:
        u, dt, A, B, C, starts = ctx.saved_tensors
        du, ddt, dB, dC = (torch.empty_like(v) for v in (u, dt, B, C))
        dA, carry = torch.zeros_like(A), dfinal.contiguous()
        for i in reversed(range(len(starts))):
            part = slice(i * ctx.chunk, (i + 1) * ctx.chunk)
            decay, states = _run(u[:, part], dt[:, part], A, B[:, part], starts[i])
            dstates = _time_major(dy[:, part], 2) * _time_major(C[:, part], 3)
            rows, decays = dstates.unbind(), decay.unbind()
            rows[-1].add_(carry)
            for t in range(len(rows) - 2, -1, -1):
                rows[t].addcmul_(decays[t + 1], rows[t + 1])
            carry = decays[0] * rows[0]
            dC[:, part] = (states[1:] @ dy[:, part].transpose(0, 1).unsqueeze(3)).squeeze(3).transpose(0, 1)
            dB[:, part] = (dstates @ u[:, part].transpose(0, 1).unsqueeze(3)).squeeze(3).transpose(0, 1)
            du[:, part] = (B[:, part].transpose(0, 1).unsqueeze(2) @ dstates).squeeze(2).transpose(0, 1)
            dlog = decay.mul_(dstates).mul_(states[:-1])
            ddt[:, part] = torch.mul(dlog, A, out=dstates).sum(2).transpose(0, 1)
            dA += dlog.mul_(_time_major(dt[:, part], 2)).sum((0, 1))
        return du, ddt, dA, dB, dC, carry, None
